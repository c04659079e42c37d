"""Delivery certainty: what is known about the event after each kind of failure, and whether it is retried."""

from __future__ import annotations

import logging
import math
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from threading import Event
from typing import Any

import httpx
import pytest
from attrs import evolve

from forge_realtime import (
    Attempt,
    Delivery,
    ForgeRealtimeError,
    NoResponseError,
    PublishResult,
    RateLimitedError,
    RealtimeClient,
    RealtimeToken,
    RejectedError,
    RetryPolicy,
    ServerError,
    TimedOutError,
    UnexpectedResponseError,
)
from tests.support.callers import ASYNC_KINDS, HTTPX2_KINDS, INVOCATION, KINDS, QUICK, Caller, Httpx2Kind, Kind
from tests.support.fault_server import (
    Behaviour,
    FaultServer,
    answer,
    close_after,
    garbage,
    refused_url,
    reset_after,
    reset_before,
    stall,
    trickled,
    truncated,
)

TOKEN = answer(200, {"token": "header.payload.signature", "expiresAt": 1767225600})
ONCE = evolve(QUICK, delivery="at_most_once")


@pytest.fixture(params=[*KINDS, *HTTPX2_KINDS])
def caller(request: pytest.FixtureRequest) -> Caller:
    return Caller(request.param)


def publish(live: Any) -> Any:
    return live.publish("board-42", {"moved": 7})


def sign(live: Any) -> Any:
    return live.sign_realtime_token("board-42", {"team": "red"})


def deliveries(attempts: tuple[Attempt, ...]) -> list[str]:
    return [attempt.delivery.name for attempt in attempts]


UNKNOWN: dict[str, tuple[Behaviour, type[ForgeRealtimeError]]] = {
    "reset after the request": (reset_after, NoResponseError),
    "closed after the request": (close_after, NoResponseError),
    "not HTTP": (garbage, NoResponseError),
    "body cut short": (truncated, NoResponseError),
    "stall": (stall, TimedOutError),
    "body byte by byte": (trickled, TimedOutError),
    "500": (answer(500, {"message": "boom"}), ServerError),
    "502": (answer(502, b"<html>bad gateway</html>"), ServerError),
    "503": (answer(503), ServerError),
    "503, Retry-After not readable": (answer(503, headers={"Retry-After": "soon"}), ServerError),
    "504": (answer(504), ServerError),
    "520": (answer(520), ServerError),
    "an HTML page": (answer(200, b"<html>hello</html>"), UnexpectedResponseError),
    "an empty body": (answer(200), UnexpectedResponseError),
    "invalid UTF-8": (answer(200, b'{"eventId": "\xff\xfe"}'), UnexpectedResponseError),
    "a list": (answer(200, ["event-1"]), UnexpectedResponseError),
    "an empty list": (answer(200, []), UnexpectedResponseError),
    "an id of another type": (answer(200, {"eventId": 5}), UnexpectedResponseError),
    "a time of another type": (answer(200, {"eventId": "e", "eventTimestamp": [1]}), UnexpectedResponseError),
}


def patience(case: str) -> float:
    """Seconds for an attempt; few only if nothing else ends it."""
    return 0.15 if UNKNOWN[case][1] is TimedOutError else 10


@pytest.mark.parametrize("case", UNKNOWN)
def test_unknown_is_not_retried_at_most_once(caller: Caller, case: str) -> None:
    behaviour, kind = UNKNOWN[case]
    with FaultServer(behaviour) as server:
        [error] = caller(server.url, publish, retry=evolve(ONCE, attempt_timeout=patience(case), deadline=20))
    assert type(error) is kind
    assert error.delivery is Delivery.UNKNOWN
    assert "it may have been carried out" in str(error)
    assert "at_most_once" in str(error)
    assert deliveries(error.attempts) == ["UNKNOWN"]
    assert len(server.received) == 1


@pytest.mark.parametrize("case", UNKNOWN)
def test_unknown_is_retried_at_least_once(caller: Caller, case: str) -> None:
    behaviour, _ = UNKNOWN[case]
    with FaultServer(behaviour) as server:
        [result] = caller(server.url, publish, retry=evolve(QUICK, attempt_timeout=patience(case), deadline=20))
    assert result.event_id == "event-1"
    assert deliveries(result.attempts) == ["UNKNOWN", "ACCEPTED"]
    first, second = server.received
    assert first == second


@pytest.mark.parametrize("case", UNKNOWN)
def test_signing_is_retried_under_either_policy(caller: Caller, case: str) -> None:
    behaviour, _ = UNKNOWN[case]
    with FaultServer(behaviour, then=TOKEN) as server:
        [result] = caller(server.url, sign, retry=evolve(ONCE, attempt_timeout=patience(case), deadline=20))
    # A response without a token is not one of success.
    assert isinstance(result, RealtimeToken)
    assert deliveries(result.attempts) == ["UNKNOWN", "ACCEPTED"]


def test_refused_connection_is_not_sent_and_retried(caller: Caller) -> None:
    url = refused_url()
    [error] = caller(url, publish, retry=ONCE)
    assert type(error) is NoResponseError
    assert error.delivery is Delivery.NOT_SENT
    assert deliveries(error.attempts) == ["NOT_SENT"] * 6
    assert "it was not sent" in str(error)
    assert "Connection refused" in str(error) or "All connection attempts failed" in str(error)
    assert f"is {url} the right address (FORGE_EGRESS_PROXY_URL or base_url)" in str(error)


@pytest.mark.parametrize("status", [404, 405])
def test_404_and_405_ask_whether_the_address_is_right(caller: Caller, status: int) -> None:
    with FaultServer(answer(status)) as server:
        [error] = caller(server.url, publish)
        assert f"is {server.url} the right address" in str(error)


def test_connect_timeout_is_not_sent(caller: Caller) -> None:
    with FaultServer(deaf=True) as server:
        url = server.url
        [error] = caller(url, publish, retry=evolve(ONCE, attempt_timeout=0.1, max_attempts=1))
    assert (error.delivery, [attempt.error for attempt in error.attempts]) == (Delivery.NOT_SENT, ["ConnectTimeout"])
    assert "publish: not sent in time (ConnectTimeout); it was not sent" in str(error)
    assert f"is {url} the right address" in str(error)


def test_reset_before_request_is_retried_at_least_once(caller: Caller) -> None:
    with FaultServer(reset_before) as server:
        [result] = caller(server.url, publish)
    assert result.event_id == "event-1"
    assert len(server.received) == 1


def test_incomplete_request_is_not_sent_with_blocking_io_and_unknown_with_asyncio() -> None:
    def reset_within(connection: Any) -> bool:
        connection.peer.recv(100)
        connection.reset()
        return False

    # More than the buffers of both sides hold.
    payload = "x" * 20_000_000
    blocking: tuple[Kind | Httpx2Kind, ...] = ("sync", "httpx2")
    for kind in blocking:
        with FaultServer(reset_within) as server:
            [result] = Caller(kind)(server.url, lambda live: live.publish("board-42", payload), retry=ONCE)
        assert deliveries(result.attempts) == ["NOT_SENT", "ACCEPTED"]
        assert len(server.received) == 1
    # asyncio does not tell how much it has written.
    asynchronous: tuple[Kind | Httpx2Kind, ...] = (*ASYNC_KINDS, "async httpx2")
    for kind in asynchronous:
        with FaultServer(reset_within) as server:
            [error] = Caller(kind)(server.url, lambda live: live.publish("board-42", payload), retry=ONCE)
        assert error.delivery is Delivery.UNKNOWN
        assert not server.received


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("retry", [QUICK, ONCE], ids=["at_least_once", "at_most_once"])
def test_rejected_with_retry_after_is_retried_after_that_wait(caller: Caller, status: int, retry: RetryPolicy) -> None:
    with FaultServer(answer(status, {"code": "X"}, {"Retry-After": "0.2"})) as server:
        began = time.monotonic()
        [result] = caller(server.url, publish, retry=retry)
        assert time.monotonic() - began >= 0.2
    rejected, accepted = result.attempts
    assert (rejected.delivery, rejected.status, rejected.wait) == (Delivery.REJECTED, status, 0.2)
    assert (accepted.delivery, accepted.status, accepted.wait) == (Delivery.ACCEPTED, 200, None)
    assert len(server.received) == 2


def test_429_without_retry_after_backs_off(caller: Caller) -> None:
    with FaultServer(answer(429)) as server:
        [result] = caller(server.url, publish, retry=ONCE)
    assert deliveries(result.attempts) == ["REJECTED", "ACCEPTED"]
    assert result.attempts[0].wait <= 0.001


def test_retry_after_date_is_compared_with_date_header(caller: Caller) -> None:
    now = datetime(2026, 11, 23, tzinfo=UTC)
    headers = {"Date": format_datetime(now, True), "Retry-After": format_datetime(now + timedelta(hours=1), True)}
    with FaultServer(answer(429, headers=headers)) as server:
        [error] = caller(server.url, publish)
    assert error.retry_after == 3600
    assert len(error.attempts) == 1


def test_wait_beyond_the_deadline_is_not_started(caller: Caller) -> None:
    with FaultServer(then=answer(429, {"code": "RATE_LIMIT_EXCEEDED"}, {"Retry-After": "3600"})) as server:
        began = time.monotonic()
        [error] = caller(server.url, publish)
        assert time.monotonic() - began < 2
    assert type(error) is RateLimitedError
    assert (error.delivery, error.status, error.code) == (Delivery.REJECTED, 429, "RATE_LIMIT_EXCEEDED")
    assert error.retry_after == 3600
    assert "3.6e+03 s, would pass the deadline of 5 s" in str(error)
    assert len(server.received) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_other_4xx_is_rejected_and_not_retried(caller: Caller, status: int) -> None:
    with FaultServer(answer(status, {"code": "INVALID_TOKEN", "message": "no"})) as server:
        [error] = caller(server.url, publish)
    assert type(error) is RejectedError
    assert (error.delivery, error.status, error.code) == (Delivery.REJECTED, status, "INVALID_TOKEN")
    assert error.body == b'{"code": "INVALID_TOKEN", "message": "no"}'
    assert error.headers["content-type"] == "application/json"
    assert len(server.received) == 1


@pytest.mark.parametrize("errors", [[{"code": "TOKEN_EXPIRED", "message": "m"}], {"code": "TOKEN_EXPIRED"}])
def test_errors_in_200_are_rejected_and_not_retried(caller: Caller, errors: object) -> None:
    with FaultServer(answer(200, {"eventId": None, "eventTimestamp": None, "errors": errors})) as server:
        [error] = caller(server.url, publish)
    assert type(error) is RejectedError
    assert (error.delivery, error.status, error.code) == (Delivery.REJECTED, 200, "TOKEN_EXPIRED")
    assert len(server.received) == 1


@pytest.mark.parametrize("errors", [None, []])
def test_empty_errors_in_200_are_success(caller: Caller, errors: object) -> None:
    with FaultServer(answer(200, {"eventId": "e", "errors": errors})) as server:
        [result] = caller(server.url, publish)
    assert result.event_id == "e"


@pytest.mark.parametrize("status", [201, 204, 302])
def test_undocumented_status_is_unknown_and_not_retried(caller: Caller, status: int) -> None:
    with FaultServer(answer(status, headers={"Location": "/elsewhere"})) as server:
        [error] = caller(server.url, publish)
    assert type(error) is UnexpectedResponseError
    assert (error.delivery, error.status) == (Delivery.UNKNOWN, status)
    assert len(server.received) == 1


def test_rejected_after_unknown_stays_unknown(caller: Caller) -> None:
    with FaultServer(reset_after, answer(400)) as server:
        [error] = caller(server.url, publish)
    assert type(error) is RejectedError
    assert error.delivery is Delivery.UNKNOWN
    assert deliveries(error.attempts) == ["UNKNOWN", "REJECTED"]


def test_null_event_id_is_success(caller: Caller) -> None:
    with FaultServer(answer(200, {"eventId": None, "eventTimestamp": None})) as server:
        [result] = caller(server.url, publish)
    assert isinstance(result, PublishResult)
    assert (result.event_id, result.event_timestamp) == (None, None)


def test_undocumented_properties_are_ignored(caller: Caller) -> None:
    with FaultServer(answer(200, {"eventId": "e", "eventTimestamp": "soon", "shard": {"n": 1}})) as server:
        [result] = caller(server.url, publish)
    assert (result.event_id, result.event_timestamp, result.raw_event_timestamp) == ("e", None, "soon")


def test_deadline_limits_all_attempts_together(caller: Caller) -> None:
    with FaultServer(then=stall) as server:
        began = time.monotonic()
        [error] = caller(server.url, publish, retry=evolve(QUICK, deadline=0.5, attempt_timeout=0.2, max_attempts=99))
        elapsed = time.monotonic() - began
    assert type(error) is TimedOutError
    assert 0.3 < elapsed < 1.5
    assert len(error.attempts) >= 2


def test_max_attempts_includes_the_first(caller: Caller) -> None:
    with FaultServer(then=answer(500)) as server:
        [error] = caller(server.url, publish, retry=evolve(QUICK, max_attempts=2))
    assert len(server.received) == len(error.attempts) == 2
    assert "RetryPolicy.max_attempts is 2" in str(error)


def test_retry_budget_is_shared_by_siblings(caller: Caller) -> None:
    with FaultServer(then=answer(500)) as server:
        outcomes = caller(server.url, *[publish] * 40, retry=evolve(QUICK, budget=0, backoff_initial=0))
    assert len(server.received) == 40 + 100
    assert "retry budget" in str(outcomes[-1])


def test_each_call_earns_retries(caller: Caller) -> None:
    with FaultServer(then=answer(500)) as server:
        # A client starts with 100 retries and never has more.
        caller(server.url, *[publish] * 80, retry=evolve(QUICK, budget=0.5, backoff_initial=0))
    assert len(server.received) == 80 + 100 + 79 // 2


def test_infinite_retry_budget_never_runs_out(caller: Caller) -> None:
    with FaultServer(then=answer(500)) as server:
        caller(server.url, *[publish] * 30, retry=evolve(QUICK, budget=math.inf, backoff_initial=0))
    assert len(server.received) == 30 * 6


def test_retry_budget_is_shared_by_threads() -> None:
    retry = evolve(QUICK, budget=0, backoff_initial=0)
    with (
        FaultServer(then=answer(500)) as server,
        RealtimeClient(server.url, retry=retry) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        live = client.for_invocation(INVOCATION)
        calls = [pool.submit(publish, live) for _ in range(40)]
        assert {type(call.exception()) for call in calls} == {ServerError}
    assert len(server.received) == 40 + 100


def test_on_attempt_sees_every_attempt(caller: Caller) -> None:
    seen: list[Attempt] = []
    with FaultServer(answer(429)) as server:
        [result] = caller(server.url, publish, retry=evolve(QUICK, on_attempt=seen.append))
    assert tuple(seen) == result.attempts
    assert [attempt.number for attempt in seen] == [1, 2]


def test_failing_on_attempt_is_logged_and_changes_nothing(caller: Caller, caplog: pytest.LogCaptureFixture) -> None:
    def fail(attempt: Attempt) -> None:
        raise ZeroDivisionError

    with FaultServer(answer(429)) as server:
        [result] = caller(server.url, publish, retry=evolve(QUICK, on_attempt=fail))
    assert deliveries(result.attempts) == ["REJECTED", "ACCEPTED"]
    failed = [record for record in caplog.records if record.levelname == "ERROR"]
    assert [record.getMessage() for record in failed] == ["publish: RetryPolicy.on_attempt failed"] * 2


def test_idle_connection_closed_by_the_server_is_replaced(caller: Caller) -> None:
    def answer_and_close(connection: Any) -> bool:
        answer(200, {"eventId": "e"})(connection)
        return False

    with FaultServer(then=answer_and_close) as server:

        def publish_after_the_close(live: Any) -> Any:
            server.wait_for_closed_connections()
            return publish(live)

        results = caller(server.url, *[publish_after_the_close] * 3, retry=ONCE)
    assert [result.event_id for result in results] == ["e", "e", "e"]
    assert [len(result.attempts) for result in results] == [1, 1, 1]


def test_siblings_reuse_connections(caller: Caller) -> None:
    with FaultServer() as server:
        caller(server.url, publish, publish, publish)
        assert server.connections == 1


def test_attempts_retries_and_final_error_are_logged(caller: Caller, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "forge_realtime")
    with FaultServer(answer(429, headers={"Retry-After": "0"}), answer(200, {"eventId": None}), answer(400)) as server:
        caller(server.url, publish, publish)
    lines = [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "forge_realtime"]
    assert [level for level, _ in lines] == ["DEBUG", "INFO", "DEBUG", "DEBUG", "WARNING"]
    assert [text for _, text in lines[:4]] == [
        "publish: attempt 1: rejected (RateLimitedError)",
        "publish: attempt 1: rejected (RateLimitedError); retrying in 0.000 s",
        "publish: attempt 2: accepted (200)",
        "publish: attempt 1: rejected (RejectedError)",
    ]
    assert lines[4][1].startswith(
        "publish: the platform refused the request (400); it was not carried out; 1 attempt in"
    )


DOCUMENTED: dict[str, dict[str, Any]] = {
    "RATE_LIMIT_EXCEEDED": {"code": "RATE_LIMIT_EXCEEDED", "message": "m"},
    "INVALID_TOKEN": {"message": "Realtime token validation failed: INVALID_TOKEN"},
    "TOKEN_EXPIRED": {"errors": [{"message": "Realtime token validation failed: TOKEN_EXPIRED."}]},
    "CHANNEL_NAME_MISMATCH": {"errors": ["Realtime token validation failed: CHANNEL_NAME_MISMATCH"]},
    "MISSING_PERMISSION": {"errors": [{"code": "MISSING_PERMISSION"}]},
    "Unauthorized request": {"message": "Unauthorized request"},
    "Error publishing event to channel": {"errors": [{"message": "Error publishing event to channel."}]},
    "Error signing realtime token": {"message": "Error signing realtime token"},
}


@pytest.mark.parametrize("code", DOCUMENTED)
@pytest.mark.parametrize("status", [200, 400])
def test_documented_codes_are_found(caller: Caller, code: str, status: int) -> None:
    body = DOCUMENTED[code]
    with FaultServer(then=answer(status, body if status == 400 or "errors" in body else {"errors": [body]})) as server:
        [error] = caller(server.url, publish)
    kind = RateLimitedError if code == "RATE_LIMIT_EXCEEDED" else RejectedError
    assert (type(error), error.code, error.delivery) == (kind, code, Delivery.REJECTED)


@pytest.mark.parametrize("body", [{}, [], "x", {"errors": [[1]]}, {"code": 5, "message": 6}, {"message": "SECRET"}])
def test_code_is_none_without_a_code(caller: Caller, body: object) -> None:
    with FaultServer(answer(400, body)) as server:
        [error] = caller(server.url, publish)
    assert error.code is None


def test_code_is_read_from_the_header(caller: Caller) -> None:
    with FaultServer(answer(403, headers={"forge-proxy-error": "NEEDS_AUTHENTICATION_ERR"})) as server:
        [error] = caller(server.url, publish)
    assert error.code == "NEEDS_AUTHENTICATION_ERR"


def test_error_keeps_64_kib_of_the_body(caller: Caller) -> None:
    with FaultServer(answer(400, b"x" * 1_000_000)) as server:
        [error] = caller(server.url, publish)
    assert error.body == b"x" * 65536


@pytest.mark.parametrize("kind", KINDS)
def test_pool_timeout_is_not_sent(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forge_realtime._transports.pool.CONNECTIONS", 0)
    monkeypatch.setattr("forge_realtime._transports.async_pool.CONNECTIONS", 0)
    with FaultServer() as server:
        [error] = Caller(kind)(server.url, publish, retry=evolve(ONCE, attempt_timeout=0.01, max_attempts=2))
        assert server.connections == 0
    assert type(error) is TimedOutError
    assert error.delivery is Delivery.NOT_SENT
    assert [attempt.error for attempt in error.attempts] == ["PoolTimeout"] * 2


class Read:
    """An operation without a body, as the generator makes it of a GET."""

    __name__ = "api.read"

    @staticmethod
    def _get_kwargs(*, cursor: str) -> dict[str, Any]:
        return {"method": "get", "url": "/v1/things", "params": {"cursor": cursor}}

    @staticmethod
    def _parse_response(*, client: Any, response: httpx.Response) -> str | None:
        return response.text


def test_get_is_retried_under_either_policy(caller: Caller) -> None:
    with FaultServer(reset_after, then=answer(200, b"things")) as server:
        [result] = caller(server.url, lambda live: live.call(Read(), cursor="ab"), retry=ONCE)
    assert result == "things"
    assert [(request.method, request.path) for request in server.received] == [("GET", "/v1/things?cursor=ab")] * 2


def test_every_attempt_of_a_get_is_reported(caller: Caller) -> None:
    with FaultServer(then=close_after) as server:
        [error] = caller(server.url, lambda live: live.call(Read(), cursor="ab"), retry=evolve(QUICK, max_attempts=2))
    assert len(server.received) == len(error.attempts) == 2


@pytest.mark.parametrize("fault", [stall, reset_after, close_after])
def test_get_without_response_is_unknown(caller: Caller, fault: Behaviour) -> None:
    with FaultServer(then=fault) as server:
        retry = evolve(ONCE, attempt_timeout=0.5, max_attempts=1)
        [error] = caller(server.url, lambda live: live.call(Read(), cursor="ab"), retry=retry)
    assert len(server.received) == 1
    assert error.delivery is Delivery.UNKNOWN


def test_slow_on_attempt_counts_towards_the_deadline(caller: Caller) -> None:
    def linger(attempt: Attempt) -> None:
        Event().wait(0.1)

    retry = evolve(QUICK, deadline=0.1, backoff_initial=0, on_attempt=linger)
    with FaultServer(then=answer(429)) as server:
        [error] = caller(server.url, publish, retry=retry)
    assert len(server.received) == 1
    assert [attempt.wait for attempt in error.attempts] == [None]
    assert "the deadline of 0.1 s has passed (RetryPolicy.deadline)" in str(error)
