"""A second response must never be taken for that of the next call."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import pytest
import trustme
from attrs import evolve

from forge_realtime import Delivery, RealtimeClient
from forge_realtime._transports.async_pool import AsyncConnectionPool
from forge_realtime._transports.pool import ConnectionPool
from tests.support.callers import ASYNC_KINDS, INVOCATION, QUICK, AsyncKind, Caller, async_client
from tests.support.fault_server import Behaviour, Connection, FaultServer, http

ONCE = evolve(QUICK, max_attempts=1)


def response(event_id: str) -> bytes:
    return http(200, json.dumps({"eventId": event_id}).encode())


def chunked(event_id: str) -> bytes:
    body = json.dumps({"eventId": event_id}).encode()
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


EMPTY = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
HEAD_OF_4096 = b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\nX-Padding: "


def padded(size: int) -> bytes:
    """A response of exactly so many bytes."""
    end = b'\r\n\r\n{"eventId":"e"}'
    return HEAD_OF_4096 + b"x" * (size - len(HEAD_OF_4096) - len(end)) + end


FIRST: dict[str, tuple[bytes, bytes]] = {
    "a length": (response("first"), response("second")),
    "chunked": (chunked("first"), chunked("second")),
    "no body": (EMPTY, response("second")),
    "half of a second response": (response("first"), response("second")[:25]),
    "one byte": (response("first"), b"H"),
    "an empty line": (response("first"), b"\r\n"),
    "103": (response("first"), b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "at the end of a piece": (padded(4096), response("second")),
    "at the end of two pieces": (padded(8192), response("second")),
    "three": (response("first"), response("second") * 2),
}

CHUNKS = chunked("first").partition(b"\r\n\r\n")[2]
# Both parts together look like one response that ends where its length says.
AMBIGUOUS: dict[str, tuple[bytes, bytes]] = {
    "204 with a length": (b"HTTP/1.1 204 No Content\r\nContent-Length: 20\r\n\r\n", b'{"eventId":"stale1"}'),
    "304 with a length": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 20\r\n\r\n", b'{"eventId":"stale1"}'),
    "a length and chunks": (
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n" % (len(CHUNKS) + 8) + CHUNKS,
        b"HTTP/1.1",
    ),
    "chunks and a length": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: %d\r\n\r\n" % (len(CHUNKS) + 8) + CHUNKS,
        b"HTTP/1.1",
    ),
    "bare newlines": (b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}", b"\r\n\r\n{}"),
    "one bare newline": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\n{}", b"\r\n\r\n{}"),
}


def together(first: bytes, behind: bytes) -> Behaviour:
    def behave(connection: Connection) -> bool:
        connection.read()
        connection.send(first + behind)
        return True

    return behave


def publish(live: Any) -> Any:
    return live.publish("board-42", "x")


@pytest.mark.parametrize("what", [*FIRST, *AMBIGUOUS])
def test_response_with_bytes_behind_it_ends_the_connection(caller: Caller, what: str) -> None:
    with FaultServer(together(*(FIRST | AMBIGUOUS)[what])) as server:
        outcomes = caller(server.url, *[publish] * 3, retry=ONCE)
        assert server.connections == 2
    assert [result.event_id for result in outcomes[1:]] == ["event-1"] * 2
    # What was sent in one piece with the response.
    assert outcomes[0].attempts[0].status in (200, 403) or outcomes[0].delivery is Delivery.UNKNOWN
    assert len(server.received) == 3


@pytest.mark.parametrize("left", [1, 3, 40])
def test_second_response_in_the_packet_that_ends_the_first_one_is_not_taken(caller: Caller, left: int) -> None:
    """The connection goes back to the pool before the second response is parsed."""

    def behave(connection: Connection) -> bool:
        connection.read()
        first = response("first")
        connection.send(first[:-left])
        # Two packets.
        connection.stopping.wait(0.05)
        connection.send(first[-left:] + response("second"))
        return True

    with FaultServer(behave) as server:
        outcomes = caller(server.url, *[publish] * 3, retry=ONCE)
        assert server.connections == 2
    assert [result.event_id for result in outcomes] == ["first", "event-1", "event-1"]


@pytest.mark.parametrize("what", FIRST)
def test_bytes_that_come_while_the_connection_is_idle_end_it(caller: Caller, what: str) -> None:
    first, behind = FIRST[what]
    come = threading.Event()
    sent = threading.Event()

    def behave(connection: Connection) -> bool:
        connection.read()
        connection.send(first)
        come.wait(10)
        connection.send(behind)
        sent.set()
        return True

    def publish_later(live: Any) -> Any:
        come.set()
        # The event loop does not run meanwhile.
        sent.wait(10)
        return publish(live)

    with FaultServer(behave) as server:
        outcomes = caller(server.url, publish, publish_later, publish, retry=ONCE)
        assert server.connections == 2
    assert [result.event_id for result in outcomes[1:]] == ["event-1"] * 2


def test_body_behind_a_response_to_head_ends_the_connection() -> None:
    behind = together(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"{}")

    def request() -> httpx.Request:
        return httpx.Request("HEAD", server.url, headers={"Content-Length": "2"}, content=b"{}")

    async def send_twice(pool: AsyncConnectionPool) -> None:
        for _ in range(2):
            # aiohttp parses the body at once, as another response.
            with suppress(httpx.RemoteProtocolError):
                await pool.send(request(), 2.0)
        await pool.aclose()

    with FaultServer(then=behind) as server:
        pool = ConnectionPool(None)
        for _ in range(2):
            pool.send(request(), 2.0)
        pool.close()
        assert server.connections == 2
        for number, aiohttp in enumerate((False, True), 2):
            asyncio.run(send_twice(AsyncConnectionPool(None, aiohttp=aiohttp)))
            assert server.connections == 2 * number


@pytest.mark.parametrize("kind", ASYNC_KINDS)
def test_bytes_that_the_event_loop_has_received_end_the_connection(kind: AsyncKind) -> None:
    come, sent = threading.Event(), threading.Event()

    def behave(connection: Connection) -> bool:
        connection.read()
        connection.send(response("first"))
        come.wait(10)
        connection.send(response("second"))
        sent.set()
        return True

    async def run() -> list[str | None]:
        async with async_client(kind, server.url, retry=ONCE) as client:
            live = client.for_invocation(INVOCATION)
            first = await live.publish("c", "p")
            come.set()
            await asyncio.to_thread(sent.wait)
            await asyncio.sleep(0.01)
            return [first.event_id, (await live.publish("c", "p")).event_id]

    with FaultServer(behave) as server:
        assert asyncio.run(run()) == ["first", "event-1"]
        assert server.connections == 2


def test_whole_responses_keep_the_connection(caller: Caller) -> None:
    def in_pieces(connection: Connection) -> bool:
        connection.read()
        for byte in response("slow"):
            connection.send(bytes([byte]))
        return True

    def behave(*parts: bytes) -> Behaviour:
        def send(connection: Connection) -> bool:
            connection.read()
            for part in parts:
                connection.send(part)
            return True

        return send

    script = [behave(first) for first, _ in FIRST.values()]
    script += [in_pieces, behave(b"HTTP/1.1 103 Early Hints\r\n\r\n", response("e")), behave(chunked("e")[:-1], b"\n")]
    with FaultServer(*script) as server:
        caller(server.url, *[publish] * (len(script) + 1), retry=ONCE)
        assert server.connections == 1
        assert len(server.received) == len(script) + 1


class TlsPeer:
    """A server's end of TLS by hand, so that two records leave in one packet."""

    def __init__(self, connection: Connection, context: ssl.SSLContext) -> None:
        self._connection = connection
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._do(self._tls.do_handshake)

    def _do(self, step: Callable[[], Any]) -> Any:
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                self._connection.send(self._outgoing.read())
                if not (data := self._connection.peer.recv(65536)):
                    raise ConnectionError from None
                self._incoming.write(data)

    def read_request(self) -> bytes:
        data = b""
        while b"}" not in data:
            if not (more := self._do(lambda: self._tls.read(65536))):
                return b""
            data += more
        return data

    def send(self, records: list[bytes]) -> None:
        for record in records:
            self._tls.write(record)
        self._connection.send(self._outgoing.read())


@pytest.mark.parametrize("records", [1, 2], ids=["one TLS record", "two TLS records"])
def test_bytes_behind_a_response_end_the_connection_with_tls(
    caller: Caller, records: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    received: list[bytes] = []
    connections: list[object] = []

    def serve(connection: Connection) -> bool:
        peer = TlsPeer(connection, context)
        connections.append(peer)
        while request := peer.read_request():
            received.append(request)
            parts = [response("first"), response("second")] if len(received) == 1 else [response("event-1")]
            peer.send([b"".join(parts)] if records == 1 else parts)
        return False

    with FaultServer(then=serve) as server:
        url = server.url.replace("http:", "https:")
        outcomes = caller(url, *[publish] * 3, retry=ONCE)
    assert [result.event_id for result in outcomes] == ["first", "event-1", "event-1"]
    assert len(connections) == 2


def test_doubled_responses_are_never_taken_for_the_next() -> None:
    number = 0

    def double(connection: Connection) -> bool:
        nonlocal number
        connection.read()
        number += 1
        connection.send(response(str(number)) + response(f"stale {number}"))
        return True

    with FaultServer(then=double) as server, RealtimeClient(server.url) as client:
        live = client.for_invocation(INVOCATION)
        results = [live.publish("c", "p").event_id for _ in range(200)]
    assert results == [str(each) for each in range(1, 201)]
    assert len(server.received) == 200
