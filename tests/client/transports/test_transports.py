"""The user's own transport, of httpx or httpx2."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import httpx2
import httpx_aiohttp
import pytest
from attrs import evolve

import forge_realtime
from forge_realtime import AsyncRealtimeClient, Delivery, NoResponseError, PublishResult, RealtimeClient, TimedOutError
from forge_realtime_emulator import create_app
from tests.support.callers import INVOCATION, QUICK
from tests.support.fault_server import FaultServer, answer, refused_url, reset_after, stall, trickled

BASE = "http://sidecar.test"


@pytest.fixture(params=[httpx, httpx2], ids=["httpx", "httpx2"])
def library(request: pytest.FixtureRequest) -> Any:
    return request.param


def published(library: Any) -> Any:
    """A transport of the library that echoes the payload as the event's id."""

    def publish(request: Any) -> Any:
        return library.Response(200, json={"eventId": json.loads(request.content)["payload"]})

    return library.MockTransport(publish)


def call(url: str, transport: Any, *, kind: str = "sync", payload: str = "p", **settings: Any) -> PublishResult:
    """Publishes once with one of the two clients."""
    if kind == "sync":
        with RealtimeClient(url, transport=transport, **settings) as client:
            return client.for_invocation(INVOCATION).publish("c", payload)

    async def run() -> PublishResult:
        async with AsyncRealtimeClient(url, transport=transport, **settings) as client:
            return await client.for_invocation(INVOCATION).publish("c", payload)

    return asyncio.run(run())


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_mock_transport_is_used(library: Any, kind: str) -> None:
    assert call(BASE, published(library), kind=kind, payload="event-7").event_id == "event-7"


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize(
    ("failure", "delivery"),
    [
        ("ConnectError", Delivery.NOT_SENT),
        ("PoolTimeout", Delivery.NOT_SENT),
        ("ConnectTimeout", Delivery.UNKNOWN),
        ("ReadTimeout", Delivery.UNKNOWN),
        ("WriteTimeout", Delivery.UNKNOWN),
        ("ReadError", Delivery.UNKNOWN),
        ("WriteError", Delivery.UNKNOWN),
        ("CloseError", Delivery.UNKNOWN),
        ("ProxyError", Delivery.UNKNOWN),
        ("RemoteProtocolError", Delivery.UNKNOWN),
        ("LocalProtocolError", Delivery.UNKNOWN),
        ("DecodingError", Delivery.UNKNOWN),
        ("TooManyRedirects", Delivery.UNKNOWN),
        (ConnectionResetError, Delivery.UNKNOWN),
    ],
)
def test_failures_of_a_mock_transport_are_classed_by_their_type(
    library: Any, kind: str, failure: str | type[Exception], delivery: Delivery
) -> None:
    raised = getattr(library, failure) if isinstance(failure, str) else failure

    def fail(request: Any) -> Any:
        raise raised("mocked")

    with pytest.raises(NoResponseError) as caught:
        call(BASE, library.MockTransport(fail), kind=kind, retry=QUICK)
    assert caught.value.delivery is delivery
    assert isinstance(caught.value, TimedOutError) == raised.__name__.endswith("Timeout")
    assert [attempt.error for attempt in caught.value.attempts] == [raised.__name__] * 6
    cause = caught.value.__cause__
    assert cause is None if "Protocol" in raised.__name__ or "Decoding" in raised.__name__ else str(cause) == "mocked"


@pytest.mark.parametrize("library", [httpx2])
def test_error_of_a_subclass_is_classed_as_its_base(library: Any) -> None:
    class Refused(httpx2.ConnectError):
        pass

    def fail(request: Any) -> Any:
        raise Refused("mocked")

    with pytest.raises(NoResponseError) as caught:
        call(BASE, library.MockTransport(fail), retry=QUICK)
    assert caught.value.delivery is Delivery.NOT_SENT
    assert type(caught.value.__cause__) is httpx.ConnectError


def test_httpx2_has_every_error_of_httpx() -> None:
    errors = [name for name, value in vars(httpx).items() if isinstance(value, type) and issubclass(value, Exception)]
    for name in errors:
        bases = [each.__name__ for each in getattr(httpx, name).__mro__]
        assert [each.__name__ for each in getattr(httpx2, name).__mro__] == bases


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_transport_of_the_library_is_used_and_closed(library: Any, kind: str) -> None:
    transport = library.HTTPTransport(verify=False) if kind == "sync" else library.AsyncHTTPTransport(verify=False)
    with FaultServer() as server:
        assert call(server.url, transport, kind=kind).event_id == "event-1"
        server.wait_for_closed_connections()
    assert not transport._pool.connections


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_pool_timeout_of_a_transport_is_not_sent(library: Any, kind: str) -> None:
    make = library.HTTPTransport if kind == "sync" else library.AsyncHTTPTransport
    transport = make(verify=False, limits=library.Limits(max_connections=0))
    with FaultServer() as server, pytest.raises(TimedOutError) as caught:
        call(server.url, transport, kind=kind, retry=evolve(QUICK, attempt_timeout=0.01, max_attempts=2))
    assert caught.value.delivery is Delivery.NOT_SENT
    # With asyncio, the client's own timeout may be first.
    names = {"PoolTimeout"} if kind == "sync" else {"PoolTimeout", "ConnectTimeout"}
    assert {attempt.error for attempt in caught.value.attempts} <= names
    assert len(caught.value.attempts) == 2
    assert server.connections == 0


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_deadline_holds_between_the_chunks_of_any_transport(library: Any, kind: str) -> None:
    transport = library.HTTPTransport(verify=False) if kind == "sync" else library.AsyncHTTPTransport(verify=False)
    retry = evolve(QUICK, delivery="at_most_once", attempt_timeout=0.1)
    with FaultServer(trickled) as server, pytest.raises(TimedOutError) as caught:
        call(server.url, transport, kind=kind, retry=retry)
    assert caught.value.delivery is Delivery.UNKNOWN


def test_transport_of_httpx2_that_is_a_class_of_the_app_is_used() -> None:
    class Counting(httpx2.BaseTransport):
        calls = closed = 0

        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            self.calls += 1
            assert json.loads(request.read())["payload"] == "p"
            assert 0 < request.extensions["timeout"]["read"] <= 2
            return httpx2.Response(200, stream=Chunks())

        def close(self) -> None:
            self.closed += 1

    class Chunks(httpx2.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield b'{"eventId":'
            yield b'"event-7"}'

        def close(self) -> None:
            closed.append(True)

    closed: list[bool] = []
    transport = Counting()
    assert call(BASE, transport).event_id == "event-7"
    assert (transport.calls, transport.closed, closed) == (1, 1, [True])


def test_httpx2_is_imported_only_with_an_object_of_it() -> None:
    program = """
import sys
from forge_realtime import AsyncRealtimeClient, RealtimeClient
RealtimeClient("http://sidecar.test")
AsyncRealtimeClient("http://sidecar.test", transport="httpx")
print("httpx2" in sys.modules, "forge_realtime._transports.httpx2" in sys.modules)
import httpx2
RealtimeClient("http://sidecar.test", transport=httpx2.MockTransport(print))
print("forge_realtime._transports.httpx2" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["False False", "True"]


PUBLISH = """
import asyncio, sys
import httpx2
from forge_realtime import AsyncRealtimeClient, RealtimeClient
invocation = {"x-forge-invocation-id": "invocation-123"}

def publish(**settings):
    with RealtimeClient(sys.argv[1], **settings) as client:
        return client.for_invocation(invocation).publish("c", {"moved": 7}).event_id

async def publish_async(**settings):
    async with AsyncRealtimeClient(sys.argv[1], **settings) as client:
        return (await client.for_invocation(invocation).publish("c", {"moved": 7})).event_id

print(publish(), publish(transport=httpx2.HTTPTransport()), publish(http_client=httpx2.Client()))
for settings in {"transport": "httpx"}, {"transport": "aiohttp"}, {"http_client": httpx2.AsyncClient()}:
    print(asyncio.run(publish_async(**settings)))
"""


def published_by(program: str, folder: Path | None = None) -> list[str]:
    """Runs the program, with the package in a folder if there is one, and returns the ids of its events."""
    environment = os.environ | ({"PYTHONPATH": str(folder)} if folder else {})
    with FaultServer() as server:
        command = [sys.executable, "-c", program, server.url]
        run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert run.stderr == ""
    return run.stdout.split()


def test_client_works_where_httpx_is_an_alias_of_httpx2() -> None:
    assert published_by(f"import httpx2; httpx2.alias_httpx()\n{PUBLISH}") == ["event-1"] * 6


def test_client_changes_to_httpx2_with_a_line_for_each_library(tmp_path: Path) -> None:
    """As `docs/transports.md` says, when the generated code imports httpx2."""
    copy = tmp_path / "forge_realtime"
    shutil.copytree(Path(forge_realtime.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    generated = [path for path in (copy / "_api").rglob("*.py") if "import httpx\n" in path.read_text(encoding="utf-8")]
    assert generated
    for path in (copy / "_core/http.py", copy / "_transports/http.py", *generated):
        text, lines = re.subn(
            r"^import (httpx|httpcore)$",
            r"import \g<1>2 as \g<1>",
            path.read_text(encoding="utf-8"),
            flags=re.MULTILINE,
        )
        assert lines == 1
        path.write_text(text, encoding="utf-8")
    hidden = "import sys; sys.modules['httpx'] = sys.modules['httpcore'] = None"
    assert published_by(f"{hidden}\n{PUBLISH}", tmp_path) == ["event-1"] * 6


def test_asgi_transport_reaches_an_app(library: Any) -> None:
    """The emulator, without a socket."""

    async def run() -> None:
        transport = library.ASGITransport(create_app())
        async with AsyncRealtimeClient("http://localhost", transport=transport) as client:
            live = client.for_invocation(INVOCATION)
            assert (await live.publish("c", "p")).event_id is None
            assert (await live.sign_realtime_token("c", {})).expires_at is not None

    asyncio.run(run())


def with_aiohttp(url: str, *, delivery: Any = "at_least_once", seconds: float = 2.0) -> Any:
    async def run() -> Any:
        retry = evolve(QUICK, delivery=delivery, attempt_timeout=seconds)
        transport = httpx_aiohttp.AiohttpTransport(verify=False)
        async with AsyncRealtimeClient(url, transport=transport, retry=retry) as client:
            try:
                return await client.for_invocation(INVOCATION).publish("c", {"moved": 7})
            except NoResponseError as error:
                return error

    return asyncio.run(run())


def test_httpx_aiohttp_is_used() -> None:
    with FaultServer(answer(429)) as server:
        result = with_aiohttp(server.url)
    assert [attempt.status for attempt in result.attempts] == [429, 200]
    for request in server.received:
        assert request.json == {"name": "c", "payload": '{"moved":7}'}
        assert request.headers["forge-proxy-authorization"] == "Forge as=app,id=invocation-123"


@pytest.mark.parametrize("fault", [reset_after, stall])
def test_httpx_aiohttp_without_a_response_is_unknown(fault: Any) -> None:
    with FaultServer(fault) as server:
        error = with_aiohttp(server.url, delivery="at_most_once", seconds=0.2)
    assert error.delivery is Delivery.UNKNOWN
    assert len(server.received) == 1


def test_httpx_aiohttp_without_a_connection_is_not_sent() -> None:
    assert with_aiohttp(refused_url()).delivery is Delivery.NOT_SENT
