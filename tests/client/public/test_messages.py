"""Mistakes that people made in their apps: each is refused with what to do. And what a call tells when asked."""

from __future__ import annotations

import copy
import logging
import pickle
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from attrs import evolve
from forge_realtime._api.api.forge_realtime import publish as publish_operation
from forge_realtime._api.models import PublishRequest

from forge_realtime import (
    AsyncRealtimeClient,
    Attempt,
    Delivery,
    Invocation,
    PublishResult,
    Quota,
    RealtimeClient,
    RejectedError,
    ResponseInfo,
    RetryPolicy,
    UsageError,
)
from forge_realtime_emulator import Emulator
from tests.support.callers import INVOCATION, Caller
from tests.support.fault_server import FaultServer, answer
from tests.support.tokens import token

SECRET = "hidden-7f3a"
HEADERS_ONLY = (
    "Expected a request, or its headers: a mapping, or pairs of names and values, such as request.headers. If you have "
    "only the id of an invocation, pass Invocation(id)."
)
ID_ONLY = (
    "Invocation takes the id of an invocation, a non-empty str: the value of the header x-forge-invocation-id. To read "
    "it from a request, use Invocation.from_headers(request.headers)."
)
INSTALLATION = (
    "for_installation takes the id of an installation as a non-empty str, a UUID or an ARI: the `id` in the response "
    "of GET /v1/installations, or `app.installationId` of GET /invocation/context."
)
ADDRESS = (
    "base_url must be an http:// or https:// address without user, query or fragment (no '@', '?' or '#'), such as "
    "http://localhost:7072."
)
CLIENTS: tuple[Callable[..., Any], ...] = (RealtimeClient, AsyncRealtimeClient)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda client: client("http://s").for_installation(None), INSTALLATION),
        (lambda client: client("http://s").for_installation(" "), INSTALLATION),
        (lambda client: client("http://s").for_invocation("invocation-123"), HEADERS_ONLY),
        (lambda client: client("http://s").for_invocation(b"invocation-123"), HEADERS_ONLY),
        (lambda client: client("http://s").for_invocation(Invocation("")), ID_ONLY),
        (lambda client: client("http://s?"), ADDRESS),
        (lambda client: client("http://s#"), ADDRESS),
        (lambda client: client("http://s/realtime?"), ADDRESS),
        (lambda client: client(show_response=1), "show_response takes True or False."),
        (lambda client: client().with_options(show_response="yes"), "show_response takes True or False."),
    ],
)
def test_mistake_is_refused_with_what_to_pass(
    client: Callable[..., Any], mistake: Callable[[Any], object], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        mistake(client)
    assert str(caught.value) == message


def test_more_than_the_platform_allows_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    Quota(per_second=100)
    [record] = caplog.records
    assert (record.name, record.levelno) == ("forge_realtime", logging.WARNING)
    assert "per_second=100 with burst=5 allows more operations in a second than the 50" in record.getMessage()
    assert "lower per_second" in record.getMessage()


def calls(**settings: Any) -> list[Callable[[Any], Any]]:
    """Return a call for each way to make one, with a client of these settings."""
    return [
        lambda live: live.with_options(**settings).publish("c", SECRET),
        lambda live: live.with_options(**settings).publish_global("c", SECRET),
        lambda live: live.with_options(**settings).sign_realtime_token("c", {"team": SECRET}),
        lambda live: live.with_options(**settings).call(publish_operation, body=PublishRequest("c", SECRET)),
    ]


REFUSED = answer(400, {"message": f"No place\nfor {SECRET}\x1b"})


def test_error_shows_the_response_on_request_only(caller: Caller) -> None:
    with FaultServer(then=REFUSED) as server:
        quiet = caller(server.url, *calls())
        told = caller(server.url, *calls(show_response=True))
    assert [type(error) for error in [*quiet, *told]] == [RejectedError] * 8
    for error in quiet:
        assert "the platform's own words are in the error's body" in str(error)
        assert SECRET not in str(error)
    for error in told:
        assert f'the platform said: {{"message": "No place\\nfor {SECRET}\\u001b"}}' in str(error)
        assert "\n" not in str(error)
        assert "own words" not in str(error)


def test_siblings_keep_show_response() -> None:
    with FaultServer(then=REFUSED) as server, RealtimeClient(server.url, show_response=True) as client:
        live = client.for_installation("i")
        for sibling, shown in (
            (live, True),
            (live.with_options(retry=live.retry), True),
            (live.with_options(show_response=False), False),
            (live.with_options(show_response=False).with_options(quota=None), False),
        ):
            with pytest.raises(RejectedError) as caught:
                sibling.publish_global("c", "x")
            assert (SECRET in str(caught.value)) == shown


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"a\nb\x1b[31m\xff", "the platform said: a\\nb\\x1b[31m\N{REPLACEMENT CHARACTER}"),
        (b"x" * 1_000, f"the platform said: {'x' * 1_000}"),
        (b"x" * 1_001, f"the platform said: {'x' * 1_000}…"),
    ],
)
def test_shown_response_is_one_line_and_short(caller: Caller, body: bytes, said: str) -> None:
    with FaultServer(then=answer(400, body)) as server:
        [error] = caller(server.url, *calls(show_response=True)[:1])
    assert str(error).endswith(f"; {said}")


def test_nothing_is_quoted_of_an_empty_response(caller: Caller) -> None:
    with FaultServer(then=answer(400, b"")) as server:
        [error] = caller(server.url, *calls(show_response=True)[:1])
    assert "said" not in str(error)


@pytest.mark.parametrize("padding", [0, 940])
def test_no_token_is_shown(caller: Caller, padding: int, caplog: pytest.LogCaptureFixture) -> None:
    text = token("c", exp=4_000_000_000)
    unreadable = {"padding": "x" * padding, "token": text, "expiresAt": {}}
    with FaultServer(then=answer(200, unreadable)) as server:
        [error] = caller(server.url, calls(show_response=True)[2], retry=RetryPolicy(max_attempts=1))
    assert "the platform said: " in str(error)
    assert "(token)" in str(error)
    assert text.split(".")[1][:8] not in f"{error} {caplog.text}"


def test_explanation_of_the_emulator_is_shown_on_request() -> None:
    with Emulator() as emulator, RealtimeClient(emulator.url, show_response=True) as client:
        with pytest.raises(RejectedError, match=r"options\.contextOverrides: must be of board, issue"):
            client.for_invocation(INVOCATION).publish("c", SECRET, context_overrides=["moon"])
        assert emulator.requests[-1].detail is not None


@pytest.mark.parametrize("path", ["", "/forge", "/forge/realtime/v1"])
def test_404_names_the_whole_base_url(caller: Caller, path: str) -> None:
    with FaultServer(then=answer(404)) as server:
        for error in caller(f"{server.url}{path}/", *calls()):
            assert f"; is {server.url}{path} the right address (FORGE_EGRESS_PROXY_URL or base_url)" in str(error)


def test_result_has_status_and_headers_of_its_response(caller: Caller) -> None:
    published = answer(200, {"eventId": "e", "eventTimestamp": "1767225600000"}, headers={"X-Trace": SECRET})
    signed = answer(200, {"token": SECRET, "expiresAt": 1}, headers={"X-Trace": SECRET})
    with FaultServer(answer(503), published, published, signed) as server:
        results = caller(server.url, *calls()[:3])
    for result in results:
        assert result.response.status == 200
        assert result.response.headers["x-trace"] == result.response.headers["X-Trace"] == SECRET
        assert dict(result.response.headers)["x-trace"] == SECRET
        # Neither shown nor compared.
        assert SECRET not in f"{result!r}{result}{result.response}"
        assert result == evolve(result, response=ResponseInfo(204, {}))
        for twin in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result)):
            assert twin == result
            assert twin.response.headers["x-trace"] == SECRET


def test_result_prints_short() -> None:
    attempts = (
        Attempt(1, Delivery.UNKNOWN, 503, "ServerError", 0.0123456789, 0.0987654321),
        Attempt(2, Delivery.ACCEPTED, 200, None, 1.2, None),
    )
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    result = PublishResult(event_id="e", event_timestamp=moment, raw_event_timestamp="1767225600000", attempts=attempts)
    assert str(result) == (
        "PublishResult(event_id='e', event_timestamp=datetime.datetime(2026, 1, 1, 0, 0, tzinfo=datetime.timezone.utc),"
        " attempts=(Attempt(number=1, delivery=Delivery.UNKNOWN, status=503, error='ServerError', elapsed=0.012,"
        " wait=0.099), Attempt(number=2, delivery=Delivery.ACCEPTED, status=200, error=None, elapsed=1.200,"
        " wait=None)))"
    )
