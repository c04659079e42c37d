"""Responses of success that do not say what became of the event."""

from __future__ import annotations

import logging
from typing import Any

import httpx
import pytest

from forge_realtime import Delivery, Invocation, RealtimeClient, RetryPolicy, UnexpectedResponseError


def _client(sent: list[httpx.Request], response: httpx.Response, **retry: Any) -> RealtimeClient:
    def respond(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return response

    policy = RetryPolicy(backoff_initial=0, **retry)
    client = RealtimeClient("http://localhost", transport=httpx.MockTransport(respond), retry=policy)
    return client.for_invocation(Invocation("invocation-1"))


@pytest.mark.parametrize("body", [{}, {"data": {"eventId": "event-1", "eventTimestamp": "1"}}])
def test_success_without_documented_property_is_logged(body: Any, caplog: pytest.LogCaptureFixture) -> None:
    sent: list[httpx.Request] = []
    live = _client(sent, httpx.Response(200, json=body))
    with caplog.at_level(logging.WARNING, "forge_realtime"):
        assert live.publish("board-42", "x").event_id is None
    assert len(sent) == 1
    [record] = caplog.records
    assert record.getMessage() == (
        "publish: success without eventId and eventTimestamp: unknown whether anybody was subscribed"
    )


@pytest.mark.parametrize(
    "body", [{"eventId": None}, {"eventId": None, "eventTimestamp": None}, {"eventTimestamp": "1"}]
)
def test_documented_null_is_not_logged(body: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "forge_realtime"):
        _client([], httpx.Response(200, json=body)).publish("board-42", "x")
    assert caplog.records == []


@pytest.mark.parametrize(
    ("response", "attempts"),
    [
        (httpx.Response(200, text="not JSON"), 3),
        (httpx.Response(200, json={"eventId": 7}), 3),
        (httpx.Response(200, json=[]), 3),
        (httpx.Response(202, json={"eventId": "event-1"}), 1),
        (httpx.Response(206, text="not JSON"), 1),
    ],
)
@pytest.mark.parametrize("delivery", ["at_least_once", "at_most_once"])
def test_unreadable_success_is_retried_as_unknown_and_called_probably_accepted(
    response: httpx.Response, attempts: int, delivery: Any
) -> None:
    sent: list[httpx.Request] = []
    with pytest.raises(
        UnexpectedResponseError, match="its status says success, so it was probably accepted"
    ) as failure:
        _client(sent, response, delivery=delivery, max_attempts=3).publish("board-42", "x")
    assert failure.value.delivery is Delivery.UNKNOWN
    assert len(sent) == len(failure.value.attempts) == (attempts if delivery == "at_least_once" else 1)


def test_unreadable_redirect_is_not_called_accepted() -> None:
    with pytest.raises(UnexpectedResponseError) as failure:
        _client([], httpx.Response(304)).publish("board-42", "x")
    assert "probably accepted" not in str(failure.value)
