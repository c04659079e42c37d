import asyncio

import app
import httpx
import pytest
from django.test import AsyncClient, Client

from forge_realtime_emulator import Emulator

HEADERS = {"x-forge-invocation-id": "invocation-123"}
ACTIONS = pytest.mark.parametrize(("action", "payload"), [("move", '{"moved":7}'), ("close", '{"closed":7}')])


@ACTIONS
def test_sync_client(realtime_emulator: Emulator, action: str, payload: str) -> None:
    with realtime_emulator.subscribe("board-42") as page:
        assert Client().post(f"/cards/7/{action}", headers=HEADERS).json() == {"event": "accepted"}
        assert page.receive().payload == payload


@ACTIONS
def test_async_client(realtime_emulator: Emulator, action: str, payload: str) -> None:
    async def run() -> None:
        async with realtime_emulator.subscribe("board-42") as page:
            response = await AsyncClient().post(f"/cards/7/{action}", headers=HEADERS)
            assert response.json() == {"event": "accepted"}
            assert (await page.areceive()).payload == payload

    asyncio.run(run())


@ACTIONS
def test_wsgi(realtime_emulator: Emulator, action: str, payload: str) -> None:
    with httpx.Client(transport=httpx.WSGITransport(app.wsgi), base_url="http://board", headers=HEADERS) as client:
        assert client.post(f"/cards/7/{action}").json() == {"event": "accepted"}
    assert [event.payload for event in realtime_emulator.events] == [payload]


@ACTIONS
def test_asgi(realtime_emulator: Emulator, action: str, payload: str) -> None:
    async def run() -> None:
        transport = httpx.ASGITransport(app.asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://board", headers=HEADERS) as client:
            assert (await client.post(f"/cards/7/{action}")).json() == {"event": "accepted"}

    asyncio.run(run())
    assert [event.payload for event in realtime_emulator.events] == [payload]


def test_refused_event_is_reported(realtime_emulator: Emulator) -> None:
    realtime_emulator.fail_next(status=400)
    assert Client().post("/cards/7/move", headers=HEADERS).json() == {"event": "did not arrive"}


def test_streamed_response_publishes_each_row(realtime_emulator: Emulator) -> None:
    assert Client().get("/report", headers=HEADERS).getvalue() == b"0\n1\n2\n"
    assert [event.payload for event in realtime_emulator.events] == ['{"row":0}', '{"row":1}', '{"row":2}']
