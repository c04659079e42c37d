"""The stream with blocking I/O."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Coroutine
from typing import Any, Final, Self

from .._client.async_forge import run_flow
from .._core.call import Flow, Instrument
from .._core.encoding import Payload
from .._core.errors import Delivery, StreamError, StreamReport, UsageError
from .._core.fork import reset_if_forked
from .._core.retry import RetryPolicy
from .buffer import Slots, StreamOptions
from .green import threads_are_green
from .publisher import Publisher
from .worker import StreamWorker, ThreadLostError, WorkerThread

# Longer than the end of an interrupted block takes.
_COLLECTED_SECONDS: Final = 3.0
# A wait has its own limit, the deadline. A thread that exceeds it by this does not run any more, or is stuck.
_LATE_SECONDS: Final = 5.0


class Stream:
    """A stream of updates, as a context manager. Made by `RealtimeClient.stream`.

        with live.stream("chat") as stream:
            for token in tokens:
                stream.send(token)

    Thread-safe. Events are published from the client's worker thread.
    """

    def __init__(
        self,
        options: StreamOptions,
        slots: Slots,
        retry: RetryPolicy,
        worker: StreamWorker,
        instrument: Instrument | None,
    ) -> None:
        # Where it cannot work, it is refused now.
        threads_are_green()
        self._worker = worker
        self._thread: WorkerThread | None = None
        self._seconds = options.deadline + _LATE_SECONDS
        self._publisher = Publisher(options, slots, self._run_flow, retry, instrument)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.report}>"

    @property
    def report(self) -> StreamReport:
        """What became of the updates so far; final at the end of the block."""
        return self._publisher.report

    def send(self, update: Payload) -> None:
        """Take an update, to be published with others, and return. `overflow` says whether this may wait.

        Args:
            update: A `str` with `merge="append"`, otherwise anything that can be JSON. It is encoded at once.

        Raises:
            UsageError: The update has the wrong type, or the stream is not open. Nothing changed.
            StreamFullError: There is no room, or there was none for `deadline` seconds. The update was not taken.
            StreamError: The stream ended early: the platform refused an event, or the client was closed.
        """
        encoded = self._publisher.buffer.encode(update)
        if not self._publisher.offer(encoded):
            self._wait_for(self._publisher.put(encoded))

    def flush(self) -> None:
        """Publish everything pending at once, and return when the platform has accepted it.

        Raises:
            UsageError: The stream is not open.
            StreamError: It took more than `deadline` seconds (the stream keeps trying), or the stream ended early.
        """
        self._publisher.check()
        self._wait_for(self._publisher.flush())

    def send_snapshot(self) -> None:
        """Publish the whole value with the next update, or soon: for a page that says it has subscribed anew.

        Raises:
            UsageError: The stream is not open.
            StreamError: The stream ended early.
        """
        self._publisher.request_snapshot()

    def __enter__(self) -> Self:
        if self._thread is not None:
            raise UsageError("A stream can be used once: make another one for each block.")
        self._thread = self._worker.join(self)
        try:
            self._wait_for(self._publisher.start(threads=True))
        except BaseException as error:
            self._wait_for(self._end(error), timeout=0, error=error)
            raise
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        reset_if_forked()
        if self._publisher.forked:
            return
        if isinstance(error, GeneratorExit):
            # A forgotten generator is collected in any thread, also in the worker thread, and its block ends there. Or
            # during a `send` whose lock the worker thread waits for: do not wait so long.
            here = threading.current_thread() is self._thread
            assert self._thread is not None
            with contextlib.suppress(ThreadLostError):
                self._thread.wait_for(self._end(error), 0.0 if here else _COLLECTED_SECONDS)
            return
        self._wait_for(self._end(error), error=error)

    def exit(self) -> None:
        """Publish what is left and end the stream, because the interpreter exits. Returns at once."""
        if self._publisher.repeats:
            self.drop_repetition()
            return
        self._publisher.buffer.close(
            lambda: StreamError(
                "stream: the interpreter exits; the update was not sent",
                delivery=Delivery.NOT_SENT,
                report=self.report,
            )
        )
        self._wait_for(self._end(SystemExit()), timeout=0, error=SystemExit())

    def drop_repetition(self) -> None:
        """Do not repeat the final snapshot. Any thread may call this."""
        assert self._thread is not None
        # The loop may be closed by now.
        with contextlib.suppress(RuntimeError):
            self._thread.loop.call_soon_threadsafe(self._publisher.drop_repetition)

    def lose(self, failure: ThreadLostError) -> None:
        """End the stream without its thread."""
        self._publisher.lose(failure)

    def _wait_for(
        self, coroutine: Coroutine[Any, Any, None], timeout: float | None = None, error: BaseException | None = None
    ) -> None:
        assert self._thread is not None
        try:
            self._thread.wait_for(coroutine, self._seconds if timeout is None else timeout)
        except ThreadLostError as lost:
            self._publisher.lose(lost)
            self._publisher.conclude(error)

    async def _end(self, error: BaseException | None) -> None:
        try:
            await self._publisher.end(error)
        finally:
            # In the worker thread, where no interrupt comes in between.
            if self._worker.closed:
                self._leave()
            else:
                self._publisher.repeat_later(self._leave)

    def _leave(self) -> None:
        assert self._thread is not None
        self._worker.leave(self, self._thread)

    async def _run_flow(self, flow: Flow[object]) -> object:
        assert self._thread is not None
        return await run_flow(flow, self._thread.send)
