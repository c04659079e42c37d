"""The server's thread stops within bounds, whatever clients, tests and the event loop do.

A stop that has to cancel something warns, and a warning fails a test.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from forge_realtime_emulator import Emulator, EmulatorError
from forge_realtime_emulator._server import uvicorn_thread
from tests.emulator.api import Api

real_monotonic = time.monotonic


def port_of(emulator: Emulator) -> int:
    return int(emulator.url.rpartition(":")[2])


def threads_of(port: int) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == f"forge-realtime-emulator-{port}"]


@pytest.fixture
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_STOP_TIMEOUT", "_CALL_TIMEOUT"):
        monkeypatch.setattr(uvicorn_thread, name, 0.5)


def test_stop_returns_after_clock_was_ahead(own: Api, channel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A timer set by a clock that is ahead would be due in an hour: freezegun, or a test in virtual time."""
    with monkeypatch.context() as patched:
        patched.setattr(time, "monotonic", lambda: real_monotonic() + 3600)
        assert own.publish(channel).status_code == 200
        time.sleep(0.3)  # uvicorn sleeps for 0.1 s at a time
    own.emulator.stop()


def test_stop_returns_while_clock_stands_still(own: Api, channel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = real_monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert own.publish(channel).status_code == 200
    own.emulator.stop()


def test_delayed_call_ends_while_clock_stands_still(own: Api, channel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = real_monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    own.emulator.fail_next(delay=0.05)
    assert own.publish(channel).status_code == 200


def test_connection_made_after_first_abort_is_aborted_too(own: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    address = ("127.0.0.1", port_of(own.emulator))
    abort, shutdown = uvicorn_thread.UvicornThread._abort, uvicorn_thread.UvicornThread.shutdown
    aborted = asyncio.Event()
    connection = socket.socket()

    def abort_and_tell(server: uvicorn_thread.UvicornThread) -> None:
        abort(server)
        aborted.set()

    async def shutdown_late(server: uvicorn_thread.UvicornThread, sockets: list[socket.socket] | None = None) -> None:
        await aborted.wait()
        connection.connect(address)
        connection.sendall(b"POST /_emulator/clock HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        await asyncio.sleep(0.05)  # the server accepts it
        await shutdown(server, sockets)

    monkeypatch.setattr(uvicorn_thread.UvicornThread, "_abort", abort_and_tell)
    monkeypatch.setattr(uvicorn_thread.UvicornThread, "shutdown", shutdown_late)
    with connection:
        own.emulator.stop()
    assert threads_of(address[1]) == []


def test_task_that_ignores_disconnect_is_cancelled_and_named(
    own: Api, no_patience: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uvicorn_thread, "_CANCEL_TIMEOUT", 30)
    began = threading.Event()

    async def work_forever(_: Request) -> Response:
        began.set()
        await asyncio.Event().wait()
        raise AssertionError

    port = port_of(own.emulator)
    own.emulator._app.router.routes.append(Route("/forever", work_forever))
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET /forever HTTP/1.1\r\nHost: x\r\n\r\n")
        assert began.wait(30)
        with pytest.warns(RuntimeWarning, match=r"did not stop within 0.5 s .* tasks .*run_asgi, .*serve\.$"):
            own.emulator.stop()
    assert threads_of(port) == []


@pytest.fixture
def blocked(own: Api) -> Iterator[Emulator]:
    """An emulator whose event loop is blocked, as by a log handler that writes to a full pipe."""
    entered, release = threading.Event(), threading.Event()
    [thread] = threads_of(port_of(own.emulator))

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            entered.set()
            assert release.wait(60)

    handler = Handler()
    log = logging.getLogger("forge_realtime_emulator")
    log.addHandler(handler)
    level = log.level
    log.setLevel(logging.INFO)
    calling = threading.Thread(target=own.get, args=("/no-such-path",))
    calling.start()
    assert entered.wait(30)
    yield own.emulator
    log.removeHandler(handler)
    log.setLevel(level)
    release.set()
    calling.join(30)
    thread.join(30)
    assert not thread.is_alive()


def test_blocked_event_loop_is_named_by_change_and_stop(blocked: Emulator, no_patience: None) -> None:
    with pytest.raises(EmulatorError, match=r"did not respond within 0.5 s: something blocks its event loop"):
        blocked.reset()
    with pytest.warns(RuntimeWarning, match=r"did not stop within 0.5 s .* Its thread still runs: something blocks"):
        blocked.stop()
    assert not blocked.is_running


def test_server_that_does_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    startup = uvicorn_thread.UvicornThread.startup

    async def start_late(server: uvicorn_thread.UvicornThread, sockets: list[socket.socket] | None = None) -> None:
        await asyncio.sleep(0.3)
        await startup(server, sockets)

    monkeypatch.setattr(uvicorn_thread, "_START_TIMEOUT", 0.1)
    monkeypatch.setattr(uvicorn_thread.UvicornThread, "startup", start_late)
    emulator = Emulator()
    with pytest.raises(EmulatorError, match=r"did not start within 0.1 s\. See the traceback"):
        emulator.start()
    assert not emulator.is_running
