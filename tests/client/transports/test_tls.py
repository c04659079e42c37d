"""An https address: certificates are verified, and the deadline holds there too."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from attrs import evolve

from forge_realtime import Delivery, NoResponseError, RealtimeClient, TimedOutError
from tests.support.callers import INVOCATION, KINDS, QUICK, Caller, Kind, async_client
from tests.support.fault_server import FaultServer
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
def test_publish(caller: Caller, url: str) -> None:
    results = caller(url, *[lambda live: live.publish("c", "p")] * 3)
    assert [(result.event_id, len(result.attempts)) for result in results] == [("e", 1)] * 3


def test_a_certificate_that_is_not_trusted(caller: Caller, url: str) -> None:
    [error] = caller(url, lambda live: live.publish("c", "p"), retry=ONCE)
    assert type(error) is NoResponseError
    assert error.delivery is Delivery.NOT_SENT
    assert "CERTIFICATE_VERIFY_FAILED" in str(error.__cause__)


@pytest.mark.usefixtures("trusted")
def test_the_deadline_holds_for_an_answer_byte_by_byte(caller: Caller, url: str) -> None:
    began = time.monotonic()
    [error] = caller(url, lambda live: live.publish("c", "trickle"), retry=evolve(ONCE, deadline=0.3))
    assert time.monotonic() - began < 1.3
    assert type(error) is TimedOutError
    assert error.delivery is Delivery.UNKNOWN


@pytest.mark.parametrize("kind", KINDS)
def test_a_connection_made_for_http_is_not_used_for_https(
    kind: Kind, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is verified on it."""
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
