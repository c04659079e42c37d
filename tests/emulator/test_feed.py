"""The live feed of the console."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from forge_realtime_emulator import Emulator
from forge_realtime_emulator._http import control as _control
from forge_realtime_emulator._platform import feed as _feed
from tests.emulator.api import Api
from tests.emulator.test_sse import until


@contextmanager
def feed(emulator: Emulator) -> Iterator[Iterator[dict[str, Any]]]:
    with httpx.stream("GET", f"{emulator.url}/_emulator/feed", trust_env=False) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert (response.headers["cache-control"], response.headers["x-accel-buffering"]) == ("no-store", "no")
        yield (json.loads(line.removeprefix("data: ")) for line in response.iter_lines() if line)


def until_state(messages: Iterator[dict[str, Any]]) -> list[str]:
    kinds = []
    for message in messages:
        kinds.append(message["kind"])
        if kinds[-1] == "state":
            break
    return kinds


def test_feed_starts_with_past_records_in_order(own: Api, channel: str) -> None:
    own.publish(channel)
    own.publish(channel, "x", "Forge installationId=i")
    own.publish(channel)
    with feed(own.emulator) as messages:
        assert until_state(messages) == ["start", "event", "request", "request", "event", "request", "state"]


def test_feed_continues_with_each_record_once(own: Api, channel: str) -> None:
    with feed(own.emulator) as messages:
        assert until_state(messages) == ["start", "state"]
        own.publish(channel, "new")
        assert [message["payload"] for message in [next(messages)] if message["kind"] == "event"] == ["new"]
        assert next(message["status"] for message in messages if message["kind"] == "request") == 200


def test_console_reads_the_feed_over_a_websocket(own: Api, channel: str) -> None:
    own.publish(channel)
    with connect(f"ws{own.emulator.url.removeprefix('http')}/_emulator/feed", proxy=None) as websocket:
        messages = (json.loads(line) for frame in websocket for line in str(frame).splitlines())
        assert until_state(messages) == ["start", "event", "request", "state"]
        own.publish(channel, "new")
        assert next(message["payload"] for message in messages if message["kind"] == "event") == "new"
        own.emulator.stop()
        assert all(message["kind"] in {"request", "state"} for message in messages)
    assert (websocket.close_code, websocket.close_reason) == (1001, "The emulator stopped.")


def test_console_that_leaves_is_forgotten(own: Api) -> None:
    with connect(f"ws{own.emulator.url.removeprefix('http')}/_emulator/feed", proxy=None) as websocket:
        assert json.loads(websocket.recv(timeout=5))["kind"] == "start"
        assert len(own.emulator._sidecar.feed._readers) == 1
    until(lambda: not own.emulator._sidecar.feed._readers)


def test_busy_feed_sends_every_record_at_once_and_few_states(own: Api, channel: str) -> None:
    own.emulator.change(limit=None)
    with feed(own.emulator) as messages:
        until_state(messages)
        began = time.monotonic()
        for _ in range(100):
            own.publish(channel)
        own.publish(channel, "last")
        took = time.monotonic() - began
        kinds = []
        for message in messages:
            kinds.append(message["kind"])
            if message.get("payload") == "last":
                break
        assert kinds.count("event") == 101
        assert kinds.count("state") <= took / 0.1 + 1
        # A change is shown although no record follows.
        own.emulator.change(limit=7)
        limits = (message["settings"]["limit"] for message in messages if message["kind"] == "state")
        assert next(filter(None, limits)) == 7


def test_feed_starts_over_after_a_reset(own: Api, channel: str) -> None:
    own.publish(channel)
    with feed(own.emulator) as messages:
        assert until_state(messages) == ["start", "event", "request", "state"]
        own.emulator.reset()
        assert until_state(messages) == ["start", "state"]


def test_reader_that_misses_records_starts_over() -> None:
    class Numbered:
        def __init__(self, number: int) -> None:
            self.number = number

        def to_json(self) -> dict[str, Any]:
            return {"number": self.number}

    async def read(numbers: int, *, resets: bool) -> list[dict[str, Any]]:
        feed = _feed.Feed()
        with feed.reader() as reader:
            feed.send(Numbered(-1), 0)
            if resets:
                feed.restart()
            for number in range(numbers):
                feed.send(Numbered(number), 0)
            records = [record.to_json() for record in await reader.next(1)]
            feed.send(Numbered(-2), 0)
            assert [record.to_json() for record in await reader.next(1)] == [{"number": -2}]
        return records

    start = {"kind": "start"}
    assert asyncio.run(read(1, resets=False)) == [{"number": -1}, {"number": 0}]
    assert asyncio.run(read(1, resets=True)) == [start, {"number": 0}]
    for resets in (True, False):
        records = asyncio.run(read(1002, resets=resets))
        assert records[:2] == [start, {"number": 2}]
        assert len(records) == 1001


def test_state_of_the_feed_has_some_channels_and_counts_all(own: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_control, "_CHANNELS", 1)
    with own.emulator.subscribe("a"), own.emulator.subscribe("a"), own.emulator.subscribe("b"):
        with feed(own.emulator) as messages:
            state = next(message for message in messages if message["kind"] == "state")
        assert [channel["channel"] for channel in state["channels"]] == ["a"]
        whole = own.get("/_emulator/state").json()
    assert state["live"] == whole["live"] == {"channels": 2, "subscribers": 3}
    assert len(whole["channels"]) == 2


def test_clock_of_the_state_says_how_far_it_was_put_forward(own: Api) -> None:
    own.emulator.advance(90)
    assert own.get("/_emulator/state").json()["clock"] == 90


def test_feed_ends_with_the_emulator_and_works_after_the_next_start(api_of: Callable[[Emulator], Api]) -> None:
    emulator = Emulator()
    for _ in range(2):
        emulator.start()
        with feed(emulator) as messages:
            assert until_state(messages) == ["start", "state"]
            api_of(emulator).post("/_emulator/clock", {"advance": 1})
            assert next(messages)["kind"] == "state"
            emulator.stop()
            assert all(message["kind"] == "state" for message in messages)
