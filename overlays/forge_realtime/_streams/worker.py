"""Worker thread for the blocking streams of a client and its siblings. asyncio is loaded with the first stream."""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import logging
import queue
import socket
import threading
import time
import weakref
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, Protocol

from .._core import clock
from .._core.errors import Delivery, ForgeRealtimeError, StreamError, UsageError
from .._core.fork import register_fork_reset, reset_if_forked
from .._core.log import log, sending

if TYPE_CHECKING:
    import asyncio

    from .._core.http import httpx
    from .._core.responses import Response
    from .._transports.pool import ConnectionPool
    from .stream import Stream

# Longer than the end of an interrupted block takes.
_EXIT_SECONDS: Final = 2.0
# A wait looks this often whether the thread still runs.
_LOOK_SECONDS: Final = 0.5
_BUSY_SECONDS: Final = 0.01
# Waits of greenlets begin with the first of these pauses, and double it up to the second.
_GREEN_SECONDS: Final = (0.001, 0.016)
# Not those of a parent process.
_threads: Final[weakref.WeakSet[WorkerThread]] = weakref.WeakSet()


class ThreadLostError(ForgeRealtimeError):
    """The worker thread ended early, or does not respond. The stream knows what became of its updates."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message, delivery=Delivery.NOT_SENT, retryable=True)


class OpenStream(Protocol):
    """An open stream, as its thread sees it."""

    def exit(self) -> None:
        """Publish what is left and end the stream, because the interpreter exits. Returns at once."""
        ...

    def lose(self, failure: ThreadLostError) -> None:
        """End the stream without its thread."""
        ...

    def drop_repetition(self) -> None:
        """Do not repeat the final snapshot, if it is still to be repeated. Any thread may call this."""
        ...


def load_stream() -> type[Stream]:
    """Import the class of the blocking stream, which loads asyncio. Raise StreamError if that fails."""
    try:
        from .._transports import async_pool  # noqa: F401 (its thread needs it)
        from .stream import Stream
    except (OSError, ImportError, MemoryError) as error:
        raise _cannot_start(error) from error
    return Stream


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
            _threads.discard(self._thread)
            # A greenlet would run there.
            self._thread.forked = True
            reset_loop: Callable[[], None] = getattr(type(self._thread.loop), "reset_after_fork", lambda: None)
            reset_loop()
            # Kept, because collecting its event loop would take sockets out of the parent's selector.
            self._inherited.append(self._thread)
        self._thread = None
        # Reentrant: a signal handler may open a stream while another one is being opened.
        self._lock = threading.RLock()

    def join(self, stream: OpenStream) -> WorkerThread:
        """Add a stream, and return the running thread; raise StreamError if it cannot start."""
        reset_if_forked()
        with self._lock:
            thread = self._thread
            # A thread whose start was interrupted is not alive. The last stream of a greenlet may leave meanwhile.
            if thread is None or not thread.is_alive() or thread is not self._thread:
                self._thread = thread = None
                try:
                    thread = WorkerThread(self._pool)
                    thread.start()
                except Exception as error:
                    if thread is not None:
                        thread.close()
                    raise _cannot_start(error) from error
                self._thread = thread
                _threads.add(thread)
            thread.streams.add(stream)
            return thread

    def leave(self, stream: OpenStream, thread: WorkerThread) -> None:
        """Remove a stream, and stop the thread after the last one. Called in the thread."""
        # A greenlet that starts a thread waits with the lock. None can come in between here.
        if not (thread.green or self._lock.acquire(blocking=False)):
            # Do not wait: the stream may have been used by a signal handler that interrupted `join`.
            thread.loop.call_later(_BUSY_SECONDS, self.leave, stream, thread)
            return
        try:
            thread.streams.discard(stream)
            if not thread.streams:
                thread.stop()
                if self._thread is thread:
                    self._thread = None
        finally:
            if not thread.green:
                self._lock.release()

    @property
    def closed(self) -> bool:
        """Whether the client is closed."""
        return self._pool.closed

    def exit(self) -> None:
        """End the open streams if the interpreter exits: `atexit` may close the client before `_exit_all` runs."""
        reset_if_forked()
        thread = self._thread
        here = threading.current_thread() is thread
        if thread is not None and thread.is_alive() and not here and not threading.main_thread().is_alive():
            thread.exit()

    def close(self) -> None:
        """Let the thread end with the last open stream: final snapshots are not repeated any more."""
        reset_if_forked()
        thread = self._thread
        for stream in [] if thread is None else list(thread.streams):
            stream.drop_repetition()


class WorkerThread(threading.Thread):
    """A thread that runs an event loop."""

    def __init__(self, pool: ConnectionPool) -> None:
        import asyncio

        from .._transports.async_pool import AsyncConnectionPool
        from .green import GreenLoop, threads_are_green

        super().__init__(name="forge-realtime-streams", daemon=True)
        self.streams: set[OpenStream] = set()
        self.forked = False
        self._blocking = pool
        # Not used if the user gave the client a transport.
        self.connections = AsyncConnectionPool(None) if pool.transport is None else None
        # Check that the three files of a loop can be opened: asyncio complains on stderr about a loop without them.
        with socket.socket(), socket.socket(), socket.socket():
            pass
        self.green = threads_are_green()
        new_loop = (lambda: GreenLoop(lambda: self.forked)) if self.green else asyncio.new_event_loop
        self._runner = asyncio.Runner(loop_factory=new_loop)
        # Handlers of asyncio's log cannot break it.
        former = sending.set(True)
        try:
            self.loop: asyncio.AbstractEventLoop = self._runner.get_loop()
        finally:
            sending.reset(former)
        if isinstance(self.loop, asyncio.BaseEventLoop):
            # A test of the app may freeze or move the other clock.
            self.loop.time = clock.monotonic  # type: ignore[method-assign]
        self._one_call = asyncio.Lock()
        self._stopping = False
        self._dying = False

    def run(self) -> None:
        """Run the loop until it is stopped."""
        sending.set(True)
        alone = getattr(self.loop, "alone", contextlib.nullcontext)
        try:
            with alone():
                while not self._stopping:
                    # The task of the loop that raised one of these has it as its result.
                    with contextlib.suppress(KeyboardInterrupt, SystemExit):
                        self.loop.run_forever()
                if self.connections is not None:
                    self.loop.run_until_complete(self.connections.aclose())
                self.close()
        except BaseException as error:  # noqa: BLE001 (the streams raise it)
            self._die(error)

    def _die(self, failure: BaseException) -> None:
        """Fail all open streams: nothing can be published any more."""
        self._stopping = self._dying = True
        lost = ThreadLostError(f"the worker thread has ended ({type(failure).__name__})")
        lost.__cause__ = failure
        for stream in list(self.streams):
            stream.lose(lost)
        log(logging.WARNING, "stream: %s", lost)
        # It needs the loop, which may fail again.
        with contextlib.suppress(Exception):
            if self.connections is not None:
                self.loop.run_until_complete(self.connections.aclose())
            self.close()

    async def send(self, request: httpx.Request, timeout: float) -> Response:  # noqa: ASYNC109 (a pool takes it, too)
        """Send a request as a connection pool does. A blocking transport holds up everything else in the loop."""
        if self.connections is not None:
            return await self.connections.send(request, timeout)
        if not self.green:
            return self._blocking.send(request, timeout)
        # In the loop's own greenlet, other greenlets would run in the midst of a task.
        async with self._one_call:
            return await self.loop.run_in_executor(None, self._blocking.send, request, timeout)

    def stop(self) -> None:
        """Stop the loop after its present turn. Called in the thread."""
        # A second time would stop the work at the end of `run`, too.
        if not self._stopping:
            self._stopping = True
            self.loop.stop()

    def exit(self) -> None:
        """End the open streams and the thread, because the interpreter exits."""
        for stream in list(self.streams):
            stream.exit()
        self.join(_EXIT_SECONDS)
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.stop)
            self.join(_EXIT_SECONDS)

    def close(self) -> None:
        """Cancel what still runs in the loop, and close it."""
        self._runner.close()

    def wait_for(self, coroutine: Coroutine[Any, Any, None], timeout: float) -> None:
        """Run a coroutine in the loop, in the context of the caller, and wait for it at most `timeout` seconds.

        An interrupt of the wait cancels the coroutine.

        Raises:
            ThreadLostError: The thread ended, or the time is up.
        """
        if timeout != 0 and threading.current_thread() is self:
            coroutine.close()
            raise UsageError(
                "stream: this call would wait for its own thread. In RetryPolicy.on_attempt or a log handler, only use "
                "send(), with overflow='drop_oldest' or 'raise'."
            )
        # No future: a KeyboardInterrupt can leave its lock locked forever.
        done: queue.SimpleQueue[asyncio.Task[None]] = queue.SimpleQueue()
        tasks: list[asyncio.Task[None]] = []

        def start() -> None:
            if self._dying:
                # The loop cancels its last tasks, and would not run this one.
                coroutine.close()
                return
            tasks.append(self.loop.create_task(coroutine))
            # asyncio does not log the exception, even if nobody waits any more.
            tasks[0].add_done_callback(lambda task: task.cancelled() or task.exception())
            tasks[0].add_done_callback(done.put)

        try:
            self.loop.call_soon_threadsafe(start, context=contextvars.copy_context())
        except RuntimeError as error:
            coroutine.close()
            raise ThreadLostError("the worker thread has ended") from error
        if timeout == 0:
            return
        try:
            task = self._wait_green(tasks, timeout) if self.green else self._wait(done, timeout)
        except ThreadLostError:
            if not (tasks or self.is_alive()):
                # It never began.
                coroutine.close()
            raise
        except BaseException:
            # The loop is closed if the task is done and was the last one.
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(lambda: tasks[0].cancel())  # noqa: PLW0108 (`start` fills it first)
            raise
        if task.cancelled():
            raise ThreadLostError("the worker thread has ended")
        task.result()

    def _wait(self, done: queue.SimpleQueue[asyncio.Task[None]], timeout: float) -> asyncio.Task[None]:
        until = clock.monotonic() + timeout
        while True:
            # In this order: the thread may end right after the task.
            alive = self.is_alive()
            left = until - clock.monotonic()
            with contextlib.suppress(queue.Empty):
                return done.get(timeout=min(_LOOK_SECONDS, left)) if alive and left > 0 else done.get_nowait()
            if not alive or left <= 0:
                raise self._lost(alive=alive, timeout=timeout)

    def _wait_green(self, tasks: list[asyncio.Task[None]], timeout: float) -> asyncio.Task[None]:
        """Wait by pauses: whatever a queue was when it was imported, the pauses let other greenlets run."""
        until = clock.monotonic() + timeout
        pause, longest = _GREEN_SECONDS
        while True:
            alive = self.is_alive()
            if tasks and tasks[0].done():
                return tasks[0]
            if not alive or clock.monotonic() > until:
                raise self._lost(alive=alive, timeout=timeout)
            time.sleep(pause)
            pause = min(longest, 2 * pause)

    def _lost(self, *, alive: bool, timeout: float) -> ThreadLostError:
        state = f"did not respond for {timeout:g} s" if alive else "has ended"
        return ThreadLostError(f"the worker thread {state}")


def _cannot_start(error: Exception) -> StreamError:
    message = f"stream: the worker thread cannot start ({error}); nothing was sent"
    return StreamError(message, delivery=Delivery.NOT_SENT)


def _exit_all() -> None:
    reset_if_forked()
    for thread in list(_threads):
        if thread.is_alive():
            thread.exit()


# At the import, so that functions which the app registers later run earlier, while streams still work.
atexit.register(_exit_all)
