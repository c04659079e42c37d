"""Tests of the service. The fixture `realtime_emulator` stands in for the platform."""

import asyncio
import json
from typing import Any

import answers
import app
import pytest
import views
from django.http import HttpResponse
from django.test import AsyncClient

from forge_realtime_emulator import Emulator, ReceivedEvent, Subscription

INVOCATION = {"x-forge-invocation-id": "invocation-123"}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the pretended model fast."""
    monkeypatch.setattr(answers, "WORD_SECONDS", 0)


async def post(path: str, body: Any = None) -> HttpResponse:
    """Send a request as the platform does."""
    return await AsyncClient().post(path, json.dumps(body), content_type="application/json", headers=INVOCATION)


def test_service_is_healthy() -> None:
    """Without the platform and without an invocation."""
    response = asyncio.run(AsyncClient().get("/health"))
    assert (response.status_code, response.json()) == (200, {"status": "up"})


def test_message_reaches_page(realtime_emulator: Emulator) -> None:
    """The page is subscribed in the context of the invocation."""
    with realtime_emulator.subscribe("messages") as page:
        assert asyncio.run(post("/messages", {"text": "hello"})).json() == {"heard": True}
        assert page.receive() == ReceivedEvent("messages", '{"text":"hello"}')


def test_page_learns_whether_failed_message_may_have_arrived(realtime_emulator: Emulator) -> None:
    """The platform refused it, so it did not arrive."""
    realtime_emulator.fail_next(status=400)
    response = asyncio.run(post("/messages", {"text": "hello"}))
    assert (response.status_code, response.json()) == (502, {"error": "RejectedError", "delivery": "rejected"})


@pytest.mark.parametrize("body", [{}, [], {"text": ""}, {"text": 7}])
def test_message_needs_text(body: Any) -> None:
    """Wrong requests are refused."""
    assert asyncio.run(post("/messages", body)).status_code == 400


def subscribe(emulator: Emulator, handle: dict[str, Any]) -> Subscription:
    """Subscribe as the page that got the handle."""
    return emulator.subscribe(handle["channel"], is_global=True, token=handle["token"])


def test_answer_reaches_its_page_only(realtime_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its end, the service waits until the answer is whole."""
    monkeypatch.setattr(answers, "WORD_SECONDS", 0.05)

    async def run() -> None:
        response = await post("/answers", {"text": "Why?"})
        assert response.status_code == 202
        async with subscribe(realtime_emulator, response.json()) as page:
            await page.areceive()
            await views.answers.finish()

    with realtime_emulator.subscribe("answer", is_global=True) as other:
        asyncio.run(run())
        with pytest.raises(TimeoutError):
            other.receive(timeout=0)
    [stream] = realtime_emulator.streams
    assert stream.value.startswith("You asked: Why? ")
    assert (stream.ended, stream.error, stream.gaps) == (True, None, ())


def test_page_stops_its_answer(realtime_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer ends at once, also while the model thinks."""
    monkeypatch.setattr(answers, "WORD_SECONDS", 3600)

    async def run() -> None:
        handle = (await post("/answers", {"text": "Why?"})).json()
        stop = {"stream": handle["stream"], "secret": handle["stop"]["secret"]}
        assert (await post(handle["stop"]["path"], stop)).json() == {"stopped": True}
        await views.answers.finish()

    asyncio.run(run())
    [stream] = realtime_emulator.streams
    assert (stream.ended, stream.stopped) == (True, {"by": "page"})


def test_shutdown_stops_answers(realtime_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that takes too long has an end mark, so that its page does not wait."""
    monkeypatch.setattr(answers, "WORD_SECONDS", 3600)
    monkeypatch.setattr(answers, "GRACE", 0.1)
    monkeypatch.setattr(views, "realtime", views.AsyncRealtimeClient())
    sent: list[str] = []

    async def keep(message: dict[str, Any]) -> None:
        sent.append(message["type"])

    async def run() -> None:
        messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        server = asyncio.create_task(app.app({"type": "lifespan"}, messages.get, keep))
        await messages.put({"type": "lifespan.startup"})
        await post("/answers", {"text": "Why?"})
        await messages.put({"type": "lifespan.shutdown"})
        await server

    asyncio.run(run())
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    [stream] = realtime_emulator.streams
    assert (stream.ended, stream.stopped) == (True, {"by": "app", "reason": "The service is restarted."})
