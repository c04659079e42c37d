"""Token buckets: when the next operation of an installation may begin, and whose it is. They do no I/O.

A caller requests an operation, waits as long as the bucket says or until it is woken, and requests it again. So one
bucket serves threads and event loops. All times are seconds of `clock.monotonic()`.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from itertools import chain
from typing import Final

from .._core.call import Waker

# Seconds.
_MIN_WAIT: Final = 0.001
# A timer of exactly this wait must not come too early because of it.
_ROUNDING: Final = 1e-9
_MAX_RETRY_AFTER: Final = 60.0
# The platform counts by the second: several refusals within one second have the same cause.
_REFUSAL_WINDOW: Final = 1.0
# The part of the full rate that returns each second: from half to full in five seconds.
_RECOVERY: Final = 0.1
# So many waiters at the front of the queue have timers of their own. The others sleep until they are among them, which
# makes the cost of a waiter independent of the length of the queue. More than one, because the first may be late.
_FRONT: Final = 8


class Waiter(Waker):
    """A place in the queue of a bucket, skipped after `until`. Streams wait behind all other calls."""

    __slots__ = ("place", "stream", "timed", "until")

    def __init__(self, stream: bool, until: float) -> None:  # noqa: FBT001 (as its only users write it)
        super().__init__()
        self.stream = stream
        self.until = until
        # Whether its wait is exact, as it is at the front of the queue. Otherwise the waiter must be woken.
        self.timed = False
        # Its distance from the front when it arrived, counted from the first departure of the bucket.
        self.place = 0


class Bucket:
    """A token bucket for the operations of one installation. Thread-safe.

    In any second, at most `per_second + burst` operations begin.
    """

    __slots__ = (
        "__weakref__",
        "_burst",
        "_calls",
        "_departed",
        "_filled",
        "_lock",
        "_per_second",
        "_rate",
        "_slowed",
        "_streams",
        "_tokens",
    )

    def __init__(self, per_second: float, burst: int, now: float) -> None:
        self._per_second = per_second
        self._burst = burst
        # The current rate. It is lower than `per_second` for a while after a 429.
        self._rate = per_second
        self._tokens = float(burst)
        # The time up to which tokens were added. It lies in the future while a `Retry-After` holds.
        self._filled = now
        self._slowed = -math.inf
        # Reentrant: while a thread holds it, its signal handler may publish, or an abandoned call be collected.
        self._lock = threading.RLock()
        # Ordered sets. A plain dict is slow to find its first key after many were removed.
        self._calls: OrderedDict[Waiter, None] = OrderedDict()
        self._streams: OrderedDict[Waiter, None] = OrderedDict()
        # How many waiters have left the queue.
        self._departed = 0

    def lower_limits(self, per_second: float, burst: int) -> None:
        """Lower the limits to these values. Higher values change nothing."""
        if per_second < self._per_second or burst < self._burst:
            with self._lock:
                self._per_second = min(self._per_second, per_second)
                self._rate = min(self._rate, per_second)
                self._burst = min(self._burst, burst)

    def request(self, waiter: Waiter, now: float) -> float:
        """Request one operation; return 0 if it may begin, otherwise the seconds until it may begin at the earliest.

        The waiter is woken when that time can be told exactly, if it cannot yet: see `Waiter.timed`.
        """
        with self._lock:
            queue = self._streams if waiter.stream else self._calls
            if waiter not in queue:
                ahead = len(self._calls) + (len(self._streams) if waiter.stream else 0)
                waiter.place = self._departed + ahead
                queue[waiter] = None
            front = self._first(self._front(now), now)
            waiter.timed = waiter in front
            # Of the others is known that no more than those ahead can have left since.
            ahead = front.index(waiter) if waiter.timed else max(len(front), waiter.place - self._departed)
            wait = self._wait(ahead + 1, now)
            if wait > 0 or not waiter.timed:
                return max(_MIN_WAIT, wait)
            self._take(now)
            self._remove(waiter)
            self._wake_front(now)
            return 0.0

    def cancel(self, waiter: Waiter) -> None:
        """Remove a waiter from the queue, if it is still there."""
        with self._lock:
            if self._remove(waiter) and waiter.timed:
                # Everyone behind it may begin earlier.
                self._wake_front(again=True)

    def slow_down(self, retry_after: float | None, now: float) -> None:
        """Slow down after a 429: begin nothing for `retry_after` seconds, then halve the rate for some seconds."""
        with self._lock:
            self._fill(now)
            self._tokens = 0.0
            self._filled = max(self._filled, now + min(retry_after or 0.0, _MAX_RETRY_AFTER))
            if now - self._slowed >= _REFUSAL_WINDOW:
                self._rate = max(self._rate / 2, min(1.0, self._per_second))
            self._slowed = self._filled

    def is_held_at(self, time: float) -> bool:
        """Whether a `Retry-After` still holds at this time."""
        return self._filled > time

    def is_idle(self, now: float) -> bool:
        """Whether a new bucket would behave the same, so that this one can be dropped."""
        with self._lock:
            self._fill(now)
            return (
                not (self._calls or self._streams)
                and self._rate == self._per_second
                and self._tokens >= self._burst
                and self._filled <= now
            )

    def _first(self, count: int, now: float) -> list[Waiter]:
        """Return the first waiters, at most `count`, and remove the expired ones among them.

        Their owners never came back: an event loop was stopped, for example.
        """
        first: list[Waiter] = []
        expired = []
        for waiter in chain(self._calls, self._streams):
            if waiter.until < now:
                expired.append(waiter)
            elif len(first) < count:
                first.append(waiter)
            else:
                break
        for waiter in expired:
            self._remove(waiter)
        return first

    def _remove(self, waiter: Waiter) -> bool:
        queue = self._streams if waiter.stream else self._calls
        if waiter not in queue:
            return False
        del queue[waiter]
        self._departed += 1
        return True

    def _front(self, now: float) -> int:  # noqa: ARG002 (for overriding)
        """Return how many waiters at the front of the queue have timers of their own."""
        return _FRONT

    def _wake_front(self, now: float = -math.inf, *, again: bool = False) -> None:
        """Wake the waiters that have come to the front of the queue; or `again`, all that are there."""
        for waiter in self._first(self._front(now), now):
            if again or not waiter.timed:
                waiter.timed = True
                waiter.wake()

    def _wait(self, operations: int, now: float) -> float:
        """Return the seconds until so many operations may begin."""
        self._fill(now)
        missing = operations - self._tokens
        if missing <= 0:
            # Another thread, or a signal handler, may have filled it to a later time.
            return 0.0
        wait = missing / self._rate + self._filled - now
        return 0.0 if wait < _ROUNDING else wait

    def _take(self, now: float) -> None:  # noqa: ARG002 (for overriding)
        self._tokens -= 1

    def _fill(self, now: float) -> None:
        elapsed = now - self._filled
        if elapsed > 0:
            self._tokens = min(float(self._burst), self._tokens + elapsed * self._rate)
            self._rate = min(self._per_second, self._rate + elapsed * _RECOVERY * self._per_second)
            self._filled = now
