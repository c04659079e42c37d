"""Subscriptions over Server-Sent Events."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import pytest

from forge_realtime_emulator import Emulator, Settings
from forge_realtime_emulator._http import subscribers as _subscribers
from forge_realtime_emulator._platform import channels as _channels
from tests.emulator.api import Api


def messages(response: httpx.Response) -> Iterator[Any]:
    """Yield the data of each message; comments as text."""
    for line in response.iter_lines():
        if line:
            yield json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else line


def subscribers(api: Api) -> int:
    return sum(channel["subscribers"] for channel in api.get("/_emulator/state").json()["channels"])


def until(done: Callable[[], bool]) -> None:
    """Poll for a condition of the emulator's thread, which has no event to wait for."""
    deadline = time.monotonic() + 10
    while not done():
        assert time.monotonic() < deadline


def test_stream_follows_the_documented_protocol(own: Api) -> None:
    with own.stream("channel=x") as response:
        assert response.status_code == 200
        assert response.headers["content-type"].partition(";")[0] == "text/event-stream"
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-accel-buffering"] == "no"
        stream = messages(response)
        assert next(stream) == {"type": "subscribed"}
        published = own.publish("x", "line\nline\u2028\ud800").json()
        assert next(stream) == {
            "type": "event",
            "channel": "x",
            "payload": "line\nline\u2028\ud800",
            **published,
        }


def test_every_option_of_a_subscription_is_in_the_query(own: Api) -> None:
    own.emulator.register(invocations={"a": {"context": {"issue": "1", "project": "P"}}})
    own.emulator.change(keep_unheard=True)
    token = own.sign("x y", {"team": "red"})
    options = {"token": token, "contextOverrides": ["project", "issue"]}
    own.publish("x y", "before", authorization="Forge id=a", **options)
    query = {"channel": "x y", "invocation": "a", "token": token, "contextOverrides": "issue,project"}
    with own.stream(urlencode({**query, "isGlobal": "false", "replaySeconds": "60"})) as response:
        stream = messages(response)
        assert next(stream) == {"type": "subscribed"}
        assert next(stream)["payload"] == "before"
        own.publish("x y", "nobody's", authorization="Forge id=a")
        own.publish("x y", "after", authorization="Forge id=a", **options)
        assert next(stream)["payload"] == "after"
    with own.stream(f"channel=x&isGlobal=true&token={own.sign('x')}") as response:
        stream = messages(response)
        next(stream)
        own.publish_global("x", "global", token=own.sign("x"))
        assert next(stream)["payload"] == "global"
    with own.stream("channel=x&contextOverrides=") as response:
        stream = messages(response)
        next(stream)
        own.publish("x", "empty", contextOverrides=[])
        assert next(stream)["payload"] == "empty"


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("", "missing channel"),
        ("channel=x&isGlobal=yes", "isGlobal is true or false"),
        ("channel=x&replaySeconds=soon", "replaySeconds a number"),
        ("channel=x&replaySeconds=nan", "replaySeconds a number"),
        ("channel=x&replaySeconds=1e999", "replaySeconds a number"),
        ("channel=x&replaySeconds=true", "options.replaySeconds: must be of type number"),
        ("channel=x&replaySeconds=-1", "options.replaySeconds: must be at least 0"),
        ("channel=x&replaySeconds=" + "[" * 50_000, "replaySeconds a number"),
        ("channel=x&name=x", "allowed are channel, isGlobal, invocation, options"),
        ("channel=x&options=x", "options: must be of type object"),
    ],
)
def test_query_that_is_not_a_subscription_is_refused(api: Api, query: str, problem: str) -> None:
    response = api.get(f"/_emulator/subscribe?{query}")
    assert (response.status_code, response.json()["code"]) == (400, "INVALID_SUBSCRIPTION")
    assert problem in response.json()["message"]


def test_refused_token_and_unknown_invocation_are_errors(api_of: Callable[[Emulator], Api]) -> None:
    with Emulator(settings=Settings(strict=True)) as emulator:
        api = api_of(emulator)
        response = api.get("/_emulator/subscribe?channel=x&token=x")
        assert (response.status_code, response.json()["code"]) == (400, "INVALID_TOKEN")
        response = api.get(f"/_emulator/subscribe?channel=x&invocation={quote('ä')}")
        assert (response.status_code, response.json()["code"]) == (401, "UNAUTHORIZED")


@pytest.mark.parametrize(("end", "reason"), [("reset", "was reset"), ("stop", "stopped")])
def test_stop_and_reset_close_the_stream_with_a_reason(own: Api, end: str, reason: str) -> None:
    with own.stream("channel=x") as response:
        stream = messages(response)
        next(stream)
        getattr(own.emulator, end)()
        assert list(stream) == [{"type": "closed", "code": 1001, "reason": f"The emulator {reason}."}]


def test_slow_reader_is_closed_with_reason_and_delays_nobody(own: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_channels, "QUEUE_LIMIT", 20)
    own.emulator.change(limit=None)
    with own.emulator.subscribe("x") as fast, own.stream("channel=x") as response:
        published = 0
        while not published or own.emulator.events[-1].delivered == 2:
            own.publish("x", f"{published} {'x' * 900_000}")
            published += 1
            fast.receive()
        *got, closed = messages(response)
    assert closed["code"] == 1013
    assert "Too slow: 20 events were waiting" in closed["reason"]
    numbers = [int(message["payload"].partition(" ")[0]) for message in got[1:]]
    assert numbers == list(range(len(numbers)))
    assert 0 < len(numbers) < published


def test_disconnected_reader_is_forgotten(own: Api) -> None:
    with own.stream("channel=x") as response:
        stream = messages(response)
        assert next(stream) == {"type": "subscribed"}
        assert subscribers(own) == 1
    until(lambda: subscribers(own) == 0)
    assert own.publish("x").json()["eventId"] is None


def test_silent_reader_does_not_delay_stop(own: Api) -> None:
    own.emulator.change(limit=None)
    with socket.create_connection(("127.0.0.1", int(own.emulator.url.rpartition(":")[2]))) as unread:
        unread.sendall(b"GET /_emulator/subscribe?channel=x HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: subscribers(own) == 1)
        for _ in range(20):
            own.publish("x", "x" * 900_000)
        began = time.monotonic()
        own.emulator.stop()
        assert time.monotonic() - began < 2


def test_quiet_stream_sends_comments(own: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_subscribers, "_PING", 0.01)
    with own.stream("channel=x") as response:
        stream = messages(response)
        assert next(stream) == {"type": "subscribed"}
        assert next(stream) == ": still here"
        own.publish("x", "after it")
        assert next(message for message in stream if isinstance(message, dict))["payload"] == "after it"
