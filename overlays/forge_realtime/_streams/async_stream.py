"""The stream with asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterable, Callable
from typing import Any, Final, Self, TypeVar, overload

from .._core import clock
from .._core.attempts import StreamReport
from .._core.call import Instrument
from .._core.encoding import Payload
from .._core.hidden import Hidden
from .._core.policy import RetryPolicy
from .._core.stop import private_streams
from .buffer import Slots, StreamOptions
from .page_stream import PageStream
from .pipe import aclose_source, check_async_source
from .publisher import Publisher, RunFlow

# `send` lets other tasks run this often, because updates may come from a loop that never waits.
_YIELD_SECONDS: Final = 0.001
T = TypeVar("T")


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
        self._deadline = options.deadline
        self._yield_at = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        # Those of the running calls of `pipe`: for the wait for the source, and for its end after a stop.
        self._limits: list[tuple[asyncio.Timeout, asyncio.Timeout]] = []

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.report}>"

    @property
    def report(self) -> StreamReport:
        """What became of the updates so far; final at the end of the block."""
        return self._publisher.report

    @property
    def cancelled(self) -> asyncio.Event:
        """Set when the stream has been stopped, by its page or by `stop`. `pipe` ends then; your own code can wait."""
        # Not made before it is needed: it takes 1 KiB.
        found: asyncio.Event | None = self.__dict__.get("_cancelled")
        return self.__dict__.setdefault("_cancelled", asyncio.Event()) if found is None else found

    async def send(self, update: Payload) -> None:
        """Take an update, to be published with others, and return. `overflow` says whether this may wait.

        Args:
            update: A `str` with `merge="append"`, otherwise anything that can be JSON. It is encoded at once.

        Raises:
            UsageError: The update has the wrong type, or the stream is not open. Nothing changed.
            StreamFullError: There is no room, or there was none for `deadline` seconds. The update was not taken.
            StreamError: The stream ended early: the platform refused an event, or the client was closed.
        """
        hidden = Hidden(update)
        # Crash reporters show the variables of every frame.
        del update
        encoded = self._publisher.buffer.encode(hidden)
        if not self._publisher.offer(encoded):
            await self._publisher.put(encoded)
        elif self._publisher.wake.is_set() or clock.monotonic() >= self._yield_at:
            await asyncio.sleep(0)
            self._yield_at = clock.monotonic() + _YIELD_SECONDS

    @overload
    async def pipe(self, source: AsyncIterable[Payload]) -> None: ...

    @overload
    async def pipe(self, source: AsyncIterable[T], key: Callable[[T], Payload]) -> None: ...

    async def pipe(self, source: AsyncIterable[Any], key: Callable[[Any], Payload] | None = None) -> None:
        """Send all items of an asynchronous iterable, such as the answer of a language model.

        It reads no faster than `send` takes the items. A stop ends it at once, also while it waits for an item. However
        it ends, it closes the source: `aclose()` or `close()`, if there is one. A source that does not let go is
        cancelled after `deadline` seconds.

        Args:
            source: Yields updates, or events that `key` picks updates from.
            key: Returns the update in an event, or None if there is none.

        Raises:
            UsageError: `source` is no asynchronous iterable, or an update has the wrong type.
            StreamError: As for `send`.
            Exception: Whatever the source raises, unless the stream has been stopped.
        """
        check_async_source(source)
        # Its `repr` may show its items.
        hidden = Hidden(source)
        del source
        iterator, cancelled = aiter(hidden.value), self.cancelled
        # Without a limit, until a stop lets the first one expire: that ends a wait for the source.
        limits = asyncio.timeout(None), asyncio.timeout(None)
        try:
            async with limits[1], limits[0]:
                self._limits.append(limits)
                try:
                    while not cancelled.is_set():
                        try:
                            item = Hidden(await anext(iterator))
                        except StopAsyncIteration:
                            break
                        update = item if key is None else Hidden(key(item.value))
                        if update.value is not None and not cancelled.is_set():
                            await self.send(update.value)
                finally:
                    self._limits.remove(limits)
        except Exception:
            if not cancelled.is_set():
                raise
        finally:
            await aclose_source(iterator, hidden, self._deadline)

    def stop(self, reason: str | None = None) -> None:
        """Stop the stream early: `cancelled` is set, `pipe` ends, and the end mark says that the app stopped it.

        The block goes on after `pipe`. Any thread may call this; a stop after the first one changes nothing.

        Args:
            reason: Shown to the page.

        Raises:
            UsageError: `reason` is no `str`.
        """
        self._stop("app", reason)

    def fail(self, kind: str, message: str) -> None:
        """Let the end mark say that the stream failed, whether or not the block raises.

        Without it, the end mark of a block that raised has the exception's class and no message.

        Args:
            kind: Type of the failure, for the page's code, such as `"model_unavailable"`.
            message: Text for the page's user.

        Raises:
            UsageError: `kind` or `message` is no `str`, or `kind` is empty.
        """
        self._publisher.fail(kind, message)

    def _stop(self, by: str, reason: str | None) -> None:
        self._publisher.stop(by, reason)
        running = None
        with contextlib.suppress(RuntimeError):
            running = asyncio.get_running_loop()
        if self._loop in (None, running):
            self._cancel()
            return
        # The loop may have been closed.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        self.cancelled.set()
        for wait, end in self._limits:
            # One that has expired may be waiting for its source to give up.
            if not wait.expired():
                wait.reschedule(-math.inf)
                end.reschedule(asyncio.get_running_loop().time() + self._deadline)

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
        self._loop = asyncio.get_running_loop()
        await self._publisher.start(threads=False)
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            await self._publisher.end(error)
        finally:
            self._publisher.repeat_later(lambda: None)


class AsyncPrivateStream(AsyncStream, PageStream):
    """A stream that one page can read and stop. Made by `AsyncRealtimeClient.private_stream`.

    Attributes:
        handle: What the page needs: a `dict` to return to it as JSON.
    """

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        private_streams.remove(self)
        await super().__aexit__(kind, error, traceback)
