"""How many operations of an installation may begin, and whose turn it is: arithmetic of time, and no I/O.

A bucket is asked, and asked again after the wait that it names. So the same bucket serves threads and event loops, and a lock
is all that it needs.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from typing import Final, Protocol

from attrs import define

_SHORTEST_WAIT: Final = 0.001
_MOST_RETRY_AFTER: Final = 60.0
# The platform counts by the second: refusals within one have one cause.
_WINDOW: Final = 1.0
# Of the full rate, in each second: from half of it back in five.
_RECOVERY: Final = 0.1
# A store answers sooner, but not at once.
_STORE_WAIT: Final = 0.003

SLOT: Final = 0.1
"""Seconds that a reserved permit is good for."""


@define(eq=False)
class Waiter:
    """A place in the queue of a bucket.

    Attributes:
        stream: Whether it is a stream's: those wait behind all others.
        until: When nobody asks with it any more, in seconds of `time.monotonic()`; it is passed over from then on.
    """

    stream: bool
    until: float


class Bucket:
    """Lets operations of one installation begin: in any second, `per_second + burst` at most.

    Thread-safe. All times are seconds of `time.monotonic()`.
    """

    def __init__(self, per_second: float, burst: int, now: float, tokens: float | None = None) -> None:
        self._per_second = per_second
        self._burst = burst
        # What it is now: lower than that for a while after the platform has refused something.
        self._rate = per_second
        self._tokens = float(burst) if tokens is None else tokens
        # Up to when it has been filled.
        self._filled = now
        self._lowered = -_WINDOW
        # Reentrant: in the midst of it, a signal handler may publish, and a call that was abandoned be collected.
        self._lock = threading.RLock()
        self._calls: dict[Waiter, None] = {}
        self._streams: dict[Waiter, None] = {}

    def limit(self, per_second: float, burst: int) -> None:
        """Lowers what it lets begin to this, where it is more."""
        if per_second < self._per_second or burst < self._burst:
            with self._lock:
                self._per_second = min(self._per_second, per_second)
                self._rate = min(self._rate, per_second)
                self._burst = min(self._burst, burst)

    def ask(self, waiter: Waiter, now: float) -> float:
        """Asks for one operation. The first time, the waiter gets its place in the queue.

        Returns:
            0: granted, and the waiter has left the queue. Otherwise seconds until it is worth asking again.
        """
        with self._lock:
            (self._streams if waiter.stream else self._calls).setdefault(waiter)
            wait = self._wait(1 + self._ahead(waiter, now), now)
            if wait > 0:
                return max(_SHORTEST_WAIT, wait)
            self._take()
            self._remove(waiter)
            return 0.0

    def leave(self, waiter: Waiter) -> None:
        """Takes a waiter out of the queue, if it is in there."""
        with self._lock:
            self._remove(waiter)

    def slow_down(self, retry_after: float | None, now: float) -> None:
        """Learns of a 429: others than this process use the installation's limit, too.

        Nothing begins until the time that the platform names has passed, a minute at most; then half as much as before, and
        each second somewhat more.
        """
        with self._lock:
            self._fill(now)
            self._tokens = 0.0
            self._filled = max(self._filled, now + min(retry_after or 0.0, _MOST_RETRY_AFTER))
            if now - self._lowered >= _WINDOW:
                self._rate = max(self._rate / 2, min(1.0, self._per_second))
            self._lowered = self._filled

    def idle(self, now: float) -> bool:
        """Whether a new one would do the same."""
        with self._lock:
            self._fill(now)
            return (
                not (self._calls or self._streams)
                and self._rate == self._per_second
                and self._tokens >= self._burst
                and self._filled <= now
            )

    def _ahead(self, waiter: Waiter, now: float) -> int:
        ahead = 0
        for queue in (self._calls, self._streams):
            for other in list(queue):
                if other is waiter:
                    return ahead
                if other.until < now:
                    # Whoever had it has not been heard of since: a loop that was stopped, say.
                    queue.pop(other, None)
                else:
                    ahead += 1
        return ahead

    def _remove(self, waiter: Waiter) -> None:
        self._calls.pop(waiter, None)
        self._streams.pop(waiter, None)

    def _wait(self, needed: int, now: float) -> float:
        """Seconds until so many operations may begin."""
        self._fill(now)
        if self._filled <= now and self._tokens >= needed:
            return 0.0
        return (needed - self._tokens) / self._rate + self._filled - now

    def _take(self) -> None:
        self._tokens -= 1

    def _fill(self, now: float) -> None:
        elapsed = now - self._filled
        if elapsed > 0:
            self._tokens = min(float(self._burst), self._tokens + elapsed * self._rate)
            self._rate = min(self._per_second, self._rate + elapsed * _RECOVERY * self._per_second)
            self._filled = now


class Reservations(Protocol):
    """What is common to the processes that share a quota, as this one sees it."""

    def is_up(self, now: float) -> bool:
        """Whether permits can be reserved."""
        ...

    def is_settled(self, now: float) -> bool:
        """Whether it has been up for so long that no process can still be on its own."""
        ...

    def want(self, bucket: SharedBucket) -> None:
        """Has permits reserved for a bucket, which gets them by `put`. Returns at once."""
        ...


class SharedBucket(Bucket):
    """A bucket whose permits are reserved with other processes, several at a time, each for a slot of time.

    When none can be reserved, it lets this process's share of the quota begin.

    Args:
        key: What the permits are reserved under.
        per_second: Of all processes together.
        replicas: How many processes share it.
        reservations: Where they are reserved.
        now: In seconds of `time.monotonic()`.
    """

    def __init__(self, key: str, per_second: float, replicas: int, reservations: Reservations, now: float) -> None:
        # No burst: what this process lets begin on its own comes on top of what it had reserved.
        super().__init__(per_second / replicas, 1, now, tokens=0.0)
        self.key = key
        self._replicas = replicas
        self._reservations = reservations
        # Start, end and permits left.
        self._slots: deque[tuple[float, float, int]] = deque()
        self._next_look = now
        # For the thread that reserves: the first slot that is not known to be full; whether this bucket waits for it.
        self.next_slot = 0
        self.wanted = False

    @property
    def rate(self) -> float:
        """Operations per second, of all processes together."""
        return self._rate * self._replicas

    def limit(self, per_second: float, burst: int) -> None:
        super().limit(per_second / self._replicas, 1)

    def missing(self, now: float) -> int:
        """How many permits those who wait lack."""
        with self._lock:
            self._drop_slots(now)
            waiting = sum(waiter.until >= now for waiter in [*self._calls, *self._streams])
            if not self._reservations.is_settled(now):
                # What it may not use yet is left to the others.
                waiting = min(waiting, math.ceil(self._rate * SLOT))
            return waiting - sum(left for _, _, left in self._slots)

    def put(self, start: float, end: float, permits: int) -> None:
        """Takes permits that were reserved for the time from `start` to `end`."""
        with self._lock:
            self._slots.append((start, end, permits))

    def looked(self, next_look: float) -> None:
        """Learns that there are no more permits to be reserved before that time."""
        self._next_look = next_look

    def _wait(self, needed: int, now: float) -> float:
        alone = super()._wait(needed, now)
        if self._filled > now:
            return alone
        if not self._reservations.is_up(now):
            # So that it is tried again.
            self._reservations.want(self)
            return alone
        settled = self._reservations.is_settled(now)
        if settled:
            # So that it begins with nothing when it comes to be on its own.
            self._tokens = 0.0
        self._drop_slots(now)
        reserved = 0
        for start, _, left in list(self._slots):
            reserved += left
            if reserved >= needed:
                shared = max(0.0, start - now)
                break
        else:
            self._reservations.want(self)
            shared = max(_STORE_WAIT, self._next_look - now, (needed - reserved) / self.rate - 2 * SLOT)
        return shared if settled else max(shared, alone)

    def _take(self) -> None:
        self._tokens = max(0.0, self._tokens - 1)
        if self._slots:
            start, end, left = self._slots.popleft()
            if left > 1:
                self._slots.appendleft((start, end, left - 1))

    def _drop_slots(self, now: float) -> None:
        while self._slots and self._slots[0][1] <= now:
            self._slots.popleft()
