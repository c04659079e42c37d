"""Transcripts: the same in every run of a test."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from forge_realtime import RealtimeClient, RetryPolicy
from forge_realtime_emulator import Emulator, ReceivedEvent
from forge_realtime_emulator._platform.transcript import make_transcript
from tests.emulator.api import Api
from tests.emulator.envelopes import envelope

INVOCATION = {"x-forge-invocation-id": "invocation-123"}
UUID = "8b2d6a06-6a39-4b51-8d5c-0d1e7e0f3d11"


def use(emulator: Emulator) -> dict[str, Any]:
    """Make calls of every kind, and return the transcript."""
    with RealtimeClient(emulator.url, retry=RetryPolicy(backoff_initial=0.001)) as realtime:
        live = realtime.for_invocation(INVOCATION)
        token = live.sign_realtime_token("team", {"team": "red", "user": UUID}, ["publish", "subscribe"])
        with (
            emulator.subscribe("board-42") as page,
            emulator.subscribe("board-42"),
            emulator.subscribe("team", token=token),
        ):
            emulator.fail_next(status=503)
            first = live.publish("board-42", {"moved": 7, "by": UUID, "at": "2026-11-28T15:00:00.123Z"})
            live.publish("board-42", {"after": first.event_id, "token": token.token})
            live.publish("team", "plain text", token=token, context_overrides=None)
            assert page.receive().event_id == first.event_id
        realtime.for_installation("i-1", as_="user", account_id="a-1").publish_global("alerts", "[1, ")
        with live.stream("answer") as stream:
            for word in ("Hel", "lo", "!"):
                stream.send(word)
    return emulator.transcript()


EXPECTED = {
    "calls": [
        {
            "operation": "publish_global",
            "channel": "alerts",
            "installation": "i-1",
            "as": "user",
            "account": "a-1",
            "payload": "[1, ",
            "status": 200,
        },
        {
            "operation": "publish",
            "channel": "board-42",
            "invocation": "invocation-123",
            "as": "app",
            "payload": {"moved": 7, "by": "<id 1>", "at": "<time>"},
            "status": 503,
            "code": "INJECTED_FAULT",
        },
        {
            "operation": "publish",
            "channel": "board-42",
            "invocation": "invocation-123",
            "as": "app",
            "payload": {"moved": 7, "by": "<id 1>", "at": "<time>"},
            "status": 200,
        },
        {
            "operation": "publish",
            "channel": "board-42",
            "invocation": "invocation-123",
            "as": "app",
            "payload": {"after": "<id 2>", "token": "<token 1>"},
            "status": 200,
        },
        {
            "operation": "sign_realtime_token",
            "channel": "team",
            "invocation": "invocation-123",
            "as": "app",
            "claims": {"team": "red", "user": "<id 1>"},
            "permissions": ["publish", "subscribe"],
            "status": 200,
        },
        {
            "operation": "publish",
            "channel": "team",
            "invocation": "invocation-123",
            "as": "app",
            "payload": "plain text",
            "options": {"token": "<token 1>"},
            "status": 200,
        },
    ],
    "events": [
        {
            "channel": "alerts",
            "installation": "default-installation",
            "scope": "global",
            "payload": "[1, ",
            "event": None,
            "delivered": 0,
        },
        {
            "channel": "board-42",
            "installation": "default-installation",
            "scope": "module default-module",
            "payload": {"moved": 7, "by": "<id 1>", "at": "<time>"},
            "event": "<id 2>",
            "delivered": 2,
        },
        {
            "channel": "board-42",
            "installation": "default-installation",
            "scope": "module default-module",
            "payload": {"after": "<id 2>", "token": "<token 1>"},
            "event": "<id 3>",
            "delivered": 2,
        },
        {
            "channel": "team",
            "installation": "default-installation",
            "scope": "module default-module",
            "claims": {"team": "red", "user": "<id 1>"},
            "payload": "plain text",
            "event": "<id 4>",
            "delivered": 1,
        },
    ],
    "streams": [
        {
            "channel": "answer",
            "installation": "default-installation",
            "scope": "module default-module",
            "merge": "append",
            "value": "Hello!",
            "ended": True,
        }
    ],
}


def test_transcript_is_the_same_in_every_run(own: Api) -> None:
    transcripts = []
    for _ in range(2):
        own.emulator.reset()
        transcripts.append(use(own.emulator))
    assert transcripts == [EXPECTED, EXPECTED]


def test_stream_that_failed_or_was_stopped_says_so(own: Api) -> None:
    error = {"type": "model_unavailable", "message": "The model is busy."}
    own.publish("a", envelope(0, "Hel", end=True, error=error))
    own.publish("b", envelope(0, "Hel", end=True, stopped={"by": "page", "reason": f"user {UUID}"}))
    failed, stopped = own.emulator.transcript()["streams"]
    assert (failed["error"], failed["message"]) == ("model_unavailable", "The model is busy.")
    assert "stopped" not in failed
    assert stopped["stopped"] == {"by": "page", "reason": "user <id 1>"}
    assert "error" not in stopped


def test_transcript_of_a_new_emulator_is_empty() -> None:
    assert Emulator().transcript() == {"calls": [], "events": [], "streams": []}


def test_concurrent_calls_on_different_channels_have_one_order(own: Api) -> None:
    channels = [f"channel-{number}" for number in range(8)]
    transcripts = []
    for _ in range(3):
        own.emulator.reset()
        with ThreadPoolExecutor(8) as threads:
            assert {response.status_code for response in threads.map(own.publish, channels)} == {200}
        transcripts.append(own.emulator.transcript())
        assert [call["channel"] for call in transcripts[-1]["calls"]] == channels
        assert [event["channel"] for event in transcripts[-1]["events"]] == channels
    assert transcripts[0] == transcripts[1] == transcripts[2]


def test_refused_call_has_its_code(own: Api) -> None:
    own.post("/forge/realtime/v1/publish", ["not an object"])
    own.post("/forge/realtime/v1/publish", {"name": "c"}, None)
    own.publish("c", contextOverrides=["moon"])
    codes = [(call["channel"], call["status"], call["code"]) for call in own.emulator.transcript()["calls"]]
    assert codes == [
        (None, 400, "INVALID_REQUEST"),
        (None, 401, "UNAUTHORIZED"),
        ("c", 200, "PUBLISH_FAILED"),
    ]


def test_stream_that_ended_with_an_error_says_so(own: Api) -> None:
    own.publish("c", envelope(0, "Hel"))
    own.publish("c", envelope(1, "lo", end=True, error={"type": "LookupError"}))
    transcript = own.emulator.transcript()
    assert (transcript["calls"], transcript["events"]) == ([], [])
    [stream] = transcript["streams"]
    assert (stream["value"], stream["ended"], stream["error"]) == ("Hello", True, "LookupError")


def replaced(text: str) -> str:
    with Emulator() as emulator:
        emulator._sidecar.publish_from_page({"channel": "c", "payload": text})
        payload: str = emulator.transcript()["events"][0]["payload"]
        return payload


def test_ids_tokens_and_times_within_a_text_are_replaced() -> None:
    token = "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjF9.c2lnbmF0dXJl"
    text = f"job {UUID} of {UUID.upper()} and {UUID.replace('-', '')}, {token}, since 2026-11-28 15:00:00+01:00."
    assert replaced(text) == "job <id 1> of <id 2> and <id 3>, <token 1>, since <time>."


def test_other_texts_stay() -> None:
    text = "2026-11-28, 1767225600000, deadbeef, board-42, eyJ, 0123456789abcdef0123456789abcdef0"
    assert replaced(text) == text


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5))
def test_transcript_of_any_payload_is_json(payload: Any) -> None:
    emulator = Emulator()
    emulator._sidecar.publish_from_page({"channel": "c", "payload": json.dumps(payload)})
    transcript = make_transcript(emulator.requests, emulator.events, emulator.streams)
    assert json.loads(json.dumps(transcript)) == transcript


def test_received_events_are_compared_without_ids(own: Api) -> None:
    with own.emulator.subscribe("c") as page:
        own.publish("c", "moved")
        own.publish("c", "moved")
        own.publish("c", "removed")
        first, second, third = (page.receive() for _ in range(3))
    assert first == second == ReceivedEvent("c", "moved")
    assert first.event_id != second.event_id
    assert third != first
    assert first != ReceivedEvent("other", "moved")
