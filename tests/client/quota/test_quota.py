"""The quota: the rate of operations, the order of calls, and the lookup of the installation."""

from __future__ import annotations

import asyncio
import heapq
import logging
import math
import pickle
import subprocess
import sys
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forge_realtime import (
    AsyncRealtimeClient,
    Delivery,
    OverQuotaError,
    Quota,
    RateLimitedError,
    RealtimeClient,
    RetryPolicy,
    ServerError,
    UsageError,
)
from forge_realtime._core import clock
from forge_realtime._core.authorization import Authorization
from forge_realtime._core.call import Sleep
from forge_realtime._quota import limiter as _quota
from forge_realtime._quota.bucket import Bucket, Waiter
from forge_realtime._quota.limiter import QuotaLimiter
from forge_realtime_emulator import Emulator, Settings
from tests.support.callers import INVOCATION, Caller
from tests.support.fault_server import PUBLISHED, Behaviour, Connection, FaultServer, answer
from tests.support.rates import most_in_a_second
from tests.support.streams import run_virtually

PATIENT = RetryPolicy(attempt_timeout=30.0, deadline=60.0)
ONE = Quota(per_second=1, burst=1)


@dataclass(frozen=True)
class Call:
    arrives: float
    stream: bool
    # Seconds between the time that the bucket named and the next request.
    late: float = 0.0
    gives_up_after: float | None = None


@dataclass(frozen=True)
class Grant:
    at: float
    call: Call
    # The calls that waited at that time.
    waiting: tuple[Call, ...]


def simulate(bucket: Bucket, calls: list[Call]) -> list[Grant]:
    """Request operations from a bucket in virtual time, each at the time that the bucket named."""
    waiters = [Waiter(call.stream, 1e9) for call in calls]
    events = [(call.arrives, number, "request") for number, call in enumerate(calls)]
    for number, call in enumerate(calls):
        if call.gives_up_after is not None:
            events.append((call.arrives + call.gives_up_after, number, "cancel"))
    heapq.heapify(events)
    waiting: dict[int, Call] = {}
    done: set[int] = set()
    grants = []
    while events:
        now, number, what = heapq.heappop(events)
        if number in done:
            continue
        if what == "cancel":
            bucket.cancel(waiters[number])
            done.add(number)
            waiting.pop(number, None)
            continue
        waiting[number] = calls[number]
        wait = bucket.request(waiters[number], now)
        if wait == 0:
            del waiting[number]
            done.add(number)
            grants.append(Grant(now, calls[number], tuple(waiting.values())))
        else:
            # As calls do: others may leave the queue, and the rate may rise.
            heapq.heappush(events, (now + min(wait, 0.5) + calls[number].late, number, "request"))
    return grants


times = st.floats(0, 5).map(lambda value: round(value, 3))
rates = st.one_of(st.sampled_from([0.5, 1, 7.3, 40]), st.floats(0.3, 60))
punctual = st.builds(Call, arrives=times, stream=st.booleans())
any_calls = st.builds(
    Call,
    arrives=times,
    stream=st.booleans(),
    late=st.sampled_from([0, 0, 0.002, 0.3]),
    gives_up_after=st.none() | st.floats(0, 3),
)


@settings(deadline=None)
@given(st.lists(any_calls, max_size=120), rates, st.integers(1, 15))
def test_any_second_has_at_most_per_second_plus_burst(calls: list[Call], per_second: float, burst: int) -> None:
    grants = simulate(Bucket(per_second, burst, 0.0), calls)
    assert most_in_a_second([grant.at for grant in grants]) <= per_second + burst


@settings(deadline=None)
@given(st.lists(any_calls, max_size=80), rates, st.integers(1, 15))
def test_every_call_that_keeps_waiting_begins(calls: list[Call], per_second: float, burst: int) -> None:
    granted = [grant.call for grant in simulate(Bucket(per_second, burst, 0.0), calls)]
    assert all(call in granted for call in calls if call.gives_up_after is None)


@settings(deadline=None)
@given(st.lists(punctual, max_size=80), rates, st.integers(1, 5))
def test_plain_calls_go_before_streams_and_then_in_order_of_arrival(
    calls: list[Call], per_second: float, burst: int
) -> None:
    for grant in simulate(Bucket(per_second, burst, 0.0), calls):
        if grant.call.stream:
            assert all(other.stream for other in grant.waiting)
        same = [other for other in grant.waiting if other.stream == grant.call.stream]
        assert all(other.arrives >= grant.call.arrives for other in same)


@settings(deadline=None)
@given(st.integers(1, 100), st.sampled_from([1, 7.3, 40]), st.integers(1, 15))
def test_waiting_calls_use_the_whole_quota(number: int, per_second: float, burst: int) -> None:
    grants = simulate(Bucket(per_second, burst, 0.0), [Call(0.0, stream=bool(n % 2)) for n in range(number)])
    needed = max(0, number - burst) / per_second
    # No wait is shorter than a millisecond.
    assert needed - 1e-9 <= grants[-1].at <= needed + 0.01 + 0.001 * number


def test_cancelled_waiter_moves_the_next_one_up() -> None:
    bucket = Bucket(1, 1, 0.0)
    first, second, third = (Waiter(False, 100.0) for _ in range(3))
    assert bucket.request(first, 0.0) == 0
    assert bucket.request(second, 0.0) == pytest.approx(1.0)
    assert bucket.request(third, 0.0) == pytest.approx(2.0)
    bucket.cancel(second)
    assert bucket.request(third, 0.5) == pytest.approx(0.5)
    assert bucket.request(third, 1.0) == 0


def test_expired_waiter_is_skipped() -> None:
    bucket = Bucket(1, 1, 0.0)
    assert bucket.request(Waiter(False, 10.0), 0.0) == 0
    bucket.request(Waiter(False, 1.5), 0.0)
    last = Waiter(False, 10.0)
    assert bucket.request(last, 1.0) == pytest.approx(1.0)
    assert bucket.request(last, 1.6) == 0


def test_429_pauses_until_retry_after_and_then_halves_the_rate() -> None:
    bucket = Bucket(40, 10, 0.0)
    bucket.slow_down(3.0, 1.0)
    # Calls that were already under way: the same cause.
    bucket.slow_down(None, 1.1)
    bucket.slow_down(2.0, 1.9)
    grants = [grant.at for grant in simulate(bucket, [Call(2.0, False) for _ in range(300)])]
    assert grants[0] == pytest.approx(4.0 + 1 / 20, abs=0.01)
    assert 18 <= sum(at < 5.0 for at in grants) <= 22
    # The full rate is back five seconds later.
    assert 38 <= sum(9.0 <= at < 10.0 for at in grants) <= 40
    assert most_in_a_second(grants) <= 41


def test_429s_in_several_seconds_lower_the_rate_further() -> None:
    bucket = Bucket(40, 10, 0.0)
    for second in range(20):
        bucket.slow_down(None, float(second))
    waiter = Waiter(False, 100.0)
    assert 0.1 < bucket.request(waiter, 19.0) <= 1.0
    assert not bucket.is_idle(60.0)
    bucket.cancel(waiter)
    assert bucket.is_idle(60.0)


def test_retry_after_pauses_for_60_seconds_at_most() -> None:
    bucket = Bucket(40, 10, 0.0)
    bucket.slow_down(86_400.0, 0.0)
    assert bucket.request(Waiter(False, 1e6), 0.0) == pytest.approx(60.0, abs=0.2)


@pytest.mark.parametrize(
    "arguments",
    [
        {"per_second": 0},
        {"per_second": -1},
        {"per_second": float("inf")},
        {"per_second": float("nan")},
        {"per_second": True},
        {"per_second": "40"},
        {"burst": 0},
        {"burst": 1.5},
        {"installation_id": "a,b"},
        {"installation_id": ""},
        {"store": "redis://localhost"},
        {"store": SimpleNamespace(new_bucket=None), "burst": 6},
    ],
)
def test_invalid_settings_are_rejected(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Quota(**arguments)


@pytest.mark.parametrize(
    ("quota", "warned"),
    [({"per_second": 45.5}, True), ({"per_second": 40, "burst": 11}, True), ({"per_second": 45}, False), ({}, False)],
)
def test_more_than_the_platform_allows_is_warned_of_once(
    quota: dict[str, Any], warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    _quota._warn_of.cache_clear()
    for _ in range(2):
        Quota(**quota)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == warned
    assert all("more operations in a second than the 50 that the platform documents" in message for message in messages)


def test_settings_are_immutable_and_picklable_and_hide_the_installation() -> None:
    quota = Quota(per_second=20, installation_id="S3CRET")
    assert pickle.loads(pickle.dumps(quota)) == quota
    assert "S3CRET" not in repr(quota)
    with pytest.raises(AttributeError):
        quota.burst = 5  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def test_with_options_changes_or_removes_the_quota() -> None:
    with RealtimeClient("http://localhost:1") as client:
        assert client.quota is None
        limited = client.with_options(quota=ONE)
        assert (limited.quota, limited.retry) == (ONE, client.retry)
        assert limited.with_options(retry=PATIENT).quota == ONE
        assert limited.with_options(quota=None).quota is None
        for wrong in (40, "40", Quota):
            with pytest.raises(UsageError, match="quota takes a Quota"):
                client.with_options(quota=wrong)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(UsageError, match="quota takes a Quota"):
        AsyncRealtimeClient("http://localhost:1", quota=40)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_threads_and_tasks_of_both_clients_share_one_quota() -> None:
    quota = Quota(per_second=100, burst=5)

    async def publish_all(url: str) -> None:
        async with AsyncRealtimeClient(url, quota=quota, retry=PATIENT) as client:
            live = client.for_invocation(INVOCATION)
            await asyncio.gather(*[live.publish("c", "async") for _ in range(50)])

    # No limit in the emulator: on a busy machine, delayed requests arrive in bursts.
    with Emulator(settings=Settings(limit=None)) as emulator, RealtimeClient(emulator.url, quota=quota) as client:
        live = client.with_options(retry=PATIENT).for_installation("default-installation")
        began = time.monotonic()
        with ThreadPoolExecutor(9) as pool:
            asynchronous = pool.submit(asyncio.run, publish_all(emulator.url))
            list(pool.map(lambda _: live.publish_global("c", "sync"), range(50)))
            asynchronous.result()
        assert time.monotonic() - began >= (100 - 5) / 100
        assert [(request.status, request.code) for request in emulator.requests] == [(200, None)] * 100


def test_documented_limit_is_respected() -> None:
    with (
        Emulator() as emulator,
        RealtimeClient(emulator.url, quota=Quota(per_second=30, burst=5), retry=PATIENT) as client,
    ):
        live = client.for_invocation(INVOCATION)
        with ThreadPoolExecutor(20) as pool:
            results = list(pool.map(lambda number: live.publish("c", number), range(60)))
        assert {len(result.attempts) for result in results} == {1}
        assert most_in_a_second([request.at for request in emulator.requests]) <= 50


def test_client_without_quota_has_no_bucket() -> None:
    with FaultServer() as server, RealtimeClient(server.url) as client:
        live = client.for_invocation(INVOCATION)
        for _ in range(60):
            live.publish("c", "p")
        assert {request.path for request in server.received} == {"/forge/realtime/v1/publish"}
        assert not _quota._state._buckets


def test_stream_of_a_client_without_quota_uses_the_default_one() -> None:
    with FaultServer() as server, RealtimeClient(server.url) as client:
        live = client.for_installation("i")
        slot = live._global_stream_slots("c", None)()
        client._run(slot.publish("p", client.retry))
        [bucket] = _quota._state._buckets.values()
        assert bucket._tokens < Quota().burst
        assert len(server.received) == 1


def test_lowest_settings_apply_where_clients_differ() -> None:
    with FaultServer() as server, RealtimeClient(server.url) as client:
        live = client.for_installation("i")
        for quota in (Quota(per_second=30, burst=9), Quota(per_second=20, burst=8), Quota()):
            live.with_options(quota=quota).publish_global("c", "p")
        [bucket] = _quota._state._buckets.values()
        assert (bucket._per_second, bucket._burst) == (20, 5)


def test_call_that_would_begin_after_its_deadline_fails_at_once(caller: Caller) -> None:
    with FaultServer() as server:

        def call(live: Any) -> Any:
            return live.with_options(quota=ONE).for_installation("i").publish_global("c", "p")

        began = time.monotonic()
        _, error = caller(server.url, call, call, retry=RetryPolicy(deadline=0.9))
        assert time.monotonic() - began < 0.8
    assert type(error) is OverQuotaError
    assert (error.delivery, error.attempts, len(server.received)) == (Delivery.NOT_SENT, (), 1)
    assert "it was not sent" in str(error)
    assert "would pass the deadline of 0.9 s" in str(error)


def test_retry_counts_as_an_operation_and_the_last_error_is_raised(caller: Caller) -> None:
    with FaultServer(then=answer(500)) as server:
        [error] = caller(
            server.url,
            lambda live: live.with_options(quota=ONE).for_installation("i").publish_global("c", "p"),
            retry=RetryPolicy(deadline=0.9, backoff_initial=0.001),
        )
    assert type(error) is ServerError
    assert (error.delivery, len(error.attempts), len(server.received)) == (Delivery.UNKNOWN, 1, 1)
    assert error.attempts[0].wait is None
    assert "waiting for the quota would pass the deadline" in str(error)


def test_cancelled_task_leaves_the_queue() -> None:
    async def run(url: str) -> None:
        async with AsyncRealtimeClient(url, quota=ONE, retry=PATIENT) as client:
            live = client.for_installation("i")
            await live.publish_global("c", "p")
            tasks = [asyncio.create_task(live.publish_global("c", "p")) for _ in range(3)]
            await asyncio.sleep(0)
            [bucket] = _quota._state._buckets.values()
            assert len(bucket._calls) == 3
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert not bucket._calls

    with FaultServer() as server:
        asyncio.run(run(server.url))
    assert len(server.received) == 1


def test_interrupted_thread_leaves_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(step: Sleep) -> None:
        raise KeyboardInterrupt

    with FaultServer() as server, RealtimeClient(server.url, quota=ONE) as client:
        live = client.for_installation("i")
        live.publish_global("c", "p")
        monkeypatch.setattr("forge_realtime._client.forge._sleep", interrupt)
        # Keep the traceback, which keeps every frame alive.
        with pytest.raises(KeyboardInterrupt) as caught:
            live.publish_global("c", "p")
        [bucket] = _quota._state._buckets.values()
        assert not bucket._calls
        assert caught.value is not None


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (429, None),
        (200, {"eventId": None, "eventTimestamp": None, "errors": [{"message": "RATE_LIMIT_EXCEEDED"}]}),
        (403, {"code": "RATE_LIMIT_EXCEEDED"}),
    ],
)
def test_rate_limit_delays_other_calls_of_the_same_installation_only(status: int, body: Any) -> None:
    refusal = answer(status, body, headers={"Retry-After": "1"}, publishes=False)
    with FaultServer(refusal) as server, RealtimeClient(server.url, quota=Quota()) as client:
        once = RetryPolicy(max_attempts=1)
        began = time.monotonic()
        with pytest.raises(RateLimitedError):
            client.for_installation("i").with_options(retry=once).publish_global("c", "p")
        client.for_installation("another").publish_global("c", "p")
        assert time.monotonic() - began < 1
        client.for_installation("i").publish_global("c", "p")
        assert time.monotonic() - began >= 1


def test_cached_token_is_not_an_operation(caller: Caller) -> None:
    def sign(live: Any) -> Any:
        return live.with_options(quota=ONE).for_installation("i").sign_realtime_token("c", {})

    with Emulator() as emulator:
        tokens = caller(emulator.url, *[sign] * 5, cache_tokens=True, retry=RetryPolicy(deadline=0.9))
    assert len({token.token for token in tokens}) == 1


def platform(context: Behaviour) -> Behaviour:
    """Respond to `GET /invocation/context` as given, and publish everything else."""

    def behave(connection: Connection) -> bool:
        method = connection.peer.recv(3, 2)  # MSG_PEEK
        return (context if method == b"GET" else PUBLISHED)(connection)

    return behave


def lookups(server: FaultServer) -> list[str]:
    return [
        request.headers["forge-proxy-authorization"]
        for request in server.received
        if request.path == "/invocation/context"
    ]


CONTEXT = answer(200, {"app": {"installationId": "installation-1"}})


def test_installation_of_an_invocation_is_looked_up_once(caller: Caller) -> None:
    with FaultServer(then=platform(CONTEXT)) as server:

        def call(live: Any) -> Any:
            return live.with_options(quota=Quota()).publish("c", "p")

        caller(server.url, call, call)
        caller(server.url, call)
    assert lookups(server) == ["Forge id=invocation-123"]
    assert [key[1] for key in _quota._state._buckets] == ["installation-1"]
    assert len(server.received) == 4


UUID = "8d5f651a-b2e9-4b38-aac6-30abc7f3effb"
ARI = f"ari:cloud:ecosystem::installation/{UUID}"


def test_both_spellings_of_an_installation_share_one_bucket(caller: Caller) -> None:
    with FaultServer(then=platform(answer(200, {"app": {"installationId": ARI}}))) as server:
        caller(
            server.url,
            lambda live: live.with_options(quota=Quota()).publish("c", "p"),
            lambda live: live.with_options(quota=Quota()).for_installation(UUID).publish_global("c", "p"),
            lambda live: live.with_options(quota=Quota()).for_installation(ARI).publish_global("c", "p"),
            lambda live: live.with_options(quota=Quota(installation_id=ARI)).publish("c", "p"),
        )
    assert [key[1] for key in _quota._state._buckets] == [UUID]


def test_concurrent_calls_share_one_lookup() -> None:
    async def run(url: str) -> None:
        async with AsyncRealtimeClient(url, quota=Quota(burst=20), retry=PATIENT) as client:
            live = client.for_invocation(INVOCATION)
            await asyncio.gather(*[live.publish("c", "p") for _ in range(20)])

    with FaultServer(then=platform(CONTEXT)) as server:
        asyncio.run(run(server.url))
    assert len(lookups(server)) == 1
    assert len(server.received) == 21


def test_known_installation_is_not_looked_up(caller: Caller) -> None:
    quota = Quota(installation_id="given")
    with FaultServer(then=platform(CONTEXT)) as server:
        caller(
            server.url,
            lambda live: live.with_options(quota=quota).publish("c", "p"),
            lambda live: live.with_options(quota=quota).for_installation("acting").publish_global("c", "p"),
        )
    assert not lookups(server)
    assert [key[1] for key in _quota._state._buckets] == ["given", "acting"]


def test_invocations_of_one_installation_share_a_bucket_with_the_emulator() -> None:
    invocations = {f"invocation-{n}": {"installation": f"installation-{n // 2}"} for n in range(4)}
    with Emulator() as emulator, RealtimeClient(emulator.url, quota=Quota()) as client:
        emulator.register(invocations=invocations)
        for invocation in invocations:
            client.for_invocation({"x-forge-invocation-id": invocation}).publish("c", "p")
    assert [key[1] for key in _quota._state._buckets] == ["installation-0", "installation-1"]


REFUSED = answer(401, {"code": "S3CRET"})
FAILED: dict[str, Behaviour] = {
    "500": answer(500, {"message": "S3CRET"}),
    "404": answer(404),
    "no JSON": answer(200, b"<html>"),
    "another shape": answer(200, {"app": []}),
    "no id": answer(200, {"app": {"installationId": ""}}),
    "a number": answer(200, {"app": {"installationId": 7}}),
    "a lone surrogate": answer(200, b'{"app": {"installationId": "a\\ud800"}}'),
    "closed": lambda connection: connection.read() is None,
}


@pytest.mark.parametrize("context", FAILED.values(), ids=FAILED)
def test_failed_lookup_makes_calls_share_one_bucket_and_is_retried_later(
    caller: Caller, context: Behaviour, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def call(live: Any, invocation: str = "S3CRET") -> Any:
        return live.with_options(quota=Quota()).for_invocation({"x-forge-invocation-id": invocation}).publish("c", "p")

    caplog.set_level(logging.DEBUG, "forge_realtime")
    with FaultServer(then=platform(context)) as server:
        results = caller(server.url, call, call, lambda live: call(live, "another"))
        assert [result.event_id for result in results] == ["event-1"] * 3
        assert len(lookups(server)) == 1
        assert [key[1] for key in _quota._state._buckets] == [None]
        server.then = platform(CONTEXT)
        later = SimpleNamespace(monotonic=lambda: time.monotonic() + 10)
        monkeypatch.setattr(_quota, "clock", later)
        [result] = caller(server.url, call, retry=PATIENT)
        assert result.event_id == "event-1"
        assert len(lookups(server)) == 2
        # The idle bucket of unknown installations is gone.
        assert [key[1] for key in _quota._state._buckets] == ["installation-1"]
    assert "did not return the installation" in caplog.text
    assert "S3CRET" not in caplog.text


def test_refused_lookup_affects_only_its_invocation(caller: Caller) -> None:
    def call(live: Any, invocation: str) -> Any:
        return live.with_options(quota=Quota()).for_invocation({"x-forge-invocation-id": invocation}).publish("c", "p")

    with FaultServer(then=platform(REFUSED)) as server:
        caller(server.url, lambda live: call(live, "a"), lambda live: call(live, "a"), lambda live: call(live, "b"))
    assert lookups(server) == ["Forge id=a", "Forge id=b"]


def test_hanging_lookup_delays_calls_once_by_one_second() -> None:
    def hang(connection: Connection) -> bool:
        connection.read()
        connection.stall()
        return False

    quick = RetryPolicy(deadline=30.0, attempt_timeout=30.0)
    with FaultServer(then=platform(hang)) as server, RealtimeClient(server.url, quota=Quota(), retry=quick) as client:
        live = client.for_invocation(INVOCATION)
        began = time.monotonic()
        for _ in range(3):
            live.publish("c", "p")
        assert 1.0 <= time.monotonic() - began < 10
        assert len(lookups(server)) == 1


def test_abandoned_lookup_is_taken_over() -> None:
    key = ("http://localhost", "invocation-123")
    assert _quota._state.begin_lookup(key, 0.0)
    assert not _quota._state.begin_lookup(key, 0.9)
    assert _quota._state.begin_lookup(key, 1.1)


def test_state_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_quota, "_MAX_BUCKETS", 3)
    monkeypatch.setattr(_quota, "_MAX_INVOCATIONS", 3)
    with FaultServer(then=platform(CONTEXT)) as server, RealtimeClient(server.url, quota=ONE, retry=PATIENT) as client:
        client.for_installation("in-use").publish_global("c", "p")
        for bucket in _quota._state._buckets.values():
            bucket.slow_down(60.0, time.monotonic())
        for number in range(8):
            # A second later, the bucket before is full again and can be dropped.
            now = time.monotonic() + number
            monkeypatch.setattr(_quota, "clock", SimpleNamespace(monotonic=lambda now=now: now))
            client.for_installation(f"i-{number}").publish_global("c", "p")
            client.for_invocation({"x-forge-invocation-id": f"invocation-{number}"}).publish("c", "p")
    assert len(_quota._state._buckets) <= 4
    assert any(key[1] == "in-use" for key in _quota._state._buckets)
    assert len(_quota._state._installations) == 3


def test_idle_installations_are_released(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(900):
        _quota._state.bucket(Quota(), "http://localhost", f"i-{number}")
    [waiting, *_] = _quota._state._buckets.values()
    waiting.request(Waiter(False, 1e9), clock.monotonic())
    for _ in range(Quota().burst):
        waiting.request(Waiter(False, 1e9), clock.monotonic())
    assert len(_quota._state._buckets) == 900
    monkeypatch.setattr(_quota, "clock", SimpleNamespace(monotonic=lambda: clock.monotonic() + 10))
    _quota._state.bucket(Quota(), "http://localhost", "another")
    assert [key[1] for key in _quota._state._buckets] == ["i-0", "another"]


def test_installation_takes_2_kib_at_most() -> None:
    # Slow, so that no installation is idle and released meanwhile.
    quota = Quota(per_second=0.1)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(2000):
            bucket = _quota._state.bucket(quota, "http://localhost", f"{number:036}")
            bucket.request(Waiter(False, math.inf), clock.monotonic())
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(_quota._state._buckets) == 2000
    assert (after - before) / 2000 <= 2048


def test_waiter_wakes_the_next_one() -> None:
    bucket = Bucket(1, 1, 0.0)
    waiters = [Waiter(False, 1e9) for _ in range(20)]
    woken: list[int] = []
    for number, waiter in enumerate(waiters):
        waiter.begin(partial(woken.append, number))
        bucket.request(waiter, 0.0)
    # The first one began. Eight others have timers of their own.
    assert [waiter.timed for waiter in waiters[1:]] == [True] * 8 + [False] * 11
    assert bucket.request(waiters[8], 0.0) == pytest.approx(8.0)
    bucket.cancel(waiters[15])
    assert woken == []
    # Everyone behind it begins a second earlier.
    bucket.cancel(waiters[4])
    assert woken == [1, 2, 3, 5, 6, 7, 8, 9]
    assert bucket.request(waiters[1], 1.0) == 0
    assert woken[8:] == [10]


def test_requests_of_a_waiter_do_not_grow_with_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    request = Bucket.request
    requests = 0

    def counted(bucket: Bucket, waiter: Waiter, now: float) -> float:
        nonlocal requests
        requests += 1
        return request(bucket, waiter, now)

    async def acquire(waiting: int) -> None:
        quota = Quota(per_second=50, installation_id="i")
        async with AsyncRealtimeClient("http://localhost", quota=quota) as client:
            began = asyncio.get_running_loop().time()
            acting = Authorization(installation_id="i")
            limiters = [QuotaLimiter(quota, "a", acting, stream=False) for _ in range(waiting)]
            assert all(await asyncio.gather(*[client._run(limiter.acquire(began + 1000)) for limiter in limiters]))
            assert asyncio.get_running_loop().time() - began <= waiting / 50 / 0.98

    monkeypatch.setattr(Bucket, "request", counted)
    run_virtually(acquire(100))
    few, requests = requests, 0
    _quota._state.reset_after_fork()
    run_virtually(acquire(10_000))
    assert requests / 10_000 <= 1.2 * few / 100


FORK = """
import ctypes, os, sys, threading
from forge_realtime import Quota, RealtimeClient
from forge_realtime._core.call import Sleep
from forge_realtime._quota import limiter as _quota

def publish(*payloads):
    # A client of its own: this is about the quota, not about connections.
    with RealtimeClient(sys.argv[1], quota=Quota(per_second=0.01, burst=2)) as client:
        for payload in payloads:
            client.for_installation("i").publish_global("c", payload)

def hold_locks():
    with _quota._state._lock, bucket._lock:
        locked.set()
        forked.wait()

publish("before")
[bucket] = _quota._state._buckets.values()
locked, forked = threading.Event(), threading.Event()
# As if another thread was in the middle of a request.
holder = threading.Thread(target=hold_locks)
holder.start()
locked.wait()
child = {"os.fork": os.fork, "libc": ctypes.PyDLL(None).fork}[sys.argv[2]]()
if child == 0:
    try:
        publish("child", "child")
    except BaseException as error:
        print(type(error), file=sys.stderr)
        os._exit(1)
    os._exit(0)
status = os.waitpid(child, 0)[1]
forked.set()
holder.join()
publish("parent")
sys.exit(os.waitstatus_to_exitcode(status))
"""


# libc's fork runs none of Python's hooks, as uWSGI's.
@pytest.mark.parametrize("fork", ["os.fork", "libc"])
def test_forked_process_counts_on_its_own(fork: str) -> None:
    with FaultServer() as server:
        subprocess.run([sys.executable, "-W", "ignore", "-c", FORK, server.url, fork], check=True, timeout=20)
    assert len(server.received) == 4


def test_waiting_call_does_not_delay_another_installation() -> None:
    with FaultServer() as server, RealtimeClient(server.url, quota=ONE, retry=PATIENT) as client:
        live = client.for_installation("busy")
        live.publish_global("c", "p")
        waiting = threading.Thread(target=live.publish_global, args=("c", "p"))
        waiting.start()
        began = time.monotonic()
        client.for_installation("another").publish_global("c", "p")
        assert time.monotonic() - began < 0.9
        waiting.join()
    assert len(server.received) == 3
