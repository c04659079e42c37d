"""https: certificates are verified, and the deadline holds."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from attrs import evolve

from forge_realtime import Delivery, NoResponseError, RealtimeClient, TimedOutError
from forge_realtime._transports.connection import QuietSocket
from tests.support.callers import INVOCATION, KINDS, QUICK, Caller, Kind, async_client
from tests.support.fault_server import Connection, FaultServer
from tests.support.tls_server import https_sidecar

ONCE = evolve(QUICK, delivery="at_most_once")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def url(authority: trustme.CA) -> Iterator[str]:
    with https_sidecar(authority) as url:
        yield url


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))


@pytest.mark.usefixtures("trusted")
def test_publish_with_a_trusted_certificate(caller: Caller, url: str) -> None:
    results = caller(url, *[lambda live: live.publish("c", "p")] * 3)
    assert [(result.event_id, len(result.attempts)) for result in results] == [("e", 1)] * 3


def test_untrusted_certificate_is_not_sent(caller: Caller, url: str) -> None:
    [error] = caller(url, lambda live: live.publish("c", "p"), retry=ONCE)
    assert type(error) is NoResponseError
    assert error.delivery is Delivery.NOT_SENT
    assert "CERTIFICATE_VERIFY_FAILED" in str(error.__cause__)


@pytest.mark.usefixtures("trusted")
def test_event_of_which_no_byte_has_left_after_the_handshake_was_not_sent(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    flights = 0

    def send(self: socket.socket, data: bytes) -> int:
        nonlocal flights
        # The client's hello and its end of the handshake.
        if (flights := flights + 1) > 2:
            raise ConnectionResetError
        return socket.socket.send(self, data)

    monkeypatch.setattr(QuietSocket, "send", send)
    [raised] = Caller("async")(
        url, lambda live: live.publish("c", "p"), retry=evolve(QUICK, max_attempts=1, attempt_timeout=0.5)
    )
    assert flights == 3
    assert type(raised) is TimedOutError
    assert raised.delivery is Delivery.NOT_SENT


@pytest.mark.usefixtures("trusted")
def test_deadline_holds_for_a_response_byte_by_byte(caller: Caller, url: str) -> None:
    began = time.monotonic()
    [error] = caller(url, lambda live: live.publish("c", "trickle"), retry=evolve(ONCE, deadline=0.3))
    assert time.monotonic() - began < 1.3
    assert type(error) is TimedOutError
    assert error.delivery is Delivery.UNKNOWN


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("fork", ["os", "libc"])
def test_fork_leaves_the_tls_connection_of_the_parent_open(url: str, fork: str) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "tests.support.fork", url, fork]
    subprocess.run(command, check=True, timeout=20)


def begin_handshake(connection: Connection) -> bool:
    """Answers the handshake byte by byte."""
    connection.trickle(b"\x16\x03\x03\x40\x00" + bytes(16 * 1024), 0.01)
    return False


def test_deadline_holds_in_the_handshake(caller: Caller) -> None:
    with FaultServer(then=begin_handshake) as server:
        retry = evolve(ONCE, attempt_timeout=0.2, max_attempts=1)
        [error] = caller(server.url.replace("http:", "https:"), lambda live: live.publish("c", "p"), retry=retry)
    assert type(error) is TimedOutError
    assert error.delivery is Delivery.NOT_SENT
    assert error.attempts[0].error == "ConnectTimeout"


@pytest.mark.parametrize("kind", KINDS)
def test_connection_for_http_is_not_used_for_https(kind: Kind, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No certificate was verified on it."""
    with FaultServer() as server:

        def addresses() -> Iterator[None]:
            for address in (server.url, url, server.url):
                monkeypatch.setenv("FORGE_EGRESS_PROXY_URL", address)
                yield

        outcomes: list[str] = []
        if kind == "sync":
            with RealtimeClient(retry=ONCE) as client:
                live = client.for_invocation(INVOCATION)
                for _ in addresses():
                    try:
                        live.publish("c", "p")
                        outcomes.append("accepted")
                    except NoResponseError as error:
                        outcomes.append(error.delivery.name)
        else:

            async def run() -> None:
                async with async_client(kind, retry=ONCE) as client:
                    live = client.for_invocation(INVOCATION)
                    for _ in addresses():
                        try:
                            await live.publish("c", "p")
                            outcomes.append("accepted")
                        except NoResponseError as error:
                            outcomes.append(error.delivery.name)

            asyncio.run(run())
    assert outcomes == ["accepted", "NOT_SENT", "accepted"]
