"""Tests of the service. The fixture `realtime_emulator` stands in for the platform."""

from collections.abc import Iterator
from typing import Any

import answers
import pytest
from app import app
from fastapi.testclient import TestClient

from forge_realtime_emulator import Emulator, ReceivedEvent, Subscription

INVOCATION = {"x-forge-invocation-id": "invocation-123"}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the pretended model fast."""
    monkeypatch.setattr(answers, "WORD_SECONDS", 0)


@pytest.fixture
def service(realtime_emulator: Emulator) -> Iterator[TestClient]:
    """Run the service for a test."""
    with TestClient(app, headers=INVOCATION) as service:
        yield service


def test_service_is_healthy(service: TestClient) -> None:
    """Without the platform and without an invocation."""
    response = service.get("/health", headers={"x-forge-invocation-id": ""})
    assert (response.status_code, response.json()) == (200, {"status": "up"})


def test_message_reaches_page(realtime_emulator: Emulator, service: TestClient) -> None:
    """The page is subscribed in the context of the invocation."""
    with realtime_emulator.subscribe("messages") as page:
        assert service.post("/messages", json={"text": "hello"}).json() == {"heard": True}
        assert page.receive() == ReceivedEvent("messages", '{"text":"hello"}')


def test_page_learns_whether_failed_message_may_have_arrived(realtime_emulator: Emulator, service: TestClient) -> None:
    """The platform refused it, so it did not arrive."""
    realtime_emulator.fail_next(status=400)
    response = service.post("/messages", json={"text": "hello"})
    assert (response.status_code, response.json()) == (502, {"error": "RejectedError", "delivery": "rejected"})


@pytest.mark.parametrize("body", [{}, {"text": ""}, {"text": 7}])
def test_message_needs_text(service: TestClient, body: dict[str, Any]) -> None:
    """Wrong requests are refused."""
    assert service.post("/messages", json=body).status_code == 422


def subscribe(emulator: Emulator, handle: dict[str, Any]) -> Subscription:
    """Subscribe as the page that got the handle."""
    return emulator.subscribe(handle["channel"], is_global=True, token=handle["token"])


def test_answer_reaches_its_page_only(realtime_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its end, the service waits until the answer is whole."""
    monkeypatch.setattr(answers, "WORD_SECONDS", 0.05)
    with realtime_emulator.subscribe("answer", is_global=True) as other:
        with TestClient(app, headers=INVOCATION) as service:
            response = service.post("/answers", json={"text": "Why?"})
            assert response.status_code == 202
            with subscribe(realtime_emulator, response.json()) as page:
                page.receive()
        with pytest.raises(TimeoutError):
            other.receive(timeout=0)
    [stream] = realtime_emulator.streams
    assert stream.value.startswith("You asked: Why? ")
    assert (stream.ended, stream.error, stream.gaps) == (True, None, ())


def test_page_stops_its_answer(realtime_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer ends at once, also while the model thinks."""
    monkeypatch.setattr(answers, "WORD_SECONDS", 3600)
    with TestClient(app, headers=INVOCATION) as service:
        handle = service.post("/answers", json={"text": "Why?"}).json()
        stop = {"stream": handle["stream"], "secret": handle["stop"]["secret"]}
        assert service.post(handle["stop"]["path"], json=stop).json() == {"stopped": True}
    [stream] = realtime_emulator.streams
    assert (stream.ended, stream.stopped) == (True, {"by": "page"})


def test_shutdown_stops_answers(realtime_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that takes too long has an end mark, so that its page does not wait."""
    monkeypatch.setattr(answers, "WORD_SECONDS", 3600)
    monkeypatch.setattr(answers, "GRACE", 0.1)
    with TestClient(app, headers=INVOCATION) as service:
        service.post("/answers", json={"text": "Why?"})
    [stream] = realtime_emulator.streams
    assert (stream.ended, stream.stopped) == (True, {"by": "app", "reason": "The service is restarted."})
