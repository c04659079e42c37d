"""Faults on request, through the control endpoint and from Python."""

from __future__ import annotations

from typing import Any

import pytest

from tests.emulator.api import Api

FAULTS = "/_emulator/faults"


def statuses(api: Api, calls: int) -> list[int]:
    return [call("faults").status_code for call in [api.publish] * calls]


def test_the_next_calls_get_the_status_and_then_no_more(own: Api) -> None:
    assert own.post(FAULTS, {"status": 429, "retryAfter": 1, "times": 2}).status_code == 200
    first = own.publish("faults")
    assert first.status_code == 429
    assert first.headers["retry-after"] == "1"
    assert first.json()["code"] == "RATE_LIMIT_EXCEEDED"
    assert first.json()["message"]
    assert statuses(own, 2) == [429, 200]


def test_times_defaults_to_one_and_retry_after_to_none(own: Api) -> None:
    own.post(FAULTS, {"status": 503})
    answer = own.publish("faults")
    assert answer.status_code == 503
    assert "retry-after" not in answer.headers
    assert answer.json()["code"] == "INJECTED_FAULT"
    assert statuses(own, 1) == [200]


def test_faults_wait_in_a_row_and_for_their_operation(own: Api) -> None:
    own.emulator.fail_next(status=500, operation="publish_global")
    own.emulator.fail_next(2, status=503)
    own.emulator.fail_next(status=429, retry_after=0, operation="publish")
    assert statuses(own, 4) == [503, 503, 429, 200]
    assert own.publish_global("faults").status_code == 500
    assert own.publish_global("faults").status_code == 200


def test_a_faulted_call_is_not_delivered_but_recorded(own: Api, channel: str) -> None:
    with own.emulator.subscribe(channel) as subscription:
        own.emulator.fail_next(status=500)
        assert own.publish(channel, "lost").status_code == 500
        assert own.publish(channel, "kept").status_code == 200
        assert subscription.receive().payload == "kept"
    assert [(call.status, call.body["payload"]) for call in own.emulator.requests] == [(500, "lost"), (200, "kept")]
    assert [event.payload for event in own.emulator.events] == ["kept"]


def test_a_fault_comes_before_the_checks(own: Api) -> None:
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
    ({"status": 200}, "status: must be at least 400"),
    ({"status": 600}, "status: must be at most 599"),
    ({"status": 429, "retryAfter": -1}, "retryAfter: must be at least 0"),
    ({"status": 429, "retryAfter": 0.5}, "retryAfter: must be of type integer"),
    ({"status": 429, "times": 0}, "times: must be at least 1"),
    ({"status": 429, "wait": 1}, "allowed are status, retryAfter, answer, delay, delivered, times, operation"),
    ({"status": 429, "operation": "nix"}, "must be one of publish, publish_global, sign_realtime_token"),
]


@pytest.mark.parametrize(("fault", "problem"), BAD)
def test_a_wrong_fault_is_refused_with_what_is_wrong(own: Api, fault: Any, problem: str) -> None:
    answer = own.post(FAULTS, fault)
    assert answer.status_code == 400
    assert answer.json()["code"] == "INVALID_REQUEST"
    assert problem in answer.json()["message"]
    assert statuses(own, 1) == [200]


@pytest.mark.parametrize("content_type", ["text/plain", "application/json"])
def test_a_fault_that_is_not_json_is_refused(own: Api, content_type: str) -> None:
    answer = own.post(FAULTS, content=b"{status", headers={"Content-Type": content_type})
    assert answer.status_code == 400
    assert answer.json()["code"] == "INVALID_REQUEST"


def test_from_python_a_wrong_fault_is_a_value_error(own: Api) -> None:
    with pytest.raises(ValueError, match="status: must be at least 400"):
        own.emulator.fail_next(status=200)
    with pytest.raises(ValueError, match="times: must be at least 1"):
        own.emulator.fail_next(0, status=500)
    with pytest.raises(ValueError, match="operation: must be one of"):
        own.emulator.fail_next(status=500, operation="nix")
