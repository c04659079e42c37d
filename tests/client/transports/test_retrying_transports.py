"""A transport of the user's that sends more than once says in the end only what its last attempt met."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Generator
from typing import Any

import httpx
import httpx2
import pytest
from attrs import evolve
from httpx_retries import Retry, RetryTransport

from forge_realtime import AsyncRealtimeClient, Delivery, ForgeRealtimeError, NoResponseError, RealtimeClient
from tests.support.callers import INVOCATION, QUICK
from tests.support.fault_server import Connection, FaultServer, answer, refused_url, reset_after

ONCE = evolve(QUICK, max_attempts=1)
LARGE = "x" * 20_000_000


class Given:
    """Publishes with a transport or with an httpx client, blocking or with asyncio."""

    def __init__(self, asynchronous: bool, as_client: bool) -> None:
        self.asynchronous = asynchronous
        self.as_client = as_client

    def __call__(self, url: str, transport: Any, payload: str = "x", **settings: Any) -> Any:
        if self.asynchronous:
            return asyncio.run(self._run(url, transport, payload, settings))
        http_client = httpx.Client(transport=transport, **settings) if self.as_client or settings else None
        given: Any = {"http_client": http_client} if http_client else {"transport": transport}
        with RealtimeClient(url, retry=ONCE, **given) as client, http_client or transport:
            try:
                return client.for_invocation(INVOCATION).publish("c", payload)
            except ForgeRealtimeError as error:
                return error

    async def _run(self, url: str, transport: Any, payload: str, settings: dict[str, Any]) -> Any:
        http_client = httpx.AsyncClient(transport=transport, **settings) if self.as_client or settings else None
        given: Any = {"http_client": http_client} if http_client else {"transport": transport}
        async with AsyncRealtimeClient(url, retry=ONCE, **given) as client, http_client or transport:
            try:
                return await client.for_invocation(INVOCATION).publish("c", payload)
            except ForgeRealtimeError as error:
                return error


@pytest.fixture(params=["sync transport", "sync client", "async transport", "async client"])
def given(request: pytest.FixtureRequest) -> Given:
    return Given("async" in request.param, "client" in request.param)


class Again(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """A wrapper that sends again after an error, to another address if it has one."""

    def __init__(self, send_again: Callable[[httpx.Request], httpx.Request] = lambda request: request) -> None:
        self._again = send_again
        self._sync, self._async = httpx.HTTPTransport(), httpx.AsyncHTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        try:
            return self._sync.handle_request(request)
        except httpx.TransportError:
            return self._sync.handle_request(self._again(request))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            return await self._async.handle_async_request(request)
        except httpx.TransportError:
            return await self._async.handle_async_request(self._again(request))


def unreachable(request: httpx.Request) -> httpx.Request:
    request.url = httpx.URL(refused_url())
    return request


def anew(request: httpx.Request) -> httpx.Request:
    return unreachable(httpx.Request(request.method, request.url, headers=request.headers, stream=request.stream))


def anew_with_extensions(request: httpx.Request) -> httpx.Request:
    made = anew(request)
    made.extensions = request.extensions
    return made


class ByHand(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """A wrapper of another library: it reads the body for each try, and knows no extensions."""

    def __init__(self, times: int) -> None:
        self._times = times

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.SyncByteStream)
        for _ in range(self._times):
            b"".join(request.stream)
        raise httpx.ConnectError("refused")

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.AsyncByteStream)
        for _ in range(self._times):
            _ = [chunk async for chunk in request.stream]
        raise httpx.ConnectError("refused")


def is_unknown(error: Any) -> None:
    assert type(error) is NoResponseError
    assert error.delivery is Delivery.UNKNOWN
    assert isinstance(error.__cause__, httpx.ReadError)
    assert isinstance(error.__cause__.__cause__, httpx.ConnectError)


@pytest.mark.parametrize("again", [unreachable, anew_with_extensions])
def test_sent_and_then_unreachable_is_unknown(given: Given, again: Callable[[httpx.Request], httpx.Request]) -> None:
    with FaultServer(then=reset_after) as server:
        is_unknown(given(server.url, Again(again)))
    assert len(server.published) == 1


def test_only_httpx_own_transport_is_not_traced(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    """It sends a request once, and the trace costs time. httpcore's own connections tell whether there is one."""
    kind, name = (
        (httpx.AsyncHTTPTransport, "handle_async_request")
        if given.asynchronous
        else (httpx.HTTPTransport, "handle_request")
    )
    send, traced = getattr(kind, name), []

    def handle(self: object, request: httpx.Request) -> Any:
        traced.append("trace" in request.extensions)
        return send(self, request)

    monkeypatch.setattr(kind, name, handle)
    with FaultServer() as server:
        for transport in (kind(), type("Other", (kind,), {})()):
            assert given(server.url, transport).event_id
    assert traced == [given.as_client, True]


def test_body_that_was_asked_for_twice_is_unknown(given: Given) -> None:
    is_unknown(given("http://sidecar.test", ByHand(2)))


def test_body_that_was_asked_for_once_is_not_sent(given: Given) -> None:
    """As a mock does, which reads the body and then raises ConnectError."""
    error = given("http://sidecar.test", ByHand(1))
    assert (type(error), error.delivery) == (NoResponseError, Delivery.NOT_SENT)


def test_httpx_retries_after_the_event_arrived_is_unknown(given: Given) -> None:
    def arrive_and_stop(connection: Connection) -> bool:
        connection.read()
        server._listener.shutdown(socket.SHUT_RDWR)
        connection.reset()
        return False

    retry = Retry(total=2, allowed_methods=["POST"], backoff_factor=0.01, backoff_jitter=0)
    with FaultServer(arrive_and_stop) as server:
        url = server.url
        error = given(url, RetryTransport(retry=retry))
    assert error.delivery is Delivery.UNKNOWN
    assert len(server.published) == 1


def test_httpx_retries_that_never_connects_is_not_sent(given: Given) -> None:
    retry = Retry(total=2, allowed_methods=["POST"], backoff_factor=0.01, backoff_jitter=0)
    error = given(refused_url(), RetryTransport(retry=retry))
    assert (type(error), error.delivery) == (NoResponseError, Delivery.NOT_SENT)


def test_body_that_left_in_part_is_not_sent() -> None:
    """With asyncio, that cannot be told."""

    def close_early(connection: Connection) -> bool:
        connection.read_head()
        connection.reset()
        return False

    with FaultServer(then=close_early) as server:
        error = Given(False, False)(server.url, Again(unreachable), LARGE)
    assert (type(error), error.delivery) == (NoResponseError, Delivery.NOT_SENT)


class Challenged(httpx.Auth):
    """Sends a request twice, the second time to an address where nothing listens."""

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        yield request
        yield unreachable(request)


@pytest.mark.parametrize("status", [200, 401, 500])
def test_challenge_and_then_unreachable_is_unknown(given: Given, status: int) -> None:
    transport = httpx.AsyncHTTPTransport() if given.asynchronous else httpx.HTTPTransport()
    with FaultServer(then=answer(status, {"eventId": "e"})) as server:
        is_unknown(given(server.url, transport, auth=Challenged()))
    assert len(server.published) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_and_then_unreachable_is_unknown(given: Given, status: int) -> None:
    transport = httpx.AsyncHTTPTransport() if given.asynchronous else httpx.HTTPTransport()
    with FaultServer(then=answer(status, headers={"Location": refused_url()})) as server:
        is_unknown(given(server.url, transport, follow_redirects=True))
    assert len(server.published) == 1


def test_hook_that_reads_the_request_leaves_it_not_sent(given: Given) -> None:
    async def aread(request: httpx.Request) -> None:
        await request.aread()

    def read(request: httpx.Request) -> None:
        request.read()

    transport = httpx.AsyncHTTPTransport() if given.asynchronous else httpx.HTTPTransport()
    hooks = {"request": [aread if given.asynchronous else read]}
    error = given(refused_url(), transport, event_hooks=hooks)
    assert (type(error), error.delivery) == (NoResponseError, Delivery.NOT_SENT)


class Httpx2Again(httpx2.BaseTransport, httpx2.AsyncBaseTransport):
    """A wrapper of httpx2 that sends again after an error, to an address where nothing listens."""

    def __init__(self) -> None:
        self._sync, self._async = httpx2.HTTPTransport(), httpx2.AsyncHTTPTransport()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            return self._sync.handle_request(request)
        except httpx2.TransportError:
            request.url = httpx2.URL(refused_url())
            return self._sync.handle_request(request)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            return await self._async.handle_async_request(request)
        except httpx2.TransportError:
            request.url = httpx2.URL(refused_url())
            return await self._async.handle_async_request(request)


@pytest.mark.parametrize("as_client", [False, True])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_transport_of_httpx2_that_sends_again_is_unknown(asynchronous: bool, as_client: bool) -> None:
    def publish(url: str) -> Any:
        given: Any = {"transport": Httpx2Again()}
        if not asynchronous:
            given = {"http_client": httpx2.Client(**given)} if as_client else given
            with RealtimeClient(url, retry=ONCE, **given) as client:
                return client.for_invocation(INVOCATION).publish("c", "x")

        async def run() -> Any:
            settings: Any = {"http_client": httpx2.AsyncClient(**given)} if as_client else given
            async with AsyncRealtimeClient(url, retry=ONCE, **settings) as client:
                return await client.for_invocation(INVOCATION).publish("c", "x")

        return asyncio.run(run())

    with FaultServer(reset_after) as server, pytest.raises(NoResponseError) as caught:
        publish(server.url)
    assert caught.value.delivery is Delivery.UNKNOWN
    assert len(server.received) == 1
    with pytest.raises(NoResponseError) as caught:
        publish(refused_url())
    assert caught.value.delivery is Delivery.NOT_SENT
