"""The check before a token is sent, and the cache of signed tokens."""

from __future__ import annotations

import asyncio
import contextlib
import json
import linecache
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from types import FrameType
from typing import Any

import httpx
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from forge_realtime import (
    AsyncRealtimeClient,
    Delivery,
    InvalidTokenError,
    NoResponseError,
    RealtimeClient,
    RealtimeToken,
    TimedOutError,
)
from forge_realtime._realtime.tokens import PlatformClock, TokenCache, check_token
from tests.support.callers import INVOCATION, QUICK, Caller
from tests.support.fault_server import Behaviour, FaultServer, Held, answer, refused_url, stall
from tests.support.features import needs
from tests.support.tokens import encode, token

PAST, FUTURE = 1, 4_000_000_000

# In the order in which the official SDK checks: each fails that check and all later ones.
FAILING = {
    "not a token": ("nonsense", "INVALID_TOKEN"),
    "two parts": ("a.b", "INVALID_TOKEN"),
    "four parts": (token("c") + ".d", "INVALID_TOKEN"),
    "not base64": ("a.!!!.c", "INVALID_TOKEN"),
    "not JSON": ("a.YWJj.c", "INVALID_TOKEN"),
    "not an object": (f"a.{encode([1])}.c", "INVALID_TOKEN"),
    "deeply nested": (f"a.{encode(0).replace('MA', 'W1tb' * 200_000)}.c", "INVALID_TOKEN"),
    "expired": (token("other", exp=PAST, permissions=[]), "TOKEN_EXPIRED"),
    "another channel": (token("other", exp=FUTURE, permissions=[]), "CHANNEL_NAME_MISMATCH"),
    "case of the channel": (token("C", permissions=[]), "CHANNEL_NAME_MISMATCH"),
    "a channel of another type": (f"a.{encode({'exp': FUTURE, 'channel': 'c'})}.c", "CHANNEL_NAME_MISMATCH"),
    "only subscribe": (token("c", exp=FUTURE, permissions=["subscribe"]), "MISSING_PERMISSION"),
    "no permissions": (token("c", permissions=[]), "MISSING_PERMISSION"),
    "permissions as a string": (token("c", permissions="subscribe"), "MISSING_PERMISSION"),
}


@pytest.mark.parametrize("case", FAILING)
@pytest.mark.parametrize("operation", ["publish", "publish_global"])
def test_invalid_tokens_are_refused_before_sending(caller: Caller, case: str, operation: str) -> None:
    text, code = FAILING[case]
    with FaultServer() as server:
        [error] = caller(server.url, lambda live: getattr(live, operation)("c", "p", token=text))
        assert server.connections == 0
    assert type(error) is InvalidTokenError
    assert (error.code, error.delivery) == (code, Delivery.NOT_SENT)
    assert str(error).startswith(f"Realtime token validation failed: {code}")


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"exp": FUTURE},
        {"exp": "soon"},
        {"exp": None},
        {"permissions": None},
        {"permissions": ["subscribe", "publish"]},
    ],
)
def test_valid_tokens_are_accepted(payload: dict[str, Any]) -> None:
    check_token(token("c", **payload), "c", time.time())


@given(text=st.text() | st.builds("{}.{}.{}".format, st.text(), st.text(), st.text()))
def test_any_text_is_accepted_or_refused_with_a_code(text: str) -> None:
    with pytest.raises(InvalidTokenError) as caught:
        check_token(text, "c", time.time())
    assert caught.value.code == "INVALID_TOKEN"


def signing(seconds: float) -> Behaviour:
    expires = datetime.now(UTC) + timedelta(seconds=seconds)
    return answer(200, {"token": token("c"), "expiresAt": expires.timestamp()})


def sign(live: Any) -> Any:
    return live.sign_realtime_token("c", {"team": "red"})


def test_every_call_signs_without_the_cache(caller: Caller) -> None:
    with FaultServer(then=signing(3600)) as server:
        caller(server.url, sign, sign)
    assert len(server.received) == 2


@needs("permissions")
def test_cache_signs_once_for_each_scope_channel_claims_and_permissions(caller: Caller) -> None:
    different = [
        sign,
        lambda live: live.sign_realtime_token("d", {"team": "red"}),
        lambda live: live.sign_realtime_token("c", {"team": "blue"}),
        lambda live: live.sign_realtime_token("c", {"team": "red"}, ["subscribe"]),
        lambda live: live.for_installation("installation-1").sign_realtime_token("c", {"team": "red"}),
        lambda live: live.for_invocation({"x-forge-invocation-id": "other"}).sign_realtime_token("c", {"team": "red"}),
    ]
    with FaultServer(then=signing(3600)) as server:
        first = caller(server.url, *different, *different, cache_tokens=True)
    assert len(server.received) == len(different)
    assert [id(signed) for signed in first[:6]] == [id(signed) for signed in first[6:]]


def test_cache_keeps_addresses_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    with RealtimeClient(cache_tokens=True) as client:
        live = client.for_invocation({"x-forge-invocation-id": "invocation-1"})
        for _ in range(2):
            with FaultServer(then=signing(3600)) as server:
                monkeypatch.setenv("FORGE_EGRESS_PROXY_URL", server.url)
                sign(live)
                sign(live)
            assert len(server.received) == 1


@pytest.mark.parametrize("seconds", [-1, 0])
def test_expired_token_is_not_kept(caller: Caller, seconds: float) -> None:
    with FaultServer(then=signing(seconds)) as server:
        caller(server.url, sign, sign, cache_tokens=True)
    assert len(server.received) == 2


def test_token_without_expiry_is_not_kept(caller: Caller) -> None:
    with FaultServer(then=answer(200, {"token": token("c")})) as server:
        caller(server.url, sign, sign, cache_tokens=True)
    assert len(server.received) == 2


def test_token_is_renewed_when_a_tenth_of_its_life_is_left(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.now(UTC).timestamp()

    def at(seconds: float) -> Any:
        def call(live: Any) -> Any:
            monkeypatch.setattr("forge_realtime._realtime.tokens.time.time", lambda: now + seconds)
            return sign(live)

        return call

    with FaultServer(then=signing(1000)) as server:
        caller(server.url, at(0), at(895), at(905), cache_tokens=True)
    assert len(server.received) == 2


def test_failure_is_not_kept(caller: Caller) -> None:
    with FaultServer(answer(400), then=signing(3600)) as server:
        [error, signed] = caller(server.url, sign, sign, cache_tokens=True)
    assert error.status == 400
    assert signed.token == token("c")


def test_threads_wait_for_the_thread_that_signs() -> None:
    held = Held(signing(3600))
    with FaultServer(then=held) as server, RealtimeClient(server.url, cache_tokens=True) as client:
        live = client.for_invocation(INVOCATION)
        with ThreadPoolExecutor(8) as pool:
            first = pool.submit(sign, live)
            held.arrived.wait()
            others = [pool.submit(sign, live) for _ in range(7)]
            held.go_on.set()
        results = [future.result() for future in (first, *others)]
    assert len(server.received) == 1
    assert len({id(signed) for signed in results}) == 1


def test_tasks_wait_for_the_task_that_signs() -> None:
    async def run() -> list[Any]:
        async with AsyncRealtimeClient(server.url, cache_tokens=True) as client:
            live = client.for_invocation(INVOCATION)
            return await asyncio.gather(*[sign(live) for _ in range(50)])

    with FaultServer(then=signing(3600)) as server:
        results = asyncio.run(run())
    assert len(server.received) == 1
    assert len({id(signed) for signed in results}) == 1


def test_waiting_calls_get_the_same_failure() -> None:
    async def run() -> list[Any]:
        async with AsyncRealtimeClient(refused_url(), retry=QUICK, cache_tokens=True) as client:
            live = client.for_invocation(INVOCATION)
            return await asyncio.gather(*[sign(live) for _ in range(5)], return_exceptions=True)

    errors = asyncio.run(run())
    assert {type(error) for error in errors} == {NoResponseError}


def test_waiting_task_signs_after_a_cancellation() -> None:
    async def run() -> Any:
        async with AsyncRealtimeClient(server.url, cache_tokens=True) as client:
            live = client.for_invocation(INVOCATION)
            first, second = asyncio.create_task(sign(live)), asyncio.create_task(sign(live))
            while not server.received:  # noqa: ASYNC110 (the server runs in a thread)
                await asyncio.sleep(0)
            first.cancel()
            return await second

    with FaultServer(stall, then=signing(3600)) as server:
        assert asyncio.run(run()).token == token("c")
    assert len(server.received) == 2


def test_cancelled_wait_leaves_the_others_waiting() -> None:
    async def run() -> Any:
        async with AsyncRealtimeClient(server.url, cache_tokens=True) as client:
            live = client.for_invocation(INVOCATION)
            first, second = asyncio.create_task(sign(live)), asyncio.create_task(sign(live))
            await asyncio.sleep(0)
            second.cancel()
            return await first

    with FaultServer(then=signing(3600)) as server:
        assert asyncio.run(run()).token == token("c")
    assert len(server.received) == 1


def test_task_waits_at_most_the_deadline_for_another_call() -> None:
    async def run() -> Any:
        async with AsyncRealtimeClient(server.url, cache_tokens=True) as client:
            live = client.for_invocation(INVOCATION)
            hurried = live.with_options(retry=evolve(QUICK, deadline=0.05))
            first = asyncio.create_task(sign(live))
            await asyncio.sleep(0)
            with pytest.raises(TimedOutError, match="another call is still signing"):
                await sign(hurried)
            first.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await first

    with FaultServer(then=stall) as server:
        asyncio.run(run())


def test_thread_waits_at_most_the_deadline_for_another_thread() -> None:
    with (
        FaultServer(then=stall) as server,
        RealtimeClient(
            server.url, retry=evolve(QUICK, attempt_timeout=1.0, max_attempts=1), cache_tokens=True
        ) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        live = client.for_invocation(INVOCATION)
        first = pool.submit(sign, live)
        while not server.received:
            pass
        with pytest.raises(TimedOutError, match="another call is still signing"):
            sign(live.with_options(retry=evolve(QUICK, deadline=0.05)))
        assert isinstance(first.exception(), TimedOutError)


def test_waiting_calls_get_the_same_timeout() -> None:
    async def run() -> list[Any]:
        retry = evolve(QUICK, attempt_timeout=0.1, max_attempts=1)
        async with AsyncRealtimeClient(server.url, retry=retry, cache_tokens=True) as client:
            live = client.for_invocation(INVOCATION)
            return await asyncio.gather(*[sign(live) for _ in range(3)], return_exceptions=True)

    with FaultServer(then=stall) as server:
        errors = asyncio.run(run())
    assert [type(error) for error in errors] == [TimedOutError] * 3
    assert {str(error) for error in errors} == {str(errors[0])}
    assert isinstance(errors[0].__cause__, httpx.ReadTimeout)
    assert "no response" in str(errors[0])


@pytest.mark.parametrize("line", range(40))
def test_interrupt_at_any_line_of_the_cache_blocks_nobody(line: int) -> None:
    cache = TokenCache(PlatformClock())
    lock: Any = cache._lock
    signed = RealtimeToken(token=token("c"), expires_at=datetime.now(UTC) + timedelta(hours=1), attempts=())
    left = line

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.endswith("_realtime/tokens.py"):
            return None
        if event == "line":
            left -= 1
            # Python looks for signals after a call, not on its way to releasing a lock.
            releasing = lock._is_owned() and "with " in linecache.getline(frame.f_code.co_filename, frame.f_lineno)
            if left == 0 and not releasing:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            cache.get("key", lambda: signed, 5.0)
    finally:
        sys.settrace(before)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(cache.get, "key", lambda: signed, 1.0).result(5) is signed


def test_waiting_for_another_call_counts_towards_the_deadline() -> None:
    async def run() -> None:
        async with AsyncRealtimeClient(server.url, cache_tokens=True) as client:
            live = client.for_invocation(INVOCATION).with_options(retry=evolve(QUICK, deadline=1.0))
            first, second = asyncio.create_task(sign(live)), asyncio.create_task(sign(live))
            while not server.received:  # noqa: ASYNC110 (the server runs in a thread)
                await asyncio.sleep(0)
            began = time.monotonic()
            asyncio.get_running_loop().call_later(0.5, first.cancel)
            with pytest.raises(TimedOutError):
                await second
            assert time.monotonic() - began < 1.4
            assert first.cancelled()

    with FaultServer(then=stall) as server:
        asyncio.run(run())


def test_cache_drops_the_least_recently_used(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forge_realtime._realtime.tokens.TokenCache._MOST", 2)

    def sign_for(channel: str) -> Any:
        return lambda live: live.sign_realtime_token(channel, {})

    with FaultServer(then=signing(3600)) as server:
        caller(server.url, *map(sign_for, ["a", "b", "a", "c", "a", "b"]), cache_tokens=True)
    signed = [json.loads(request.body)["channelName"] for request in server.received]
    assert signed == ["a", "b", "c", "b"]


def test_waiting_thread_signs_after_an_interrupt() -> None:
    cache, signing_began, waiting = TokenCache(PlatformClock()), threading.Event(), threading.Event()
    signed = RealtimeToken(token=token("c"), expires_at=None, attempts=())

    def interrupted() -> RealtimeToken:
        signing_began.set()
        waiting.wait()
        raise KeyboardInterrupt

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.get, "key", interrupted, 5.0)
        signing_began.wait()
        second = pool.submit(cache.get, "key", lambda: signed, 5.0)
        # The second thread waits for the first as soon as it cannot be the one that signs.
        waiting.set()
        assert second.result() is signed
        with pytest.raises(KeyboardInterrupt):
            first.result()
