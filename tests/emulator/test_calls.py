"""Calls and their attempts: how they are told, listed, shown in detail, sent again and recorded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from forge_realtime_emulator import Emulator, EmulatorError
from forge_realtime_emulator._platform import attempts as _attempts
from tests.emulator.api import Api
from tests.emulator.test_sse import until

RECORDING = "/_emulator/recording"


def calls(api: Api, query: str = "") -> list[dict[str, Any]]:
    response = api.get(f"/_emulator/calls?{query}")
    assert response.status_code == 200, response.text
    listed: list[dict[str, Any]] = response.json()["calls"]
    return listed


def details(api: Api, id_: int) -> dict[str, Any]:
    response = api.get(f"/_emulator/calls/{id_}")
    assert response.status_code == 200, response.text
    shown: dict[str, Any] = response.json()
    return shown


def attempts(api: Api) -> list[tuple[int, int, int]]:
    """Return number, call and attempt of each request, in the order of the responses."""
    return [(request.id, request.call, request.attempt) for request in api.emulator.requests]


def test_attempts_of_a_call_are_told_by_operation_header_and_body(own: Api) -> None:
    own.emulator.fail_next(2, status=503, channel="x")
    assert [own.publish("x").status_code for _ in range(3)] == [503, 503, 200]
    # The event has the number 4.
    assert attempts(own) == [(1, 1, 1), (2, 1, 2), (3, 1, 3)]
    own.publish("x")
    assert attempts(own)[3:] == [(5, 5, 1)]
    own.emulator.reset()
    own.emulator.fail_next(5, status=503)
    own.publish("x")
    own.publish("x", "another payload")
    own.publish("x", authorization="Forge id=inv-2")
    own.publish_global("x")
    assert attempts(own) == [(number, number, 1) for number in range(1, 5)]
    own.publish_global("x")
    assert attempts(own)[4:] == [(5, 4, 2)]


@pytest.mark.parametrize(
    "fault", [{"answer": "reset"}, {"answer": "truncated"}, {"answer": "not-json"}, {"status": 429, "delivered": True}]
)
def test_attempt_that_gave_no_clean_response_is_retried(own: Api, fault: dict[str, Any]) -> None:
    own.emulator.fail_next(**fault)
    for _ in range(2):
        try:
            own.publish("x")
        except httpx.TransportError:
            assert "answer" in fault
    first, second = own.emulator.requests
    assert (first.call, second.call, second.attempt) == (1, 1, 2)
    [shown] = details(own, second.id)["attempts"][:1]
    if fault.get("answer") == "reset":
        assert (shown["status"], shown["response"]) == (0, None)
    else:
        bodies = {"truncated": '{"eventId": "', "not-json": "<!doctype html><title>Not JSON</title>"}
        assert bodies.get(fault.get("answer", ""), "RATE_LIMIT_EXCEEDED") in shown["response"]["body"]
    if "delivered" in fault:
        # Each attempt has the event that it published.
        assert [event.call for event in own.emulator.events] == [1, 1]
        assert None not in [attempt["event"] for attempt in details(own, 1)["attempts"]]


def test_refusal_in_a_200_is_retried(own: Api) -> None:
    own.emulator.change(limit=1)
    assert [own.publish("x").status_code for _ in range(3)] == [200, 200, 200]
    assert [request.attempt for request in own.emulator.requests] == [1, 1, 2]


def test_refusal_that_no_retry_changes_ends_the_call(own: Api) -> None:
    for _ in range(2):
        own.publish("x", token="no")
        own.post("/forge/realtime/v1/publish", {"name": "x"})
        own.publish("x", authorization="Forge nothing")
    assert [request.attempt for request in own.emulator.requests] == [1] * 6
    assert None not in [request.code for request in own.emulator.requests]


def test_retry_may_come_before_the_delayed_attempt_has_ended(own: Api) -> None:
    body = {"name": "x", "payload": "x"}
    own.emulator.fail_next(delay=0.5)
    with pytest.raises(httpx.ReadTimeout):
        own.post("/forge/realtime/v1/publish", body, timeout=0.1)
    own.post("/forge/realtime/v1/publish", body)
    until(lambda: len(own.emulator.requests) == 2)
    assert [(request.call, request.attempt, request.fault) for request in own.emulator.requests] == [
        (1, 2, False),
        (1, 1, True),
    ]
    [row] = calls(own)
    assert (row["attempt"], row["call"]) == (2, 1)
    assert own.emulator.requests[1].duration >= 0.5
    # The call is over.
    own.post("/forge/realtime/v1/publish", body)
    assert own.emulator.requests[2].attempt == 1


def test_delayed_call_that_got_its_response_is_not_retried(own: Api) -> None:
    own.emulator.fail_next(delay=0.01)
    own.publish("x")
    own.publish("x")
    assert [request.attempt for request in own.emulator.requests] == [1, 1]


def test_call_ends_with_its_deadline_and_open_calls_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(_attempts, "elapsed", lambda: now)
    monkeypatch.setattr(_attempts, "_OPEN_LIMIT", 3)
    calls = _attempts.Attempts()

    def fail(id_: int, key: str) -> tuple[int, int]:
        attempt = calls.begin(id_, (key,), now)
        calls.may_be_retried(attempt)
        return attempt.call, attempt.number

    assert fail(1, "a") == (1, 1)
    now = 129.0
    assert fail(2, "a") == (1, 2)
    now = 131.0
    assert fail(3, "a") == (3, 1)
    now = 132.0
    assert [fail(number, str(number)) for number in range(4, 7)] == [(4, 1), (5, 1), (6, 1)]
    # The oldest is forgotten.
    assert fail(7, "a") == (7, 1)
    now = 200.0
    assert fail(8, "b") == (8, 1)
    assert len(calls._open) == 1
    assert calls.begin(9, None, now).call == 9


def test_details_have_request_response_event_and_subscribers(own: Api) -> None:
    own.emulator.register(invocations={"a": {"context": {"issue": "1"}}})
    payload = json.dumps({"long": "y" * 500})
    with own.emulator.subscribe("x", invocation="a"), own.stream("channel=x&invocation=a") as stream:
        lines = stream.iter_lines()
        next(lines)
        token = own.sign("x")
        own.publish("x", payload, authorization="Forge as=user,accountId=user-1,id=a")
    shown = details(own, 2)
    [attempt] = shown["attempts"]
    assert (shown["id"], shown["event"], shown["invoke"]) == (2, None, None)
    assert (attempt["payload"], attempt["request"]["method"], attempt["request"]["path"]) == (
        payload,
        "POST",
        "/forge/realtime/v1/publish",
    )
    assert attempt["request"]["headers"]["forge-proxy-authorization"] == "Forge as=user,accountId=user-1,id=a"
    assert json.loads(attempt["request"]["body"]) == {"name": "x", "payload": payload, "options": {}}
    assert attempt["response"]["headers"]["content-type"] == "application/json"
    assert json.loads(attempt["response"]["body"])["eventId"] == attempt["event"]["eventId"]
    assert [(one["via"], one["invocation"]) for one in attempt["event"]["subscribers"]] == [
        ("websocket", "a"),
        ("sse", "a"),
    ]
    assert (attempt["event"]["payload"], attempt["event"]["call"]) == (payload, 2)
    # The number of the event leads to its call.
    assert details(own, attempt["event"]["id"]) == shown
    [row, signed] = calls(own)
    assert row == {name: attempt[name] for name in row} | {"payload": payload[:300]}
    assert (row["scope"], row["delivered"], row["installation"]) == (
        'module default-module issue="1"',
        2,
        "default-installation",
    )
    assert row["bytes"] == len(attempt["request"]["body"])
    assert 0 < row["duration"] < 60
    assert (signed["isGlobal"], signed["delivered"], signed["payload"]) == (None, None, None)
    # Nothing of it is in a repr.
    own.publish("secret-channel", "secret-payload", token=token, authorization="Forge id=secret-id")
    for record in (*own.emulator.requests, *own.emulator.events):
        assert not any(secret in repr(record) for secret in (token, "secret-payload", "user-1"))


def test_details_say_why_nobody_got_an_event(own: Api) -> None:
    with own.emulator.subscribe("X"):
        own.publish("x")
        [miss] = details(own, 1)["attempts"][0]["event"]["nearMisses"]
    assert miss.startswith("1 subscriber(s) on 'X' did not get it: the subscription is on 'X', and names are")
    assert own.get("/_emulator/calls/99").status_code == 404
    assert own.get("/_emulator/calls/99").json()["message"] == (
        "No call or event has the number 99. It is forgotten, or the emulator was reset."
    )


def test_details_of_a_call_that_was_refused_before_it_was_read(own: Api) -> None:
    own.post("/forge/realtime/v1/publish", content=b'{"\xff', headers={"Content-Type": "application/json"})
    own.post("/forge/realtime/v1/publish", {"name": "x"}, None)
    [refused], [unauthorized] = (details(own, number)["attempts"] for number in (1, 2))
    assert refused["request"]["body"] == '{"\udcff'
    assert json.loads(refused["response"]["body"])["code"] == "INVALID_REQUEST"
    assert (unauthorized["channel"], unauthorized["request"]["body"]) == (None, '{"name": "x"}')


def test_row_says_the_place_in_a_stream(own: Api) -> None:
    envelope = {"forgeStream": 2, "stream": "s", "seq": 3, "merge": "append", "data": "Hel", "updates": 1, "end": False}
    own.publish("x", json.dumps(envelope))
    own.publish("x", json.dumps({**envelope, "merge": "latest", "data": {"done": 1}, "end": True}))
    assert [row["stream"] for row in calls(own)] == [
        {"id": "s", "seq": 3, "end": True, "text": None},
        {"id": "s", "seq": 3, "end": False, "text": "Hel"},
    ]


def fill(api: Api) -> None:
    """Make some calls, whose payloads name them."""
    api.emulator.register(invocations={"b": {"installation": "i-b"}})
    api.emulator.fail_next(status=503, channel="busy")
    with api.emulator.subscribe("x"):
        api.publish("x", "Delivered")
    until(lambda: not api.get("/_emulator/state").json()["channels"])
    api.publish("x", "unheard")
    api.publish("busy", "retried")
    api.publish("busy", "retried")
    api.publish_global("x", "other", authorization="Forge id=b")
    api.publish("x", "token", token="no")
    api.post("/_emulator/publish", {"channel": "x", "payload": "of a page"})
    api.emulator.fail_next(answer="reset")
    with pytest.raises(httpx.TransportError):
        api.publish("x", "broken")
    api.post("/_emulator/invoke", {"path": "/jobs", "method": "GET"})


@pytest.fixture(scope="module")
def filled(api_of: Callable[[Emulator], Api]) -> Iterator[Api]:
    """An emulator with these calls, to which no test adds any."""
    with Emulator() as emulator:
        api = api_of(emulator)
        fill(api)
        yield api


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", "invoke broken page token other retried unheard Delivered"),
        ("limit=2", "invoke broken"),
        ("status=2xx", "page token other retried unheard Delivered"),
        ("status=200&failed=true", "token"),
        ("status=200&failed=false", "page other retried unheard Delivered"),
        ("failed=true", "invoke broken token"),
        ("status=reset", "invoke broken"),
        ("status=5xx", ""),
        ("operation=publish_global", "other"),
        ("channel=busy", "retried"),
        ("installation=i-b", "other"),
        ("delivered=true", "Delivered"),
        ("delivered=false", "page other retried unheard"),
        ("text=DELIVERED", "Delivered"),
        ("text=he", "other unheard"),
        ("channel=x&text=he&limit=1", "other"),
    ],
)
def test_list_is_filtered(filled: Api, query: str, found: str) -> None:
    names = [row.get("payload", "invoke").split()[-1] for row in calls(filled, query)]
    assert names == found.split()


def test_list_goes_on_before_a_row(filled: Api) -> None:
    rows = calls(filled)
    # A call whose last attempt is newer is not shown again as an older one.
    for number, row in enumerate(rows):
        assert calls(filled, f"before={row['id']}") == rows[number + 1 :]


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("state=1", "state: unknown; a list takes status, failed,"),
        ("status=6xx", "status: must be one such as 429, a class such as 4xx, or reset"),
        ("failed=1", "failed: must be true or false"),
        ("limit=0", "limit: must be a whole number of at least 1"),
        ("before=x", "before: must be a whole number of at least 1"),
    ],
)
def test_wrong_filter_is_refused(filled: Api, query: str, problem: str) -> None:
    response = filled.get(f"/_emulator/calls?{query}")
    assert response.status_code == 400
    assert problem in response.json()["message"]


def test_what_a_page_did_has_details(filled: Api) -> None:
    invoke, _, page = calls(filled)[:3]
    shown = details(filled, page["id"])
    assert (shown["id"], shown["attempts"], shown["invoke"]) == (page["id"], [], None)
    assert (shown["event"]["payload"], shown["event"]["call"]) == ("of a page", None)
    shown = details(filled, invoke["id"])
    assert (shown["attempts"], shown["event"], shown["invoke"]["code"]) == ([], None, "NO_SERVICE")
    response = filled.post(f"/_emulator/calls/{invoke['id']}/resend")
    assert response.status_code == 400
    assert "only a page can call the service again" in response.json()["message"]


def test_call_is_sent_again_as_a_new_call(own: Api) -> None:
    own.emulator.fail_next(status=503)
    own.publish("x", "again", authorization="Forge as=app,id=inv-7")
    with own.emulator.subscribe("x") as subscription:
        response = own.post("/_emulator/calls/1/resend", authorization=None)
        assert subscription.receive().payload == "again"
    sent = response.json()
    assert (sent["id"], sent["status"]) == (2, 200)
    assert json.loads(sent["body"])["eventId"] is not None
    first, second = own.emulator.requests
    assert (second.call, second.attempt, second.body, second.headers) == (2, 1, first.body, first.headers)
    assert second.authorization is not None
    assert second.authorization.invocation_id == "inv-7"
    own.emulator.fail_next(answer="reset")
    assert own.post("/_emulator/calls/1/resend").json() == {"id": 4, "status": 0, "body": None}
    own.post("/_emulator/publish", {"channel": "y", "payload": "of a page"})
    with own.emulator.subscribe("y") as subscription:
        assert own.post("/_emulator/calls/5/resend").json()["status"] == 200
        assert subscription.receive().payload == "of a page"
    large = own.post("/forge/realtime/v1/publish", content=b"x" * 1_100_000)
    assert large.status_code == 413
    refused = own.post(f"/_emulator/calls/{own.emulator.requests[-1].id}/resend")
    assert "the body of this call was too large to be kept" in refused.json()["message"]


def test_recording_is_shown_again(own: Api, tmp_path: Path, api_of: Callable[[Emulator], Api]) -> None:
    with Emulator() as recorded:
        show_recording_of(api_of(recorded), own, tmp_path, api_of)


def show_recording_of(filled: Api, own: Api, tmp_path: Path, api_of: Callable[[Emulator], Api]) -> None:
    fill(filled)
    envelope = {"forgeStream": 2, "stream": "s", "seq": 0, "merge": "append", "data": "Hel", "updates": 1, "end": True}
    filled.publish("x", json.dumps(envelope), token=filled.sign("x", {"team": "red"}))
    filled.post("/forge/realtime/v1/publish", content=b'{"\xff', headers={"Content-Type": "application/json"})
    filled.publish("\ud800", "\ud800")
    filled.emulator.change(keep_unheard=True)
    text = filled.get(RECORDING).text
    recording = json.loads(text)
    assert (recording["version"], recording["settings"]["keep_unheard"]) == (1, True)
    own.publish("forgotten")
    response = own.post(RECORDING, content=text, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()) == (200, {})
    file = tmp_path / "recording.json"
    file.write_text(text, encoding="utf-8")
    with Emulator() as emulator:
        emulator.replay(file)
        for api in (own, api_of(emulator)):
            assert calls(api) == calls(filled)
            for row in calls(api):
                assert details(api, row["id"]) == details(filled, row["id"])
            shown, before = (each.get("/_emulator/state").json() for each in (api, filled))
            assert (shown["replayed"], before["replayed"]) == (True, False)
            assert (shown["settings"], shown["streams"]) == (before["settings"], before["streams"])
            assert shown["contexts"]["invocations"] == before["contexts"]["invocations"]
            assert [event.payload for event in api.emulator.events] == [
                event.payload for event in filled.emulator.events
            ]
            # It serves on: numbers continue.
            api.publish("x", "later")
            assert calls(api)[0]["id"] > max(row["id"] for row in calls(filled))
            assert api.post("/_emulator/calls/1/resend").json()["status"] == 200
            api.emulator.reset()
            shown = api.get("/_emulator/state").json()
            assert (shown["replayed"], shown["settings"]["keep_unheard"], calls(api)) == (False, False, [])


def test_call_whose_first_attempt_is_forgotten_has_details(own: Api) -> None:
    own.emulator.fail_next(status=503)
    for _ in range(2):
        own.publish("x")
    recording = own.get(RECORDING).json()
    del recording["calls"][0]
    # A channel that no document allows is none.
    recording["calls"][0]["request"]["body"] = '{"name": {"x": 1}, "payload": ["y"]}'
    assert own.post(RECORDING, recording).status_code == 200
    [attempt] = details(own, 1)["attempts"]
    assert (attempt["call"], attempt["attempt"], attempt["channel"], attempt["payload"]) == (1, 2, None, ["y"])


def test_size_of_a_record_counts_all_that_was_sent(own: Api) -> None:
    own.post(
        "/forge/realtime/v1/token",
        {"channelName": "x", "claims": {"long": "y" * 1000}},
        headers={"X-Long": "z" * 1000},
    )
    [request] = own.emulator.requests
    assert 3000 < request.size < 5000


def test_file_that_is_no_recording_is_refused(filled: Api, own: Api, tmp_path: Path) -> None:
    good = filled.get(RECORDING).json()
    call = good["calls"][0]
    for broken, problem in [
        ("{", "it is not valid JSON"),
        ([], "its version is not 1"),
        ({**good, "version": 2}, "its version is not 1"),
        ({**good, "settings": {"nothing": 1}}, "it has another form"),
        ({**good, "settings": {"limit": 0}}, "limit must be a whole number"),
        ({**good, "contexts": {"nothing": 1}}, "has an unknown key"),
        ({**good, "calls": [{**call, "id": "1"}]}, "id of a record has another type"),
        ({**good, "calls": [{**call, "id": True}]}, "id of a record has another type"),
        ({**good, "calls": [{**call, "id": -1}]}, "id of a record is out of range"),
        ({**good, "calls": [{**call, "call": 2**60}]}, "call of a record is out of range"),
        ({**good, "calls": [call, call]}, "two of its records have the same id"),
        (
            {**good, "calls": [{**call, "request": {**call["request"], "headers": {"x": "\u2603"}}}]},
            "a header of a record has a character that HTTP cannot carry",
        ),
        ({**good, "calls": [{"id": 1}]}, "it has no call"),
        ({**good, "calls": [7]}, "must be an object"),
        ({**good, "calls": [{**call, "event": {}}]}, "it has no id"),
        ({**good, "calls": 7}, "it has another form"),
        ({name: value for name, value in good.items() if name != "invokes"}, "it has no invokes"),
        ('{"version": NaN}', "NaN and Infinity are not JSON"),
        ("[" * 100_000, "nested too deeply"),
    ]:
        text = broken if isinstance(broken, str) else json.dumps(broken)
        response = own.post(RECORDING, content=text, headers={"Content-Type": "application/json"})
        assert response.status_code == 400
        assert response.json()["message"].startswith("Invalid request: this is no recording: ")
        assert problem in response.json()["message"]
        file = tmp_path / "recording.json"
        file.write_text(text, encoding="utf-8")
        with pytest.raises(EmulatorError, match="cannot be read as a recording: "):
            own.emulator.replay(file)
    with pytest.raises(EmulatorError, match="cannot be read as a recording: "):
        own.emulator.replay(tmp_path / "missing.json")
    assert own.post(RECORDING, content=b"{}").json()["message"].endswith("must be application/json.")
