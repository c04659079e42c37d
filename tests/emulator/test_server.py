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
from contextlib import ExitStack
from datetime import UTC, datetime

import httpx
import pytest
import time_machine
from freezegun import freeze_time
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from forge_realtime_emulator import Emulator, EmulatorError, Settings
from forge_realtime_emulator._platform.clock import elapsed
from forge_realtime_emulator._server import uvicorn_thread
from tests.emulator.api import Api, failure

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


@pytest.fixture
def short_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uvicorn_thread, "_REQUEST_TIMEOUT", 0.1)
    monkeypatch.setattr(uvicorn_thread, "_SWEEP", 0.02)


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"POST",
        b"POST /_emulator/clock HTTP/1.1\r\nHost: x\r\n",
        b"POST /_emulator/clock HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
        b"POST /forge/realtime/v1/publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
        b"GET /_emulator/subscribe HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n",
        # After a whole one.
        b"GET /bridge.js HTTP/1.1\r\nHost: x\r\n\r\nGET",
    ],
)
def test_half_open_request_times_out(short_timeout: None, begun: bytes) -> None:
    with Emulator() as emulator, socket.create_connection(("127.0.0.1", port_of(emulator)), timeout=10) as connection:
        connection.sendall(begun)
        received = b""
        while chunk := connection.recv(1 << 20):
            received += chunk
    assert b"HTTP/1.1 408 Request Timeout\r\n" in received
    assert received.endswith(b'Send it as a whole."}')


def test_slow_response_and_streams_do_not_time_out(short_timeout: None, channel: str) -> None:
    with Emulator() as emulator, httpx.Client(trust_env=False) as client:
        api = Api(emulator, client)
        with emulator.subscribe(channel) as subscription, api.stream(f"channel={channel}") as stream:
            emulator.fail_next(delay=0.5)
            assert api.publish(channel).status_code == 200
            assert subscription.receive().payload == "x"
            assert '"payload": "x"' in next(line for line in stream.iter_lines() if "payload" in line)
            # The connection of the first call, kept alive.
            assert api.publish(channel).status_code == 200


@pytest.mark.parametrize("tool", ["freezegun", "ticking", "time-machine", "monotonic"])
def test_frozen_clock_stops_nothing(tool: str, channel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    far = datetime(2040, 1, 1, tzinfo=UTC)
    began = elapsed()
    with httpx.Client(trust_env=False) as client:
        emulator = Emulator(settings=Settings(limit=1))
        api = Api(emulator, client)
        with ExitStack() as frozen:
            if tool == "monotonic":
                monkeypatch.setattr(time, "monotonic", lambda: 1e9)
            elif tool == "time-machine":
                frozen.enter_context(time_machine.travel(far, tick=False))
            else:
                frozen.enter_context(freeze_time(far, tick=tool == "ticking"))
            emulator.start()
            emulator.change(limit=2, invocation_lifetime=1)
            with emulator.subscribe(channel) as subscription:
                assert api.publish(channel).json()["eventId"]
                assert subscription.receive().payload == "x"
                with pytest.raises(TimeoutError, match=r"within 0\.2 s"):
                    subscription.receive(timeout=0.2)
                assert failure(api.publish(channel)) == "RATE_LIMIT_EXCEEDED"
                # The window of the limit, and the life of the invocation.
                wait(1.1)
                assert api.publish(channel).status_code == 401
                assert api.publish(channel, authorization="Forge id=another").json()["eventId"]
            emulator.stop()
    assert elapsed() - began < 10


def wait(seconds: float) -> None:
    """Wait by the real clock, which a frozen one does not stop."""
    threading.Event().wait(seconds)


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
