"""No content encoding is asked for, and none is decoded: a few bytes could become gigabytes."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
import zlib
from functools import cache
from typing import Any

import httpx
import pytest
from attrs import evolve

from forge_realtime import (
    AsyncRealtimeClient,
    Delivery,
    ForgeRealtimeError,
    RealtimeClient,
    RejectedError,
    TimedOutError,
    UnexpectedResponseError,
)
from tests.support.callers import INVOCATION, QUICK, Caller
from tests.support.fault_server import Connection, FaultServer, answer, http

ONCE = evolve(QUICK, max_attempts=1)
BODY = b'{"eventId":"event-1"}'
PACKED = gzip.compress(BODY)


@cache
def bomb() -> bytes:
    """Return 200 MB of zeros, packed twice. Packing takes a second, so not while tests are collected."""
    return gzip.compress(gzip.compress(b"\0" * 200_000_000))


ENCODINGS: dict[str, tuple[str, bytes | None]] = {
    "gzip": ("gzip", PACKED),
    "x-gzip": ("X-Gzip", PACKED),
    "deflate": ("deflate", zlib.compress(BODY)),
    "br": ("br", b"\x8b\x0a\x80" + BODY + b"\x03"),
    "zstd": ("zstd", b"\x28\xb5\x2f\xfd\x20\x15\xa9\x00\x00" + BODY),
    "two": ("gzip, gzip", gzip.compress(PACKED)),
    "bomb": ("gzip, gzip", None),
    "identity and gzip": ("identity, gzip", PACKED),
    "not encoded at all": ("gzip", BODY),
    "unknown": ("rot13", BODY),
}


def publish(live: Any) -> Any:
    return live.publish("board-42", "x")


def outcomes(how: str, url: str, retry: Any = ONCE) -> list[Any]:
    """Publish through a transport or a client of the user."""
    if how in ("transport", "http_client"):
        with httpx.Client() as http_client:
            given: Any = {"http_client": http_client} if how == "http_client" else {"transport": httpx.HTTPTransport()}
            with RealtimeClient(url, retry=retry, **given) as client:
                try:
                    return [publish(client.for_invocation(INVOCATION))]
                except ForgeRealtimeError as error:
                    return [error]

    async def run() -> list[Any]:
        async with httpx.AsyncClient() as http_client:
            given: Any = {"http_client": http_client}
            if how == "async transport":
                given = {"transport": httpx.AsyncHTTPTransport()}
            async with AsyncRealtimeClient(url, retry=retry, **given) as client:
                try:
                    return [await publish(client.for_invocation(INVOCATION))]
                except ForgeRealtimeError as error:
                    return [error]

    return asyncio.run(run())


GIVEN = ("transport", "http_client", "async transport", "async http_client")


def check(error: Any) -> None:
    assert type(error) is UnexpectedResponseError
    assert error.delivery is Delivery.UNKNOWN
    assert error.status == 200
    assert "has a Content-Encoding, although the client asks for none" in str(error)
    assert error.body == b""


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_encoded_response_is_unknown(caller: Caller, encoding: str) -> None:
    name, body = ENCODINGS[encoding]
    with FaultServer(then=answer(200, body or bomb(), {"Content-Encoding": name})) as server:
        tracemalloc.start()
        errors = caller(server.url, publish, publish, retry=ONCE)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        # It was read to its end.
        assert server.connections == 1
    for error in errors:
        check(error)
    assert peak < 20_000_000


@pytest.mark.parametrize("encoding", ["gzip", "bomb", "not encoded at all"])
@pytest.mark.parametrize("how", GIVEN)
def test_encoded_response_of_the_users_transport_is_unknown(how: str, encoding: str) -> None:
    name, body = ENCODINGS[encoding]
    with FaultServer(then=answer(200, body or bomb(), {"Content-Encoding": name})) as server:
        tracemalloc.start()
        [error] = outcomes(how, server.url)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    check(error)
    assert peak < 20_000_000


def test_no_encoding_is_asked_for(caller: Caller) -> None:
    with FaultServer() as server:
        caller(server.url, publish)
    assert [request.headers["accept-encoding"] for request in server.received] == ["identity"]


@pytest.mark.parametrize("how", GIVEN)
def test_no_encoding_is_asked_for_with_the_users_transport(how: str) -> None:
    """Httpx's clients ask for gzip by default."""
    with FaultServer() as server:
        [result] = outcomes(how, server.url)
    assert result.event_id == "event-1"
    assert [request.headers["accept-encoding"] for request in server.received] == ["identity"]


@pytest.mark.parametrize("name", ["identity", "Identity", "", " identity ,"])
def test_identity_is_read(caller: Caller, name: str) -> None:
    with FaultServer(then=answer(200, BODY, {"Content-Encoding": name})) as server:
        [result] = caller(server.url, publish, retry=ONCE)
    assert result.event_id == "event-1"


def test_refusal_with_an_encoded_body_is_rejected(caller: Caller) -> None:
    with FaultServer(then=answer(403, PACKED, {"Content-Encoding": "gzip"}, publishes=False)) as server:
        [error] = caller(server.url, publish, retry=ONCE)
    assert type(error) is RejectedError
    assert error.delivery is Delivery.REJECTED


def test_encoded_response_is_retried_as_the_policy_says(caller: Caller) -> None:
    with FaultServer(answer(200, PACKED, {"Content-Encoding": "gzip"})) as server:
        first, second = (
            caller(server.url, publish, retry=evolve(QUICK, delivery=delivery))[0]
            for delivery in ("at_most_once", "at_least_once")
        )
    assert first.delivery is Delivery.UNKNOWN
    assert second.event_id == "event-1"


def test_encoded_response_in_single_bytes_keeps_the_deadline(caller: Caller) -> None:
    def trickle(connection: Connection) -> bool:
        connection.read()
        connection.send(http(200, b"", {"Content-Encoding": "gzip, gzip", "Content-Length": str(len(bomb()))}))
        connection.trickle(bomb(), 0.01)
        return False

    with FaultServer(then=trickle) as server:
        [error] = caller(server.url, publish, retry=evolve(ONCE, attempt_timeout=0.2))
    assert type(error) is TimedOutError
    assert error.delivery is Delivery.UNKNOWN
    assert error.attempts[0].elapsed < 2


def test_response_that_a_hook_has_read_is_not_taken_if_it_was_encoded() -> None:
    with (
        FaultServer(then=answer(200, PACKED, {"Content-Encoding": "gzip"})) as server,
        httpx.Client(event_hooks={"response": [httpx.Response.read]}) as http_client,
        RealtimeClient(server.url, http_client=http_client, retry=ONCE) as client,
        pytest.raises(UnexpectedResponseError, match="has a Content-Encoding"),
    ):
        publish(client.for_invocation(INVOCATION))


def test_mock_is_read_as_it_is() -> None:
    transport = httpx.MockTransport(
        lambda request: httpx.Response(200, json={"eventId": json.loads(request.content)["name"]})
    )
    with RealtimeClient("http://sidecar.test", transport=transport) as client:
        assert publish(client.for_invocation(INVOCATION)).event_id == "board-42"
