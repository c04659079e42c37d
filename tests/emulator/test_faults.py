"""Fault injection, through the control endpoint and from Python."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import time
from collections.abc import Callable
from threading import Thread
from typing import Any, Literal

import httpx
import pytest

from forge_realtime_emulator import EmulatorError, create_app
from tests.emulator.api import Api, failure

FAULTS = "/_emulator/faults"


def statuses(api: Api, calls: int) -> list[int]:
    return [call("faults").status_code for call in [api.publish] * calls]


def test_fault_applies_to_the_given_number_of_calls(own: Api) -> None:
    assert own.post(FAULTS, {"status": 429, "retryAfter": 1, "times": 2}).status_code == 200
    first = own.publish("faults")
    assert first.status_code == 429
    assert first.headers["retry-after"] == "1"
    assert first.json() == {
        "eventId": None,
        "eventTimestamp": None,
        "errors": [{"message": "RATE_LIMIT_EXCEEDED"}],
        "detail": "The emulator was asked to answer this call with status 429; nothing was delivered.",
    }
    assert statuses(own, 2) == [429, 200]


def test_times_defaults_to_one_and_retry_after_to_none(own: Api) -> None:
    own.post(FAULTS, {"status": 503})
    response = own.publish("faults")
    assert response.status_code == 503
    assert "retry-after" not in response.headers
    assert response.json()["code"] == "INJECTED_FAULT"
    assert statuses(own, 1) == [200]


def test_faults_apply_in_order_and_only_to_their_operation(own: Api) -> None:
    own.emulator.fail_next(status=500, operation="publish_global")
    own.emulator.fail_next(2, status=503)
    own.emulator.fail_next(status=429, retry_after=0, operation="publish")
    assert statuses(own, 4) == [503, 503, 429, 200]
    assert own.publish_global("faults").status_code == 500
    assert own.publish_global("faults").status_code == 200


def test_faulted_call_is_recorded_and_not_delivered(own: Api, channel: str) -> None:
    with own.emulator.subscribe(channel) as subscription:
        own.emulator.fail_next(status=500)
        assert own.publish(channel, "lost").status_code == 500
        assert own.publish(channel, "kept").status_code == 200
        assert subscription.receive().payload == "kept"
    assert [(call.status, call.body["payload"]) for call in own.emulator.requests] == [(500, "lost"), (200, "kept")]
    assert [event.payload for event in own.emulator.events] == ["kept"]


def test_fault_applies_before_the_checks(own: Api) -> None:
    own.emulator.fail_next(status=503)
    assert own.post("/forge/realtime/v1/publish", {}, None).status_code == 503
    assert own.post("/forge/realtime/v1/publish", {}, None).status_code == 401


BAD = [
    ({}, "say what the call gets: status, answer or delay"),
    ({"times": 2}, "say what the call gets: status, answer or delay"),
    ({"status": 500, "answer": "reset"}, "give either status or answer"),
    ({"delay": 1, "retryAfter": 1}, "retryAfter goes with a status"),
    ({"answer": "none"}, 'answer: must be one of "reset", "truncated", "not-json"'),
    ({"delay": -1}, "delay: must be at least 0"),
    ([], "must be of type object"),
    ({"status": "429"}, "status: must be of type integer"),
    ({"status": True}, "status: must be of type integer"),
    ({"status": 503.0}, "status: must be of type integer"),
    ({"status": 200}, "status: must be at least 400"),
    ({"status": 600}, "status: must be at most 599"),
    ({"status": 429, "retryAfter": -1}, "retryAfter: must be at least 0"),
    ({"status": 429, "retryAfter": 0.5}, "retryAfter: must be of type integer"),
    ({"status": 429, "times": 0}, "times: must be at least 1"),
    (
        {"status": 429, "wait": 1},
        "allowed are status, retryAfter, answer, delay, delivered, times, optional, operation",
    ),
    ({"status": 429, "probability": 0}, "probability: must be above 0"),
    ({"status": 429, "probability": 1.1}, "probability: must be at most 1"),
    ({"status": 429, "probability": True}, "probability: must be of type number"),
    ({"status": 429, "probability": 0.5, "seed": 0.5}, "seed: must be of type integer"),
    ({"status": 429, "seed": 1}, "seed goes with a probability"),
    ({"status": 429, "operation": "nix"}, "must be one of publish, publish_global, sign_realtime_token"),
]


@pytest.mark.parametrize(("fault", "problem"), BAD)
def test_wrong_fault_is_refused_with_the_reason(own: Api, fault: Any, problem: str) -> None:
    response = own.post(FAULTS, fault)
    assert response.status_code == 400
    assert response.json()["code"] == "INVALID_REQUEST"
    assert problem in response.json()["message"]
    assert statuses(own, 1) == [200]


@pytest.mark.parametrize("content_type", ["text/plain", "application/json"])
def test_fault_that_is_not_json_is_refused(own: Api, content_type: str) -> None:
    response = own.post(FAULTS, content=b"{status", headers={"Content-Type": content_type})
    assert response.status_code == 400
    assert response.json()["code"] == "INVALID_REQUEST"


def test_wrong_fault_from_python_is_a_value_error(own: Api) -> None:
    with pytest.raises(ValueError, match="status: must be at least 400"):
        own.emulator.fail_next(status=200)
    with pytest.raises(ValueError, match="times: must be at least 1"):
        own.emulator.fail_next(0, status=500)
    with pytest.raises(ValueError, match="retry_after: must be at least 0"):
        own.emulator.fail_next(status=429, retry_after=-1)
    with pytest.raises(ValueError, match="operation: must be one of"):
        own.emulator.fail_next(status=500, operation="nix")


def raw_publish(api: Api, channel: str = "faults") -> bytes:
    """Return all bytes of the response to a publish, or raise the connection's error."""
    body = json.dumps({"name": channel, "payload": "x"}).encode()
    head = (
        "POST /forge/realtime/v1/publish HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nforge-proxy-authorization: Forge id=inv-1\r\n\r\n"
    )
    received = b""
    with socket.create_connection(("127.0.0.1", int(api.emulator.url.rpartition(":")[2])), timeout=10) as connection:
        connection.sendall(head.encode() + body)
        while chunk := connection.recv(65536):
            received += chunk
    return received


def test_reset_fault_resets_the_connection(own: Api) -> None:
    own.emulator.fail_next(answer="reset")
    with pytest.raises(ConnectionResetError) as reset:
        raw_publish(own)
    assert reset.value.errno == errno.ECONNRESET
    assert [(call.status, call.code, call.fault) for call in own.emulator.requests] == [(0, "INJECTED_FAULT", True)]
    assert own.emulator.events == []
    assert statuses(own, 1) == [200]


def test_reset_fault_leaves_other_connections_open(own: Api) -> None:
    with own.emulator.subscribe("faults") as subscription:
        own.emulator.fail_next(answer="reset")
        with pytest.raises(ConnectionResetError):
            raw_publish(own)
        own.publish("faults", "later")
        assert subscription.receive().payload == "later"


def test_truncated_fault_ends_within_the_body(own: Api) -> None:
    own.emulator.fail_next(2, answer="truncated")
    head, _, body = raw_publish(own).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert b"content-length: 1000" in head
    assert body == b'{"eventId": "'
    with pytest.raises(httpx.RemoteProtocolError):
        own.publish("faults")
    assert [(call.status, call.code) for call in own.emulator.requests] == [(200, "INJECTED_FAULT")] * 2


def test_not_json_fault_is_html(own: Api) -> None:
    own.emulator.fail_next(answer="not-json")
    response = own.publish("faults")
    assert (response.status_code, response.headers["content-type"].partition(";")[0]) == (200, "text/html")
    with pytest.raises(ValueError, match="Expecting value"):
        response.json()
    assert statuses(own, 1) == [200]


@pytest.mark.parametrize("answer", [None, "reset", "truncated", "not-json"])
def test_delivered_fault_makes_a_duplicate_when_the_client_retries(
    own: Api, channel: str, answer: Literal["reset", "truncated", "not-json"] | None
) -> None:
    own.emulator.fail_next(status=None if answer else 503, answer=answer, delivered=True)
    with own.emulator.subscribe(channel) as subscription:
        try:
            assert own.publish(channel, "twice").text[:5] != '{"eve'
        except httpx.TransportError:
            assert answer in ("reset", "truncated")
        assert own.publish(channel, "twice").status_code == 200
        first, second = subscription.receive(), subscription.receive()
    assert (first.payload, second.payload) == ("twice", "twice")
    assert first.event_id != second.event_id
    assert [event.delivered for event in own.emulator.events] == [1, 1]
    assert [call.fault for call in own.emulator.requests] == [True, False]


def test_delivered_fault_does_not_hide_a_refusal(own: Api) -> None:
    own.emulator.fail_next(status=503, delivered=True)
    response = own.publish("faults", token="x")
    assert failure(response) == "Realtime token validation failed: INVALID_TOKEN"
    assert not own.emulator.requests[-1].fault
    assert statuses(own, 1) == [200]


def test_delay_alone_gives_the_normal_response_late(own: Api, channel: str) -> None:
    own.emulator.fail_next(delay=0.2)
    with own.emulator.subscribe(channel):
        began = time.monotonic()
        assert own.publish(channel).json()["eventId"] is not None
        assert time.monotonic() - began >= 0.2
    assert [(call.status, call.fault) for call in own.emulator.requests] == [(200, True)]


def test_delay_comes_before_another_fault(own: Api) -> None:
    own.emulator.fail_next(delay=0.2, status=429, retry_after=3)
    began = time.monotonic()
    response = own.publish("faults")
    assert time.monotonic() - began >= 0.2
    assert (response.status_code, response.headers["retry-after"]) == (429, "3")
    own.emulator.fail_next(delay=0.1, answer="reset")
    with pytest.raises(ConnectionResetError):
        raw_publish(own)


def test_delayed_call_delays_no_other(own: Api, channel: str) -> None:
    own.emulator.fail_next(delay=30, channel="slow")
    with own.emulator.subscribe(channel) as subscription:
        with pytest.raises(httpx.ReadTimeout):
            own.post("/forge/realtime/v1/publish", {"name": "slow", "payload": "x"}, timeout=0.2)
        assert own.publish(channel).status_code == 200
        assert subscription.receive().payload == "x"


@pytest.mark.parametrize("end", ["reset", "stop"])
def test_delayed_call_ends_with_the_emulator_and_leaves_no_trace(own: Api, end: str) -> None:
    own.emulator.fail_next(delay=3600)
    responses: list[httpx.Response] = []
    caller = Thread(target=lambda: responses.append(own.publish("faults")), daemon=True)
    caller.start()
    until = time.monotonic() + 30
    while own.get("/_emulator/state").json()["faults"]:
        assert time.monotonic() < until
    began = time.monotonic()
    getattr(own.emulator, end)()
    caller.join(30)
    assert time.monotonic() - began < 2
    assert [(response.status_code, response.json()["code"]) for response in responses] == [(503, "DELAY_ENDED")]
    assert (own.emulator.requests, own.emulator.events) == ([], [])


def test_fault_is_limited_by_channel_and_installation(own: Api) -> None:
    own.emulator.register(invocations={"a": {"installation": "i-a"}, "b": {"installation": "i-b"}})
    own.emulator.fail_next(10, status=501, channel="x", installation="i-a")
    own.emulator.fail_next(10, status=502, channel="x")
    own.emulator.fail_next(10, status=503, installation="i-a")
    own.emulator.fail_next(10, status=504, operation="sign_realtime_token", channel="y", installation="i-b")

    def status(call: Callable[..., httpx.Response], channel: str, id_: str) -> int:
        return call(channel, authorization=f"Forge id={id_}").status_code

    assert status(own.publish, "x", "a") == 501
    assert status(own.publish_global, "x", "a") == 501
    assert own.publish_global("x", authorization="Forge installationId=i-a").status_code == 501
    assert status(own.publish, "x", "b") == 502
    assert status(own.publish, "y", "a") == 503
    assert status(own.publish, "y", "b") == status(own.publish, "X", "b") == 200
    body = {"channelName": "y", "claims": {}}
    assert own.post("/forge/realtime/v1/token", body, "Forge id=b").status_code == 504
    assert own.post("/forge/realtime/v1/token", body, "Forge id=c").status_code == 200


def test_fault_with_a_probability_fails_the_same_calls_for_the_same_seed(own: Api) -> None:
    own.emulator.change(limit=None)

    def failed(**fault: Any) -> list[bool]:
        own.delete(FAULTS)
        own.emulator.fail_next(status=503, **fault)
        return [status == 503 for status in statuses(own, 40)]

    first = failed(probability=0.3, seed=7)
    assert 0 < sum(first) < 40
    assert failed(probability=0.3, seed=7) == first
    assert failed(probability=0.3, seed=8) != first
    # The seed that was chosen is shown, and the fault stays.
    chosen = failed(probability=0.3)
    [fault] = own.get("/_emulator/state").json()["faults"]
    assert fault == {"status": 503, "probability": 0.3, "seed": fault["seed"]}
    assert failed(probability=0.3, seed=fault["seed"]) == chosen
    assert failed(probability=1) == [True] * 40
    assert sum(failed(times=2, probability=0.5, seed=1)) == 2
    assert own.get("/_emulator/state").json()["faults"] == []


def test_faults_after_one_with_a_probability_still_apply(own: Api) -> None:
    own.emulator.fail_next(status=503, probability=1e-9, seed=1)
    own.emulator.fail_next(status=502, probability=1, operation="publish_global")
    own.emulator.fail_next(status=500)
    assert statuses(own, 2) == [500, 200]
    assert own.publish_global("faults").status_code == 502


def test_fault_by_installation_ignores_calls_that_name_none(own: Api) -> None:
    own.emulator.fail_next(status=503, installation="default-installation")
    assert own.post("/forge/realtime/v1/publish", {"name": "x", "payload": "x"}, None).status_code == 401
    own.emulator.change(strict=True)
    assert own.publish("x").status_code == 401
    own.emulator.change(strict=False)
    assert own.publish("x").status_code == 503


@pytest.mark.parametrize("how", ["delete", "reset"])
def test_pending_faults_can_be_dropped(own: Api, how: str) -> None:
    own.emulator.fail_next(5, status=503)
    if how == "reset":
        own.emulator.reset()
    else:
        assert own.delete(FAULTS).status_code == 200
    assert statuses(own, 1) == [200]


def test_fault_response_says_that_it_is_one(own: Api) -> None:
    own.emulator.fail_next(status=500, delivered=True)
    assert own.publish("faults").json()["message"] == (
        "The emulator was asked to answer this call with status 500; it was carried out all the same."
    )
    own.emulator.fail_next(answer="not-json")
    own.publish("faults")
    assert own.emulator.requests[-1].message == (
        "The emulator was asked to answer this call with the fault not-json; nothing was delivered."
    )


def test_other_server_cannot_end_connections_and_says_so() -> None:
    async def fail() -> None:
        transport = httpx.ASGITransport(create_app())
        header = {"forge-proxy-authorization": "Forge id=inv-1"}
        async with httpx.AsyncClient(transport=transport, base_url="http://emulator", headers=header) as client:
            assert (await client.post(FAULTS, json={"answer": "reset"})).status_code == 200
            await client.post("/forge/realtime/v1/publish", json={"name": "x", "payload": "x"})

    with pytest.raises(EmulatorError, match="'reset' ends a connection, which only the server of Emulator"):
        asyncio.run(fail())
