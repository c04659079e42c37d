"""No call imports anything: a child of a fork could wait for ever for the lock of an import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from tests.support.callers import KINDS, Kind
from tests.support.fault_server import (
    PUBLISHED,
    Behaviour,
    FaultServer,
    answer,
    garbage,
    raw,
    refused_url,
    reset_after,
    stall,
    truncated,
)
from tests.support.tls_server import https_sidecar

PROGRAM = """
import asyncio, sys
from forge_realtime import AsyncRealtimeClient, ForgeRealtimeError, RealtimeClient, RetryPolicy

kind, count, *urls = sys.argv[1:]
INVOCATION = {"x-forge-invocation-id": "invocation-123"}
retry = RetryPolicy(attempt_timeout=0.5, max_attempts=1)
calls = [
    lambda live: live.publish("c", {"a": 1}),
    lambda live: live.publish("c", object()),
    lambda live: live.publish_global("c", "x"),
    lambda live: live.sign_realtime_token("c", {"team": "red"}),
] * int(count)


class Hook:
    def find_spec(self, name, path=None, target=None):
        print("imported:", name)


def publish():
    clients = [RealtimeClient(url, retry=retry, cache_tokens=True) for url in urls]
    sys.meta_path.insert(0, Hook())
    for client in clients:
        for call in calls:
            try:
                call(client.for_invocation(INVOCATION))
                print("accepted")
            except ForgeRealtimeError as error:
                print(type(error).__name__, error.delivery)
        client.close()


async def publish_async():
    clients = [AsyncRealtimeClient(url, retry=retry, cache_tokens=True, transport=kind) for url in urls]
    sys.meta_path.insert(0, Hook())
    for client in clients:
        for call in calls:
            try:
                await call(client.for_invocation(INVOCATION))
                print("accepted")
            except ForgeRealtimeError as error:
                print(type(error).__name__, error.delivery)
        await client.aclose()


if kind == "sync":
    publish()
else:
    # The imports of asyncio's own start and end are not ours.
    with asyncio.Runner() as runner:
        runner.run(asyncio.sleep(0))
        runner.run(publish_async())
        del sys.meta_path[0]
"""

DATE = "Wed, 21 Oct 2037 07:28:00 GMT"
SCRIPT: list[Behaviour] = [
    PUBLISHED,
    answer(200, {"eventId": "e", "eventTimestamp": "2026-01-01T00:00:00Z"}),
    answer(200, {"token": "a.b.c", "expiresAt": "2036-01-01T00:00:00+01:00"}),
    answer(429, {"code": "RATE_LIMIT_EXCEEDED"}, {"Retry-After": DATE}),
    answer(503, b"x", {"Retry-After": DATE, "Date": DATE}),
    answer(500, b"\xff", {"Content-Type": "text/html; charset=utf-16"}),
    answer(200, b"x", {"Content-Encoding": "gzip"}),
    answer(302, headers={"Location": "/"}),
    raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nnull\r\n0\r\n\r\n"),
    reset_after,
    stall,
    garbage,
    truncated,
]


def run(kind: Kind, count: int, *urls: str, **environment: str) -> list[str]:
    name = {"sync": "sync", "async": "httpx", "aiohttp": "aiohttp"}[kind]
    command = [sys.executable, "-c", PROGRAM, name, str(count), *urls]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("kind", KINDS)
def test_calls_import_nothing(kind: Kind, host: str) -> None:
    with FaultServer(*SCRIPT) as server:
        urls = [url.replace("127.0.0.1", host) for url in (server.url, refused_url())]
        lines = run(kind, 6, *urls, "http://does-not-exist.invalid")
        assert not server.script
    assert [line for line in lines if line.startswith("imported")] == []
    assert len(lines) == 72
    assert "accepted" in lines
    assert {line.partition(" ")[2] for line in lines} >= {
        "Delivery.NOT_SENT",
        "Delivery.REJECTED",
        "Delivery.UNKNOWN",
    }


@pytest.mark.parametrize("kind", KINDS)
def test_calls_with_tls_import_nothing(kind: Kind, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    with https_sidecar(authority) as url:
        trusted = run(kind, 1, url, SSL_CERT_FILE=str(tmp_path / "authority.pem"))
        distrusted = run(kind, 1, url)
    assert trusted == [
        "accepted",
        "UsageError Delivery.NOT_SENT",
        "accepted",
        "UnexpectedResponseError Delivery.UNKNOWN",
    ]
    assert [line for line in distrusted if "imported" in line] == []
    assert distrusted.count("NoResponseError Delivery.NOT_SENT") == 3
