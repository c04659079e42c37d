"""The stream with blocking I/O."""

from __future__ import annotations

import threading
from collections.abc import Coroutine
from typing import Any, Final, Self

from .._client.async_forge import run_flow
from .._core.call import Flow, Instrument
from .._core.encoding import Payload
from .._core.errors import StreamReport, UsageError
from .._core.fork import reset_if_forked
from .._core.retry import RetryPolicy
from .buffer import Slots, StreamOptions
from .publisher import Publisher
from .worker import StreamWorker, WorkerThread

# Longer than the end of an interrupted block takes.
_COLLECTED_SECONDS: Final = 3.0


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
        self._worker = worker
        self._thread: WorkerThread | None = None
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

    def __enter__(self) -> Self:
        if self._thread is not None:
            raise UsageError("A stream can be used once: make another one for each block.")
        self._thread = self._worker.join(self)
        try:
            self._wait_for(self._publisher.start(threads=True))
        except BaseException as error:
            self._wait_for(self._end(error), timeout=0)
            raise
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        reset_if_forked()
        if self._publisher.forked:
            return
        timeout = None
        if threading.current_thread() is self._thread:
            # A forgotten generator is collected in any thread, and its block ends there.
            timeout = 0.0
        elif isinstance(error, GeneratorExit):
            # It may be collected during a `send` whose lock the worker thread waits for: do not wait forever.
            timeout = _COLLECTED_SECONDS
        self._wait_for(self._end(error), timeout)

    def _wait_for(self, coroutine: Coroutine[Any, Any, None], timeout: float | None = None) -> None:
        assert self._thread is not None
        self._thread.wait_for(coroutine, timeout)

    async def _end(self, error: BaseException | None) -> None:
        try:
            await self._publisher.end(error)
        finally:
            # In the worker thread, where no interrupt comes in between.
            self._worker.leave(self)

    async def _run_flow(self, flow: Flow[object]) -> object:
        assert self._thread is not None
        return await run_flow(flow, self._thread.send)
