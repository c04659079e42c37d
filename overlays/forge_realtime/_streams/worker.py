"""Worker thread for the blocking streams of a client and its siblings. asyncio is loaded with the first stream."""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import socket
import threading
from collections.abc import Coroutine
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from .._core.errors import StreamError, UsageError
from .._core.fork import register_fork_reset, reset_if_forked

if TYPE_CHECKING:
    import asyncio

    from .._core.http import httpx
    from .._core.responses import Response
    from .._transports.pool import ConnectionPool

_EXIT_SECONDS: Final = 1.0


class StreamWorker:
    """Starts a thread for the first open stream, and stops it after the last one."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._thread: WorkerThread | None = None
        self._inherited: list[WorkerThread] = []
        self.reset_after_fork()
        register_fork_reset(self)

    def reset_after_fork(self) -> None:
        """Forget the parent's thread, which does not run in a forked process."""
        if self._thread is not None:
            atexit.unregister(self._thread.end)
            # Kept, because collecting its event loop would take sockets out of the parent's selector.
            self._inherited.append(self._thread)
        self._thread = None
        self._open: set[object] = set()
        self._lock = threading.Lock()

    def join(self, stream: object) -> WorkerThread:
        """Add a stream, and return the running thread; raise StreamError if it cannot start."""
        reset_if_forked()
        with self._lock:
            # A thread whose start was interrupted is not alive.
            if self._thread is None or not self._thread.is_alive():
                self._open = set()
                try:
                    self._thread = WorkerThread(self._pool)
                    self._thread.start()
                except (OSError, RuntimeError) as error:
                    if self._thread is not None:
                        self._thread.close()
                    raise StreamError(f"stream: the worker thread cannot start ({error}); nothing was sent") from error
            self._open.add(stream)
            return self._thread

    def leave(self, stream: object) -> None:
        """Remove a stream, and stop the thread after the last one. Called in the thread."""
        with self._lock:
            self._open.discard(stream)
            if not self._open and self._thread is not None:
                self._thread.stop()
                self._thread = None


class WorkerThread(threading.Thread):
    """A thread that runs an event loop."""

    def __init__(self, pool: ConnectionPool) -> None:
        import asyncio

        from .._transports.async_pool import AsyncConnectionPool

        super().__init__(name="forge-realtime-streams", daemon=True)
        self._blocking = pool
        # Not used if the user gave the client a transport.
        self.connections = AsyncConnectionPool(None) if pool.transport is None else None
        # Check that the three files of a loop can be opened: asyncio complains on stderr about a loop without them.
        with socket.socket(), socket.socket(), socket.socket():
            pass
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self.loop = self._runner.get_loop()
        self._stopping = False
        atexit.register(self.end)

    def run(self) -> None:
        """Run the loop until it is stopped."""
        while not self._stopping:
            # The task of the loop that raised one of these has it as its result.
            with contextlib.suppress(KeyboardInterrupt, SystemExit):
                self.loop.run_forever()
        if self.connections is not None:
            self.loop.run_until_complete(self.connections.aclose())
        self.close()

    async def send(self, request: httpx.Request, timeout: float) -> Response:  # noqa: ASYNC109 (a pool takes it, too)
        """Send a request as a connection pool does. A blocking transport holds up everything else in the loop."""
        if self.connections is None:
            return self._blocking.send(request, timeout)
        return await self.connections.send(request, timeout)

    def stop(self) -> None:
        """Stop the loop after its present turn. Called in the thread."""
        # A second time would stop the work at the end of `run`, too.
        if not self._stopping:
            self._stopping = True
            self.loop.stop()

    def end(self) -> None:
        """Stop the thread when the interpreter exits, so that no task is destroyed while it is pending."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.stop)
            self.join(_EXIT_SECONDS)

    def close(self) -> None:
        """Cancel what still runs in the loop, and close it."""
        self._runner.close()
        atexit.unregister(self.end)

    def wait_for(self, coroutine: Coroutine[Any, Any, None], timeout: float | None = None) -> None:
        """Run a coroutine in the loop, in the context of the caller, and wait for it at most `timeout` seconds.

        An interrupt of the wait cancels the coroutine.
        """
        if timeout != 0 and threading.current_thread() is self:
            coroutine.close()
            raise UsageError(
                "stream: this call would wait for its own thread. In RetryPolicy.on_attempt or a log handler, only use "
                "send(), with overflow='drop_oldest' or 'raise'."
            )
        # No future: a KeyboardInterrupt can leave its lock locked forever.
        done: SimpleQueue[asyncio.Task[None]] = SimpleQueue()
        tasks: list[asyncio.Task[None]] = []

        def start() -> None:
            tasks.append(self.loop.create_task(coroutine))
            tasks[0].add_done_callback(done.put)

        self.loop.call_soon_threadsafe(start, context=contextvars.copy_context())
        if timeout == 0:
            return
        try:
            task = done.get(timeout=timeout)
        except Empty:
            return
        except BaseException:
            # The loop is closed if the task is done and was the last one.
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(lambda: tasks[0].cancel())  # noqa: PLW0108 (`start` fills it first)
            raise
        task.result()
