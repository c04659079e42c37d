"""Streams with blocking I/O: one worker thread for all that are open on a client and its siblings.

The thread runs an event loop. A `Stream` forwards to an `AsyncStream` in it.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import contextvars
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Final, Self

import httpx

from .._client.async_forge import AsyncForgeClient
from .._core.call import Flow, Response, T
from .._core.errors import StreamError, StreamReport, UsageError
from .._core.fork import register_fork_reset
from .._core.retry import RetryPolicy
from .._realtime.operations import Payload
from .._transports.async_pool import AsyncConnectionPool
from .._transports.pool import ConnectionPool
from .async_stream import AsyncStream
from .buffer import PublishSlot, StreamSettings

_EXIT_SECONDS: Final = 1.0
# More than the end of such a block takes.
_COLLECTED_SECONDS: Final = 3.0


class Stream:
    """A stream of updates, as a context manager; `RealtimeClient.stream` makes it.

        with live.stream("chat") as stream:
            for token in answer:
                stream.send(token)

    It is thread-safe. What it publishes goes out from the client's worker thread.
    """

    def __init__(
        self, settings: StreamSettings, slots: Callable[[], PublishSlot], retry: RetryPolicy, worker: StreamWorker
    ) -> None:
        self._worker = worker
        self._stream = AsyncStream(settings, slots, self._run_flow, retry)
        self._thread: WorkerThread | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.report}>"

    @property
    def report(self) -> StreamReport:
        """What became of the updates so far; final at the end of the block."""
        return self._stream.report

    def send(self, update: Payload) -> None:
        """Takes an update in, to be published with others, and returns; it waits only as `overflow` says.

        Args:
            update: A `str` to append, or with any other `merge` what can be JSON. It is encoded at once: what is changed
                in it later changes nothing.

        Raises:
            UsageError: It is not what is merged, or the stream is not open; nothing changed.
            StreamFullError: There is no room for it, or was none for `deadline` seconds; it was not taken.
            StreamError: The stream ended early, as the platform refused an event or the client was closed.
        """
        item = self._stream._pending.item(update)
        if not self._stream._offer(item):
            self._in_thread(self._stream._put(item))

    def flush(self) -> None:
        """Publishes at once what is pending, and returns when the platform has accepted it.

        Raises:
            UsageError: The stream is not open.
            StreamError: It took more than `deadline` seconds (the stream goes on trying), or the stream ended early.
        """
        self._stream._pending.check()
        self._in_thread(self._stream.flush())

    def __enter__(self) -> Self:
        if self._thread is not None:
            raise UsageError("A stream is used once: make another one for another block.")
        self._thread = self._worker.join(self)
        try:
            self._in_thread(self._begin())
        except BaseException as error:
            self._thread.submit(self._end(error))
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._stream._forked:
            return
        assert self._thread is not None
        if threading.current_thread() is self._thread:
            # A generator that nobody reads any more is collected in any thread.
            self._thread.submit(self._end(error))
        else:
            # In the midst of a `send`, say, for which the worker thread waits.
            collected = isinstance(error, GeneratorExit)
            self._in_thread(self._end(error), _COLLECTED_SECONDS if collected else None)

    def _in_thread(self, coroutine: Coroutine[Any, Any, None], timeout: float | None = None) -> None:
        assert self._thread is not None
        self._thread.wait_for(coroutine, timeout)

    async def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        self._stream._begin(partial(loop.call_soon_threadsafe, self._stream._wake.set))

    async def _end(self, error: BaseException | None) -> None:
        try:
            # Not where the beginning was interrupted.
            if self._stream._task is not None:
                await self._stream._end(error)
        finally:
            # Here, where no interrupt comes in between.
            self._worker.leave(self)

    async def _run_flow(self, flow: Flow[T], /) -> T:
        assert self._thread is not None
        return await self._thread.runner._run(flow)


class StreamWorker:
    """The thread for the open streams of a client and its siblings. It lives while there are some.

    Args:
        shared: The client's connections: a transport that was given to it is used, one call at a time.
    """

    def __init__(self, shared: ConnectionPool) -> None:
        self._pool = shared
        self._thread: WorkerThread | None = None
        self._open: set[Stream] = set()
        self._lock = threading.Lock()
        register_fork_reset(self)

    def reset_after_fork(self) -> None:
        """Starts anew in a forked process, where the thread is not."""
        # Kept, not collected: closing the loop would take its sockets out of the parent's selector.
        self._inherited = self._thread
        if self._thread is not None:
            atexit.unregister(self._thread.end)
        self._thread = None
        self._open = set()
        self._lock = threading.Lock()

    def join(self, stream: Stream) -> WorkerThread:
        """Adds a stream; starts the thread if need be."""
        with self._lock:
            # One that was interrupted at its start is there, but not alive.
            if self._thread is None or not self._thread.is_alive():
                self._open = set()
                self._thread = WorkerThread(self._pool)
                try:
                    self._thread.start()
                except RuntimeError as error:
                    self._thread.close()
                    self._thread = None
                    raise StreamError(f"stream: its thread cannot start ({error}); nothing was sent") from None
            self._open.add(stream)
            return self._thread

    def leave(self, stream: Stream) -> None:
        """Takes a stream away; the last one stops the thread. Called in the thread."""
        with self._lock:
            self._open.discard(stream)
            if not self._open and self._thread is not None:
                self._thread.stop()
                self._thread = None


class WorkerThread(threading.Thread):
    """An event loop in a thread of its own.

    Attributes:
        runner: Carries steps out, in the loop.
    """

    def __init__(self, shared: ConnectionPool) -> None:
        super().__init__(name="forge-realtime-streams", daemon=True)
        self._loop_runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self.loop = self._loop_runner.get_loop()
        if shared.transport is None:
            self.runner = AsyncForgeClient()
        else:
            # Not aiohttp, which would be loaded in vain.
            self.runner = AsyncForgeClient(transport="httpx")
            self.runner._pool = _GivenTransport(shared)
        self._stopping = False
        atexit.register(self.end)

    def run(self) -> None:
        """Runs the loop until it is stopped."""
        while not self._stopping:
            # A task of the loop, which a transport had raise this, knows of it.
            with contextlib.suppress(KeyboardInterrupt, SystemExit):
                self.loop.run_forever()
        self.loop.run_until_complete(self.runner.aclose())
        self.close()

    def stop(self) -> None:
        """Ends the loop after this turn of it. Called in it."""
        # Twice, it would end the loop's last work, too.
        if not self._stopping:
            self._stopping = True
            self.loop.stop()

    def end(self) -> None:
        """Ends it with the interpreter, whatever is open: its tasks are not found unfinished then."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.stop)
            self.join(_EXIT_SECONDS)

    def close(self) -> None:
        """Closes the loop. What still runs in it is cancelled."""
        self._loop_runner.close()
        atexit.unregister(self.end)

    def submit(
        self, coroutine: Coroutine[Any, Any, None]
    ) -> tuple[SimpleQueue[asyncio.Task[None]], Callable[[], None]]:
        """Runs it in the loop, in the context of the caller.

        Returns:
            What gets the task when it is done, and how to cancel it before.
        """
        # Not a future, whose lock a KeyboardInterrupt can leave locked for ever.
        done: SimpleQueue[asyncio.Task[None]] = SimpleQueue()
        tasks: list[asyncio.Task[None]] = []

        def start() -> None:
            tasks.append(self.loop.create_task(coroutine))
            tasks[0].add_done_callback(done.put)

        def cancel() -> None:
            # The loop is closed when the task is done, and was the last one.
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(lambda: tasks[0].cancel())

        self.loop.call_soon_threadsafe(start, context=contextvars.copy_context())
        return done, cancel

    def wait_for(self, coroutine: Coroutine[Any, Any, None], timeout: float | None = None) -> None:
        """Runs it in the loop and waits for its end, so many seconds at most. An interrupt of the wait cancels it.

        Raises:
            UsageError: It is this thread that would wait.
        """
        if threading.current_thread() is self:
            coroutine.close()
            raise UsageError(
                "stream: this would wait for the thread that it is called in. In RetryPolicy.on_attempt or a log handler, only "
                "send to a stream, with overflow='drop_oldest' or 'raise'."
            )
        done, cancel = self.submit(coroutine)
        try:
            task = done.get(timeout=timeout)
        except Empty:
            return
        except BaseException:
            cancel()
            raise
        task.result()


class _GivenTransport(AsyncConnectionPool):
    """A client's transport with blocking I/O, in a loop: nothing else runs meanwhile."""

    def __init__(self, shared: ConnectionPool) -> None:
        super().__init__(None, aiohttp=False)
        self._blocking = shared

    async def send(self, request: httpx.Request, timeout: float) -> Response:
        return self._blocking.send(request, timeout)
