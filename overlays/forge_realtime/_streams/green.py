"""gevent and eventlet: an event loop of asyncio in a greenlet.

A patched thread is a greenlet. All greenlets of an OS thread share its running loop, as asyncio sees it. So the loop of
the streams is the running one only while it is busy, and not while it waits and other greenlets run.
"""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import select
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Final

from .._core.errors import UsageError

_DAY: Final = 86_400.0


def threads_are_green() -> bool:
    """Return whether gevent or eventlet has replaced threads by greenlets.

    Raises:
        UsageError: It has replaced only a part of what a stream uses. A greenlet that waits with an unpatched function
            stops all others, and greenlets do not work across threads.
    """
    used: dict[str, Any] = {
        "thread": _thread.start_new_thread,
        "socket": socket.socket,
        "select": select.select,
        "time": time.sleep,
    }
    own = [name for name, function in used.items() if function.__module__ in (name, f"_{name}")]
    if own and len(own) < len(used):
        patched = ", ".join(name for name in used if name not in own)
        raise UsageError(
            f"stream: gevent or eventlet has patched {patched}, but not {', '.join(own)}, and a stream cannot work with"
            " a part. Patch everything, with gevent.monkey.patch_all() or eventlet.monkey_patch() without arguments, or"
            " nothing; or use AsyncRealtimeClient in a process of its own."
        )
    return not own


class GreenLoop(asyncio.SelectorEventLoop):
    """An event loop that lets other greenlets run while it waits. `forked` is asked after each wait."""

    # Not made at the import, because `threading` may be patched later.
    _current: ClassVar[threading.Lock | None] = None

    def __init__(self, forked: Callable[[], bool]) -> None:
        # Not a name of this module: gevent and eventlet may replace the class after the import.
        selector = selectors.DefaultSelector()
        wait = selector.select
        self._outside: asyncio.AbstractEventLoop | None = None
        self._hooks_outside: Any = (None, None)

        def select_green(timeout: float | None = None) -> Any:
            hooks = sys.get_asyncgen_hooks()
            self._let_run(self._outside)
            sys.set_asyncgen_hooks(*self._hooks_outside)
            self._turn.release()
            try:
                ready = wait(timeout)
            finally:
                self._turn.acquire()
                # A loop of the app, if its greenlet waits in the midst of a task.
                self._outside = asyncio._get_running_loop()  # noqa: SLF001 (asyncio exports it for loops)
                self._hooks_outside = sys.get_asyncgen_hooks()
                self._let_run(self)
                sys.set_asyncgen_hooks(*hooks)
            while forked():
                # The greenlet of the parent was copied. Its end would fail, as threading has forgotten it.
                time.sleep(_DAY)
            return ready

        selector.select = select_green  # type: ignore[method-assign]
        # One loop at a time: a lock, a name lookup or a log handler can make a greenlet wait in the midst of a task.
        GreenLoop._current = self._turn = GreenLoop._current or threading.Lock()
        super().__init__(selector)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Run the loop in this block, even if another loop is the running one."""
        with self._turn:
            self._outside = asyncio._get_running_loop()  # noqa: SLF001 (asyncio exports it for loops)
            self._hooks_outside = sys.get_asyncgen_hooks()
            self._let_run(None)
            try:
                yield
            finally:
                self._let_run(self._outside)

    @classmethod
    def reset_after_fork(cls) -> None:
        """Forget the lock, which a greenlet of the parent may hold."""
        cls._current = None

    def _let_run(self, loop: asyncio.AbstractEventLoop | None) -> None:
        asyncio._set_running_loop(loop)  # noqa: SLF001 (asyncio exports it for loops)

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]  # noqa: ARG002 (as asyncio calls it)
        """Run a function in a greenlet. The start of an executor's thread would wait in the midst of a task."""
        future: asyncio.Future[Any] = self.create_future()

        def settle(settler: Callable[[Any], None], result: Any) -> None:
            if not future.done():
                settler(result)

        def run() -> None:
            try:
                outcome = (future.set_result, func(*args))
            except Exception as error:  # noqa: BLE001 (the future raises it)
                outcome = (future.set_exception, error)
            # The loop may be closed by now.
            with contextlib.suppress(RuntimeError):
                self.call_soon_threadsafe(settle, *outcome)

        _thread.start_new_thread(run, ())
        return future
