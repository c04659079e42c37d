"""The quota: how fast a process calls the platform, for each installation.

Its settings are a `Quota`. Its state is one for the whole process, whatever clients, threads and event loops there are.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Generator
from typing import Final, Protocol, TypeAlias

import httpx
from attrs import field, frozen

from .._core.authorization import HEADER, Authorization
from .._core.call import Send, Sleep
from .._core.responses import Response, TransportError
from .._core.errors import UsageError
from .._core.fork import register_fork_reset
from .._core.log import logger
from .._core.retry import is_number
from .bucket import Bucket, Reservations, SharedBucket, Waiter

# Those who wait may get their turn sooner than expected, when others leave.
_LONGEST_WAIT: Final = 0.5
_MOST_BUCKETS: Final = 1_000
_MOST_INVOCATIONS: Final = 10_000
_LOOKUP_SECONDS: Final = 1.0
_LOOK_AGAIN: Final = 10.0
_LOOKING_WAIT: Final = 0.01

Asking: TypeAlias = Generator[Send | Sleep, Response | TransportError | None, bool]
_Looking: TypeAlias = Generator[Send | Sleep, Response | TransportError | None, str | None]


class Store(Protocol):
    """Where processes share a quota, for example `forge_realtime.redis.RedisStore`."""

    @property
    def replicas(self) -> int:
        """How many processes share it."""
        ...

    def reservations(self) -> Reservations:
        """The state of this process."""
        ...


@frozen(kw_only=True)
class Quota:
    """How many operations of an installation may begin. Those that are too many wait, within the deadline of their call.

    The platform allows 50 operations per second and installation: publishing, signing and subscribing, of all replicas
    together. The defaults leave room for subscriptions, which front ends make by themselves.

    In any second, `per_second + burst` operations begin at most. Plain calls go before streams, and otherwise who came
    first. After a 429 nothing begins until its `Retry-After` has passed (a minute at most), then half as much as before,
    and each second somewhat more. All clients of a process share what they use of an installation, if their `store` is the
    same; where the other settings differ, the lowest hold.

    Attributes:
        per_second: Operations that begin per second, on average.
        burst: So many more may begin at once, after a pause. With a store there is no burst.
        installation_id: The installation that the calls are made for, where an invocation does not say it and the app
            knows it. By default it is looked up once for each invocation, by `GET /invocation/context`.
        store: Where processes share it, such as `forge_realtime.redis.RedisStore`. By default each process counts by
            itself.

    Raises:
        UsageError: A value makes no sense.
    """

    per_second: float = 40.0
    burst: int = 5
    installation_id: str | None = field(default=None, repr=False)
    store: Store | None = None

    def __attrs_post_init__(self) -> None:
        if not (is_number(self.per_second) and 0 < self.per_second < math.inf):
            raise UsageError("Quota: per_second must be a positive number of operations per second.")
        if type(self.burst) is not int or self.burst < 1:
            raise UsageError("Quota: burst must be a whole number of operations, at least 1.")
        if self.installation_id is not None:
            Authorization(installation_id=self.installation_id)
        if self.store is not None and not hasattr(self.store, "reservations"):
            raise UsageError("Quota: store takes a store such as forge_realtime.redis.RedisStore(...), or None.")


class QuotaLimiter:
    """Asks the quota on behalf of one call.

    Args:
        quota: The settings.
        address: Of the sidecar.
        acting: On whose behalf the call is made.
        stream: Whether it is a stream's.
    """

    def __init__(self, quota: Quota, address: str, acting: Authorization, *, stream: bool) -> None:
        self.quota = quota
        self._address = address
        self._acting = acting
        self._stream = stream
        self._bucket: Bucket | None = None
        self._in_hand = False

    def acquire(self, until: float) -> Asking:
        """Waits until one operation may begin.

        Args:
            until: The deadline of the call, in seconds of `time.monotonic()`.

        Returns:
            Whether it may; False: it may not before the deadline.
        """
        if self._in_hand:
            self._in_hand = False
            return True
        bucket = self._bucket
        if bucket is None:
            installation = self._acting.installation_id or self.quota.installation_id
            if installation is None:
                installation = yield from self._look_up(until)
            bucket = self._bucket = _state.bucket(self.quota, self._address, installation)
        waiter = Waiter(self._stream, until)
        try:
            while (now := time.monotonic()) < until:
                wait = bucket.ask(waiter, now)
                if wait == 0:
                    return True
                if wait >= until - now:
                    return False
                yield Sleep(min(wait, _LONGEST_WAIT))
            return False
        finally:
            bucket.leave(waiter)

    def reserve(self, until: float) -> Asking:
        """As `acquire`, for what is only then made ready: the next `acquire` returns at once."""
        self._in_hand = yield from self.acquire(until)
        return self._in_hand

    def slow_down(self, retry_after: float | None) -> None:
        """Learns of a 429."""
        if self._bucket is not None:
            self._bucket.slow_down(retry_after, time.monotonic())

    def _look_up(self, until: float) -> _Looking:
        """The installation of the invocation; None when it cannot be known now."""
        id_ = self._acting.invocation_id
        assert id_ is not None
        key = (self._address, id_)
        while True:
            now = time.monotonic()
            known, installation = _state.installation(key, now)
            if known:
                return installation
            if _state.begin_lookup(key, now):
                break
            # Another call looks it up.
            if now >= until:
                return None
            yield Sleep(_LOOKING_WAIT)
        try:
            # Without `as`: that is how it is documented.
            header = Authorization(invocation_id=id_, as_=None).header
            request = httpx.Request("GET", f"{self._address}/invocation/context", headers={HEADER: header})
            answer = yield Send(request, max(0.001, min(_LOOKUP_SECONDS, until - now)))
            _state.keep(key, answer, time.monotonic())
        finally:
            _state.end_lookup(key)
        return _state.installation(key, time.monotonic())[1]


class _State:
    """The buckets of this process, and which installations its invocations belong to."""

    def __init__(self) -> None:
        self.reset_after_fork()
        register_fork_reset(self)

    def reset_after_fork(self) -> None:
        """Starts anew, in a forked process: locks and those who wait are the parent's."""
        # Reentrant, as that of a bucket.
        self._lock = threading.RLock()
        self._buckets: OrderedDict[tuple[str, str | None, Store | None], Bucket] = OrderedDict()
        # What is not known has a time from when to look again; so has all of an address, under None.
        self._installations: OrderedDict[tuple[str, str | None], tuple[str | None, float]] = OrderedDict()
        # When the lookup began.
        self._lookups: dict[tuple[str, str | None], float] = {}

    def bucket(self, quota: Quota, address: str, installation: str | None) -> Bucket:
        """The bucket of an installation, or that of all whose installation is not known."""
        # Another store, other processes to share it with.
        key = (address, installation, quota.store)
        with self._lock:
            bucket = self._buckets.get(key)
            if bucket is None:
                now = time.monotonic()
                if len(self._buckets) >= _MOST_BUCKETS:
                    for other in [key for key, bucket in self._buckets.items() if bucket.idle(now)]:
                        del self._buckets[other]
                bucket = self._buckets[key] = _new_bucket(quota, installation, now)
            self._buckets.move_to_end(key)
        bucket.limit(quota.per_second, quota.burst)
        return bucket

    def installation(self, key: tuple[str, str | None], now: float) -> tuple[bool, str | None]:
        """Whether it is known, or known that it cannot be known now; and the installation."""
        with self._lock:
            installation, again = self._installations.get(key) or (None, -math.inf)
            if installation is not None:
                self._installations.move_to_end(key)
                return True, installation
            _, all_again = self._installations.get((key[0], None)) or (None, -math.inf)
            return now < max(again, all_again), None

    def begin_lookup(self, key: tuple[str, str | None], now: float) -> bool:
        """Whether it is this call that looks it up."""
        with self._lock:
            # One that nobody has heard of since was abandoned.
            if now < self._lookups.get(key, -math.inf) + _LOOKUP_SECONDS:
                return False
            self._lookups[key] = now
            return True

    def end_lookup(self, key: tuple[str, str | None]) -> None:
        with self._lock:
            self._lookups.pop(key, None)

    def keep(self, key: tuple[str, str | None], answer: Response | TransportError | None, now: float) -> None:
        """Keeps what `GET /invocation/context` gave."""
        installation = _installation_in(answer)
        if installation is None:
            what = str(answer.status_code) if isinstance(answer, Response) else type(answer).__name__
            logger.info(
                "GET /invocation/context did not tell the installation (%s): one quota for all such calls", what
            )
        if installation is None and not _is_refusal(answer):
            # That is not due to the invocation.
            key = (key[0], None)
        with self._lock:
            self._installations[key] = (installation, now + _LOOK_AGAIN)
            self._installations.move_to_end(key)
            if len(self._installations) > _MOST_INVOCATIONS:
                self._installations.popitem(last=False)


def _new_bucket(quota: Quota, installation: str | None, now: float) -> Bucket:
    store = quota.store
    if store is None:
        return Bucket(quota.per_second, quota.burst, now)
    if installation is None:
        # Nothing to share it under: this process's share.
        return Bucket(quota.per_second / store.replicas, 1, now)
    key = hashlib.sha256(installation.encode()).hexdigest()[:32]
    return SharedBucket(key, quota.per_second, store.replicas, store.reservations(), now)


def _installation_in(answer: Response | TransportError | None) -> str | None:
    if not isinstance(answer, Response) or answer.status_code != 200:
        return None
    try:
        installation = answer.json()["app"]["installationId"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return installation if isinstance(installation, str) and installation else None


def _is_refusal(answer: Response | TransportError | None) -> bool:
    return isinstance(answer, Response) and answer.status_code in (400, 401, 403)


_state: Final = _State()
