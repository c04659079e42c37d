import json
import threading
from collections.abc import Iterator

import answers
import pytest

from forge_realtime import current_invocation
from forge_realtime_emulator import Emulator

HEADERS = {"x-forge-invocation-id": "invocation-123"}


def test_answer_reaches_its_page_and_its_thread_has_the_invocation(
    realtime_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscribed = threading.Event()

    def model(question: str) -> Iterator[str]:
        subscribed.wait(10)
        yield f"{question} {current_invocation() is not None}"
        raise TimeoutError

    monkeypatch.setattr(answers, "model", model)
    handle = answers.app.test_client().post("/answers", json={"text": "Why?"}, headers=HEADERS).json
    assert handle is not None
    with realtime_emulator.subscribe(handle["channel"], is_global=True, token=handle["token"]) as page:
        subscribed.set()
        events = [json.loads(page.receive().payload)]
        while not events[-1]["end"]:
            events.append(json.loads(page.receive().payload))
    assert "".join(event.get("data", "") for event in events) == "Why? True"
    assert events[-1]["error"] == {"type": "TimeoutError"}


def test_page_can_stop_its_answer(realtime_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = threading.Event()

    def model(question: str) -> Iterator[str]:
        stopped.wait(10)
        yield question

    monkeypatch.setattr(answers, "model", model)
    service = answers.app.test_client()
    handle = service.post("/answers", json={"text": "Why?"}, headers=HEADERS).json
    assert handle is not None
    stop = {"stream": handle["stream"], "secret": handle["stop"]["secret"]}
    with realtime_emulator.subscribe(handle["channel"], is_global=True, token=handle["token"]) as page:
        assert service.post(handle["stop"]["path"], json=stop).json == {"stopped": True}
        stopped.set()
        assert json.loads(page.receive().payload)["stopped"] == {"by": "page"}
