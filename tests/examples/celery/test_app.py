from collections.abc import Iterator

import pytest
import tasks
from app import app
from celery.contrib.testing.worker import start_worker
from flask.testing import FlaskClient

from forge_realtime_emulator import Emulator

HEADERS = {"x-forge-invocation-id": "invocation-123"}


@pytest.fixture(scope="module", autouse=True)
def worker(realtime_emulator_session: Emulator) -> Iterator[None]:
    tasks.app.conf.broker_transport_options = {"polling_interval": 0.01}  # seconds
    with start_worker(tasks.app, pool="threads", concurrency=2, perform_ping_check=False):
        yield


@pytest.fixture
def service(realtime_emulator: Emulator) -> FlaskClient:
    return app.test_client()


def test_task_publishes_for_the_request(realtime_emulator: Emulator, service: FlaskClient) -> None:
    with realtime_emulator.subscribe("board-42") as page:
        for card in (7, 8):
            assert service.post("/import", json=[card], headers=HEADERS).status_code == 202
        assert {page.receive().payload for _ in range(2)} == {'{"imported":[7]}', '{"imported":[8]}'}


def test_task_is_retried_when_over_the_limit(realtime_emulator: Emulator, service: FlaskClient) -> None:
    realtime_emulator.fail_next(status=429, retry_after=60)  # longer than the client waits
    with realtime_emulator.subscribe("board-42") as page:
        service.post("/import", json=[7], headers=HEADERS)
        assert page.receive().payload == '{"imported":[7]}'


def test_timer_publishes_for_an_installation(realtime_emulator: Emulator) -> None:
    with realtime_emulator.subscribe("news", is_global=True) as page:
        tasks.announce.delay("installation-1")
        assert page.receive().payload == "a new day"


def test_request_from_outside_is_refused(service: FlaskClient) -> None:
    assert service.post("/import", json=[7]).status_code == 400
