"""What starts anew in a forked process: its sockets and locks are the parent's."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class ForkAware(Protocol):
    """Something with sockets or locks."""

    def reset_after_fork(self) -> None:
        """Called in the child, right after the fork."""
        ...


_living: weakref.WeakSet[ForkAware] = weakref.WeakSet()


def register_fork_reset(it: ForkAware) -> None:
    """Has it start anew in every process that is forked while it lives."""
    _living.add(it)


def _renew_all() -> None:
    for it in list(_living):
        it.reset_after_fork()


if hasattr(os, "register_at_fork"):  # pragma: no branch (Windows has no fork)
    os.register_at_fork(after_in_child=_renew_all)
