"""Token buckets: when the next operation of an installation may begin, and whose it is. They do no I/O.

A caller requests an operation, waits as long as the bucket says, and requests it again. So one bucket serves threads
and event loops. All times are seconds of `time.monotonic()`.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from typing import Final, Protocol

from attrs import define

# Seconds.
_MIN_WAIT: Final = 0.001
_MAX_RETRY_AFTER: Final = 60.0
# The platform counts by the second: several refusals within one second have the same cause.
_REFUSAL_WINDOW: Final = 1.0
# How long a store takes to reserve permits.
_STORE_WAIT: Final = 0.003
# The part of the full rate that returns each second: from half to full in five seconds.
_RECOVERY: Final = 0.1

SLOT: Final = 0.1
"""Length of a slot in seconds. A reserved permit is valid for one slot."""


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


class Reserver(Protocol):
    """Reserves permits in a store that processes share. It never blocks the bucket that asks."""

    def is_available(self, now: float) -> bool:
        """Whether permits can be reserved now."""

    def is_settled(self, now: float) -> bool:
        """Whether the store has been available for so long that all processes use it again."""

    def request(self, bucket: SharedBucket) -> None:
        """Reserve permits for a bucket soon, as many as `count_missing` says, and give them to `add_reserved`."""


class SharedBucket(Bucket):
    """A bucket that shares its quota with other processes: each operation needs a permit that was reserved in a store.

    `key` is the name of the quota in the store, and `per_second` is for all processes together. While the store is not
    available, the bucket uses this process's share, `per_second / replicas`, without a burst.
    """

    def __init__(self, key: str, per_second: float, replicas: int, reserver: Reserver, now: float) -> None:
        super().__init__(per_second / replicas, 1, now)
        # What a process begins on its own comes on top of what it has reserved: start with nothing.
        self._tokens = 0.0
        self.key = key
        self._replicas = replicas
        self._reserver = reserver
        # When each reserved permit becomes valid, and when it expires.
        self._reserved: deque[tuple[float, float]] = deque()
        self._exhausted_until = now

    @property
    def rate(self) -> float:
        """Operations per second, of all processes together."""
        return self._rate * self._replicas

    def lower_limits(self, per_second: float, burst: int) -> None:
        """Lower the limits, of which `per_second` is for all processes together."""
        super().lower_limits(per_second / self._replicas, burst)

    def count_missing(self, now: float) -> int:
        """Count the permits that the waiters still need. Not positive if there are enough."""
        with self._lock:
            self._drop_expired(now)
            waiting = sum(waiter.until >= now for waiter in [*self._calls, *self._streams])
            if not self._reserver.is_settled(now):
                # Until then this process uses only its share: more permits would be lost to the others.
                waiting = min(waiting, math.ceil(self._rate * SLOT))
            return waiting - len(self._reserved)

    def add_reserved(self, start: float, end: float, permits: int) -> None:
        """Add permits that are valid from `start` to `end`."""
        with self._lock:
            self._reserved.extend([(start, end)] * permits)

    def mark_exhausted(self, until: float) -> None:
        """Note that no more permits can be reserved until then."""
        with self._lock:
            self._exhausted_until = until

    def _wait(self, operations: int, now: float) -> float:
        own = super()._wait(operations, now)
        if self._filled > now:
            return own
        if not self._reserver.is_available(now):
            # Makes sure that its thread runs, which tries the store again.
            self._reserver.request(self)
            return own
        settled = self._reserver.is_settled(now)
        if settled:
            # When the store fails, this process's own share begins with nothing.
            self._tokens = 0.0
        self._drop_expired(now)
        missing = operations - len(self._reserved)
        if missing <= 0:
            start, _ = self._reserved[operations - 1]
            shared = max(0.0, start - now)
        else:
            self._reserver.request(self)
            shared = max(_STORE_WAIT, self._exhausted_until - now, missing / self.rate - 2 * SLOT)
        return shared if settled else max(shared, own)

    def _take(self) -> None:
        self._tokens = max(0.0, self._tokens - 1)
        if self._reserved:
            self._reserved.popleft()

    def _drop_expired(self, now: float) -> None:
        while self._reserved and self._reserved[0][1] <= now:
            self._reserved.popleft()
