"""Streams of many small updates: merged into few publishes, envelope, and sent again until they have arrived."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Protocol, Self, cast

from attrs import evolve

from .._core.call import Flow, Send
from .._core.responses import T
from .._core.errors import (
    Attempt,
    Delivery,
    ForgeRealtimeError,
    ResponseError,
    StreamError,
    StreamFullError,
    StreamReport,
    TimedOutError,
    UsageError,
)
from .._core.fork import register_fork_reset
from .._core.log import logger
from .._core.retry import RetryPolicy
from .._realtime.operations import Payload
from .._realtime.results import PublishResult
from .buffer import Buffer, Envelope, PublishSlot, StreamSettings, Update

# Of each call, at least: a place in the queue for the quota is not given up for a deadline that suits a web request.
_CALL_SECONDS: Final = 60.0
# After so long, a `send` lets the other tasks of the loop run.
_YIELD_SECONDS: Final = 0.001
# For what is left at the end of a block that was cancelled or interrupted.
_BRIEFLY: Final = 1.0


class Run(Protocol):
    """Carries steps out."""

    def __call__(self, flow: Flow[T], /) -> Awaitable[T]: ...


class AsyncStream:
    """A stream of updates with asyncio, as an asynchronous context manager. `AsyncRealtimeClient.stream` makes it.

        async with live.stream("chat") as stream:
            async for token in answer:
                await stream.send(token)

    It is safe to use from many tasks of one event loop.
    """

    def __init__(
        self, settings: StreamSettings, slots: Callable[[], PublishSlot], run: Run, retry: RetryPolicy
    ) -> None:
        self._settings = settings
        self._next_slot = slots
        self._run_flow = run
        # A duplicate is harmless: readers drop the numbers that they have seen.
        self._retry = evolve(
            retry, delivery="at_least_once", deadline=max(retry.deadline, _CALL_SECONDS), on_attempt=self._see
        )
        self._see_too = retry.on_attempt
        self._pending = Buffer(settings)
        self._wake, self._changed = asyncio.Event(), asyncio.Event()
        # Those who wait for room, in order.
        self._queue = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._slot: PublishSlot | None = None
        self._current: Envelope | None = None
        self._failure: BaseException | None = None
        # Whether a publish was settled so. The report does not say it of an end mark, which carries no update.
        self._unknown = False
        self._forked = False
        self._yield_at = 0.0
        self._next_at = 0.0
        self._flush_to = 0
        self._ending = False
        self._until = 0.0
        self._error: str | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.report}>"

    @property
    def report(self) -> StreamReport:
        """What became of the updates so far; final at the end of the block."""
        return self._pending.report()

    async def send(self, update: Payload) -> None:
        """As `Stream.send`."""
        item = self._pending.item(update)
        if not self._offer(item):
            await self._put(item)
        elif self._wake.is_set() or time.monotonic() >= self._yield_at:
            # Updates can come from a loop that waits for nothing else.
            await asyncio.sleep(0)
            self._yield_at = time.monotonic() + _YIELD_SECONDS

    async def flush(self) -> None:
        """As `Stream.flush`."""
        self._pending.check()
        target = self.report.updates
        self._flush_to = max(self._flush_to, target)
        self._wake.set()
        try:
            async with asyncio.timeout(self._settings.deadline):
                while self._pending.settled() < target and self._failure is None:
                    await self._changed.wait()
        except TimeoutError:
            delivery = self._current.delivery if self._current else Delivery.NOT_SENT
            raise self._stream_error(
                f"stream: not all was published in {self._settings.deadline:g} s (deadline); it goes on trying",
                Delivery.UNKNOWN if self._may_have_left() else delivery,
            ) from None
        if self._failure is not None:
            raise self._failed()

    async def __aenter__(self) -> Self:
        self._begin(self._wake.set)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._end(error)

    def _begin(self, wake: Callable[[], object]) -> None:
        """Starts to publish, in the running loop; `wake` sets `_wake` from where updates are sent."""
        if self._task is not None:
            raise UsageError("A stream is used once: make another one for another block.")
        self._task = asyncio.create_task(self._run())
        self._pending.open(wake)
        register_fork_reset(self)

    def reset_after_fork(self) -> None:
        """Ends the stream in a forked process: it goes on in the parent, with its numbers."""
        self._forked = True
        self._queue = asyncio.Lock()
        self._pending.reset_after_fork()
        self._pending.refuse(lambda: UsageError("This stream is the parent process's: make one in this process."))

    def _offer(self, item: Update) -> bool:
        """Takes it in if there is room, and nobody waits for some; from any thread."""
        if not self._queue.locked() and self._pending.offer(item):
            return True
        if self._settings.overflow == "raise":
            raise self._full("send less, or choose another overflow=")
        return False

    async def _put(self, item: Update) -> None:
        """Waits until there is room for it."""
        try:
            async with asyncio.timeout(self._settings.deadline), self._queue:
                while not self._pending.offer(item):
                    await self._changed.wait()
        except TimeoutError:
            raise self._full(f"there was no room in {self._settings.deadline:g} s (deadline)") from None

    async def _run(self) -> None:
        try:
            over = False
            while not over:
                # There is one already where this goes on after a cancellation.
                envelope = self._current = self._current or await self._take()
                await self._deliver(envelope)
                over = envelope.last
        except (asyncio.CancelledError, GeneratorExit):
            self._cut_short()
            raise
        except BaseException as error:
            self._fail(error)
            if not isinstance(error, Exception):
                raise

    async def _take(self) -> Envelope:
        """Waits until there is something to publish, it is time, and the quota allows it."""
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            at_once = self._ending or loop.time() >= self._next_at or self._pending.settled() < self._flush_to
            if self._pending.is_due(at_once=at_once, end=self._ending):
                self._slot = self._next_slot()
                # Before it is taken: what is sent while the quota is waited for goes out with it.
                await self._run_flow(self._slot.reserve(time.monotonic() + self._policy().deadline))
                self._next_at = loop.time() + self._settings.interval
                envelope = self._pending.take(end=self._ending, error=self._error)
                self._tell()
                return envelope
            await self._woken(self._next_at if self._pending.waiting else None)

    async def _deliver(self, envelope: Envelope) -> None:
        """Sends it until it is accepted.

        Raises:
            ForgeRealtimeError: Sending it again would not help, or there is no time left for that.
        """
        assert self._slot is not None
        calls = 0
        accepted = False
        while not accepted:
            try:
                await self._run_flow(_tracked(self._slot.publish(envelope.payload, self._policy()), envelope))
                accepted = True
            except ForgeRealtimeError as error:
                calls += 1
                if not (error.retryable and await self._pause(error, calls)):
                    raise
        if self._current is envelope:
            self._settle(Delivery.ACCEPTED)

    def _policy(self) -> RetryPolicy:
        if not self._ending:
            return self._retry
        left = self._until - asyncio.get_running_loop().time()
        return evolve(self._retry, deadline=max(0.001, min(self._retry.deadline, left)))

    async def _pause(self, error: ForgeRealtimeError, calls: int) -> bool:
        """Waits until a further call makes sense; False if that is too late."""
        asked = error.retry_after if isinstance(error, ResponseError) else None
        wait = self._retry.backoff(self._retry.max_attempts + calls) if asked is None else asked
        loop = asyncio.get_running_loop()
        at = loop.time() + wait
        while loop.time() < at:
            self._wake.clear()
            if self._ending and at > self._until:
                return False
            await self._woken(at)
        return True

    async def _woken(self, at: float | None) -> None:
        timer = None if at is None else asyncio.get_running_loop().call_at(at, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            if timer is not None:
                timer.cancel()

    async def _end(self, error: BaseException | None) -> None:
        """Publishes what is left and the end mark, and says when that failed; never in place of the block's own error."""
        if self._forked:
            return
        assert self._task is not None
        loop = asyncio.get_running_loop()
        seconds = self._settings.deadline
        if error is not None:
            self._error = type(error).__name__
            if not isinstance(error, Exception):
                seconds = min(seconds, _BRIEFLY)
        self._until = loop.time() + seconds
        self._ending = True
        self._pending.close()
        self._wake.set()
        cancelled: asyncio.CancelledError | None = None
        try:
            cancelled = await self._outlast(self._task)
            if self._task.cancelled():
                # As asyncio.run() does at its end with all tasks at once.
                self._task = asyncio.create_task(self._run())
                cancelled = await self._outlast(self._task) or cancelled
            if not self._task.done():
                # So that it lets go of its connection.
                self._task.cancel()
                self._until = loop.time() + _BRIEFLY
                cancelled = await self._outlast(self._task) or cancelled
        finally:
            if not self._task.done() or self._task.cancelled():
                after = f"{seconds:g} s after the end of the block (deadline)"
                if cancelled is not None:
                    after = f"{min(seconds, _BRIEFLY):g} s after the block was cancelled"
                self._fail(TimedOutError(f"not all was published in {after}"))
        if self._failure is None:
            logger.debug("stream: %s", self.report)
        elif error is None and cancelled is None:
            raise self._failed()
        else:
            logger.warning("%s", self._failed())
        if cancelled is not None:
            raise cancelled

    async def _outlast(self, task: asyncio.Task[None]) -> asyncio.CancelledError | None:
        """Waits for its end until `_until`, soon when cancelled meanwhile; returns the cancellation, for later.

        anyio, and so Starlette and FastAPI, cancels again and again for as long as a block has not been left.
        """
        loop = asyncio.get_running_loop()
        cancelled: asyncio.CancelledError | None = None
        while not task.done() and (left := self._until - loop.time()) > 0:
            try:
                await asyncio.wait({task}, timeout=left)
            except asyncio.CancelledError as error:
                cancelled = error
                self._until = min(self._until, loop.time() + _BRIEFLY)
                self._wake.set()
        return cancelled

    def _fail(self, failure: BaseException) -> None:
        if self._failure is None:
            self._failure = failure
            self._cut_short()
            if self._current is not None:
                self._settle(self._current.delivery)
            self._pending.refuse(self._failed)
            self._tell()

    def _cut_short(self) -> None:
        """Notes that nobody will know how an attempt ended, if one is being made and may have left."""
        if self._current is not None and self._may_have_left():
            self._current.body = None
            self._current.delivery = Delivery.UNKNOWN
            self._pending.count_operation()

    def _may_have_left(self) -> bool:
        """Whether an attempt is being made of which that is so."""
        return self._current is not None and getattr(self._current.body, "sent", False)

    def _failed(self) -> StreamError:
        failure = self._failure
        delivery = Delivery.NOT_SENT
        reason = type(failure).__name__
        if isinstance(failure, ForgeRealtimeError):
            delivery, reason = failure.delivery, str(failure)
        attempts = getattr(failure, "attempts", ())
        error = self._stream_error(f"stream: it ended before all was published: {reason}", delivery, attempts)
        error.__cause__ = failure
        return error

    def _full(self, reason: str) -> StreamFullError:
        return StreamFullError(
            f"stream: as many updates are pending as may be (max_pending, max_bytes): {reason}", report=self.report
        )

    def _stream_error(self, message: str, delivery: Delivery, attempts: tuple[Attempt, ...] = ()) -> StreamError:
        report = self.report
        return StreamError(
            f"{message}; {report}",
            delivery=Delivery.UNKNOWN if self._unknown else delivery,
            attempts=attempts,
            report=report,
        )

    def _settle(self, delivery: Delivery) -> None:
        assert self._current is not None
        self._pending.settle(self._current, delivery)
        self._unknown = self._unknown or delivery is Delivery.UNKNOWN
        self._current = None
        self._tell()

    def _tell(self) -> None:
        """Lets those look again who wait for room or for the end of a flush."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _see(self, attempt: Attempt) -> None:
        if attempt.delivery is not Delivery.NOT_SENT:
            self._pending.count_operation()
        if self._current is not None:
            self._current.body = None
            if self._current.delivery is not Delivery.UNKNOWN:
                self._current.delivery = attempt.delivery
        if self._see_too is not None:
            self._see_too(attempt)


def _tracked(flow: Flow[PublishResult], envelope: Envelope) -> Flow[PublishResult]:
    """The same steps; `envelope` has meanwhile what is being sent."""
    try:
        step = next(flow)
        while True:
            envelope.body = step.request.stream if isinstance(step, Send) else None
            step = flow.send((yield step))
    except StopIteration as end:
        return cast(PublishResult, end.value)
    finally:
        flow.close()
