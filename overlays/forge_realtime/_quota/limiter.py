"""The quota: how many operations a process begins for each installation.

`Quota` holds the settings. The state belongs to the process: all clients, threads and event loops share it.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import OrderedDict
from functools import cache
from typing import Final, Protocol

from attrs import field, frozen

from .._core import clock
from .._core.authorization import Authorization, bare_installation_id
from .._core.call import Flow, Sleep, attempt_to_send
from .._core.errors import UsageError
from .._core.fork import register_fork_reset, reset_if_forked
from .._core.group import HEADER
from .._core.http import httpx
from .._core.log import log
from .._core.responses import Response
from .._core.retry import is_number
from .bucket import Bucket, Waiter

# Operations per second and installation, as documented.
_PLATFORM_LIMIT: Final = 50
_BURST: Final = 5
_MAX_BUCKETS: Final = 1_000
_MAX_INVOCATIONS: Final = 10_000
# Seconds. The rate may change meanwhile.
_MAX_WAIT: Final = 0.5
_SWEEP_PAUSE: Final = 10.0
_LOOKUP_TIMEOUT: Final = 1.0
_LOOKUP_POLL: Final = 0.01
_LOOKUP_RETRY: Final = 10.0


class Store(Protocol):
    """A store through which processes share a quota, for example `forge_realtime.redis.RedisStore`."""

    def new_bucket(self, per_second: float, installation: str | None, now: float) -> Bucket:
        """Make the bucket of an installation, or of all whose installation is unknown."""
        ...


@frozen(kw_only=True)
class Quota:
    """How many operations of an installation may begin. Other calls wait, within their deadline.

    The platform allows 50 operations per second and installation: publishing, signing and subscribing, all replicas
    together. The defaults leave room for subscriptions, which front ends make on their own. Settings that allow more
    than 50 are logged as a warning, once: the platform refuses what is more, unless it has raised the limit.

    In any second, at most `per_second + burst` operations begin: plain calls before streams, otherwise in the order of
    their arrival. For the numbers with a store, see docs/limits.md. After a 429 no operation begins until its
    `Retry-After` has passed, 60 seconds at most. Then the rate is halved, and recovers within seconds. All clients of a
    process share the quota of an installation if they use the same sidecar and `store`; where their other settings
    differ, the lowest values apply.

    Attributes:
        per_second: Operations per second, on average.
        burst: How many more operations may begin at once after a pause. With a `store` there is no burst, so that
            another value than the default is an error.
        installation_id: The installation of the app's invocations as a UUID or an ARI, if the app knows it. By default
            it is looked up once for each invocation, with `GET /invocation/context`.
        store: A store through which processes share the quota, for example `forge_realtime.redis.RedisStore`. By
            default each process counts on its own.

    Raises:
        UsageError: A value is not valid.
    """

    per_second: float = 40.0
    burst: int = _BURST
    installation_id: str | None = field(default=None, repr=False, converter=bare_installation_id)
    store: Store | None = None

    def __attrs_post_init__(self) -> None:
        if not (is_number(self.per_second) and 0 < self.per_second < math.inf):
            raise UsageError("Quota: per_second must be a positive number of operations per second.")
        if type(self.burst) is not int or self.burst < 1:
            raise UsageError("Quota: burst must be a whole number of operations, at least 1.")
        if self.installation_id is not None:
            Authorization(installation_id=self.installation_id)
        if self.store is not None and not hasattr(self.store, "new_bucket"):
            raise UsageError("Quota: store must be a store such as forge_realtime.redis.RedisStore(...), or None.")
        if self.store is not None and self.burst != _BURST:
            raise UsageError("Quota: burst has no effect with a store: leave it out.")
        if self.per_second + (self.burst if self.store is None else 0.1 * self.per_second) > _PLATFORM_LIMIT:
            _warn_of(self.per_second, None if self.store is not None else self.burst)


@cache
def _warn_of(per_second: float, burst: int | None) -> None:
    log(
        logging.WARNING,
        "Quota: per_second=%g%s allows more operations in a second than the %d that the platform documents for an "
        "installation. It refuses the others with RATE_LIMIT_EXCEEDED, unless it raised the limit: lower per_second",
        per_second,
        "" if burst is None else f" with burst={burst}",
        _PLATFORM_LIMIT,
    )


class QuotaLimiter:
    """The rate limiter of one call to the sidecar at `address`."""

    def __init__(self, quota: Quota, address: str, acting: Authorization, *, stream: bool) -> None:
        self._quota = quota
        self._address = address
        self._acting = acting
        self._stream = stream
        self._bucket: Bucket | None = None
        self._reserved = False

    def acquire(self, until: float) -> Flow[bool]:
        """Wait until one operation may begin; return False if that is after `until`, of `clock.monotonic()`."""
        if self._reserved:
            self._reserved = False
            return True
        reset_if_forked()
        bucket = self._bucket
        if bucket is None:
            installation = self._acting.installation_id or self._quota.installation_id
            if installation is None:
                installation = yield from self._look_up(until)
            bucket = self._bucket = _state.bucket(self._quota, self._address, installation)
        waiter = Waiter(self._stream, until)
        try:
            while (now := clock.monotonic()) < until:
                wait = bucket.request(waiter, now)
                if wait == 0:
                    return True
                if wait >= until - now:
                    return False
                # Behind the front of the queue, the waiter is woken when it gets there. It looks by itself much later,
                # in case that those ahead have died.
                wait = min(wait, _MAX_WAIT) if waiter.timed else 1.5 * wait + _MAX_WAIT
                yield Sleep(min(wait, until - now), waiter)
            return False
        finally:
            bucket.cancel(waiter)

    def reserve(self, until: float) -> Flow[bool]:
        """Acquire one operation in advance: the next `acquire` returns at once. A stream collects updates meanwhile."""
        self._reserved = yield from self.acquire(until)
        return self._reserved

    def skip_hold(self, until: float) -> bool:
        """If a `Retry-After` holds longer than `until`, let the next `acquire` return at once; return whether it does.

        The last attempt of a stream, which could not wait.
        """
        if self._bucket is None or not self._bucket.is_held_at(until):
            return False
        self._reserved = True
        return True

    def slow_down(self, retry_after: float | None) -> None:
        """Slow down all calls of the installation after a 429."""
        if self._bucket is not None:
            self._bucket.slow_down(retry_after, clock.monotonic())

    def find_installation(self, until: float) -> Flow[str | None]:
        """Return the installation that the calls are made for, or None if it cannot be looked up in time."""
        installation = self._acting.installation_id or self._quota.installation_id
        return installation or (yield from self._look_up(until))

    def _look_up(self, until: float) -> Flow[str | None]:
        """Return the installation of the invocation, or None while it cannot be looked up."""
        invocation = self._acting.invocation_id
        assert invocation is not None
        key = (self._address, invocation)
        while True:
            now = clock.monotonic()
            known, installation = _state.installation(key, now)
            if known:
                return installation
            if _state.begin_lookup(key, now):
                break
            # Another call is looking it up.
            if now >= until:
                return None
            yield Sleep(_LOOKUP_POLL)
        try:
            # Without `as`, as documented.
            header = Authorization(invocation_id=invocation, as_=None).header
            request = httpx.Request("GET", f"{self._address}/invocation/context", headers={HEADER: header})
            outcome = yield from attempt_to_send(request, max(0.001, min(_LOOKUP_TIMEOUT, until - now)))
            return _state.remember(key, outcome, clock.monotonic())
        finally:
            _state.end_lookup(key)


class _ProcessState:
    """The buckets of this process, and the installations of its invocations. Thread-safe."""

    def __init__(self) -> None:
        self.reset_after_fork()
        register_fork_reset(self)

    def reset_after_fork(self) -> None:
        """Start empty: a child must not use its parent's locks, nor queue behind its parent's calls."""
        # Reentrant, as the lock of a bucket.
        self._lock = threading.RLock()
        # By address, installation and store.
        self._buckets: dict[tuple[str, str | None, Store | None], Bucket] = {}
        # When to drop the idle buckets next, and how many were left then.
        self._sweep_at = -math.inf
        self._busy = 0
        # By address and invocation, or None for all invocations: the installation, or None, and when to look again.
        self._installations: OrderedDict[tuple[str, str | None], tuple[str | None, float]] = OrderedDict()
        # When each lookup began.
        self._lookups: dict[tuple[str, str | None], float] = {}

    def bucket(self, quota: Quota, address: str, installation: str | None) -> Bucket:
        """Return the bucket of an installation. All calls of unknown installations share one."""
        key = (address, installation, quota.store)
        now = clock.monotonic()
        with self._lock:
            if now >= self._sweep_at or len(self._buckets) >= max(_MAX_BUCKETS, 2 * self._busy):
                self._buckets = {key: bucket for key, bucket in self._buckets.items() if not bucket.is_idle(now)}
                self._sweep_at = now + _SWEEP_PAUSE
                self._busy = len(self._buckets)
            bucket = self._buckets.get(key)
            if bucket is None:
                if quota.store is None:
                    bucket = Bucket(quota.per_second, quota.burst, now)
                else:
                    bucket = quota.store.new_bucket(quota.per_second, installation, now)
                self._buckets[key] = bucket
        bucket.lower_limits(quota.per_second, quota.burst)
        return bucket

    def installation(self, key: tuple[str, str | None], now: float) -> tuple[bool, str | None]:
        """Return whether no lookup is needed now, and the installation if it is known."""
        with self._lock:
            installation, retry_at = self._installations.get(key) or (None, -math.inf)
            if installation is not None:
                self._installations.move_to_end(key)
                return True, installation
            _, retry_all_at = self._installations.get((key[0], None)) or (None, -math.inf)
            return now < max(retry_at, retry_all_at), None

    def begin_lookup(self, key: tuple[str, str | None], now: float) -> bool:
        """Return whether the caller is the one to look it up."""
        with self._lock:
            # An older lookup was abandoned.
            if now < self._lookups.get(key, -math.inf) + _LOOKUP_TIMEOUT:
                return False
            self._lookups[key] = now
            return True

    def end_lookup(self, key: tuple[str, str | None]) -> None:
        """Let other callers look it up again."""
        with self._lock:
            self._lookups.pop(key, None)

    def remember(self, key: tuple[str, str | None], outcome: Response | Exception | None, now: float) -> str | None:
        """Remember and return the installation, or remember when to retry the lookup."""
        status = outcome.status_code if isinstance(outcome, Response) else None
        installation = _installation_in(outcome) if isinstance(outcome, Response) and status == 200 else None
        if installation is None:
            log(
                logging.INFO,
                "GET /invocation/context did not return the installation (%s): such calls share one quota",
                status or type(outcome).__name__,
            )
            if status not in (400, 401, 403):
                # Other invocations would fail in the same way.
                key = (key[0], None)
        with self._lock:
            self._installations[key] = (installation, now + _LOOKUP_RETRY)
            self._installations.move_to_end(key)
            if len(self._installations) > _MAX_INVOCATIONS:
                self._installations.popitem(last=False)
        return installation


def _installation_in(context: Response) -> str | None:
    try:
        # Checks it, too.
        return Authorization(installation_id=context.json()["app"]["installationId"]).installation_id
    except (ValueError, TypeError, KeyError, RecursionError, UsageError):
        return None


_state: Final = _ProcessState()
