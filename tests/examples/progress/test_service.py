"""The service against the emulator, without a browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient

from forge_realtime_emulator import Emulator, Subscription
from tests.examples.progress import service


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "STEP_SECONDS", 0)


@pytest.fixture
def client(realtime_emulator: Emulator) -> Iterator[TestClient]:
    with TestClient(service.app, headers={"x-forge-invocation-id": "invocation-123"}) as client:
        yield client


@pytest.fixture
def job() -> str:
    return str(uuid4())


def progress(subscription: Subscription, count: int) -> list[tuple[str, int | None]]:
    events: list[Any] = [json.loads(subscription.receive(timeout=10).payload) for _ in range(count)]
    return [(event["state"], event.get("done")) for event in events]


RUNNING = [("running", done) for done in range(len(service.STEPS))]
DONE = ("done", len(service.STEPS))


def test_every_step_is_reported_in_order(realtime_emulator: Emulator, client: TestClient, job: str) -> None:
    with realtime_emulator.subscribe(f"job-{job}") as page:
        response = client.post("/jobs", json={"id": job})
        assert (response.status_code, response.json()) == (202, {"steps": len(service.STEPS)})
        assert progress(page, len(service.STEPS) + 1) == [*RUNNING, DONE]


def test_job_waits_when_over_the_limit(realtime_emulator: Emulator, client: TestClient, job: str) -> None:
    realtime_emulator.fail_next(status=429, times=2)
    with realtime_emulator.subscribe(f"job-{job}") as page:
        client.post("/jobs", json={"id": job})
        assert progress(page, len(service.STEPS) + 1) == [*RUNNING, DONE]
    assert [request.status for request in realtime_emulator.requests][:3] == [429, 429, 200]


def test_refused_report_does_not_stop_the_job(realtime_emulator: Emulator, client: TestClient, job: str) -> None:
    realtime_emulator.fail_next(status=400)
    with realtime_emulator.subscribe(f"job-{job}") as page:
        client.post("/jobs", json={"id": job})
        assert progress(page, len(service.STEPS)) == [*RUNNING[1:], DONE]


def test_failing_job_reports_its_failure(
    realtime_emulator: Emulator, client: TestClient, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(step: str) -> None:
        raise LookupError("no such board")

    monkeypatch.setattr(service, "work", broken)
    with realtime_emulator.subscribe(f"job-{job}") as page:
        client.post("/jobs", json={"id": job})
        assert progress(page, 2) == [("running", 0), ("failed", None)]


def test_only_pages_of_the_same_issue_get_the_report(realtime_emulator: Emulator, client: TestClient, job: str) -> None:
    realtime_emulator.register(
        invocations={"invocation-123": {"context": {"issue": "DEMO-1"}}, "other": {"context": {"issue": "DEMO-2"}}}
    )
    with (
        realtime_emulator.subscribe(f"job-{job}", invocation="invocation-123") as page,
        realtime_emulator.subscribe(f"job-{job}", invocation="other"),
    ):
        client.post("/jobs", json={"id": job})
        assert progress(page, len(service.STEPS) + 1) == [*RUNNING, DONE]
    assert {(event.delivered, event.address.scope) for event in realtime_emulator.events} == {
        (1, 'module default-module issue="DEMO-1"')
    }


def test_without_an_invocation_nothing_is_published(realtime_emulator: Emulator, job: str) -> None:
    with TestClient(service.app) as client:
        assert client.post("/jobs", json={"id": job}).status_code == 202
    assert realtime_emulator.requests == []


@pytest.mark.parametrize("body", [{}, {"id": "../x"}, {"id": 7}])
def test_job_needs_a_valid_id(client: TestClient, body: dict[str, Any]) -> None:
    assert client.post("/jobs", json=body).status_code == 422
