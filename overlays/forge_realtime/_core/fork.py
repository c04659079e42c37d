"""Reset state after a fork: a child must not use its parent's sockets, locks or threads."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Final, Protocol


class ForkAware(Protocol):
    """An object with state that belongs to one process. Its method replaces that state, once in each child."""

    def reset_after_fork(self) -> None: ...


_objects: Final[weakref.WeakSet[ForkAware]] = weakref.WeakSet()
_pid = os.getpid()
# One lock for each process: the parent's may be held by a thread that the child does not have.
_locks: Final[dict[int, threading.RLock]] = {}


def register_fork_reset(obj: ForkAware) -> None:
    """Reset `obj` in every process that is forked while it lives."""
    _objects.add(obj)


def reset_if_forked() -> None:
    """Reset all registered objects if this process was forked without Python's hooks, as uWSGI forks by default."""
    pid = os.getpid()
    if pid != _pid:
        with _locks.setdefault(pid, threading.RLock()):
            # Another thread may have been first.
            if pid != _pid:
                _reset_all()


def _reset_all() -> None:
    global _pid  # noqa: PLW0603 (a process has one id)
    for obj in list(_objects):
        obj.reset_after_fork()
    _pid = os.getpid()


if hasattr(os, "register_at_fork"):  # pragma: no branch (Windows has no fork)
    os.register_at_fork(after_in_child=_reset_all)
