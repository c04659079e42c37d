"""The check before a token is sent, and the cache of signed tokens."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import linecache
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import FrameType
from typing import Any

import freezegun
import httpx
import pytest
import time_machine
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from forge_realtime import (
    AsyncRealtimeClient,
    Attempt,
    Delivery,
    InvalidTokenError,
    NoResponseError,
    RealtimeClient,
    RealtimeToken,
    TimedOutError,
)
from forge_realtime._client.forge import ForgeClient
from forge_realtime._core.call import Flow
from forge_realtime._core.clock import monotonic
from forge_realtime._realtime.tokens import PlatformClock, TokenCache, check_token
from tests.support.callers import INVOCATION, QUICK, Caller
from tests.support.fault_server import (
    PUBLISHED,
    Behaviour,
    Connection,
    FaultServer,
    Held,
    answer,
    http,
    refused_url,
    stall,
)
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
    "deeply nested": (f"a.{encode(0).replace('MA', 'W1tb' * 20_000)}.c", "INVALID_TOKEN"),
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
    now = monotonic()

    def at(seconds: float) -> Any:
        def call(live: Any) -> Any:
            monkeypatch.setattr("forge_realtime._realtime.tokens.monotonic", lambda: now + seconds)
            return sign(live)

        return call

    with FaultServer(then=signing(1000)) as server:
        caller(server.url, at(0), at(895), at(905), cache_tokens=True)
    assert len(server.received) == 2


HOUR = 3600


def signing_at(now: datetime, seconds: float, **payload: Any) -> Behaviour:
    """Sign tokens by the clock of the platform, which says what time it is."""
    expires = now + timedelta(seconds=seconds)
    body = {"token": token("c", exp=expires.timestamp(), **payload), "expiresAt": expires.timestamp()}
    return answer(200, body, {"Date": format_datetime(now, usegmt=True)})


def publish_with_text(live: Any) -> Any:
    return live.publish("c", "p", token=sign(live).token)


def publish_with_token(live: Any) -> Any:
    return live.publish("c", "p", token=sign(live))


@pytest.mark.parametrize("behind", [-2 * HOUR, -10 * 365 * 24 * HOUR, 2 * HOUR, 0])
def test_lifetime_is_measured_by_the_platforms_clock(caller: Caller, behind: float) -> None:
    def at(seconds: float) -> Any:
        def call(live: Any) -> Any:
            patch.setattr("forge_realtime._realtime.tokens.monotonic", lambda: now + seconds)
            return sign(live)

        return call

    now = monotonic()
    platform = datetime.now(UTC) - timedelta(seconds=behind)
    with FaultServer(then=signing_at(platform, 1000)) as server, pytest.MonkeyPatch.context() as patch:
        caller(server.url, at(0), at(890), at(905), cache_tokens=True)
    assert len(server.received) == 2


async def both(live: Any) -> Any:
    return await live.publish("c", "p", token=(await sign(live)).token)


@pytest.mark.parametrize("whole", [True, False])
def test_fresh_token_is_not_expired_by_a_clock_that_is_ahead(whole: bool) -> None:
    platform = datetime.now(UTC) - timedelta(hours=2)
    publish = publish_with_token if whole else publish_with_text
    with FaultServer(signing_at(platform, HOUR)) as server:
        [result] = Caller("sync")(server.url, publish)
    assert result.event_id == "event-1"


@pytest.mark.parametrize("date", [None, "soon"])
def test_fresh_token_is_not_expired_either_if_the_response_does_not_tell_the_time(date: str | None) -> None:
    expires = (datetime.now(UTC) - timedelta(hours=1)).timestamp()
    signed = answer(
        200, {"token": token("c", exp=expires), "expiresAt": expires}, {} if date is None else {"Date": date}
    )
    with FaultServer(signed, PUBLISHED, different(1), PUBLISHED) as server:
        results = Caller("sync")(server.url, publish_with_text, publish_with_text, cache_tokens=True)
    assert [result.event_id for result in results] == ["event-1"] * 2
    # It is not kept, as nobody knows for how long.
    assert paths(server) == ["token", "publish", "token", "publish"]


def test_fresh_token_is_not_expired_by_a_clock_that_is_ahead_with_asyncio() -> None:
    async def run() -> Any:
        async with AsyncRealtimeClient(server.url) as client:
            return await both(client.for_invocation(INVOCATION))

    platform = datetime.now(UTC) - timedelta(hours=2)
    with FaultServer(signing_at(platform, HOUR)) as server:
        assert asyncio.run(run()).event_id == "event-1"


def test_token_expires_by_the_platforms_clock_even_if_the_local_one_is_behind() -> None:
    platform = datetime.now(UTC) + timedelta(hours=2)
    now = monotonic()
    with FaultServer(signing_at(platform, HOUR)) as server, RealtimeClient(server.url) as client:
        live = client.for_invocation(INVOCATION)
        signed = sign(live)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("forge_realtime._realtime.tokens.monotonic", lambda: now + HOUR + 2)
            with pytest.raises(InvalidTokenError) as caught:
                live.publish("c", "p", token=signed)
    assert caught.value.code == "TOKEN_EXPIRED"


@pytest.mark.parametrize("date", ["soon", "Sun, 06 Nov 9999 08:49:37 GMT", "Sun, 06 Nov 0000 08:49:37 GMT", ""])
def test_date_that_cannot_be_right_is_ignored(caller: Caller, date: str) -> None:
    expires = datetime.now(UTC) + timedelta(hours=1)
    body = {"token": token("c", exp=expires.timestamp()), "expiresAt": expires.timestamp()}
    with FaultServer(then=answer(200, body, {"Date": date})) as server:
        first, second = caller(server.url, sign, sign, cache_tokens=True)
    assert first is second
    check_token(first.token, "c", time.time())


@pytest.mark.parametrize("jump", [-10 * 365 * 24 * HOUR, 10 * 365 * 24 * HOUR])
def test_jumps_of_the_local_clock_do_not_change_the_cache(caller: Caller, jump: float) -> None:
    def jumped(live: Any) -> Any:
        monkeypatch.setattr("time.time", lambda: before + jump)
        return sign(live)

    before = time.time()
    with FaultServer(then=signing(HOUR)) as server, pytest.MonkeyPatch.context() as monkeypatch:
        first, second = caller(server.url, sign, jumped, cache_tokens=True)
    assert first is second
    assert len(server.received) == 1


@pytest.mark.parametrize("when", ["2020-01-01", "2040-01-01"])
@pytest.mark.parametrize("freezer", [freezegun.freeze_time, time_machine.travel])
def test_frozen_clock_does_not_change_the_cache(freezer: Any, when: str) -> None:
    platform = datetime.now(UTC).replace(microsecond=0)
    with (
        FaultServer(signing_at(platform, 0.1), then=signing_at(platform, HOUR)) as server,
        RealtimeClient(server.url, cache_tokens=True) as client,
    ):
        live = client.for_invocation(INVOCATION)
        with freezer(when):
            first = sign(live)
            until = monotonic() + 0.1
            while monotonic() < until:
                pass
            second = sign(live)
            assert sign(live) is second
            assert len(live.publish("c", "p", token=second.token).attempts) == 1
        assert sign(live) is second
    assert first is not second


def refusing(code: str = "TOKEN_EXPIRED") -> Behaviour:
    message = f"Realtime token validation failed: {code}"
    return answer(400, {"eventId": None, "eventTimestamp": None, "errors": [{"message": message}]}, publishes=False)


def different(number: int) -> Behaviour:
    return signing_at(datetime.now(UTC), HOUR, number=number)


def paths(server: FaultServer) -> list[str]:
    return [request.path.rpartition("/")[2] for request in server.received]


def sign_and_publish(live: Any) -> Any:
    if isinstance(live, AsyncRealtimeClient):
        return both(live)
    return publish_with_text(live)


def test_token_that_is_refused_as_expired_is_signed_anew_once(caller: Caller) -> None:
    with FaultServer(different(1), refusing(), different(2)) as server:
        result, again = caller(server.url, sign_and_publish, sign_and_publish, cache_tokens=True)
    assert paths(server) == ["token", "publish", "token", "publish", "publish"]
    first, second, third = (json.loads(server.received[n].body)["options"]["token"] for n in (1, 3, 4))
    assert first != second == third
    assert [(attempt.number, attempt.delivery) for attempt in result.attempts] == [
        (1, Delivery.REJECTED),
        (2, Delivery.ACCEPTED),
    ]
    assert len(again.attempts) == 1


def test_second_publish_with_the_refused_token_uses_the_new_one(caller: Caller) -> None:
    """As of two that publish with it at the same time."""
    texts: list[str] = []

    def publish_old(live: Any) -> Any:
        return live.publish("c", "p", token=texts[0])

    def keep(signed: Any) -> Any:
        texts.append(signed.token)
        return signed

    def sign_first(live: Any) -> Any:
        signed = sign(live)
        if not isinstance(live, AsyncRealtimeClient):
            return keep(signed)

        async def wait() -> Any:
            return keep(await signed)

        return wait()

    with FaultServer(different(1), refusing(), different(2), PUBLISHED, refusing()) as server:
        _, first, second = caller(server.url, sign_first, publish_old, publish_old, cache_tokens=True)
    assert paths(server) == ["token", "publish", "token", "publish", "publish", "publish"]
    sent = [json.loads(server.received[n].body)["options"]["token"] for n in (1, 3, 4, 5)]
    assert sent[0] == sent[2] != sent[1] == sent[3]
    assert [[attempt.delivery.name for attempt in result.attempts] for result in (first, second)] == [
        ["REJECTED", "ACCEPTED"]
    ] * 2


def test_token_is_not_signed_anew_twice(caller: Caller) -> None:
    with FaultServer(different(1), refusing(), different(2), refusing()) as server:
        [error] = caller(server.url, sign_and_publish, cache_tokens=True)
    assert paths(server) == ["token", "publish", "token", "publish"]
    assert (error.code, error.delivery) == ("TOKEN_EXPIRED", Delivery.REJECTED)
    assert [attempt.number for attempt in error.attempts] == [1, 2]


def test_refusal_is_raised_if_signing_fails(caller: Caller) -> None:
    with FaultServer(different(1), refusing(), answer(400)) as server:
        [error] = caller(server.url, sign_and_publish, cache_tokens=True)
    assert paths(server) == ["token", "publish", "token"]
    assert (error.code, error.status) == ("TOKEN_EXPIRED", 400)


@pytest.mark.parametrize("code", ["INVALID_TOKEN", "CHANNEL_NAME_MISMATCH"])
def test_token_that_is_refused_otherwise_is_not_signed_anew(caller: Caller, code: str) -> None:
    with FaultServer(different(1), refusing(code)) as server:
        [error] = caller(server.url, sign_and_publish, cache_tokens=True)
    assert paths(server) == ["token", "publish"]
    assert error.code == code


def test_token_of_others_is_not_signed_anew(caller: Caller) -> None:
    text = token("c", exp=FUTURE)
    with FaultServer(refusing()) as server:
        [error] = caller(server.url, lambda live: live.publish("c", "p", token=text), cache_tokens=True)
    assert (error.code, paths(server)) == ("TOKEN_EXPIRED", ["publish"])


def test_expired_token_is_not_signed_anew_without_the_cache(caller: Caller) -> None:
    with FaultServer(different(1), refusing()) as server:
        [error] = caller(server.url, sign_and_publish)
    assert (error.code, paths(server)) == ("TOKEN_EXPIRED", ["token", "publish"])


def test_publish_global_signs_anew_too() -> None:
    with FaultServer(different(1), refusing(), different(2)) as server:
        [result] = Caller("sync")(
            server.url, lambda live: live.publish_global("c", "p", token=sign(live)), cache_tokens=True
        )
    assert result.event_id == "event-1"
    assert paths(server) == ["token", "global", "token", "global"]


def test_deadline_bounds_signing_anew() -> None:
    with FaultServer(different(1), refusing(), then=stall) as server:
        began = time.monotonic()
        [error] = Caller("sync")(
            server.url, publish_with_text, retry=evolve(QUICK, deadline=0.5, attempt_timeout=5), cache_tokens=True
        )
        assert time.monotonic() - began < 2
    assert error.code == "TOKEN_EXPIRED"


def test_stream_goes_on_with_the_token_that_was_signed_anew() -> None:
    with (
        FaultServer(different(1), answer(404), refusing(), different(2)) as server,
        RealtimeClient(server.url, cache_tokens=True) as client,
    ):
        live = client.for_invocation(INVOCATION)
        with live.stream("c", token=sign(live), interval=0) as stream:
            stream.send("a")
            stream.flush()
            stream.send("b")
        assert stream.report.sent == 2
    assert paths(server)[:5] == ["token", "context", "publish", "token", "publish"]
    assert set(paths(server)[5:]) == {"publish"}
    # Signing is no attempt to publish.
    assert stream.report.operations == paths(server).count("publish")


def test_on_attempt_does_not_see_how_a_token_is_signed_anew(caller: Caller) -> None:
    seen: list[Attempt] = []
    retry = evolve(QUICK, on_attempt=seen.append)
    with FaultServer(different(1), refusing(), different(2)) as server:
        caller(server.url, sign_and_publish, cache_tokens=True, retry=retry)
    # The first token, the refused event, and the event again.
    assert [attempt.delivery.name for attempt in seen] == ["ACCEPTED", "REJECTED", "ACCEPTED"]


def refusing_together(publishes: int) -> Behaviour:
    """Sign numbered tokens, and refuse the first of them when this many publishes with it have come."""
    all_here, numbers = threading.Barrier(publishes), itertools.count(1)

    def behave(connection: Connection) -> bool:
        request = connection.read()
        status, body = 200, {"eventId": "event-1", "eventTimestamp": "1767225600000"}
        if request.path.endswith("/token"):
            body = {"token": token("c", exp=FUTURE, number=next(numbers)), "expiresAt": str(FUTURE)}
        elif token("c", exp=FUTURE, number=1).encode() in request.body:
            all_here.wait(20)
            status, body = 400, {"code": "TOKEN_EXPIRED"}
        connection.send(http(status, json.dumps(body).encode(), {"Content-Type": "application/json"}))
        return True

    return behave


def test_threads_whose_token_is_refused_sign_it_once() -> None:
    with (
        FaultServer(then=refusing_together(8)) as server,
        RealtimeClient(server.url, cache_tokens=True) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        live = client.for_invocation(INVOCATION)
        signed = sign(live)
        results = [pool.submit(live.publish_global, "c", "p", token=signed) for _ in range(8)]
        assert [result.result().event_id for result in results] == ["event-1"] * 8
    assert paths(server).count("token") == 2


def test_tasks_whose_token_is_refused_sign_it_once() -> None:
    async def run() -> list[Any]:
        async with AsyncRealtimeClient(server.url, cache_tokens=True) as client:
            live = client.for_invocation(INVOCATION)
            signed = await sign(live)
            return await asyncio.gather(*[live.publish("c", "p", token=signed) for _ in range(8)])

    with FaultServer(then=refusing_together(8)) as server:
        assert [result.event_id for result in asyncio.run(run())] == ["event-1"] * 8
    assert paths(server).count("token") == 2


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


def sign_as(signed: RealtimeToken) -> Flow[RealtimeToken]:
    """Return a flow that signs without a request."""
    return signed
    yield


def run(flow: Flow[RealtimeToken]) -> RealtimeToken:
    """Carry out a flow that sends nothing."""
    return ForgeClient._run(None, flow)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


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
            run(cache.get("key", sign_as(signed), monotonic() + 5))
    finally:
        sys.settrace(before)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(run, cache.get("key", sign_as(signed), monotonic() + 1)).result(5) is signed


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

    def interrupted() -> Flow[RealtimeToken]:
        signing_began.set()
        waiting.wait()
        raise KeyboardInterrupt
        yield

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(run, cache.get("key", interrupted(), monotonic() + 5))
        signing_began.wait()
        second = pool.submit(run, cache.get("key", sign_as(signed), monotonic() + 5))
        # The second thread waits for the first as soon as it cannot be the one that signs.
        waiting.set()
        assert second.result() is signed
        with pytest.raises(KeyboardInterrupt):
            first.result()
