"""A quota that processes share through Redis or Valkey. It needs the extra `redis`.

The server keeps the start of the last permit of each installation, in its own clock. A process reserves permits for the
calls that wait, those of all installations in one round trip. The permits of an installation start at even distances,
at most 0.1 seconds ahead, and each is valid for less than 0.1 seconds. So the rate holds however many processes there
are, and whatever is lost, the clock or the data of the server, concerns no more than the permits of 0.1 seconds.
"""

from __future__ import annotations

import atexit
import hashlib
import heapq
import importlib
import itertools
import logging
import math
import queue
import random
import re
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Final, TypeAlias, cast

from attrs import field, frozen

from ._core import clock
from ._core.errors import UsageError
from ._core.fork import register_fork_reset, reset_if_forked
from ._core.log import log
from ._core.retry import is_number, is_plain_function
from ._quota.bucket import Bucket

try:
    import redis
    from redis.backoff import NoBackoff
    from redis.exceptions import BusyLoadingError, MovedError, NoScriptError
    from redis.retry import Retry
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{__name__} needs the extra redis: pip install 'forge-realtime[redis]'", name=error.name
    ) from None

# Seconds. How far ahead permits are reserved.
_HORIZON: Final = 0.1
# A process with a slow network can use its permits for so long after the response.
_LEAST_VALID: Final = 0.02
_RETRY_PAUSE: Final = 1.0
# By then all processes have retried.
_SETTLING: Final = 2 * _RETRY_PAUSE
_IDLE: Final = 10.0
# A socket's timeout does not bound the lookup of a host name: this does.
_STUCK: Final = 0.5
# Installations in one round trip. The server does nothing else meanwhile.
_BATCH: Final = 200

# In microseconds. KEYS: when the server lost its data, and the last start of each quota. ARGV: the horizon, and for
# each quota the interval, the permits wanted, and the share of them in the farther half of the horizon, of which each
# process gets some. Returns for each quota the permits, and from now to the first start and to the next free one.
#
# No permit that was given out before starts after the horizon. So where the last start is lost or lies further ahead,
# because the clock went back, it is taken to be at the horizon.
_SCRIPT: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local horizon = tonumber(ARGV[1])
local lost = tonumber(redis.call('GET', KEYS[1]) or '')
if not lost or lost > now then
  lost = now
end
if lost == now or #KEYS == 1 then
  redis.call('SET', KEYS[1], string.format('%.0f', lost))
end
local replies = {}
for i = 2, #KEYS do
  local interval = tonumber(ARGV[3 * i - 4])
  local wanted = tonumber(ARGV[3 * i - 3])
  local share = tonumber(ARGV[3 * i - 2])
  local last = tonumber(redis.call('GET', KEYS[i]) or '')
  local stepped = last and last > now + horizon
  if stepped then last = now + horizon end
  local free = math.max(now, last and last + interval or lost + horizon)
  local first, granted = free, 0
  while granted < wanted and free <= now + horizon do
    if free > now + horizon / 2 then
      if share <= 0 then break end
      share = share - 1
    end
    granted = granted + 1
    free = free + interval
  end
  if granted > 0 or stepped then
    local lifetime = math.ceil((free - now) / 1000) + 1000
    redis.call('SET', KEYS[i], string.format('%.0f', free - interval), 'PX', string.format('%.0f', lifetime))
  end
  replies[i - 1] = {granted, first - now, free - now}
end
return replies
"""
# The tag in braces keeps all keys on one node of a cluster.
_PREFIX: Final = "forge-realtime:{quota}:"

Url: TypeAlias = str | Callable[[], str]


@frozen
class RedisStore:
    """A Redis or Valkey server through which processes share a quota, for `Quota(store=...)`.

    In any second, at most `1.1 * Quota.per_second` operations begin, all processes together; below 10 per second, one
    more. No call waits for the server longer than `timeout`: each process has a thread that reserves permits.

    While the server is slow, gone or returns errors, each process uses its share of the quota, `per_second / replicas`,
    logs one warning, and looks the server up anew every second: with a new connection, the host name resolved and `url`
    called again. If only some processes reach the server, the shares of the others come on top of the quota. `repr`
    hides the URL, which may contain a password. All keys begin with `forge-realtime:`.

    Args:
        url: `redis://[[user]:password@]host[:port][/database]`, `rediss://` for TLS, or `unix://path`. `valkey://` and
            `valkeys://` are the same as the first two. Or a function that returns such a URL, for passwords that
            change: it is called, in another thread, whenever the server is looked up.
        replicas: How many processes share the quota, at most.
        timeout: Seconds to wait for the server before it counts as gone, 0.5 at most.

    Raises:
        UsageError: A value is not valid.
    """

    url: Url = field(repr=False)
    replicas: int = field(kw_only=True)
    timeout: float = field(default=0.1, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if type(self.replicas) is not int or self.replicas < 1:
            raise UsageError("RedisStore: replicas must be the number of processes that share the quota, at least 1.")
        if not (is_number(self.timeout) and 0 < self.timeout <= _STUCK):
            raise UsageError(f"RedisStore: timeout must be a positive number of seconds, {_STUCK:g} at most.")
        if is_plain_function(self.url):
            return
        with suppress(AttributeError, TypeError, ValueError):
            _connection_pool(self)
            return
        # Not raised from those errors: they can quote the URL.
        raise UsageError(
            "RedisStore: url must be an address such as redis://localhost:6379/0, or a function that returns one."
        )

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

    __slots__ = ("_next", "_permits", "_replicas", "_reserver", "ask_at", "asked", "key")

    def __init__(self, key: str, per_second: float, replicas: int, reserver: _Reserver, now: float) -> None:
        super().__init__(per_second / replicas, 1, now)
        # What a process begins on its own comes on top of what it has reserved: start with nothing.
        self._tokens = 0.0
        self.key = key
        # Whether the reserver knows that permits are missing.
        self.asked = False
        # Whoever asked often would get the most, where processes compete.
        self.ask_at = now
        self._replicas = replicas
        self._reserver = reserver
        # When each permit becomes valid, and when it expires.
        self._permits: list[tuple[float, float]] = []
        # When the next operation is due at an even rate. Whatever the store says, none begins much before.
        self._next = now

    @property
    def rate(self) -> float:
        """Operations per second, of all processes together."""
        return self._rate * self._replicas

    def lower_limits(self, per_second: float, burst: int) -> None:
        """Lower the limits, of which `per_second` is for all processes together."""
        super().lower_limits(per_second / self._replicas, burst)

    def count_missing(self, now: float) -> int:
        """Count the permits that the waiters still need, as far as they can be reserved, and note whether any are."""
        with self._lock:
            self._drop_expired(now)
            # Until the reserver has settled, this process uses only its share: more would be lost to the others.
            rate = self.rate if self._reserver.is_settled(now) else self._rate
            most = math.ceil(rate * _HORIZON)
            missing = max(0, len(self._first(len(self._permits) + most, now)) - len(self._permits))
            self.asked = missing > 0
            return missing

    def count_held(self) -> int:
        """Count the permits that are reserved."""
        return len(self._permits)

    def add_permits(self, start: float, end: float, permits: int) -> None:
        """Add permits, the first of which is valid from `start` to `end`."""
        with self._lock:
            for number in range(permits):
                later = number / self.rate
                self._permits.append((start + later, end + later))
            self._wake_front()

    def wake(self) -> None:
        """Wake the waiters at the front of the queue, because the store failed."""
        with self._lock:
            self._wake_front()

    def is_idle(self, now: float) -> bool:
        """Whether a new bucket would behave the same, so that this one can be dropped."""
        # Its tokens are not counted: a new bucket has none.
        with self._lock:
            self._fill(now)
            rests = self._filled <= now and self._rate == self._per_second and self._next <= now
            return rests and not (self._calls or self._streams or self._permits)

    def _front(self, now: float) -> int:
        return len(self._permits) if self._reserver.is_available(now) else super()._front(now)

    def _wait(self, operations: int, now: float) -> float:
        own = super()._wait(operations, now)
        if self._filled > now:
            return own
        if not self._reserver.is_available(now):
            # Makes sure that its thread runs, which looks the store up again.
            self._reserver.request(self)
            return own
        settled = self._reserver.is_settled(now)
        if settled:
            # When the store fails, this process's own share begins with nothing.
            self._tokens = 0.0
        self._drop_expired(now)
        if len(self._calls) + len(self._streams) > len(self._permits):
            self._reserver.request(self)
        missing = operations - len(self._permits)
        if missing <= 0:
            start, _ = self._permits[operations - 1]
            shared = max(0.0, start - now, self._next - now - _validity(self.rate))
        else:
            shared = max(_LEAST_VALID, missing / self.rate - 2 * _HORIZON)
        return shared if settled else max(shared, own)

    def _take(self, now: float) -> None:
        self._tokens = max(0.0, self._tokens - 1)
        self._next = max(self._next, now) + 1 / self.rate
        if self._permits:
            del self._permits[0]

    def _drop_expired(self, now: float) -> None:
        while self._permits and self._permits[0][1] <= now:
            del self._permits[0]


class _Server:
    """The connection to the server. Only the reserving thread uses it."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self._client: redis.Redis | None = None
        # The node of a cluster that has the keys.
        self._node: tuple[str, int] | None = None

    def reserve(self, wanted: list[tuple[str, float, int, int]]) -> list[tuple[int, float, float]]:
        """Reserve permits, given the key, the rate, the number wanted and the number held for each quota.

        Returns:
            For each quota the permits, and the seconds from now to the first start and to the next free one.
        """
        keys = [_PREFIX + "lost", *(_PREFIX + key for key, *_ in wanted)]
        arguments = [_microseconds(_HORIZON)]
        for _, rate, permits, held in wanted:
            # Only a share of what is further ahead, so that each process gets some.
            share = math.ceil(rate * _HORIZON / self._store.replicas)
            arguments += [_microseconds(1 / rate), permits, max(0, share - held)]
        replies = self._run(keys, arguments)
        return [(permits, first / 1e6, free / 1e6) for permits, first, free in replies]

    def forget(self) -> None:
        """Close the connection. The next one looks the server up anew."""
        client, self._client, self._node = self._client, None, None
        if client is not None:
            client.connection_pool.disconnect()

    def _run(self, keys: list[str], arguments: list[int]) -> list[list[int]]:
        proven = self._client is not None
        try:
            return self._evaluate(keys, arguments)
        except MovedError as error:
            self.forget()
            # Without a host, it is another port of the same one.
            self._node = (error.host, error.port)
        except (redis.AuthenticationError, BusyLoadingError):
            raise
        except redis.ConnectionError:
            # Servers close connections that are idle.
            if not proven:
                raise
            self.forget()
        return self._evaluate(keys, arguments)

    def _evaluate(self, keys: list[str], arguments: list[int]) -> list[list[int]]:
        if self._client is None:
            self._client = redis.Redis(connection_pool=_connection_pool(self._store, self._node))
        try:
            found = self._client.evalsha(_SHA, len(keys), *keys, *arguments)
        except NoScriptError:
            found = self._client.eval(_SCRIPT, len(keys), *keys, *arguments)
        return cast("list[list[int]]", found)


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
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        # The buckets that lack permits, and when to reserve some.
        self._due: list[tuple[float, int, _SharedBucket]] = []
        # The reserving thread changes these, any thread reads them. `_up_since` is None while the server is gone.
        self._up_since: float | None = -math.inf
        self._busy_since: float | None = None
        self._server = _Server(self._store)
        self._gone_since = 0.0
        self._retry_at = -math.inf
        self._numbers = itertools.count()
        self._stopping = False

    def is_available(self, now: float) -> bool:
        busy_since = self._busy_since
        return self._up_since is not None and (busy_since is None or now - busy_since < _STUCK)

    def is_settled(self, now: float) -> bool:
        up_since = self._up_since
        return up_since is not None and now - up_since >= _SETTLING

    def request(self, bucket: _SharedBucket) -> None:
        thread = self._thread
        if bucket.asked and thread is not None and thread.is_alive():
            return
        with self._lock:
            if not bucket.asked:
                bucket.asked = True
                self._request_later(bucket, bucket.ask_at)
            self._wake.put(None)
            if not self._stopping and (self._thread is None or not self._thread.is_alive()):
                self._thread = threading.Thread(target=self._run, name="forge-realtime-quota", daemon=True)
                try:
                    _check_interpreter()
                    self._thread.start()
                except RuntimeError as error:
                    # There is no reserving thread now, so this one may do that.
                    self._mark_gone(error)
                else:
                    _running.add(self)

    def stop(self) -> None:
        """End the thread, and wait for it as long as a response may take."""
        self._stopping = True
        self._wake.put(None)
        if (thread := self._thread) is not None:
            thread.join(_STUCK)
        # Whatever still publishes uses the share of the process.
        self._up_since = None

    def _run(self) -> None:
        while (buckets := self._wait_for_work()) is not None:
            try:
                self._busy_since = clock.monotonic()
                if self._up_since is None and clock.monotonic() >= self._retry_at:
                    self._look_up()
                for first in range(0, len(buckets), _BATCH):
                    self._busy_since = clock.monotonic()
                    self._reserve(buckets[first : first + _BATCH])
            except BaseException as error:
                # Calls wait for this thread: no error may end it, except its own end.
                self._mark_gone(error)
                for bucket in buckets:
                    # From now on at the rate of the share. A bucket where nobody waits is forgotten.
                    bucket.asked = False
                    bucket.wake()
                if not isinstance(error, Exception):
                    raise
            finally:
                self._busy_since = None

    def _wait_for_work(self) -> list[_SharedBucket] | None:
        """Wait for buckets that lack permits, or for the next retry. Return them, or None to end the thread."""
        now = clock.monotonic()
        with self._lock:
            at = self._retry_at if self._up_since is None else self._due[0][0] if self._due else now + _IDLE
        with suppress(queue.Empty):
            if at > now:
                self._wake.get(timeout=at - now)
            while True:
                self._wake.get_nowait()
        with self._lock:
            now = clock.monotonic()
            if self._stopping or (self._up_since is not None and not self._due):
                self._thread = None
                return None
            buckets = []
            if self._up_since is not None or now >= self._retry_at:
                while self._due and self._due[0][0] <= now:
                    buckets.append(heapq.heappop(self._due)[2])
            return buckets

    def _look_up(self) -> None:
        """Look the server up anew, and check that it accepts writes."""
        self._server.reserve([])
        self._up_since = clock.monotonic()
        gone = self._up_since - self._gone_since
        log(logging.INFO, "the quota store is back after %.1f s: the quota is shared again", gone)

    def _mark_gone(self, error: BaseException) -> None:
        self._server.forget()
        now = clock.monotonic()
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

    def _reserve(self, buckets: list[_SharedBucket]) -> None:
        """Reserve the permits that buckets lack."""
        began = clock.monotonic()
        wanted = [(bucket, bucket.rate, missing) for bucket in buckets if (missing := bucket.count_missing(began))]
        if not wanted:
            return
        replies = self._server.reserve(
            [(bucket.key, rate, missing, bucket.count_held()) for bucket, rate, missing in wanted]
        )
        ended = clock.monotonic()
        for (bucket, rate, _), (permits, first, free) in zip(wanted, replies, strict=True):
            # The machine may have slept meanwhile.
            if permits and ended - began <= _STUCK:
                start = ended + first
                bucket.add_permits(start, max(began + first + _validity(rate), start + _LEAST_VALID), permits)
            # At a random time, so that processes take turns at being the first; and not for each permit.
            several = 1 / rate < _HORIZON / 2
            due = ended + max(0.0, free - _HORIZON) + _HORIZON / 4 * (several + random.random())
            bucket.ask_at = due if first > _HORIZON / 2 else ended
            if bucket.count_missing(ended):
                self._request_later(bucket, due)

    def _request_later(self, bucket: _SharedBucket, due: float) -> None:
        with self._lock:
            heapq.heappush(self._due, (due, next(self._numbers), bucket))


def _check_interpreter() -> None:
    """Raise RuntimeError in a subinterpreter: it cannot be destroyed while it has a thread."""
    for name in ("_interpreters", "_xxsubinterpreters"):
        with suppress(ImportError):
            interpreters = importlib.import_module(name)
            if interpreters.get_current() != interpreters.get_main():
                raise RuntimeError("no threads in subinterpreters")
            return


_running: Final[weakref.WeakSet[_Reserver]] = weakref.WeakSet()


@atexit.register
def _stop_threads() -> None:
    # A subinterpreter that ends while a thread runs would end the process.
    reset_if_forked()
    for reserver in list(_running):
        reserver.stop()


@cache
def _reserver_of(store: RedisStore) -> _Reserver:
    return _Reserver(store)


def _validity(rate: float) -> float:
    """Return how long a permit is valid, in seconds: so long that any second has the permits of 1.1 seconds."""
    return max(0.05, 0.1 - 1 / rate) if rate >= 10 else 0.1


def _microseconds(seconds: float) -> int:
    return round(seconds * 1e6)


def _connection_pool(store: RedisStore, node: tuple[str, int] | None = None) -> redis.ConnectionPool:
    url = store.url if isinstance(store.url, str) else store.url()
    # Valkey's protocol is the same.
    url = re.sub("^valkey", "redis", url)
    pool = redis.ConnectionPool.from_url(
        url, socket_timeout=store.timeout, socket_connect_timeout=store.timeout, retry=Retry(NoBackoff(), 0)
    )
    if node is not None:
        host, port = node
        pool.connection_kwargs.update(host=host or pool.connection_kwargs["host"], port=port)
    return pool


_SHA: Final = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()
