"""A publisher and subscribers that cost little, so that the benchmark measures the emulator.

Each runs in a process of its own and uses the published operations over HTTP/1.1 with keep-alive, and WebSockets.
Responses and frames are parsed by hand: a library would cost as much as the emulator.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from websockets.client import ClientProtocol
from websockets.http11 import Response
from websockets.uri import parse_uri

CHANNEL = "load"
_TEXT, _PING = 0x81, 0x89
OPERATIONS = {"publish": "/forge/realtime/v1/publish", "publish_global": "/forge/realtime/v1/publish/global"}


@dataclass(frozen=True, slots=True)
class Published:
    """The record of a publisher.

    Attributes:
        began: `time.monotonic()` before the first call. All processes of a machine share this clock.
        ended: `time.monotonic()` after the last response.
        ids: The event ids of the responses by connection, in order.
        cpu: Seconds of processor time of the process.
    """

    began: float
    ended: float
    ids: list[list[str]]
    cpu: float


@dataclass(frozen=True, slots=True)
class Received:
    """The record of the subscribers.

    Attributes:
        ended: `time.monotonic()` after the last event.
        events: The events in order. Every subscriber received the same bytes.
        deliveries: The number of frames of all subscribers.
        cpu: Seconds of processor time of the process.
    """

    ended: float
    events: list[dict[str, Any]]
    deliveries: int
    cpu: float


async def publish(url: str, operation: str, events: int, connections: int) -> Published:
    """Publish events over some connections. Each connection makes its next call after the last response.

    The payload of an event holds the numbers of the connection and of the event on it, for example `3 17`.

    Raises:
        RuntimeError: The status of a response is not 200, or an event reached nobody.
    """
    host, port = _address(url)
    loop = asyncio.get_running_loop()
    publishers: list[_Publisher] = []
    for number in range(connections):
        mine = len(range(number, events, connections))
        publisher = _Publisher(f"{host}:{port}", OPERATIONS[operation], number, mine, loop.create_future())
        await loop.create_connection(lambda made=publisher: made, host, port)  # type: ignore[misc]
        publishers.append(publisher)
    cpu, began = time.process_time(), time.monotonic()
    for publisher in publishers:
        publisher.call()
    await asyncio.gather(*(publisher.done for publisher in publishers))
    ended = time.monotonic()
    ids = [publisher.ids for publisher in publishers]
    return Published(began, ended, ids, time.process_time() - cpu)


def _address(url: str) -> tuple[str, int]:
    host, _, port = urlsplit(url).netloc.rpartition(":")
    return host, int(port)


class _Publisher(asyncio.Protocol):
    def __init__(self, host: str, path: str, number: int, events: int, done: asyncio.Future[None]) -> None:
        self._head = (
            f"POST {path} HTTP/1.1\r\nHost: {host}\r\nforge-proxy-authorization: Forge as=app,id=invocation-123\r\n"
            "Accept: application/json\r\nContent-Type: application/json\r\nContent-Length: "
        )
        self._number = number
        self._events = events
        self._buffer = b""
        self.ids: list[str] = []
        self.done = done

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def call(self) -> None:
        if len(self.ids) == self._events:
            self._transport.close()
            self.done.set_result(None)
            return
        body = json.dumps({"name": CHANNEL, "payload": f"{self._number} {len(self.ids)}"})
        self._transport.write(f"{self._head}{len(body)}\r\n\r\n{body}".encode())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        # The body is a JSON object without nested objects.
        if not end or not body.endswith(b"}"):
            return
        self._buffer = b""
        answer = json.loads(body)
        if not head.startswith(b"HTTP/1.1 200 ") or answer["eventId"] is None:
            self._fail(f"The response to a call was {head[9:12].decode()} {answer}.")
            return
        self.ids.append(answer["eventId"])
        self.call()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail("The emulator closed a publisher's connection.")

    def _fail(self, problem: str) -> None:
        if not self.done.done():
            self.done.set_exception(RuntimeError(problem))


class Subscribers:
    """WebSocket subscribers of one channel, or of a channel each.

    Args:
        url: The URL of the emulator.
        count: The number of subscribers.
        is_global: Whether they subscribe to the global channel.
        own_channels: Whether each has a channel of its own, from `channel-0` on.
    """

    def __init__(self, url: str, count: int, *, is_global: bool, own_channels: bool = False) -> None:
        self._host, self._port = _address(url)
        self._count = count
        self._is_global = is_global
        self._own_channels = own_channels
        self._subscribers: list[_Subscriber] = []
        self._cpu = 0.0

    async def open(self) -> None:
        """Subscribe, and return when all are subscribed."""
        self._subscribers = await asyncio.gather(*(self._subscribe(number) for number in range(self._count)))
        self._cpu = time.process_time()

    async def _subscribe(self, number: int) -> _Subscriber:
        loop = asyncio.get_running_loop()
        channel = f"channel-{number}" if self._own_channels else CHANNEL
        message = json.dumps({"channel": channel, "isGlobal": self._is_global})
        subscriber = _Subscriber(f"ws://{self._host}:{self._port}/_emulator/subscribe", message, loop.create_future())
        await loop.create_connection(lambda: subscriber, self._host, self._port)
        await subscriber.ready
        return subscriber

    async def receive(self, events: int) -> Received:
        """Wait until each subscriber has received this many more events, and check that all received the same.

        Raises:
            RuntimeError: A subscriber lost its connection or received other events than the others.
        """
        done = asyncio.get_running_loop().create_future()
        missing = self._count

        def complete() -> None:
            nonlocal missing
            missing -= 1
            if not missing and not done.done():
                done.set_result(None)

        for subscriber in self._subscribers:
            subscriber.expect(events, complete, done)
        await done
        ended, cpu = time.monotonic(), time.process_time() - self._cpu
        streams = {subscriber.take() for subscriber in self._subscribers}
        if len(streams) > 1:
            raise RuntimeError("The subscribers of one channel received different events, or in a different order.")
        messages = [json.loads(message) for message in _messages(streams.pop())]
        self._cpu = time.process_time()
        return Received(ended, messages, events * self._count, cpu)

    async def count(self, events: int) -> int:
        """Wait until all subscribers together have received this many events or none came for 30 s, and forget them.

        Returns:
            The number of events received since the last call.
        """
        received, last = 0, time.monotonic()
        while received < events and time.monotonic() - last < 30:
            await asyncio.sleep(0.1)
            if came := sum(len(_messages(subscriber.take())) for subscriber in self._subscribers):
                received, last = received + came, time.monotonic()
        return received

    def close(self) -> None:
        """Close all connections."""
        for subscriber in self._subscribers:
            subscriber.close()


class _Subscriber(asyncio.Protocol):
    def __init__(self, address: str, message: str, ready: asyncio.Future[None]) -> None:
        self._protocol = ClientProtocol(parse_uri(address))
        self._message = message
        self._buffer = bytearray()
        self._position = 0
        self._missing = 0
        self._complete: Callable[[], None] | None = None
        self._failed: asyncio.Future[None] = ready
        self.ready = ready

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._protocol.send_request(self._protocol.connect())
        self._flush()

    def data_received(self, data: bytes) -> None:
        if not self.ready.done():
            self._begin(data)
            return
        self._buffer += data
        while (end := _end_of_frame(self._buffer, self._position)) <= len(self._buffer):
            if self._buffer[self._position] == _PING:
                # A keepalive ping of the server. Its payload is short.
                self._protocol.send_pong(bytes(self._buffer[self._position + 2 : end]))
                self._flush()
                del self._buffer[self._position : end]
                continue
            self._position = end
            self._missing -= 1
            if not self._missing and self._complete is not None:
                self._complete()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._failed.done():
            self._failed.set_exception(RuntimeError("The emulator closed a subscriber's connection."))

    def expect(self, events: int, complete: Callable[[], None], failed: asyncio.Future[None]) -> None:
        self._failed = failed
        self._complete = complete
        self._missing += events
        if not self._missing:
            complete()

    def take(self) -> bytes:
        taken = bytes(self._buffer[: self._position])
        del self._buffer[: self._position]
        self._position = 0
        return taken

    def close(self) -> None:
        self._complete = None
        self._transport.abort()

    def _begin(self, data: bytes) -> None:
        # The library reads the handshake and {"type": "subscribed"}.
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Response):
                self._protocol.send_text(self._message.encode())
                self._flush()
            else:
                self.ready.set_result(None)

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            self._transport.write(data)


def _end_of_frame(buffer: bytearray, start: int) -> int:
    """Return the end of the frame at `start`, or a position after the buffer if the frame is incomplete."""
    if len(buffer) < start + 4:
        return len(buffer) + 1
    if buffer[start] not in (_TEXT, _PING):
        raise RuntimeError(f"The emulator sent {bytes(buffer[start : start + 130])!r} instead of an event.")
    length = buffer[start + 1]
    if length < 126:
        return start + 2 + length
    if length == 126:
        return start + 4 + int.from_bytes(buffer[start + 2 : start + 4], "big")
    raise RuntimeError("A frame is larger than 64 KiB.")


def _messages(stream: bytes) -> list[bytes]:
    messages, position = [], 0
    buffer = bytearray(stream)
    while position < len(buffer):
        end = _end_of_frame(buffer, position)
        messages.append(bytes(buffer[position + (2 if buffer[position + 1] < 126 else 4) : end]))
        position = end
    return messages
