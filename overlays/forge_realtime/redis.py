"""A quota that processes share through Redis or Valkey. It needs the extra `redis`.

The server's clock divides time into slots of 0.1 seconds. Each slot has a counter of the permits reserved in it. A
process reserves permits for the calls that wait, in the current slot or the next one. A permit is valid only in its
slot. One second touches 11 slots, so at most the permits of 11 slots are used in it, however many processes there are.
A moving window would not ensure that: permits reserved at its end could be used after it.
"""

from __future__ import annotations

import hashlib
import logging
import math
import random
import re
import threading
import time
from collections import deque
from contextlib import suppress
from functools import cache
from queue import Empty, SimpleQueue
from typing import Final, cast
from weakref import WeakKeyDictionary

from attrs import field, frozen

from ._core.errors import UsageError
from ._core.fork import register_fork_reset
from ._core.log import log
from ._core.retry import is_number
from ._quota.bucket import Bucket

try:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{__name__} needs the extra redis: pip install 'forge-realtime[redis]'", name=error.name
    ) from None

_SLOTS_PER_SECOND: Final = 10
_CLOCK_SAMPLES: Final = 3
# Seconds.
_SLOT: Final = 1 / _SLOTS_PER_SECOND
# How long the server takes to reserve permits.
_ROUND_TRIP: Final = 0.003
_RETRY_PAUSE: Final = 1.0
# By then all processes have retried.
_SETTLING: Final = 2 * _RETRY_PAUSE
_CLOCK_MAX_AGE: Final = 10.0
_IDLE: Final = 10.0
# A socket's timeout does not bound the lookup of a host name: this does.
_STUCK: Final = 0.5
_COUNTER_LIFETIME: Final = 2


@frozen
class RedisStore:
    """A Redis or Valkey server through which processes share a quota, for `Quota(store=...)`.

    In any second, at most `1.1 * Quota.per_second` operations begin, all processes together. No call waits for the
    server: each process has a thread that reserves permits.

    While the server is slow or gone, each process uses its share of the quota, `per_second / replicas`, logs one
    warning and retries every second. If only some processes reach the server, the shares of the others come on top of
    the quota. `repr` hides the URL, which may contain a password.

    Args:
        url: `redis://[[user]:password@]host[:port][/database]`, `rediss://` for TLS, or `unix://path`. `valkey://` and
            `valkeys://` are the same as the first two.
        replicas: How many processes share the quota, at most.
        timeout: Seconds to wait for the server before it counts as gone, 0.5 at most.

    Raises:
        UsageError: A value is not valid.
    """

    url: str = field(repr=False)
    replicas: int = field(kw_only=True)
    timeout: float = field(default=0.1, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if type(self.replicas) is not int or self.replicas < 1:
            raise UsageError("RedisStore: replicas must be the number of processes that share the quota, at least 1.")
        if not (is_number(self.timeout) and 0 < self.timeout <= _STUCK):
            raise UsageError(f"RedisStore: timeout must be a positive number of seconds, {_STUCK:g} at most.")
        with suppress(AttributeError, TypeError, ValueError):
            _connection_pool(self)
            return
        # Not raised from those errors: they can quote the URL.
        raise UsageError("RedisStore: url must be an address such as redis://localhost:6379/0.")

    def new_bucket(self, per_second: float, installation: str | None, now: float) -> Bucket:
        """Make the bucket of an installation. For the limiter, see `Store`."""
        if installation is None:
            # Processes cannot agree on a key: each uses its share.
            return Bucket(per_second / self.replicas, 1, now)
        key = hashlib.sha256(installation.encode()).hexdigest()[:32]
        return _SharedBucket(key, per_second, self.replicas, _reserver_of(self), now)


class _SharedBucket(Bucket):
    """A bucket that shares its quota with other processes: each operation needs a permit that was reserved in a store.

    `key` is the name of the quota in the store, and `per_second` is for all processes together. While the store is not
    available, the bucket uses this process's share, `per_second / replicas`, without a burst.
    """

    def __init__(self, key: str, per_second: float, replicas: int, reserver: _Reserver, now: float) -> None:
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
                waiting = min(waiting, math.ceil(self._rate * _SLOT))
            return waiting - len(self._reserved)

    def add_reserved(self, start: float, end: float, permits: int) -> None:
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
            shared = max(_ROUND_TRIP, self._exhausted_until - now, missing / self.rate - 2 * _SLOT)
        return shared if settled else max(shared, own)

    def _take(self) -> None:
        self._tokens = max(0.0, self._tokens - 1)
        if self._reserved:
            self._reserved.popleft()

    def _drop_expired(self, now: float) -> None:
        while self._reserved and self._reserved[0][1] <= now:
            self._reserved.popleft()


class _Counters:
    """The clock and the counters of the server. Only the reserving thread uses them."""

    def __init__(self, store: RedisStore) -> None:
        self._client = redis.Redis(connection_pool=_connection_pool(store))
        # Seconds from the local clock to the server's.
        self._offset = 0.0
        self.measure_at = -math.inf

    def measure_clock(self) -> None:
        """Compare the clocks, and check that the server accepts writes."""
        self.increment("probe", 0, 1)
        fastest = math.inf
        # The fastest response is the most exact. A process with a wrong offset reserves before or after the others.
        for _ in range(_CLOCK_SAMPLES):
            began = time.monotonic()
            seconds, microseconds = cast(tuple[int, int], self._client.time())
            ended = time.monotonic()
            if ended - began < fastest:
                fastest = ended - began
                self._offset = seconds + microseconds / 1e6 - (began + ended) / 2
        self.measure_at = time.monotonic() + _CLOCK_MAX_AGE

    def increment(self, name: str, slot: int, permits: int) -> int:
        """Add permits to the counter of a slot, and return its new value."""
        key = f"forge-realtime:{name}:{slot}"
        with self._client.pipeline() as pipeline:
            pipeline.incrby(key, permits)
            pipeline.expire(key, _COUNTER_LIFETIME)
            return cast(int, pipeline.execute()[0])

    def slot_at(self, now: float) -> int:
        return math.floor((now + self._offset) * _SLOTS_PER_SECOND)

    def start_of(self, slot: int) -> float:
        return slot / _SLOTS_PER_SECOND - self._offset


class _Reserver:
    """Reserves permits for the buckets of this process, in a thread that ends when nobody has needed any for a while.

    Any thread may call `is_available`, `is_settled` and `request`. The rest belongs to the reserving thread.
    """

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self.reset_after_fork()
        register_fork_reset(self)

    def reset_after_fork(self) -> None:
        """Start anew: a child has neither its parent's thread nor its connections."""
        # Any thread changes these, holding `_lock`. It is reentrant, as a signal handler may publish; and not a
        # Condition, whose lock an interrupt can leave locked.
        self._lock = threading.RLock()
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        # When to reserve permits for each bucket that lacks some.
        self._due: dict[_SharedBucket, float] = {}
        # The reserving thread changes these, any thread reads them. `_up_since` is None while the server is gone.
        self._up_since: float | None = -math.inf
        self._busy_since: float | None = None
        self._counters = _Counters(self._store)
        self._gone_since = 0.0
        self._retry_at = -math.inf
        # The first slot of each bucket that is not known to be full.
        self._open_slots: WeakKeyDictionary[_SharedBucket, int] = WeakKeyDictionary()

    def is_available(self, now: float) -> bool:
        busy_since = self._busy_since
        return self._up_since is not None and (busy_since is None or now - busy_since < _STUCK)

    def is_settled(self, now: float) -> bool:
        up_since = self._up_since
        return up_since is not None and now - up_since >= _SETTLING

    def request(self, bucket: _SharedBucket) -> None:
        thread = self._thread
        if bucket in self._due and thread is not None and thread.is_alive():
            return
        with self._lock:
            self._due.setdefault(bucket, -math.inf)
            self._wake.put(None)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="forge-realtime-quota", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError as error:
                    # There is no reserving thread now, so this one may do that.
                    self._mark_gone(error)

    def _run(self) -> None:
        while (buckets := self._wait_for_work()) is not None:
            try:
                if self._check_server():
                    for bucket in buckets:
                        self._busy_since = time.monotonic()
                        self._reserve(bucket)
            except Exception as error:  # noqa: BLE001 (calls wait for this thread: no error may end it)
                self._mark_gone(error)
            finally:
                self._busy_since = None

    def _wait_for_work(self) -> list[_SharedBucket] | None:
        """Wait for a due bucket, or for the next retry. Return the due buckets, or None to end the thread."""
        now = time.monotonic()
        with self._lock:
            at = self._retry_at if self._up_since is None else min(self._due.values(), default=now + _IDLE)
        with suppress(Empty):
            if at > now:
                self._wake.get(timeout=at - now)
            while True:
                self._wake.get_nowait()
        with self._lock:
            now = time.monotonic()
            if self._due or self._up_since is None:
                return [bucket for bucket, at in self._due.items() if at <= now]
            self._thread = None
            return None

    def _check_server(self) -> bool:
        """Measure the clock or retry if it is time. Return whether the server is available."""
        now = time.monotonic()
        if now >= (self._retry_at if self._up_since is None else self._counters.measure_at):
            self._busy_since = now
            self._counters.measure_clock()
            if self._up_since is None:
                self._up_since = time.monotonic()
                gone = self._up_since - self._gone_since
                log(logging.INFO, "the quota store is back after %.1f s: the quota is shared again", gone)
        return self._up_since is not None

    def _mark_gone(self, error: Exception) -> None:
        now = time.monotonic()
        self._retry_at = now + _RETRY_PAUSE
        if self._up_since is not None:
            self._up_since = None
            self._gone_since = now
            # Log only the type: the message may contain the address.
            log(
                logging.WARNING,
                "the quota store failed (%s): check its address, password and database. Until it is back, this process "
                "uses its share of the quota, 1/%d",
                type(error).__name__,
                self._store.replicas,
            )

    def _reserve(self, bucket: _SharedBucket) -> None:
        """Reserve the permits that a bucket lacks, in the current slot and the next one."""
        now = time.monotonic()
        missing = bucket.count_missing(now)
        current = self._counters.slot_at(now)
        slot = max(current, self._open_slots.get(bucket, current))
        while missing > 0 and slot <= current + 1:
            total = _permits_in(slot, bucket.rate)
            if total > 0:
                # Only a share of the next slot, so that each process gets one. In the current slot, what others left.
                wanted = min(missing, total if slot == current else math.ceil(total / self._store.replicas))
                counter = self._counters.increment(bucket.key, slot, wanted)
                granted = max(0, wanted - max(0, counter - total))
                if granted:
                    bucket.add_reserved(self._counters.start_of(slot), self._counters.start_of(slot + 1), granted)
                    missing -= granted
                if missing <= 0 or (slot > current and counter < total):
                    break
            slot += 1
        self._open_slots[bucket] = slot
        if missing <= 0:
            with self._lock:
                del self._due[bucket]
            return
        # At a random time, so that processes take turns at being the first.
        due = self._counters.start_of(current + 1) + random.random() / _SLOTS_PER_SECOND
        bucket.mark_exhausted(due)
        with self._lock:
            self._due[bucket] = due


@cache
def _reserver_of(store: RedisStore) -> _Reserver:
    return _Reserver(store)


def _permits_in(slot: int, per_second: float) -> int:
    """Return the permits of a slot. Slots differ by one where needed, so that any rate is met on average."""
    per_slot = per_second / _SLOTS_PER_SECOND
    return math.floor((slot + 1) * per_slot) - math.floor(slot * per_slot)


def _connection_pool(store: RedisStore) -> redis.ConnectionPool:
    # Valkey's protocol is the same.
    url = re.sub("^valkey", "redis", store.url)
    return redis.ConnectionPool.from_url(
        url, socket_timeout=store.timeout, socket_connect_timeout=store.timeout, retry=Retry(NoBackoff(), 0)
    )
