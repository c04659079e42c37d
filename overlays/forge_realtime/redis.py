"""A quota that processes share through Redis or Valkey. It needs the extra `redis`.

Time is cut into slots of a tenth of a second, by the server's clock. Of each slot's permits a process reserves as many as it has
calls waiting, in one round trip (`INCRBY` of the slot's key, as the library limits has it), for this slot or the next. A permit
is good for its slot only; so however many processes there are, a second, which touches 11 slots, sees the permits of 11.
A moving window, which limits has too, would not do that: what is reserved at its end can be used after it.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue
from typing import Final, cast

from attrs import field, frozen

from ._core.errors import UsageError
from ._core.fork import register_fork_reset
from ._core.log import logger
from ._core.retry import is_number
from ._quota.bucket import SLOT, SharedBucket

try:
    import redis
    from limits.storage import RedisStorage
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{__name__} needs the extra redis: pip install 'forge-realtime[redis]'", name=error.name
    ) from None


_SLOTS_PER_SECOND: Final = round(1 / SLOT)
_TRY_AGAIN: Final = 1.0
# By then all processes have tried again.
_SETTLING: Final = 2 * _TRY_AGAIN
_CLOCK_SECONDS: Final = 10.0
_CLOCK_SAMPLES: Final = 3
_IDLE_SECONDS: Final = 10.0
# The name of a host can take longer to be resolved than any timeout of a socket says.
_STUCK: Final = 0.5
_SECONDS_KEPT: Final = 2


@frozen
class RedisStore:
    """Shares a quota among the processes that use the same Redis or Valkey server, for `Quota(store=...)`.

    In any second, `Quota.per_second` operations and a tenth more begin at most, of all processes together. No call waits for
    the server itself: a thread of the process reserves permits for those who wait.

    While the server is slow or gone, each process lets its share of the quota begin, `per_second / replicas`, and says so once.
    It comes back by itself. When some processes reach the server and others do not, their shares come on top.

    `repr` hides the address, which may hold a password.

    Args:
        url: The server: `redis://[[user]:password@]host[:port][/database]`, `rediss://` for TLS, `unix://path`; `valkey://` and
            `valkeys://` are the same as the first two.
        replicas: How many processes share the quota, at most.
        timeout: Seconds after which the server counts as gone when it does not answer.

    Raises:
        UsageError: A value makes no sense.
    """

    url: str = field(repr=False)
    replicas: int = field(kw_only=True)
    timeout: float = field(default=0.1, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if type(self.replicas) is not int or self.replicas < 1:
            raise UsageError("RedisStore: replicas must be the number of processes that share the quota, at least 1.")
        if not (is_number(self.timeout) and 0 < self.timeout <= _STUCK):
            raise UsageError(f"RedisStore: timeout must be a positive number of seconds, {_STUCK:g} at most.")
        try:
            _pool(self)
            return
        except (AttributeError, TypeError, ValueError):
            pass
        # Raised outside of the handler: those errors can quote the address.
        raise UsageError("RedisStore: url must be an address such as redis://localhost:6379/0.")

    def reservations(self) -> _Reservations:
        """The state of this process, one for all stores with these settings."""
        return _processwide.of(self)


class _Reservations:
    """Reserves permits for the buckets of this process, in a thread that lives while there is something to do."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self._pool = _pool(store)
        # Its own address only says which library to take.
        self._storage = RedisStorage("redis://", connection_pool=self._pool)
        self._wanted: SimpleQueue[SharedBucket] = SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        # When it came back; None: it is gone.
        self._up_since: float | None = -math.inf
        self._gone_since = 0.0
        self._try_again = -math.inf
        self._busy_since: float | None = None
        # From the local clock to the server's, and when that is to be measured again.
        self._ahead = 0.0
        self._measure_again = -math.inf

    def is_up(self, now: float) -> bool:
        busy_since = self._busy_since
        return self._up_since is not None and (busy_since is None or now - busy_since < _STUCK)

    def is_settled(self, now: float) -> bool:
        up_since = self._up_since
        return up_since is not None and now - up_since >= _SETTLING

    def want(self, bucket: SharedBucket) -> None:
        if not bucket.wanted:
            bucket.wanted = True
            self._wanted.put(bucket)
        if self._thread is None or not self._thread.is_alive():
            self._start()

    def _start(self) -> None:
        with self._starting:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="forge-realtime-quota", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError as error:
                    self._fall(error)

    def _run(self) -> None:
        # When to look for more permits.
        waiting: dict[SharedBucket, float] = {}
        while True:
            now = time.monotonic()
            if self._up_since is None:
                pause = self._try_again - now
            else:
                pause = min(waiting.values(), default=now + _IDLE_SECONDS) - now
            try:
                waiting[self._wanted.get(timeout=max(0.0, pause))] = now
                while not self._wanted.empty():
                    waiting[self._wanted.get()] = now
            except Empty:
                if not waiting and self._up_since is not None and self._end():
                    return
            if self._ready():
                for bucket in [bucket for bucket, due in waiting.items() if due <= time.monotonic()]:
                    due = self._carry_out(partial(self._reserve, bucket))
                    if due is None:
                        break
                    waiting[bucket] = due
                    if due == math.inf:
                        del waiting[bucket]
                        bucket.wanted = False

    def _end(self) -> bool:
        with self._starting:
            if not self._wanted.empty():
                return False
            self._thread = None
            return True

    def _ready(self) -> bool:
        now = time.monotonic()
        if self._up_since is None and now < self._try_again:
            return False
        if self._up_since is not None and now < self._measure_again:
            return True
        if self._carry_out(self._measure) is None:
            return False
        if self._up_since is None:
            self._up_since = time.monotonic()
            gone = self._up_since - self._gone_since
            logger.info("the quota's store is back after %.1f s: the quota is shared again", gone)
        return True

    def _carry_out(self, what: Callable[[], float]) -> float | None:
        """Does something with the server. None: it is gone."""
        self._busy_since = time.monotonic()
        try:
            return what()
        except Exception as error:  # noqa: BLE001 (whatever it is, who waits must not wait for this thread)
            self._fall(error)
            return None
        finally:
            self._busy_since = None

    def _fall(self, error: Exception) -> None:
        now = time.monotonic()
        self._try_again = now + _TRY_AGAIN
        if self._up_since is not None:
            self._up_since = None
            self._gone_since = now
            # The message can hold more.
            logger.warning(
                "the quota's store does not answer as it should (%s; are its address, password and database right?): this process keeps to its share of the quota, 1/%d, until it is back",
                type(error).__name__,
                self._store.replicas,
            )

    def _measure(self) -> float:
        """Compares the clocks, and makes sure that the server takes what is written."""
        self._storage.incr(_key("probe", 0), _SECONDS_KEPT, amount=1)
        client = redis.Redis(connection_pool=self._pool)
        shortest = math.inf
        # The quickest answer tells it best. Who has it wrong looks for permits before or after the others.
        for _ in range(_CLOCK_SAMPLES):
            asked = time.monotonic()
            seconds, microseconds = cast(tuple[int, int], client.time())
            answered = time.monotonic()
            if answered - asked < shortest:
                shortest = answered - asked
                self._ahead = seconds + microseconds / 1e6 - (asked + answered) / 2
        self._measure_again = time.monotonic() + _CLOCK_SECONDS
        return self._ahead

    def _reserve(self, bucket: SharedBucket) -> float:
        """Reserves what is missing, of this slot and the next. Returns when to look for more; `math.inf`: nothing is missing."""
        now = time.monotonic()
        missing = bucket.missing(now)
        if missing <= 0:
            return math.inf
        current = math.floor((now + self._ahead) * _SLOTS_PER_SECOND)
        slot = max(current, bucket.next_slot)
        while slot <= current + 1:
            if most := _permits_of(slot, bucket.rate):
                # Of a slot to come a share, so that each process gets one; of the one that has begun, what the others left.
                asked = min(missing, most if slot == current else math.ceil(most / self._store.replicas))
                reserved = self._storage.incr(_key(bucket.key, slot), _SECONDS_KEPT, amount=asked)
                if got := max(0, min(asked, most - (reserved - asked))):
                    bucket.put(self._begin(slot), self._begin(slot + 1), got)
                    missing -= got
                if missing <= 0 or (slot > current and reserved < most):
                    break
            slot += 1
        bucket.next_slot = slot
        if missing <= 0:
            return math.inf
        # Not all processes at once, and so not always the same one first.
        next_look = self._begin(current + 1) + random.random() / _SLOTS_PER_SECOND
        bucket.looked(next_look)
        return next_look

    def _begin(self, slot: int) -> float:
        return slot / _SLOTS_PER_SECOND - self._ahead


def _permits_of(slot: int, per_second: float) -> int:
    # So that they are `per_second` on average, whatever it is.
    each = per_second / _SLOTS_PER_SECOND
    return math.floor((slot + 1) * each) - math.floor(slot * each)


def _key(name: str, slot: int) -> str:
    return f"forge-realtime:{name}:{slot}"


def _pool(store: RedisStore) -> redis.ConnectionPool:
    url = store.url
    if url.startswith("valkey"):
        # The same protocol.
        url = url.replace("valkey", "redis", 1)
    return redis.ConnectionPool.from_url(
        url, socket_timeout=store.timeout, socket_connect_timeout=store.timeout, retry=Retry(NoBackoff(), 0)
    )


class _Processwide:
    def __init__(self) -> None:
        self.reset_after_fork()
        register_fork_reset(self)

    def reset_after_fork(self) -> None:
        """Starts anew in a forked process, which has none of the threads and none of the connections."""
        self._lock = threading.Lock()
        self._reservations: dict[RedisStore, _Reservations] = {}

    def of(self, store: RedisStore) -> _Reservations:
        with self._lock:
            return self._reservations.setdefault(store, _Reservations(store))


_processwide: Final = _Processwide()
