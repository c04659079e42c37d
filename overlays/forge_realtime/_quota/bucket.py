"""Token buckets: when the next operation of an installation may begin, and whose it is. They do no I/O.

A caller requests an operation, waits as long as the bucket says, and requests it again. So one bucket serves threads
and event loops. All times are seconds of `time.monotonic()`.
"""

from __future__ import annotations

import math
import threading
from typing import Final

from attrs import define

# Seconds.
_MIN_WAIT: Final = 0.001
_MAX_RETRY_AFTER: Final = 60.0
# The platform counts by the second: several refusals within one second have the same cause.
_REFUSAL_WINDOW: Final = 1.0
# The part of the full rate that returns each second: from half to full in five seconds.
_RECOVERY: Final = 0.1


@define(eq=False)
class Waiter:
    """A place in the queue of a bucket, skipped after `until`. Streams wait behind all other calls."""

    stream: bool
    until: float


class Bucket:
    """A token bucket for the operations of one installation. Thread-safe.

    In any second, at most `per_second + burst` operations begin.
    """

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
        # Ordered sets.
        self._calls: dict[Waiter, None] = {}
        self._streams: dict[Waiter, None] = {}

    def lower_limits(self, per_second: float, burst: int) -> None:
        """Lower the limits to these values. Higher values change nothing."""
        if per_second < self._per_second or burst < self._burst:
            with self._lock:
                self._per_second = min(self._per_second, per_second)
                self._rate = min(self._rate, per_second)
                self._burst = min(self._burst, burst)

    def request(self, waiter: Waiter, now: float) -> float:
        """Request one operation; return 0 if it may begin, otherwise the seconds until the next request."""
        with self._lock:
            (self._streams if waiter.stream else self._calls).setdefault(waiter)
            wait = self._wait(1 + self._count_ahead(waiter, now), now)
            if wait > 0:
                return max(_MIN_WAIT, wait)
            self._take()
            self.cancel(waiter)
            return 0.0

    def cancel(self, waiter: Waiter) -> None:
        """Remove a waiter from the queue, if it is still there."""
        with self._lock:
            self._calls.pop(waiter, None)
            self._streams.pop(waiter, None)

    def slow_down(self, retry_after: float | None, now: float) -> None:
        """Slow down after a 429: begin nothing for `retry_after` seconds, then halve the rate for some seconds."""
        with self._lock:
            self._fill(now)
            self._tokens = 0.0
            self._filled = max(self._filled, now + min(retry_after or 0.0, _MAX_RETRY_AFTER))
            if now - self._slowed >= _REFUSAL_WINDOW:
                self._rate = max(self._rate / 2, min(1.0, self._per_second))
            self._slowed = self._filled

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

    def _count_ahead(self, waiter: Waiter, now: float) -> int:
        ahead = 0
        for other in [*self._calls, *self._streams]:
            if other is waiter:
                break
            if other.until < now:
                # Its owner never came back: an event loop was stopped, for example.
                self.cancel(other)
            else:
                ahead += 1
        return ahead

    def _wait(self, operations: int, now: float) -> float:
        """Return the seconds until so many operations may begin."""
        self._fill(now)
        if self._filled <= now and self._tokens >= operations:
            return 0.0
        return (operations - self._tokens) / self._rate + self._filled - now

    def _take(self) -> None:
        self._tokens -= 1

    def _fill(self, now: float) -> None:
        elapsed = now - self._filled
        if elapsed > 0:
            self._tokens = min(float(self._burst), self._tokens + elapsed * self._rate)
            self._rate = min(self._per_second, self._rate + elapsed * _RECOVERY * self._per_second)
            self._filled = now
