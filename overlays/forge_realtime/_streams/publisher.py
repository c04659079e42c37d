"""Publisher of a stream: takes envelopes from the buffer, paces and delivers them, and ends the stream."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import json
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from attrs import evolve

from .._core import clock
from .._core.attempts import Attempt, StreamReport
from .._core.call import Flow, Instrument, Send, Sleep, TrackedBody, Waker
from .._core.errors import (
    Delivery,
    ForgeRealtimeError,
    ResponseError,
    StreamError,
    StreamFullError,
    TimedOutError,
    UsageError,
)
from .._core.fork import register_fork_reset, reset_if_forked
from .._core.log import failure_level, log
from .._core.policy import RetryPolicy
from .._core.responses import Response
from .._transports.timeouts import limit_time
from .buffer import Buffer, Envelope, PublishSlot, Slots, StreamOptions, Update

# A stream keeps its place in the queue for the quota longer than a web request.
_QUOTA_SECONDS: Final = 60.0
# The longest wait between two attempts, whatever `Retry-After` says: the service may be well again much sooner.
_LONGEST_PAUSE: Final = 10.0
# A snapshot is given up if the quota has no room for so long, or if its request or the app's store takes so long.
_SNAPSHOT_QUOTA_SECONDS: Final = 0.05
_SNAPSHOT_SECONDS: Final = 2.0
# The first repetition of a final snapshot that nobody heard.
_SOON_SECONDS: Final = 1.0
# Time for what is left, if the block was cancelled or interrupted.
_INTERRUPTED_SECONDS: Final = 1.0


class _Signal:
    """An event with one waiter. An `asyncio.Event` takes 0.9 KiB, and each open stream has one."""

    __slots__ = ("_is_set", "_waiter")

    def __init__(self) -> None:
        self._is_set = False
        self._waiter: asyncio.Future[None] | None = None

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def clear(self) -> None:
        self._is_set = False

    async def wait(self) -> None:
        if self._is_set:
            return
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None


RunFlow: TypeAlias = Callable[[Flow[object]], Awaitable[object]]


class Publisher:
    """Publishes one stream with asyncio. `AsyncStream` and `Stream` are its interfaces.

    Any thread may call `offer` and `check`, and read `report`. Everything else belongs to one event loop.
    """

    __slots__ = (
        "__weakref__",
        "_any_unknown",
        "_body",
        "_cancelled",
        "_changed",
        "_current",
        "_delivery",
        "_end_by",
        "_end_mark",
        "_ended",
        "_ending",
        "_failure",
        "_failure_delivery",
        "_flush_to",
        "_heard",
        "_hook",
        "_instrument",
        "_last_error",
        "_lost",
        "_marks",
        "_next_at",
        "_next_slot",
        "_options",
        "_queue",
        "_repeated",
        "_repetition",
        "_retry",
        "_run_flow",
        "_slot",
        "_snapshot_limit",
        "_task",
        "_threads",
        "buffer",
        "forked",
        "wake",
    )

    def __init__(
        self, options: StreamOptions, slots: Slots, run: RunFlow, retry: RetryPolicy, instrument: Instrument | None
    ) -> None:
        self.buffer = Buffer(options)
        self.forked = False
        self._options = options
        self._next_slot = slots
        self._run_flow = run
        self._instrument = instrument
        # Duplicates are harmless: readers drop a `seq` that they have seen.
        self._retry = evolve(retry, delivery="at_least_once", on_attempt=self._see)
        self._hook = retry.on_attempt
        # Set when the publisher has something to do.
        self.wake = _Signal()
        # Set when it did something; None if nobody waits for that. An event takes 0.9 KiB.
        self._changed: asyncio.Event | None = None
        # Woken at the end of the block.
        self._ending = Waker()
        # Held by the update that waits for room; later ones queue behind it.
        self._queue = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        # The envelope on its way, its slot, what is known about it, and the request body of the present attempt.
        self._current: Envelope | None = None
        self._slot: PublishSlot | None = None
        self._delivery = Delivery.NOT_SENT
        self._body: object = None
        # The report does not tell: an envelope that only ends the stream carries no update.
        self._any_unknown = False
        self._failure: BaseException | None = None
        self._failure_delivery = Delivery.NOT_SENT
        self._last_error: ForgeRealtimeError | None = None
        self._next_at = 0.0
        self._flush_to = 0
        # Finite after the end of the block.
        self._end_by = math.inf
        # What the end mark says: `error` or `stopped`.
        self._end_mark: dict[str, object] = {}
        # The end was published.
        self._ended = False
        # Whether the platform said of the last update that somebody was subscribed.
        self._heard = True
        # An update was lost: its value must not be repeated.
        self._lost = False
        # Limits the time of a snapshot that is being published. The end of the block ends it.
        self._snapshot_limit: asyncio.Timeout | None = None
        # Until the final snapshot has been repeated.
        self._repetition: asyncio.TimerHandle | asyncio.Task[None] | None = None
        self._repeated: Callable[[], object] | None = None
        self._threads = False
        self._cancelled: asyncio.CancelledError | None = None
        # What the end mark is going to say.
        self._marks: dict[str, dict[str, str]] = {}

    async def start(self, *, threads: bool) -> None:
        """Start to publish, in the running loop. With `threads`, other threads may offer updates."""
        reset_if_forked()
        if self._task is not None:
            raise UsageError("A stream can be used once: make another one for each block.")
        loop = asyncio.get_running_loop()
        self._threads = threads
        self._task = loop.create_task(self._publish_all())

        def wake() -> None:
            # The loop may just have been closed, after an error. Then the stream is, too.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self.wake.set)

        self.buffer.open(wake if threads else self.wake.set)
        register_fork_reset(self)

    def reset_after_fork(self) -> None:
        """End the stream in a forked process: it goes on in the parent."""
        self.forked = True
        self._queue = asyncio.Lock()
        self.buffer.reset_after_fork()
        self.buffer.refuse(
            lambda: UsageError("This stream belongs to the parent process: make another one in this process.")
        )

    @property
    def report(self) -> StreamReport:
        """Counts of the updates so far."""
        reset_if_forked()
        return self.buffer.report

    def check(self) -> None:
        """Raise an error if the stream takes no updates."""
        reset_if_forked()
        self.buffer.check()

    def offer(self, update: Update) -> bool:
        """Take an update, and return True; return False if it has to wait for room, unless `overflow` is "raise"."""
        reset_if_forked()
        if not self._queue.locked() and self.buffer.offer(update):
            return True
        if self._options.overflow == "raise":
            raise self._full("is full")
        return False

    async def put(self, update: Update) -> None:
        """Wait until there is room for an update, and take it."""
        try:
            async with limit_time(self._options.deadline), self._queue:
                while not self.buffer.offer(update):
                    await self._change()
        except TimeoutError:
            raise self._full(f"was full for {self._options.deadline:g} s (deadline)") from None

    async def flush(self) -> None:
        """Publish everything pending at once, and wait until the platform has accepted it."""
        self.check()
        target = self.buffer.report.updates
        self._flush_to = max(self._flush_to, target)
        self.wake.set()
        try:
            async with limit_time(self._options.deadline):
                while self.buffer.settled() < target and self._failure is None:
                    await self._change()
        except TimeoutError:
            delivery = self._delivery if self._current else Delivery.NOT_SENT
            seconds = f"{self._options.deadline:g} s (deadline)"
            message = f"stream: not everything was published in {seconds}; it keeps trying"
            raise self._stream_error(message, Delivery.UNKNOWN if self._may_have_left() else delivery) from None
        if self._failure is not None:
            raise self._failed()

    async def end(self, error: BaseException | None) -> None:
        """Publish what is left, and the end of the stream. A failure never replaces `error`, raised by the block."""
        if self._task is None or self.forked:
            return
        seconds = self._options.deadline
        if error is not None:
            self._marks.setdefault("error", {"type": type(error).__name__})
            if not isinstance(error, Exception):
                seconds = min(seconds, _INTERRUPTED_SECONDS)
        # What comes later changes nothing: the end mark may be on its way.
        self._end_mark = {**self._marks}
        self._end_by = clock.monotonic() + seconds
        self.buffer.close()
        self._ending.wake()
        self.wake.set()
        self._end_snapshot()
        try:
            await self._finish()
        finally:
            if not self._ended and (not self._task.done() or self._task.cancelled()):
                after = f"{seconds:g} s after the end of the block (deadline)"
                if self._cancelled is not None:
                    after = f"{min(seconds, _INTERRUPTED_SECONDS):g} s after the block was cancelled"
                last = self._last_error
                attempts = () if last is None else last.attempts
                message = f"not everything was published {after}"
                timed_out = TimedOutError(message, delivery=Delivery.NOT_SENT, attempts=attempts, retryable=True)
                timed_out.__cause__ = last
                self._fail(timed_out)
        self.conclude(error)

    def stop(self, by: str, reason: str | None) -> None:
        """Let the end mark say who stopped the stream, and why. The first call counts. Any thread may call this."""
        if not (reason is None or isinstance(reason, str)):
            raise UsageError("stream: stop takes a reason of type str, which the page shows, or none.")
        self._marks.setdefault("stopped", {"by": by} if reason is None else {"by": by, "reason": reason})

    def fail(self, kind: str, message: str) -> None:
        """Let the end mark say why the stream failed. Any thread may call this."""
        if not (isinstance(kind, str) and kind and isinstance(message, str)):
            raise UsageError("stream: fail takes a type of failure, a non-empty str, and a message for the user.")
        self._marks["error"] = {"type": kind, "message": message}

    def request_snapshot(self) -> None:
        """Publish the whole value with the next update, or soon."""
        self.check()
        self.buffer.request_snapshot(clock.monotonic())

    @property
    def repeats(self) -> bool:
        """Whether the final snapshot has yet to be repeated."""
        return self._repetition is not None

    def repeat_later(self, done: Callable[[], object]) -> None:
        """Publish the final snapshot once more, for pages that load after the end. Call `done` afterwards.

        Twice if nobody was subscribed at the end, the first time soon.
        """
        every = self.buffer.snapshot_every
        if self._task is None or self.forked or self._lost or every is None:
            done()
            return
        self._repeated = done
        if self._heard or every <= _SOON_SECONDS:
            self._repeat_in(every)
        else:
            # A page that asked a moment ago may be about to subscribe.
            self._repeat_in(_SOON_SECONDS, again_in=every - _SOON_SECONDS)

    def _repeat_in(self, seconds: float, *, again_in: float | None = None) -> None:
        loop = asyncio.get_running_loop()

        def begin() -> None:
            self._repetition = loop.create_task(self._repeat())
            self._repetition.add_done_callback(finish)

        def finish(task: asyncio.Task[None]) -> None:
            if again_in is None or task.cancelled():
                self._end_repetition()
            else:
                self._repeat_in(again_in)

        # A timer and no task: nothing waits for it, and the app's loop can end without a warning.
        self._repetition = loop.call_later(seconds, begin)

    def drop_repetition(self) -> None:
        """Repeat nothing any more."""
        if isinstance(self._repetition, asyncio.Task):
            self._repetition.cancel()
        elif self._repetition is not None:
            self._repetition.cancel()
            self._end_repetition()

    def _end_repetition(self) -> None:
        self._repetition = None
        done, self._repeated = self._repeated, None
        if done is not None:
            done()

    async def _repeat(self) -> None:
        if self.forked:
            return
        mark = self._end_mark if self._ended else self._end_mark or {"error": {"type": StreamError.__name__}}
        retry = evolve(self._snapshot_retry(), on_attempt=self._hook)
        failure_level.set(logging.DEBUG)
        for envelope in self.buffer.final_snapshot(mark, again=True):
            slot = self._next_slot()
            # Errors of a closed client, too. None of them concerns the app any more.
            try:
                if not await self._run_flow(slot.reserve(clock.monotonic() + _SNAPSHOT_SECONDS)):
                    return
                await self._keep(envelope)
                await self._run_flow(slot.publish(envelope.payload, retry))
            except Exception as error:  # noqa: BLE001 (see above)
                log(logging.DEBUG, "stream: the final snapshot was not repeated (%s)", type(error).__name__)
                return

    def conclude(self, error: BaseException | None) -> None:
        """Raise or log the failure of the stream, if there was one. `error` is the block's."""
        # Once: after a wait has failed because the thread has died, the end of the block fails too.
        instrument, self._instrument = self._instrument, None
        if instrument is not None:
            instrument.stream_ended(self.buffer.report)
        if self._failure is None:
            log(logging.DEBUG, "stream: %s", self.buffer.report)
        elif error is None and self._cancelled is None:
            raise self._failed()
        else:
            log(logging.WARNING, "%s", self._failed())
        if self._cancelled is not None:
            raise self._cancelled

    def lose(self, failure: BaseException) -> None:
        """End the stream because its loop has ended or does not respond. Any thread may call this."""
        # Its loop was cancelled, but not the block.
        self._cancelled = None
        if not self._ended and (self._task is None or not self._task.done() or self._task.cancelled()):
            # A closed loop wakes nobody.
            with contextlib.suppress(RuntimeError):
                self._fail(failure)

    async def _finish(self) -> None:
        await self._outlast()
        assert self._task is not None
        if self._task.cancelled() and self._failure is None:
            # asyncio.run() cancels all tasks when it ends.
            self._task = asyncio.create_task(self._publish_all())
            await self._outlast()
        # A cancelled attempt lets go of its connection.
        if self._task.cancel():
            self._end_by = clock.monotonic() + _INTERRUPTED_SECONDS
            await self._outlast()

    async def _outlast(self) -> None:
        """Wait for the end of the task until `_end_by`. Keep a cancellation for later, and hurry.

        anyio, and so Starlette and FastAPI, cancels again and again until the block has been left.
        """
        assert self._task is not None
        while not self._task.done() and (left := self._end_by - clock.monotonic()) > 0:
            try:
                async with limit_time(left):
                    await asyncio.wait({self._task})
            except TimeoutError:
                pass
            except asyncio.CancelledError as error:
                self._cancelled = error
                self._end_by = min(self._end_by, clock.monotonic() + _INTERRUPTED_SECONDS)
                self.wake.set()
                self._end_snapshot()

    async def _publish_all(self) -> None:
        try:
            while True:
                # After a cancellation, go on with the envelope that was on its way.
                envelope = self._current = self._current or await self._take()
                await self._deliver(envelope)
                if envelope.last or self._failure is not None:
                    break
                # Its payload would be kept until the next one.
                del envelope
            self._ended = self._failure is None
            await self._publish_rest()
        except (asyncio.CancelledError, GeneratorExit):
            self._cut_short()
            raise
        except BaseException as error:
            self._fail(error)
            if not isinstance(error, Exception):
                raise

    async def _take(self) -> Envelope:
        """Wait until there is something to publish, it is time, and the quota allows it."""
        while True:
            self.wake.clear()
            end = self._end_by < math.inf
            on_time = end or clock.monotonic() >= self._next_at or self.buffer.settled() < self._flush_to
            if self.buffer.is_due(on_time=on_time, end=end):
                self._slot = self._next_slot()
                # Before the envelope is taken: updates sent while the quota is waited for go out with it.
                left = min(_QUOTA_SECONDS, self._end_by - clock.monotonic())
                await self._run_flow(self._reserve(self._slot, clock.monotonic() + left))
                self._next_at = clock.monotonic() + self._options.interval
                ending = self._end_mark if self._end_by < math.inf else None
                envelope = self.buffer.take(ending=ending, now=clock.monotonic())
                self._delivery = Delivery.NOT_SENT
                self._notify()
                return envelope
            snapshot_at = self.buffer.snapshot_at()
            if snapshot_at <= clock.monotonic():
                await self._publish_snapshot()
            else:
                at = min(snapshot_at, math.inf if self.buffer.is_empty else self._next_at)
                if at == math.inf:
                    await self.wake.wait()
                else:
                    await self._woken(at)

    def _reserve(self, slot: PublishSlot, until: float) -> Flow[None]:
        """Wait for the quota. The end of the block cuts a wait short that the platform asked for, as in `_rest`."""
        flow = slot.reserve(until)
        outcome: Response | Exception | None = None
        try:
            while not slot.skip_hold(self._end_by):
                outcome = yield flow.send(outcome)
        except StopIteration:
            slot.skip_hold(self._end_by)
        finally:
            flow.close()

    async def _deliver(self, envelope: Envelope) -> None:
        """Publish an envelope in as many calls as it takes; raise if a retry would not help or would be too late."""
        assert self._slot is not None
        await self._keep(envelope)
        result: object = None
        for calls in itertools.count(1):
            self._slot.skip_hold(self._end_by)
            try:
                result = await self._run_flow(self._watch(self._slot.publish(envelope.payload, self._retry)))
                break
            except ForgeRealtimeError as error:
                self._last_error = error
                if not (error.retryable and await self._pause(error, calls)):
                    raise
        self._last_error = None
        heard = getattr(result, "event_id", None) is not None
        if heard and not self._heard:
            # Whoever has subscribed since lacks what came before.
            self.buffer.request_snapshot(clock.monotonic())
        self._heard = heard
        self._slot = None
        if self._current is envelope:
            self._settle(Delivery.ACCEPTED)

    async def _publish_snapshot(self) -> None:
        """Publish a part of a snapshot without an update. No update depends on it, so a failure is ignored."""
        slot = self._next_slot()
        reserved = await self._run_flow(slot.reserve(clock.monotonic() + _SNAPSHOT_QUOTA_SECONDS))
        if self._end_by < math.inf:
            return
        envelope = self.buffer.take_snapshot(clock.monotonic())
        if envelope is not None and not (reserved and await self._try_to_publish(envelope, slot)):
            self.buffer.drop_snapshot()

    async def _publish_rest(self) -> None:
        """Publish the parts of the final snapshot that the last envelope did not carry, if there is time."""
        for envelope in self.buffer.final_snapshot(self._end_mark, again=False):
            left = self._end_by - clock.monotonic()
            if left <= _INTERRUPTED_SECONDS:
                return
            slot = self._next_slot()
            with contextlib.suppress(TimeoutError):
                async with limit_time(left - _INTERRUPTED_SECONDS):
                    if not await self._run_flow(slot.reserve(self._end_by - _INTERRUPTED_SECONDS)):
                        return
                    await self._try_to_publish(envelope, slot)
            self._cut_short()

    async def _try_to_publish(self, envelope: Envelope, slot: PublishSlot) -> bool:
        former = failure_level.get()
        try:
            failure_level.set(logging.DEBUG)
            async with asyncio.timeout(None) as self._snapshot_limit:
                await self._keep(envelope)
                await self._run_flow(self._watch(slot.publish(envelope.payload, self._snapshot_retry())))
        except (ForgeRealtimeError, TimeoutError) as error:
            self._cut_short()
            log(logging.DEBUG, "stream: a snapshot was not published (%s)", type(error).__name__)
            return False
        finally:
            self._snapshot_limit = None
            failure_level.set(former)
        return True

    def _snapshot_retry(self) -> RetryPolicy:
        return evolve(self._retry, max_attempts=1, deadline=min(self._retry.deadline, _SNAPSHOT_SECONDS))

    def _end_snapshot(self) -> None:
        """End the publishing of a snapshot that holds up the end of the block."""
        if self._snapshot_limit is not None and not self._ended:
            self._snapshot_limit.reschedule(-math.inf)

    async def _keep(self, envelope: Envelope) -> None:
        """Give the app the value whose digest is in the envelope. If that fails, readers wait for the next snapshot.

        The time is limited, because updates wait meanwhile.
        """
        keep = self._options.snapshot
        if envelope.stored is None or isinstance(keep, bool):
            return
        digest, value = envelope.stored
        arguments = (self.buffer.stream_id, digest, json.loads(value))
        try:
            # The loop of the worker thread serves all streams.
            run = asyncio.get_running_loop().run_in_executor
            async with limit_time(_SNAPSHOT_SECONDS):
                result = await run(None, keep, *arguments) if self._threads else keep(*arguments)
                if inspect.isawaitable(result):
                    await result
        except Exception as error:  # noqa: BLE001 (the app's own code)
            log(logging.WARNING, "stream: the function given as snapshot= raised %s", type(error).__name__)

    def _watch(self, flow: Flow[object]) -> Flow[object]:
        """Carry out a flow, and keep the body of the request that is being sent."""
        try:
            step = next(flow)
            while True:
                self._body = None
                # A request for the token that an event needs says nothing of the event.
                if isinstance(step, Send) and not step.request.url.path.endswith("/token"):
                    self._body = step.request.stream
                if isinstance(step, Sleep) and step.waker is None:
                    # Not a wait for the quota.
                    yield from self._rest(step.seconds)
                    step = next(flow)
                else:
                    step = flow.send((yield step))
        except StopIteration as end:
            return end.value
        finally:
            flow.close()

    def _see(self, attempt: Attempt) -> None:
        if attempt.delivery is not Delivery.NOT_SENT:
            self.buffer.count_operation()
        self._body = None
        if self._delivery is not Delivery.UNKNOWN:
            self._delivery = attempt.delivery
        if self._hook is not None:
            self._hook(attempt)

    async def _pause(self, error: ForgeRealtimeError, calls: int) -> bool:
        """Wait until another call makes sense; return False if that is too late."""
        asked = error.retry_after if isinstance(error, ResponseError) else None
        wait = self._retry.backoff(self._retry.max_attempts + calls) if asked is None else asked
        if clock.monotonic() + min(wait, _LONGEST_PAUSE) > self._end_by:
            return False
        await self._run_flow(self._rest(wait))
        return True

    def _rest(self, seconds: float) -> Flow[None]:
        """Wait for the next attempt. The end of the block cuts a wait short: it makes a last attempt at once."""
        yield Sleep(min(seconds, _LONGEST_PAUSE), self._ending)

    async def _woken(self, at: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with limit_time(at - clock.monotonic()):
                await self.wake.wait()

    def _fail(self, failure: BaseException) -> None:
        if self._failure is None:
            self._failure = failure
            if isinstance(failure, ForgeRealtimeError):
                self._failure_delivery = failure.delivery
            self._cut_short()
            if self._current is not None:
                if self._delivery is not Delivery.ACCEPTED:
                    self._failure_delivery = self._delivery
                self._settle(self._delivery)
            self.buffer.refuse(self._failed)
            self._notify()

    def _cut_short(self) -> None:
        """Give up the present attempt. If its request may have left, the outcome stays unknown."""
        if self._has_left():
            if self._current is not None:
                self._delivery = Delivery.UNKNOWN
            self._body = None
            self.buffer.count_operation()

    def _may_have_left(self) -> bool:
        return self._current is not None and self._has_left()

    def _has_left(self) -> bool:
        return isinstance(self._body, TrackedBody) and self._body.sent

    def _settle(self, delivery: Delivery) -> None:
        assert self._current is not None
        self.buffer.settle(self._current, delivery)
        self._any_unknown |= delivery is Delivery.UNKNOWN
        self._lost |= delivery in (Delivery.NOT_SENT, Delivery.REJECTED)
        self._current = None
        self._notify()

    def _notify(self) -> None:
        """Wake everyone who waits for room or for the end of a flush."""
        changed, self._changed = self._changed, None
        if changed is not None:
            changed.set()

    async def _change(self) -> None:
        self._changed = self._changed or asyncio.Event()
        await self._changed.wait()

    def _failed(self) -> StreamError:
        failure = self._failure
        reason = str(failure) if isinstance(failure, ForgeRealtimeError) else type(failure).__name__
        message = f"stream: it ended before everything was published: {reason}"
        error = self._stream_error(message, self._failure_delivery, failure)
        error.__cause__ = failure
        return error

    def _stream_error(self, message: str, delivery: Delivery, failure: BaseException | None = None) -> StreamError:
        report = self.buffer.report
        return StreamError(
            f"{message}; {report}",
            delivery=Delivery.UNKNOWN if self._any_unknown else delivery,
            attempts=getattr(failure, "attempts", ()),
            retryable=getattr(failure, "retryable", False),
            report=report,
        )

    def _full(self, state: str) -> StreamFullError:
        advice = "send fewer updates, or choose another overflow, max_pending or max_bytes"
        message = f"stream: the buffer {state}: {advice}"
        return StreamFullError(message, delivery=Delivery.NOT_SENT, report=self.buffer.report)
