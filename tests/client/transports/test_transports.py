"""The user's own httpx transport."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import httpx_aiohttp
import pytest
from attrs import evolve

from forge_realtime import AsyncRealtimeClient, Delivery, NoResponseError, PublishResult, RealtimeClient, TimedOutError
from forge_realtime_emulator import create_app
from tests.support.callers import INVOCATION, QUICK
from tests.support.fault_server import FaultServer, answer, refused_url, reset_after, stall, trickled

BASE = "http://sidecar.test"


def published(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json={"eventId": json.loads(request.content)["payload"]})


def test_mock_transport_is_used() -> None:
    with RealtimeClient(BASE, transport=httpx.MockTransport(published)) as client:
        assert client.for_invocation(INVOCATION).publish("c", "event-7").event_id == "event-7"


def test_asynchronous_mock_transport_is_used() -> None:
    async def run() -> PublishResult:
        async with AsyncRealtimeClient(BASE, transport=httpx.MockTransport(published)) as client:
            return await client.for_invocation(INVOCATION).publish("c", "event-7")

    assert asyncio.run(run()).event_id == "event-7"


@pytest.mark.parametrize(
    ("failure", "delivery"),
    [
        (httpx.ConnectError, Delivery.NOT_SENT),
        (httpx.PoolTimeout, Delivery.NOT_SENT),
        (httpx.ReadTimeout, Delivery.UNKNOWN),
        (httpx.RemoteProtocolError, Delivery.UNKNOWN),
        (ConnectionResetError, Delivery.UNKNOWN),
    ],
)
def test_failures_of_a_mock_transport_are_classed_by_their_type(failure: type[Exception], delivery: Delivery) -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise failure("mocked")

    with RealtimeClient(BASE, transport=httpx.MockTransport(fail), retry=QUICK) as client:
        with pytest.raises(NoResponseError) as caught:
            client.for_invocation(INVOCATION).publish("c", "p")
        assert caught.value.delivery is delivery
        assert [attempt.error for attempt in caught.value.attempts] == [failure.__name__] * 6


def test_transport_of_httpx_is_used() -> None:
    transport = httpx.HTTPTransport(verify=False)
    with FaultServer() as server, RealtimeClient(server.url, transport=transport) as client:
        assert client.for_invocation(INVOCATION).publish("c", "p").event_id == "event-1"


def test_asynchronous_transport_of_httpx_is_used() -> None:
    async def run() -> PublishResult:
        transport = httpx.AsyncHTTPTransport(verify=False)
        async with AsyncRealtimeClient(server.url, transport=transport) as client:
            return await client.for_invocation(INVOCATION).publish("c", "p")

    with FaultServer() as server:
        assert asyncio.run(run()).event_id == "event-1"


def test_deadline_holds_between_the_chunks_of_any_transport() -> None:
    transport = httpx.HTTPTransport(verify=False)
    retry = evolve(QUICK, delivery="at_most_once", attempt_timeout=0.1)
    with FaultServer(trickled) as server, RealtimeClient(server.url, transport=transport, retry=retry) as client:
        with pytest.raises(TimedOutError) as caught:
            client.for_invocation(INVOCATION).publish("c", "p")
        assert caught.value.delivery is Delivery.UNKNOWN


def test_asgi_transport_reaches_an_app() -> None:
    """The emulator, without a socket."""

    async def run() -> None:
        transport = httpx.ASGITransport(create_app())
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
