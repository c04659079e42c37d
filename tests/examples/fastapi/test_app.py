from collections.abc import Iterator

import pytest
from app import app
from fastapi.testclient import TestClient

from forge_realtime_emulator import Emulator


@pytest.fixture
def service(realtime_emulator: Emulator) -> Iterator[TestClient]:
    with TestClient(app, headers={"x-forge-invocation-id": "invocation-123"}) as service:
        yield service


def published(emulator: Emulator) -> list[tuple[str, str]]:
    return [(event.address.channel, event.payload) for event in emulator.events]


def test_move_reaches_the_page(realtime_emulator: Emulator, service: TestClient) -> None:
    with realtime_emulator.subscribe("board-42") as page:
        assert service.post("/cards/7/move").json() == {"event": "accepted"}
        assert page.receive().payload == '{"moved":7}'


def test_dependency_and_background_task_belong_to_the_request(realtime_emulator: Emulator, service: TestClient) -> None:
    service.post("/cards/7/move")
    assert sorted(published(realtime_emulator)) == [
        ("board-42", '{"moved":7}'),
        ("history", "card 7 moved"),
        ("presence", "busy"),
        ("presence", "idle"),
    ]


@pytest.mark.parametrize(("status", "event"), [(400, "did not arrive"), (500, "may have arrived")])
def test_failed_event_is_reported(realtime_emulator: Emulator, service: TestClient, status: int, event: str) -> None:
    realtime_emulator.fail_next(6, status=status, channel="board-42", optional=True)
    assert service.post("/cards/7/move").json() == {"event": event}


def test_streamed_response_publishes_each_row(realtime_emulator: Emulator, service: TestClient) -> None:
    assert service.get("/report").text == "0\n1\n2\n"
    assert published(realtime_emulator) == [("report", f'{{"row":{row}}}') for row in range(3)]
