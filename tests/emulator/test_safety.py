"""Many subscribers, and subscribers that never read: nobody else notices, and memory is bounded."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from forge_realtime_emulator._http import control as _control
from forge_realtime_emulator._platform import bounded_log as _recent
from forge_realtime_emulator._platform import channels as _channels
from tests.benchmarks.emulator_clients import CHANNEL, Subscribers
from tests.emulator.api import Api
from tests.emulator.test_sse import subscribers, until

LARGE = "x" * 900_000


@contextmanager
def open_files(count: int) -> Iterator[None]:
    """Allow this process this number of open files and sockets."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        pytest.skip(f"the system lets a process have {hard} open files only")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.slow
def test_thousand_idle_subscribers_disturb_nobody(own: Api, caplog: pytest.LogCaptureFixture) -> None:
    idle = Subscribers(own.emulator.url, 1000, is_global=False)

    async def run() -> None:
        await idle.open()
        receiving = asyncio.create_task(idle.receive(1))
        await asyncio.to_thread(publish)
        received = await receiving
        idle.close()
        assert received.deliveries == 1000
        assert [event["payload"] for event in received.events] == ["to all"]

    def publish() -> None:
        assert subscribers(own) == 1000
        with own.emulator.subscribe("another") as subscription:
            own.publish("another", "to one")
            assert subscription.receive().payload == "to one"
        own.publish(CHANNEL, "to all")
        assert [event.delivered for event in own.emulator.events] == [1, 1000]

    own.emulator.change(limit=None)
    with open_files(2500), caplog.at_level(logging.WARNING):
        asyncio.run(run())
        until(lambda: subscribers(own) == 0)
        own.emulator.stop()
    assert caplog.text == ""


_UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
ASKING = {
    "websocket": ("/_emulator/subscribe", _UPGRADE, Frame(Opcode.TEXT, b'{"channel": "x"}').serialize(mask=True)),
    "sse": ("/_emulator/subscribe?channel=x", "", b""),
    "feed": ("/_emulator/feed", "", b""),
    "console": ("/_emulator/feed", _UPGRADE, b""),
}


@contextmanager
def never_reading(api: Api, kind: str) -> Iterator[socket.socket]:
    """Connection that requests events and then reads nothing."""
    path, headers, message = ASKING[kind]
    with socket.create_connection(("127.0.0.1", int(api.emulator.url.rpartition(":")[2])), timeout=10) as unread:
        unread.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
        if message:
            assert unread.recv(1000).startswith(b"HTTP/1.1 101 ")
            unread.sendall(message)
        yield unread


def publish_to_both(api: Api, times: int) -> list[int]:
    """Publish more than the buffers of a connection hold. A second subscriber gets each event at once.

    Returns:
        The number of subscribers that each event reached.
    """
    api.emulator.change(limit=None)
    with api.emulator.subscribe("x") as other:
        for number in range(times):
            assert api.publish("x", f"{number} {LARGE}").status_code == 200
            assert other.receive().payload.startswith(f"{number} ")
    return [event.delivered for event in api.emulator.events]


def read(connection: socket.socket, last: bytes) -> bytes:
    """Read until these bytes have come, or the connection has ended."""
    got = bytearray()
    with contextlib.suppress(ConnectionResetError):
        # The bytes may lie across two chunks.
        while last not in got[-(1 << 21) :] and (data := connection.recv(1 << 20)):
            got += data
    return bytes(got)


@pytest.mark.parametrize("kind", ["websocket", "sse"])
def test_subscriber_that_never_reads_is_forgotten_and_cut_off(
    own: Api, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_channels, "QUEUE_LIMIT", 5)
    monkeypatch.setattr(_channels, "PATIENCE", 0.01)
    with never_reading(own, kind) as unread:
        until(lambda: subscribers(own) == 1)
        reached = publish_to_both(own, 30)
        assert set(reached) == {1, 2}
        assert reached == sorted(reached, reverse=True)
        # Nothing of it is kept, not even its connection.
        until(lambda: subscribers(own) == 0)
        got = read(unread, b"Too slow")
    assert b"Too slow" not in got
    assert LARGE.encode() in got
    assert len(got) < 30 * len(LARGE)


@pytest.mark.parametrize("kind", ["websocket", "sse"])
def test_subscriber_that_reads_again_in_time_gets_the_reason(
    own: Api, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_channels, "QUEUE_LIMIT", 5)
    with never_reading(own, kind) as unread:
        until(lambda: subscribers(own) == 1)
        assert publish_to_both(own, 30)[-1] == 1
        assert b"Too slow: 5 events were waiting." in read(unread, b"subscribe again.")


@pytest.mark.parametrize("kind", ["feed", "console"])
def test_console_that_never_reads_delays_nobody_and_gets_the_last_records_later(
    own: Api, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(_recent, "SIZE_LIMIT", 5 * len(LARGE))
    monkeypatch.setattr(_control, "_GATHERING", 0)
    with never_reading(own, kind) as unread:
        until(lambda: unread.recv(1, socket.MSG_PEEK) == b"H")
        own.emulator.change(limit=None)
        for number in range(40):
            # The beginning of a payload is shown, but the whole name of its channel.
            assert own.publish(LARGE, f"{number} published").status_code == 200
        got = read(unread, b'"payload": "39 ')
    numbers = [int(number) for number in re.findall(rb'"payload": "([0-9]+) published', got)]
    # Twice each: of the call and of its event.
    numbers = sorted(set(numbers))
    assert numbers[0] == 0
    assert numbers[-1] == 39
    assert len(numbers) < 40


def test_records_are_bounded_by_size(own: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_recent, "SIZE_LIMIT", 3 * len(LARGE) + 100)
    own.emulator.change(limit=None, keep_unheard=True)
    for number in range(6):
        own.publish("x", f"{number} {LARGE}")
    own.publish("x", "small")
    assert [event.payload[:2] for event in own.emulator.events] == ["3 ", "4 ", "5 ", "sm"]
    assert [request.body["payload"][:2] for request in own.emulator.requests] == ["4 ", "5 ", "sm"]
    with own.emulator.subscribe("x", replay_seconds=60) as subscription:
        assert [subscription.receive().payload[:2] for _ in range(4)] == ["3 ", "4 ", "5 ", "sm"]


@given(sizes=st.lists(st.integers(0, 2 * _recent.SIZE_LIMIT), max_size=30), most=st.integers(1, 10))
def test_bounded_log_keeps_as_many_as_its_bounds_allow(sizes: list[int], most: int) -> None:
    recent: _recent.BoundedLog[int] = _recent.BoundedLog(most)
    for index, size in enumerate(sizes):
        recent.append(index, size)
    kept = list(recent)
    assert kept == list(range(len(sizes)))[len(sizes) - len(kept) :]
    assert len(kept) <= most
    assert len(kept) <= 1 or sum(sizes[index] for index in kept) <= _recent.SIZE_LIMIT
    if 0 < len(kept) < len(sizes) and len(kept) < most:
        # One more would exceed the size.
        assert sum(sizes[-len(kept) - 1 :]) > _recent.SIZE_LIMIT


def test_queue_of_a_subscriber_is_bounded_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_channels, "QUEUE_SIZE", 10)

    async def run() -> None:
        address = _channels.Address("i", "x", False, "", None)
        listener = _channels.Listener(address, 1, "sse", None, since=0.0)
        subscriber = _channels.Subscriber(listener, [], lambda: None)
        assert subscriber.offer("x" * 11)
        assert not subscriber.offer("")
        assert await subscriber.next() == _channels.Close(
            1013, "Too slow: 1 events were waiting. Read faster, then subscribe again."
        )
        subscriber.gone()

        subscriber = _channels.Subscriber(listener, [], lambda: None)
        for _ in range(5):
            assert subscriber.offer("x" * 5)
            assert subscriber.offer("y" * 5)
            assert await subscriber.next() == "x" * 5
            assert await subscriber.next() == "y" * 5

    asyncio.run(run())
