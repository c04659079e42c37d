"""Streams reassembled from their publishes: `Emulator.streams`."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge_realtime_emulator import Emulator, StreamReader
from forge_realtime_emulator._platform import streams as _streams
from forge_realtime_emulator._platform.channels import Address
from tests.emulator.api import Api
from tests.emulator.envelopes import ID, NO_ENVELOPES, VECTORS, envelope, snapshot_alone

OTHER = "f" * 32
ADDRESS = Address("installation", "channel", False, "module m", None)


def assembled(*payloads: str) -> list[_streams.RecordedStream]:
    streams = _streams.Streams()
    for second, payload in enumerate(payloads):
        streams.take(ADDRESS, payload, float(second))
    return streams.records()


def test_stream_is_reassembled_from_its_publishes(own: Api, channel: str) -> None:
    own.publish(channel, envelope(0, "Hel", updates=3))
    own.publish(channel, "another event")
    [stream] = own.emulator.streams
    assert (stream.channel, stream.id, stream.merge, stream.value) == (channel, ID, "append", "Hel")
    assert (stream.updates, stream.operations, stream.ended) == (3, 1, False)
    own.publish(channel, envelope(1, "lo", updates=2))
    own.publish(channel, envelope(2, end=True, updates=0))
    [stream] = own.emulator.streams
    assert (stream.value, stream.updates, stream.operations) == ("Hello", 5, 3)
    assert (stream.ended, stream.error, stream.gaps, stream.duplicates) == (True, None, (), 0)
    assert stream.began <= stream.at
    assert "Hello" not in repr(stream)
    own.emulator.reset()
    assert own.emulator.streams == []


def test_streams_are_separate_by_id_and_address(own: Api, channel: str) -> None:
    own.publish(channel, envelope(0, "a"))
    own.publish(channel, envelope(0, "b", stream=OTHER))
    own.publish_global(channel, envelope(0, "c"))
    own.publish(channel, envelope(1, "A"))
    assert [(stream.id, stream.address.is_global, stream.value) for stream in own.emulator.streams] == [
        (ID, False, "aA"),
        (OTHER, False, "b"),
        (ID, True, "c"),
    ]


@pytest.mark.parametrize(
    ("merge", "data", "value"),
    [
        ("append", ["a", "b"], "ab"),
        ("latest", [{"done": 1}, {"done": 2}], {"done": 2}),
        ("reduce", [3, None], None),
        ("batch", [[1, 2], [], [3]], [1, 2, 3]),
    ],
)
def test_each_merge_kind_has_its_value(merge: str, data: list[Any], value: Any) -> None:
    [stream] = assembled(*(envelope(seq, each, merge=merge) for seq, each in enumerate(data)))
    assert stream.value == value


def test_end_alone_has_no_value_and_carries_the_error() -> None:
    error = {"type": "TimeoutError", "message": "The model is busy."}
    [stream] = assembled(envelope(0, end=True, error=error, stopped={"by": "user"}))
    assert (stream.value, stream.ended, stream.error) == (None, True, "TimeoutError")
    assert (stream.message, stream.stopped) == ("The model is busy.", {"by": "user"})


@pytest.mark.parametrize("name", VECTORS)
def test_vectors_of_the_envelope_hold_in_the_record_and_in_the_reference_reader(name: str) -> None:
    vector = VECTORS[name]
    record = vector["record"]
    streams, now = _streams.Streams(), 0.0
    reader = StreamReader(lambda _, digest: vector["fetch"][digest], lambda: now)
    for event in [*vector["events"], {"at": vector["until"], "payload": None}]:
        while (at := reader.next_at) is not None and at <= event["at"] / 1000:
            now = at
            reader.advance()
        now = event["at"] / 1000
        if event["payload"] is not None:
            streams.take(ADDRESS, json.dumps(event["payload"]), now)
            reader.read(json.dumps(event["payload"]))
    assert [[name, call] for name, call in reader.calls] == vector["calls"]
    found = [(stream.value, stream.ended, [[*gap] for gap in stream.gaps]) for stream in streams.records()]
    assert found == [(record["value"], record["ended"], record["gaps"])] or (found == [] and not vector["calls"])


def test_reference_reader_waits_for_another_snapshot_if_a_value_cannot_be_fetched() -> None:
    reader = StreamReader(lambda _, digest: {"there": "abc"}[digest])
    for at, digest in ((1, "gone"), (3, "there")):
        reader.read(
            json.dumps({**json.loads(snapshot_alone(at, "")), "snapshot": {"at": at, "updates": at, "digest": digest}})
        )
    assert reader.values == {ID: "abc"}


def test_publishes_that_carry_only_a_snapshot_are_operations_but_no_duplicates() -> None:
    whole = snapshot_alone(2, "ab", updates=2)
    [stream] = assembled(envelope(0, "a"), envelope(1, "b", end=True), whole, whole)
    assert (stream.value, stream.updates, stream.operations, stream.duplicates) == ("ab", 2, 4, 0)


def test_stream_whose_beginning_is_missing_has_the_value_of_the_snapshot() -> None:
    parts = [snapshot_alone(3, text, part=part, parts=2, updates=7) for part, text in ((1, "c"), (0, "ab"))]
    [stream] = assembled(envelope(4, "e"), *parts, envelope(3, "d"), envelope(1, "b"))
    assert (stream.value, stream.updates, stream.gaps, stream.duplicates) == ("abcde", 9, (), 0)


def test_duplicates_count_once_and_gaps_are_named() -> None:
    [stream] = assembled(*(envelope(seq, str(seq), updates=10) for seq in (1, 1, 2, 6, 5, 9, 5)))
    assert stream.value == "12569"
    assert (stream.updates, stream.operations, stream.duplicates) == (50, 7, 2)
    assert stream.gaps == ((0, 0), (3, 4), (7, 8))


def test_older_state_does_not_replace_a_newer_one() -> None:
    [stream] = assembled(*(envelope(seq, seq, merge="latest") for seq in (0, 2, 1)))
    assert stream.value == 2


@given(st.lists(st.text(max_size=5), min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_order_and_duplicates_do_not_change_the_value(texts: list[str], chance: random.Random) -> None:
    payloads = [envelope(seq, text) for seq, text in enumerate(texts)]
    again = chance.choices(payloads, k=chance.randrange(10))
    sent = [*payloads, *again]
    chance.shuffle(sent)
    [stream] = assembled(*sent)
    assert stream.value == "".join(texts)
    assert (stream.gaps, stream.duplicates, stream.operations) == ((), len(again), len(sent))


@pytest.mark.parametrize("payload", NO_ENVELOPES)
def test_payload_that_is_not_an_envelope_is_not_in_a_stream(payload: str) -> None:
    assert assembled(payload) == []


def test_streams_are_bounded_in_number_and_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_streams, "STREAM_LIMIT", 3)
    ids = [stream.id for stream in assembled(*(envelope(0, "x", stream=str(number)) for number in range(5)))]
    assert ids == ["2", "3", "4"]
    ended = [envelope(0, "x", stream=str(number), end=number in (1, 2)) for number in range(5)]
    assert [stream.id for stream in assembled(*ended)] == ["0", "3", "4"]
    # Not the one that an event just came for.
    assert [stream.id for stream in assembled(*ended[:2], *ended[3:], ended[2])] == ["3", "4", "2"]
    monkeypatch.setattr(_streams, "SIZE_LIMIT", 1000)
    large = [envelope(seq, "x" * 400, stream=name) for name, seq in [("a", 0), ("b", 0), ("b", 0), ("b", 1), ("b", 2)]]
    assert [(stream.id, len(stream.value)) for stream in assembled(*large)] == [("b", 1200)]
    # Only the last state is kept.
    states = [envelope(seq, "x" * 300, merge="latest", stream=name) for seq in range(5) for name in "ab"]
    assert [stream.id for stream in assembled(*states)] == ["a", "b"]


def test_retried_publishes_are_counted_as_duplicates(realtime_emulator: Emulator, api_of: Any) -> None:
    api = api_of(realtime_emulator)
    realtime_emulator.fail_next(status=500, delivered=True)
    for _ in range(2):
        api.publish("chat", envelope(0, "Hello"))
    [stream] = realtime_emulator.streams
    assert (stream.value, stream.operations, stream.duplicates) == ("Hello", 2, 1)


def test_state_has_the_streams(own: Api, channel: str) -> None:
    own.publish(channel, envelope(0, {"share": 1}, merge="reduce", updates=7))
    [stream] = own.get("/_emulator/state").json()["streams"]
    assert json.loads(stream.pop("shown")) == {"share": 1}
    assert stream["channel"] == channel
    assert (stream["stream"], stream["merge"], stream["progress"]) == (ID, "reduce", None)
    assert (stream["updates"], stream["operations"], stream["gaps"]) == (7, 1, [])
