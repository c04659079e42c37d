"""Payloads that cannot be encoded: the error names the place and what to do, and never shows a value."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import decimal
import enum
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Never

import attrs
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge_realtime import AsyncRealtimeClient, RealtimeClient, UsageError
from forge_realtime._core.encoding import encode_json
from tests.support.callers import INVOCATION, Caller
from tests.support.fault_server import FaultServer


class Model:
    def model_dump(self, *, mode: str = "python") -> dict[str, Any]:
        return {"mode": mode}


@dataclasses.dataclass
class Point:
    x: int


@attrs.define
class Place:
    x: int


class Colour(enum.Enum):
    RED = 1


class Raising(Mapping[str, Any]):
    """A mapping with a method that raises."""

    def __init__(self, method: str, error: Exception) -> None:
        self.method, self.error = method, error

    def _do(self, method: str) -> None:
        if self.method == method:
            raise self.error

    def __getitem__(self, key: str) -> Any:
        self._do("getitem")
        return 1

    def __iter__(self) -> Iterator[str]:
        self._do("iter")
        return iter(["a"])

    def __len__(self) -> int:
        self._do("len")
        return 1


class Vanishing(Raising):
    """A mapping from which another thread removes keys."""

    def __init__(self) -> None:
        super().__init__("", LookupError())

    def __getitem__(self, key: str) -> Any:
        raise KeyError(key)


class ItemsError(dict[str, Any]):
    def items(self) -> Never:
        raise ZeroDivisionError


class ListError(list[Any]):
    def __iter__(self) -> Never:
        raise ZeroDivisionError


class SequenceError(Sequence[Any]):
    def __getitem__(self, index: Any) -> Never:
        raise ZeroDivisionError

    def __len__(self) -> int:
        return 3


class Unprintable:
    def __str__(self) -> Never:
        raise ZeroDivisionError

    __repr__ = __str__


def refuse(*_: Any, **__: Any) -> Never:
    raise ZeroDivisionError


# Text whose methods are not to be trusted.
METHODS = ("strip", "encode", "split", "__str__", "__eq__", "__ne__", "__format__", "rpartition")
Text: Any = type("Text", (str,), {**dict.fromkeys(METHODS, refuse), "__hash__": str.__hash__})


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


class Endless(Mapping[str, Any]):
    """A mapping that contains itself."""

    def __getitem__(self, key: str) -> Any:
        return self

    def __iter__(self) -> Iterator[str]:
        return iter(["a"])

    def __len__(self) -> int:
        return 1


def circular() -> Any:
    value: dict[str, Any] = {}
    value["again"] = [value]
    return value


NOW = dt.datetime.now(dt.UTC)
FAULTS: list[tuple[Any, str]] = [
    ({"cards": [{}, {"at": NOW}]}, "payload.cards[1].at is of type datetime. Convert it with isoformat()."),
    ({"on": NOW.date()}, "payload.on is of type date. Convert it with isoformat()."),
    ([Model()], 'payload[0] is of type Model. Convert it with model_dump(mode="json").'),
    (Model(), 'payload is of type Model. Convert it with model_dump(mode="json").'),
    ((1, Point(1)), "payload[1] is of type Point. Convert it with dataclasses.asdict()."),
    ({"at": {"place": Place(1)}}, "payload.at.place is of type Place. Convert it with attrs.asdict()."),
    ({"id": uuid.uuid4()}, "payload.id is of type UUID. Convert it with str()."),
    ({"price": decimal.Decimal(1)}, "payload.price is of type Decimal. Convert it with str()."),
    ({"colour": Colour.RED}, "payload.colour is of type Colour. Convert it to its value."),
    ({"data": b"x"}, "payload.data is of type bytes. Convert it with decode()."),
    ({"tags": {"a"}}, "payload.tags is of type set. Convert it with list()."),
    ({"rows": (row for row in [1])}, "payload.rows is of type generator. Convert it with list()."),
    ({"odd": Unprintable()}, "payload.odd is of type Unprintable. Convert it with str()."),
    ({"n": float("nan")}, "payload.n is infinite or not a number."),
    ({"n": [float("inf")]}, "payload.n[0] is infinite or not a number."),
    ({"n": 10**5000}, "payload.n is an integer with too many digits."),
    ({"s": ["\ud800"]}, "payload.s[0] holds a lone surrogate."),
    ({"a": {"\ud800": 1}}, "a key of payload.a holds a lone surrogate."),
    ({"a": {(1, 2): 1}}, "a key of payload.a is of type tuple. Convert it with str()."),
    ({"5b10ac8d82e05b22cc7d4ef5": NOW, "b": 1}, "payload[…] is of type datetime. Convert it with isoformat()."),
    ({"user@example.com": [NOW]}, "payload[…][0] is of type datetime. Convert it with isoformat()."),
    (circular(), "it contains itself."),
    (Endless(), "it contains itself."),
    (nested(100_000), "it is nested too deeply, or contains itself."),
    (Vanishing(), "reading it raised KeyError. If something else changes it meanwhile, pass a copy."),
    ({"a": Vanishing()}, "reading it raised KeyError. If something else changes it meanwhile, pass a copy."),
    (Raising("iter", OSError()), "reading it raised OSError. If something else changes it meanwhile, pass a copy."),
    (ItemsError(a=1), "reading it raised ZeroDivisionError. If something else changes it meanwhile, pass a copy."),
    (ListError([1]), "reading it raised ZeroDivisionError. If something else changes it meanwhile, pass a copy."),
    (SequenceError(), "reading it raised ZeroDivisionError. If something else changes it meanwhile, pass a copy."),
]


@pytest.mark.parametrize(("payload", "message"), FAULTS, ids=[f"{n} {text}" for n, (_, text) in enumerate(FAULTS)])
def test_payload_error_names_the_path_and_the_conversion(payload: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        encode_json(payload, "payload")
    assert str(caught.value) == f"payload cannot be encoded as JSON: {message}"
    assert caught.value.__cause__ is caught.value.__context__ is None


@pytest.mark.parametrize("payload", [payload for payload, _ in FAULTS], ids=[text for _, text in FAULTS])
def test_bad_payload_is_refused_before_sending(caller: Caller, payload: Any) -> None:
    with FaultServer() as server:
        outcomes = caller(
            server.url,
            lambda live: live.publish("c", payload),
            lambda live: live.publish_global("c", payload),
        )
        assert server.connections == 0
    assert [type(outcome) for outcome in outcomes] == [UsageError] * 2


class OddMapping(Mapping[Any, Any]):
    def __getitem__(self, key: Any) -> Never:
        raise ZeroDivisionError

    def __iter__(self) -> Iterator[Any]:
        return iter(["a"])

    def __len__(self) -> int:
        return 1


def raising_iterator() -> Iterator[Any]:
    yield "publish"
    raise ZeroDivisionError


@pytest.mark.parametrize(
    "call",
    [
        lambda live: live.sign_realtime_token("c", OddMapping()),
        lambda live: live.sign_realtime_token("c", Raising("iter", OSError("x"))),
        lambda live: live.sign_realtime_token("c", {"a": OddMapping()}),
        lambda live: live.sign_realtime_token("c", {}, raising_iterator()),
        lambda live: live.publish("c", "p", context_overrides=SequenceError()),
        lambda live: live.for_invocation(Raising("iter", OSError("x"))),
        lambda live: live.for_invocation(OddMapping()),
        lambda live: live.for_invocation({"x-forge-invocation-id": Unprintable()}),
        lambda live: live.for_invocation(raising_iterator()),
    ],
)
def test_arguments_that_raise_are_refused(call: Any) -> None:
    with FaultServer() as server:
        [error] = Caller("sync")(server.url, call)
        assert server.connections == 0
    assert type(error) is UsageError


def test_subclasses_of_str_are_sent_as_they_are(caller: Caller) -> None:
    with FaultServer() as server:
        [result] = caller(server.url, lambda live: live.publish(Text("c"), Text("p")))
    assert result.event_id == "event-1"
    assert server.received[0].json == {"name": "c", "payload": "p"}


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary() | st.dates(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()) | st.integers() | st.tuples(), inner),
)


@given(json_like)
def test_any_payload_is_encoded_or_refused(payload: Any) -> None:
    try:
        encoded = encode_json(payload, "payload")
    except UsageError:
        with pytest.raises((TypeError, ValueError)):
            json.dumps(payload, allow_nan=False, ensure_ascii=False).encode()
    else:
        assert json.loads(encoded) == json.loads(json.dumps(payload))


def encode_model(value: object) -> bytes:
    return orjson.dumps(value, default=lambda each: each.model_dump(mode="json"))


def test_encode_takes_the_encoder_of_the_app() -> None:
    payload: Any = {"at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC), "model": Model()}
    with FaultServer() as server, RealtimeClient(server.url, encode=encode_model) as client:
        live = client.for_invocation(INVOCATION)
        live.publish("c", payload)
        live.publish_global("c", payload)
        live.publish("c", "text as it is")
        live.with_options(encode=lambda _: "spoken").publish("c", payload)
        live.with_options(encode=None).publish("c", {"a": 1})
        live.with_options(retry=client.retry).publish("c", payload)
    text = '{"at":"2026-01-01T00:00:00+00:00","model":{"mode":"json"}}'
    sent = [json.loads(request.body)["payload"] for request in server.received]
    assert sent == [text, text, "text as it is", "spoken", '{"a":1}', text]


async def _publish(url: str, encode: Any, payload: Any) -> Any:
    async with AsyncRealtimeClient(url, encode=encode) as client:
        return await client.for_invocation(INVOCATION).publish("c", payload)


def test_asynchronous_client_takes_the_encoder_too() -> None:
    with FaultServer() as server:
        asyncio.run(_publish(server.url, encode_model, {"model": Model()}))
    assert json.loads(server.received[0].body)["payload"] == '{"model":{"mode":"json"}}'


def fail(_: Any) -> Never:
    raise ZeroDivisionError("no encoder")


@pytest.mark.parametrize(
    ("encode", "message"),
    [
        (fail, "payload cannot be encoded: the function given as encode= raised ZeroDivisionError."),
        (orjson.dumps, "payload cannot be encoded: the function given as encode= raised TypeError."),
        (
            lambda _: None,
            "payload cannot be encoded: the function given as encode= must return str or bytes, and returned NoneType.",
        ),
        (
            lambda _: {"a": 1},
            "payload cannot be encoded: the function given as encode= must return str or bytes, and returned dict.",
        ),
        (lambda _: b"\xff", "payload cannot be encoded: the result of the function given as encode= is not UTF-8."),
        (lambda _: "\ud800", "payload cannot be encoded: the result of the function given as encode= is not UTF-8."),
    ],
)
def test_encoders_that_fail_are_refused_before_sending(encode: Any, message: str) -> None:
    with FaultServer() as server, RealtimeClient(server.url, encode=encode) as client:
        with pytest.raises(UsageError) as caught:
            client.for_invocation(INVOCATION).publish("c", [{1}])
        assert server.connections == 0
    assert str(caught.value) == message


def test_error_of_the_encoder_is_the_cause() -> None:
    with pytest.raises(UsageError) as caught:
        encode_json([1], "payload", fail)
    assert type(caught.value.__cause__) is ZeroDivisionError


def test_interrupts_in_the_encoder_are_let_through() -> None:
    def interrupt(_: Any) -> Never:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_json([1], "payload", interrupt)


async def encode_later(_: Any) -> bytes:
    return b""


@pytest.mark.parametrize("client", [RealtimeClient, AsyncRealtimeClient])
@pytest.mark.parametrize("encode", [5, "orjson", encode_later])
def test_other_types_of_encoder_are_refused(client: Any, encode: Any) -> None:
    with pytest.raises(UsageError, match="encode takes a plain function"):
        client("http://localhost:7072", encode=encode)
    with pytest.raises(UsageError, match="encode takes a plain function"):
        client("http://localhost:7072").with_options(encode=encode)


@pytest.mark.parametrize("merge", ["latest", "batch", lambda first, second: [first, second]])
def test_streams_use_the_encoder(merge: Any) -> None:
    with FaultServer() as server, RealtimeClient(server.url, encode=encode_model) as client:
        live = client.for_invocation(INVOCATION)
        with live.stream("c", merge=merge, interval=0) as stream:
            stream.send({"model": Model()})
    data = [json.loads(json.loads(request.body)["payload"]).get("data") for request in server.received if request.body]
    expected: Any = {"model": {"mode": "json"}}
    assert ([expected] if merge == "batch" else expected) in data


def test_streams_of_text_need_no_encoder() -> None:
    with FaultServer() as server, RealtimeClient(server.url, encode=fail) as client:
        with client.for_invocation(INVOCATION).stream("c") as stream:
            stream.send("Hello")
        assert stream.report.sent == 1


@pytest.mark.parametrize("encode", [fail, lambda _: "no JSON", lambda _: 5])
def test_streams_refuse_what_is_not_json(encode: Any) -> None:
    with (
        FaultServer() as server,
        RealtimeClient(server.url, encode=encode) as client,
        client.for_invocation(INVOCATION).stream("c", merge="batch") as stream,
        pytest.raises(UsageError, match="the update cannot be encoded: the function given as encode="),
    ):
        stream.send({"a": 1})
