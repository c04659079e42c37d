"""The service against the emulator, without a browser."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from forge_realtime_emulator import Emulator
from tests.examples.answer import service


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "TOKEN_SECONDS", 0)


@pytest.fixture
def client(realtime_emulator: Emulator) -> Iterator[TestClient]:
    with TestClient(service.app, headers={"x-forge-invocation-id": "invocation-123"}) as client:
        yield client


def tokens_of(text: str) -> list[str]:
    async def collect() -> list[str]:
        return [token async for token in service.model(text)]

    return asyncio.run(collect())


def test_answer_is_published_whole_in_few_operations(realtime_emulator: Emulator, client: TestClient) -> None:
    tokens = tokens_of("Why?")
    response = client.post("/answers", json={"text": "Why?"})
    assert response.status_code == 202
    [stream] = realtime_emulator.streams
    assert response.json().keys() == {"channel", "stream", "token", "expiresAt", "stop"}
    assert (stream.channel, stream.id) == ("answer", response.json()["stream"])
    assert (stream.value, stream.updates) == ("".join(tokens), len(tokens))
    assert (stream.ended, stream.error, stream.gaps) == (True, None, ())
    assert stream.operations < len(tokens) / 10


def test_retried_publish_is_not_repeated_in_the_answer(realtime_emulator: Emulator, client: TestClient) -> None:
    realtime_emulator.fail_next(status=500, delivered=True, operation="publish_global")
    client.post("/answers", json={"text": "Why?"})
    [stream] = realtime_emulator.streams
    assert stream.value == "".join(tokens_of("Why?"))
    assert stream.duplicates == 1


def test_failing_model_ends_the_stream_with_its_error(
    realtime_emulator: Emulator, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(prompt: str) -> AsyncIterator[str]:
        yield "Because "
        raise TimeoutError("the secret of the model")

    monkeypatch.setattr(service, "model", broken)
    client.post("/answers", json={"text": "Why?"})
    [stream] = realtime_emulator.streams
    assert (stream.value, stream.ended, stream.error) == ("Because ", True, "TimeoutError")
    assert "secret" not in "".join(event.payload for event in realtime_emulator.events)


def test_answer_that_has_ended_cannot_be_stopped_or_renewed(realtime_emulator: Emulator, client: TestClient) -> None:
    handle = client.post("/answers", json={"text": "Why?"}).json()
    stop = {"stream": handle["stream"], "secret": handle["stop"]["secret"]}
    assert client.post(handle["stop"]["path"], json=stop).status_code == 404
    assert client.post("/answers/renew", json=handle).status_code == 404


@pytest.mark.parametrize("body", [{}, {"text": ""}, {"text": "x" * 1001}])
def test_question_needs_a_text(client: TestClient, body: dict[str, Any]) -> None:
    assert client.post("/answers", json=body).status_code == 422
