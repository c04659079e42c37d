"""The deadline and the bounds on size, whatever the server does. More servers are in tests/faults/matrix.py."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from attrs import evolve

from forge_realtime import Delivery, NoResponseError, PublishResult, RealtimeClient, RetryPolicy, TimedOutError
from forge_realtime._transports import connection
from forge_realtime._transports.connection import Addresses
from tests.support.callers import ASYNC_KINDS, INVOCATION, KINDS, QUICK, AsyncKind, Caller, Kind, async_client
from tests.support.fault_server import PUBLISHED, Connection, FaultServer, http, raw, refused_url
from tests.support.garbage import collect

ONCE = RetryPolicy(max_attempts=1, attempt_timeout=20, deadline=20)
FLOOD = raw(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 50_000)
# More than the buffers of both sides hold.
LARGE = "x" * 20_000_000


@pytest.mark.parametrize("kind", ASYNC_KINDS)
def test_calls_share_a_name_lookup_that_hangs(
    kind: AsyncKind, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each attempt had started another thread."""
    go_on = threading.Event()
    lookups: list[str] = []

    def hang(host: str, *_: object) -> Addresses:
        lookups.append(host)
        assert go_on.wait(20)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    async def run() -> list[object]:
        retry = RetryPolicy(attempt_timeout=0.2, max_attempts=3, backoff_initial=0)
        async with async_client(kind, "http://sidecar.test", retry=retry) as client:
            live = client.for_invocation(INVOCATION)
            errors = await asyncio.gather(*[live.publish("c", "p") for _ in range(50)], return_exceptions=True)
            go_on.set()
            return [*errors, *await asyncio.gather(live.publish("c", "p"), return_exceptions=True)]

    monkeypatch.setattr(connection, "resolve", hang)
    *timed_out, failed = asyncio.run(run())
    for error in timed_out:
        assert type(error) is TimedOutError
        assert (error.delivery, len(error.attempts)) == (Delivery.NOT_SENT, 3)
    assert type(failed) is NoResponseError
    # No more than an attempt and its retries would have made alone; and three by the last call, which waits for none.
    assert len(lookups) <= 6
    # asyncio would report an error that nobody retrieves.
    collect()
    assert [record for record in caplog.records if record.name == "asyncio"] == []


@pytest.mark.parametrize("count", [1, 20])
@pytest.mark.parametrize("kind", KINDS)
def test_flood_of_early_hints_is_no_response(kind: Kind, count: int) -> None:
    """The bound is on bytes: the time would be enough to read all of them."""

    def run_in_threads() -> list[object]:
        with RealtimeClient(server.url, retry=ONCE) as client, ThreadPoolExecutor(count) as pool:
            live = client.for_invocation(INVOCATION)
            return [call.exception() for call in [pool.submit(live.publish, "c", "p") for _ in range(count)]]

    async def run() -> list[object]:
        async with async_client("aiohttp" if kind == "aiohttp" else "async", server.url, retry=ONCE) as client:
            live = client.for_invocation(INVOCATION)
            calls = [live.publish("c", "p") for _ in range(count)]
            return list(await asyncio.gather(*calls, return_exceptions=True))

    with FaultServer(then=FLOOD) as server:
        errors = run_in_threads() if kind == "sync" else asyncio.run(run())
    for error in errors:
        assert type(error) is NoResponseError
        assert error.delivery is Delivery.UNKNOWN
        assert [attempt.error for attempt in error.attempts] == ["RemoteProtocolError"]
    assert len(errors) == len(server.received) == count


def test_headers_of_50_kilobytes_are_read(caller: Caller) -> None:
    def behave(connection: Connection) -> bool:
        connection.read()
        body = json.dumps({"eventId": "e", "unknown": "y" * 100_000}).encode()
        connection.send(http(200, body, {f"X-{number}": "x" * 5000 for number in range(10)}))
        return True

    with FaultServer(then=behave) as server:
        results = caller(server.url, *[lambda live: live.publish("c", "p")] * 3, retry=ONCE)
        assert server.connections == 1
    assert [result.event_id for result in results] == ["e"] * 3


def test_deadline_holds_while_the_server_reads_slowly() -> None:
    """Each part of the request is taken in time, so a timeout for each would never end the call."""

    def read_slowly(connection: Connection) -> bool:
        while connection.peer.recv(500_000) and not connection.stopping.wait(0.01):
            pass
        return False

    with (
        FaultServer(then=read_slowly) as server,
        RealtimeClient(server.url, retry=evolve(ONCE, attempt_timeout=0.2)) as client,
        pytest.raises(TimedOutError) as caught,
    ):
        client.for_invocation(INVOCATION).publish("c", LARGE)
    assert caught.value.delivery is Delivery.NOT_SENT
    assert [attempt.error for attempt in caught.value.attempts] == ["WriteTimeout"]


def resolve_to(monkeypatch: pytest.MonkeyPatch, *urls: str) -> str:
    """Gives a host the addresses of these servers."""
    addresses = [("127.0.0.1", int(url.rpartition(":")[2])) for url in urls]
    found = [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    return "http://sidecar.test:80"


def publish_once(url: str, seconds: float) -> PublishResult | NoResponseError:
    with RealtimeClient(url, retry=evolve(QUICK, attempt_timeout=seconds, max_attempts=1)) as client:
        try:
            return client.for_invocation(INVOCATION).publish("c", "p")
        except NoResponseError as error:
            return error


def test_address_that_does_not_respond_leaves_time_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultServer(deaf=True) as deaf, FaultServer(then=PUBLISHED) as server:
        result = publish_once(resolve_to(monkeypatch, deaf.url, refused_url(), server.url), 1.0)
    assert isinstance(result, PublishResult)
    assert len(result.attempts) == 1


def test_addresses_that_do_not_respond_share_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultServer(deaf=True) as deaf:
        error = publish_once(resolve_to(monkeypatch, *[deaf.url] * 100), 0.2)
    assert type(error) is TimedOutError
    assert error.delivery is Delivery.NOT_SENT
    assert error.attempts[0].error == "ConnectTimeout"
    # A full timeout for each would take 20 s.
    assert error.attempts[0].elapsed < 5


def test_host_without_a_working_address_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    error = publish_once(resolve_to(monkeypatch, refused_url(), refused_url()), 1.0)
    assert type(error) is NoResponseError
    assert error.delivery is Delivery.NOT_SENT
    assert error.attempts[0].error == "ConnectError"
