"""The stream with asyncio."""

from __future__ import annotations

import asyncio
from typing import Final, Self

from .._core import clock
from .._core.call import Instrument
from .._core.encoding import Payload
from .._core.errors import StreamReport
from .._core.retry import RetryPolicy
from .buffer import Slots, StreamOptions
from .publisher import Publisher, RunFlow

# `send` lets other tasks run this often, because updates may come from a loop that never waits.
_YIELD_SECONDS: Final = 0.001


class AsyncStream:
    """A stream of updates with asyncio, as an asynchronous context manager. Made by `AsyncRealtimeClient.stream`.

        async with live.stream("chat") as stream:
            async for token in tokens:
                await stream.send(token)

    Safe to use from many tasks of one event loop.
    """

    def __init__(
        self,
        options: StreamOptions,
        slots: Slots,
        run: RunFlow,
        retry: RetryPolicy,
        instrument: Instrument | None,
    ) -> None:
        self._publisher = Publisher(options, slots, run, retry, instrument)
        self._yield_at = 0.0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.report}>"

    @property
    def report(self) -> StreamReport:
        """What became of the updates so far; final at the end of the block."""
        return self._publisher.report

    async def send(self, update: Payload) -> None:
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
            await self._publisher.put(encoded)
        elif self._publisher.wake.is_set() or clock.monotonic() >= self._yield_at:
            await asyncio.sleep(0)
            self._yield_at = clock.monotonic() + _YIELD_SECONDS

    async def flush(self) -> None:
        """Publish everything pending at once, and return when the platform has accepted it.

        Raises:
            UsageError: The stream is not open.
            StreamError: It took more than `deadline` seconds (the stream keeps trying), or the stream ended early.
        """
        await self._publisher.flush()

    def send_snapshot(self) -> None:
        """Publish the whole value with the next update, or soon: for a page that says it has subscribed anew.

        Raises:
            UsageError: The stream is not open.
            StreamError: The stream ended early.
        """
        self._publisher.request_snapshot()

    async def __aenter__(self) -> Self:
        await self._publisher.start(threads=False)
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            await self._publisher.end(error)
        finally:
            self._publisher.repeat_later(lambda: None)
