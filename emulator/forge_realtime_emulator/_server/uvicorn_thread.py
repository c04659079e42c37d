"""The thread that runs uvicorn. It starts, answers and stops within bounds, whatever a client or a test does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import socket
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.applications import Starlette

from .._http.json import BODY_LIMIT
from .._platform.clock import elapsed
from .._platform.errors import EmulatorError
from .._platform.sidecar import Sidecar

if sys.platform == "win32":
    _EventLoop = asyncio.ProactorEventLoop
else:
    _EventLoop = asyncio.SelectorEventLoop

_NAME = "forge-realtime-emulator-"

_ABORT_AFTER = 0.5
"""Seconds that connections have to end by themselves when the emulator stops."""

_START_TIMEOUT = 10.0
_CALL_TIMEOUT = 30.0
_STOP_TIMEOUT = 5.0
"""Seconds until a stop cancels what still runs."""

_CANCEL_TIMEOUT = 1.0

_REQUEST_TIMEOUT = 30.0
"""Seconds in which a connection sends a whole request."""

_PING_INTERVALS = (10.0, 30.0)
"""Shortest and longest time between two pings of a WebSocket, in seconds."""

_RANDOM = random.Random()
"""Not that of the module, which a test may have seeded."""

_SWEEP = 1.0
"""Seconds between two looks for connections that took longer."""

_TIMED_OUT = (
    b"HTTP/1.1 408 Request Timeout\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
    b"Connection: close\r\n\r\n%s"
)


class _RealTimeLoop(_EventLoop):
    """Event loop with the real clock.

    Tests replace `time.monotonic` for the whole process: freezegun, or a loop in virtual time. A timer set meanwhile
    would be due in hours once the clock is back, and uvicorn, which sleeps between its looks at `should_exit`, would
    never stop.
    """

    def time(self) -> float:
        return elapsed()


class _Config(uvicorn.Config):
    """Configuration with another interval of keepalive pings for each WebSocket.

    2,000 subscribers that came together would be pinged together, which held up a publish for 0.2 s.
    """

    @property
    def ws_ping_interval(self) -> float:
        return _RANDOM.uniform(*_PING_INTERVALS)

    @ws_ping_interval.setter
    def ws_ping_interval(self, _: float | None) -> None:
        pass


class UvicornThread(uvicorn.Server):
    """uvicorn in a thread."""

    def __init__(self, app: Starlette, listener: socket.socket) -> None:
        super().__init__(
            _Config(
                app,
                lifespan="off",
                ws_max_size=BODY_LIMIT,
                ws_per_message_deflate=False,
                proxy_headers=False,
                log_config=None,
            )
        )
        for name in ("uvicorn.error", "uvicorn.access"):
            logging.getLogger(name).addFilter(_is_worth_logging)
        self.port: int = listener.getsockname()[1]
        self._sidecar: Sidecar = app.state.sidecar
        app.state.connections = self.server_state.connections
        # What each connection is at, and since when.
        self._requests: dict[Any, tuple[Any, float]] = {}
        self._listener = listener
        self._settled = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{_NAME}{self.port}", daemon=True)

    def start(self) -> None:
        """Start the thread, and return when the server accepts connections.

        Raises:
            EmulatorError: The server did not start in time.
        """
        self._thread.start()
        self._settled.wait(_START_TIMEOUT)
        if not self.started:
            self.should_exit = True
            self._thread.join(_CANCEL_TIMEOUT)
            raise EmulatorError(
                f"The emulator's server did not start within {_START_TIMEOUT:g} s. See the traceback that its thread"
                " printed."
            )

    def stop(self) -> None:
        """Close all connections and end the thread.

        What still runs after 5 s is cancelled, and named in a `RuntimeWarning`.
        """
        self._schedule(self._begin_stop)
        self._thread.join(_STOP_TIMEOUT)
        if not self._thread.is_alive():
            return
        running = self._running()
        self._schedule(self._cancel)
        self._thread.join(_CANCEL_TIMEOUT)
        blocked = ""
        if self._thread.is_alive():
            blocked = " Its thread still runs: something blocks the event loop, for example a log handler."
        warnings.warn(
            f"The emulator did not stop within {_STOP_TIMEOUT:g} s and was cancelled. Still open were {running}."
            f"{blocked}",
            RuntimeWarning,
            stacklevel=3,
        )

    def in_loop(self, change: Callable[[], object]) -> None:
        """Run `change` in the event loop, where the platform's state lives, and wait until it is done.

        Raises:
            EmulatorError: The event loop did not run it in time.
        """

        async def run() -> None:
            change()

        try:
            asyncio.run_coroutine_threadsafe(run(), self._loop).result(_CALL_TIMEOUT)
        except TimeoutError:
            raise EmulatorError(
                f"The emulator did not respond within {_CALL_TIMEOUT:g} s: something blocks its event loop, for example"
                " a log handler. Stop the emulator, and see what its thread waits for."
            ) from None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._sidecar.feed.open()
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self._loop.call_later(_SWEEP, self._end_half_open)
        self._settled.set()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=_RealTimeLoop) as runner, contextlib.suppress(asyncio.CancelledError):
                runner.run(self.serve(sockets=[self._listener]))
        finally:
            self._listener.close()
            self._settled.set()

    def _schedule(self, action: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # The loop is closed: the server has ended by itself.
            self._loop.call_soon_threadsafe(action)

    def _begin_stop(self) -> None:
        self.should_exit = True
        self._sidecar.channels.close("The emulator stopped.")
        self._sidecar.feed.close()
        self._sidecar.faults.end_delays()
        self._loop.call_later(_ABORT_AFTER, self._abort)

    def _end_half_open(self) -> None:
        """Respond with 408 to those who began a request and did not finish it, and close their connections."""
        now = elapsed()
        before, self._requests = self._requests, {}
        for connection in list(self.server_state.connections):
            # A WebSocket has no cycle of request and response. Idle ones are closed by uvicorn, after 5 s.
            cycle: Any = getattr(connection, "cycle", connection)
            is_half_open = cycle is None or (cycle is not connection and (cycle.more_body or cycle.response_complete))
            if not is_half_open:
                continue
            known, since = before.get(connection, (cycle, now))
            since = since if known is cycle else now
            self._requests[connection] = (cycle, since)
            if now - since >= _REQUEST_TIMEOUT:
                is_responding = cycle is not None and cycle.response_started and not cycle.response_complete
                _time_out(connection.transport, is_responding=is_responding)
        self._loop.call_later(_SWEEP, self._end_half_open)

    def _abort(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        # Again and again: on a busy machine a client connects after the first time, before the listener is closed.
        self._loop.call_later(_ABORT_AFTER, self._abort)

    def _cancel(self) -> None:
        self._abort()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()

    def _running(self) -> str:
        names = [getattr(task.get_coro(), "__qualname__", "?") for task in asyncio.all_tasks(self._loop)]
        return f"{len(self.server_state.connections)} connection(s) and the tasks {', '.join(sorted(names))}"


def _time_out(transport: asyncio.Transport, *, is_responding: bool) -> None:
    if not is_responding:
        message = f"The request did not come to its end within {_REQUEST_TIMEOUT:g} s. Send it as a whole."
        body = json.dumps({"code": "REQUEST_TIMEOUT", "message": message}).encode()
        transport.write(_TIMED_OUT % (len(body), body))
    transport.close()


def _is_worth_logging(record: logging.LogRecord) -> bool:
    """Drop uvicorn's records about the emulator's own connections; leave those of other servers alone.

    At DEBUG uvicorn logs whole WebSocket frames, payloads and tokens included.
    """
    if not (record.threadName or "").startswith(_NAME):
        return True
    if str(record.msg).startswith("Invalid UTF-8"):
        # The subscriber's fault, which uvicorn logs with a traceback as if it were its own.
        record.exc_info = None
    # uvicorn complains when a WebSocket is refused with a status: a web page of another origin, which we log by name.
    return record.levelno >= logging.WARNING and "without completing handshake" not in str(record.msg)
