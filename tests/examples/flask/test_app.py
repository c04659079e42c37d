import pytest
from app import announce, app
from flask.testing import FlaskClient

from forge_realtime_emulator import Emulator

HEADERS = {"x-forge-invocation-id": "invocation-123"}


@pytest.fixture
def service(realtime_emulator: Emulator) -> FlaskClient:
    return app.test_client()


def test_move_reaches_the_page(realtime_emulator: Emulator, service: FlaskClient) -> None:
    with realtime_emulator.subscribe("board-42") as page:
        assert service.post("/cards/7/move", headers=HEADERS).json == {"event": "accepted"}
        assert page.receive().payload == '{"moved":7}'


def test_refused_event_is_reported(realtime_emulator: Emulator, service: FlaskClient) -> None:
    realtime_emulator.fail_next(status=400)
    assert service.post("/cards/7/move", headers=HEADERS).json == {"event": "did not arrive"}


def test_streamed_response_publishes_each_row(realtime_emulator: Emulator, service: FlaskClient) -> None:
    assert service.get("/report", headers=HEADERS).text == "0\n1\n2\n"
    assert [event.payload for event in realtime_emulator.events] == ['{"row":0}', '{"row":1}', '{"row":2}']


def test_thread_publishes_for_the_request(realtime_emulator: Emulator, service: FlaskClient) -> None:
    with realtime_emulator.subscribe("board-42") as page:
        assert service.post("/import", headers=HEADERS).status_code == 202
        assert page.receive().payload == "imported"


def test_timer_publishes_for_an_installation(realtime_emulator: Emulator) -> None:
    with realtime_emulator.subscribe("news", is_global=True) as page:
        announce("installation-1")
        assert page.receive().payload == "a new day"
