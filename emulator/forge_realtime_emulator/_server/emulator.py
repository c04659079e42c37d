"""The emulator with its own server, in a thread of the same process."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Literal, Self

import uvicorn
from starlette.applications import Starlette

from .._http.json import BODY_LIMIT
from .._http.routes import create_app
from .._platform.errors import EmulatorError
from .._platform.records import RecordedEvent, RecordedRequest
from .._platform.settings import Settings
from .._platform.sidecar import Sidecar
from .._platform.streams import RecordedStream
from .._platform.why_not import why_not
from .subscription import Subscription, open_subscription

_THREAD_NAME = "forge-realtime-emulator-"

_ABORT_AFTER = 0.5
"""Seconds that connections have to end by themselves when the emulator stops."""


class Emulator:
    """A local stand-in for the egress sidecar. Use it as a context manager, or with `start()` and `stop()`.

    What it recorded, the faults that wait and the key of its tokens stay when it is stopped and started again.
    All methods are safe to use from any thread.

    Args:
        host: The address to listen on; by default only this machine can connect.
        port: The port to listen on; 0 takes a free one at each start.
        document: The OpenAPI document; by default the derived one that is shipped with the package.
        contexts: Invocations and installations, in the form that `register` takes; they stay after `reset()`.
        settings: How it behaves; by default `Settings()`.
        service: The base URL of the app's service, such as `http://localhost:8080`, for `invokeService()` in a browser.
        origins: The origins of the pages that may use `/bridge.js`, such as `["http://localhost:5173"]`.

    Raises:
        EmulatorError: The document cannot be used.
        ValueError: The contexts are not of that form, the service is no URL, or an origin is none.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        document: Mapping[str, Any] | None = None,
        contexts: Mapping[str, Any] | None = None,
        settings: Settings | None = None,
        service: str | None = None,
        origins: Iterable[str] = (),
    ) -> None:
        self._host = host
        self._port = port
        self._app = create_app(document, settings, service=service, origins=origins)
        self._sidecar: Sidecar = self._app.state.sidecar
        if contexts is not None:
            self._sidecar.keep(contexts)
        self._server: _Server | None = None
        # Held while it starts, stops or changes: a change meets either the whole server or none.
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<Emulator {'stopped' if self._server is None else self.url}>"

    def start(self) -> None:
        """Starts serving, and returns when it serves.

        Raises:
            EmulatorError: It runs already, or the port cannot be had.
        """
        with self._lock:
            if self._server is not None:
                raise EmulatorError(f"The emulator already runs at {self.url}. Stop it before starting it again.")
            server = _Server(self._app, _listen(self._host, self._port))
            server.start()
            self._server = server

    def stop(self) -> None:
        """Closes all subscriptions and connections and ends the thread; does nothing when it does not run."""
        with self._lock:
            server, self._server = self._server, None
            if server is not None:
                server.stop()

    @property
    def is_running(self) -> bool:
        """Whether it has been started and not stopped."""
        return self._server is not None

    @property
    def url(self) -> str:
        """The base URL, for `FORGE_EGRESS_PROXY_URL`: for example `http://127.0.0.1:43121`.

        Raises:
            EmulatorError: The emulator does not run.
        """
        if self._server is None:
            raise EmulatorError("The emulator does not run. Use it in a with statement, or call start() first.")
        # The wildcard addresses are for listening; one cannot connect to them everywhere.
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self._server.port}"

    @property
    def requests(self) -> list[RecordedRequest]:
        """The calls of operations so far, in the order of the answers; at most the last 10,000 and 64 MiB of bodies."""
        return list(self._sidecar.requests)

    @property
    def events(self) -> list[RecordedEvent]:
        """The events that were accepted so far, in order; at most the last 10,000 and 64 MiB of payloads."""
        return list(self._sidecar.events)

    @property
    def streams(self) -> list[RecordedStream]:
        """The streams among these events, each put together by its id, in the order in which they began.

        At most the last 1,000, and 64 MiB of what was sent in them.
        """
        records: list[RecordedStream] = []
        self._in_loop(lambda: records.extend(self._sidecar.streams.records()))
        return records

    def fail_next(
        self,
        times: int = 1,
        *,
        status: int | None = None,
        retry_after: int | None = None,
        answer: Literal["reset", "truncated", "not-json"] | None = None,
        delay: float | None = None,
        delivered: bool = False,
        operation: str | None = None,
        channel: str | None = None,
        installation: str | None = None,
    ) -> None:
        """Has the next calls answered otherwise. Give `status`, `answer` or `delay`, or `delay` with one of the two.

        Args:
            times: How many calls.
            status: The HTTP status, 400 to 599.
            retry_after: Whole seconds for the `Retry-After` header, or None for no such header; with a status.
            answer: `"reset"` the connection, a `"truncated"` body, or one that is `"not-json"`.
            delay: Seconds before the answer; alone, the call gets its own answer, late.
            delivered: Whether the call is carried out all the same: how duplicates come about.
            operation: The only `operationId` that it is for, or None for every one.
            channel: The only channel that it is for.
            installation: The only installation that it is for.

        Raises:
            ValueError: An argument is out of range, or the document has no such operation.
        """
        fault = {
            "times": times,
            "status": status,
            "retryAfter": retry_after,
            "answer": answer,
            "delay": delay,
            "delivered": delivered or None,
            "operation": operation,
            "channel": channel,
            "installation": installation,
        }
        try:
            self._sidecar.faults.add({name: value for name, value in fault.items() if value is not None})
        except ValueError as error:
            raise ValueError(str(error).replace("retryAfter", "retry_after")) from None
        self._in_loop(self._sidecar.feed.changed)

    def register(
        self,
        *,
        invocations: Mapping[str, Mapping[str, Any]] | None = None,
        installations: Sequence[str] | None = None,
        default: Mapping[str, Any] | None = None,
    ) -> None:
        """Registers what ids stand for. It is forgotten at `reset()`.

        Args:
            invocations: A context for each invocation id, such as `{"invocation-123": {"installation": "i-1", "module":
                "panel", "context": {"project": "DEMO", "issue": "DEMO-1"}, "account": "user-123", "fromUi": True}}`.
                What is left out is as in the default context.
            installations: Further ids of installations.
            default: The context of all ids that are not registered, and of subscribers that name none.

        Raises:
            ValueError: It is not of that form; nothing was registered.
        """
        given = {"invocations": invocations, "installations": installations, "default": default}
        registry = {name: value for name, value in given.items() if value is not None}
        self._in_loop(lambda: self._sidecar.contexts.register(registry))

    def advance(self, seconds: float) -> None:
        """Puts the clock of tokens, the limit and replay forward.

        Raises:
            ValueError: It is no number of seconds, or negative.
        """
        self._in_loop(lambda: self._sidecar.clock.advance(seconds))

    def reset(self) -> None:
        """Forgets everything but the settings and contexts of the start, and closes all subscriptions."""
        self._in_loop(self._sidecar.reset)

    def change(self, **settings: Any) -> None:
        """Changes settings, until `reset()`: for example `change(limit=None)`.

        Raises:
            TypeError: There is no such setting.
            ValueError: A value makes no sense.
        """

        def change() -> None:
            self._sidecar.settings = dataclasses.replace(self._sidecar.settings, **settings)
            self._sidecar.feed.changed()

        self._in_loop(change)

    def subscribe(
        self,
        channel: str,
        *,
        is_global: bool = False,
        token: str | None = None,
        context_overrides: Sequence[str] | None = None,
        replay_seconds: float | None = None,
        invocation: str | None = None,
    ) -> AbstractContextManager[Subscription]:
        """Subscribes for the length of a with statement, over a real WebSocket.

        Args:
            channel: The channel's name.
            is_global: Whether to get what is published globally, instead of what is published in scope.
            token: A realtime token that the emulator signed, or None.
            context_overrides: The context that replaces the default scope, for example `["issue"]`, or None.
            replay_seconds: For how many seconds back to get the events published before, or None.
            invocation: The registered invocation in whose context the subscriber is; None: the default one.

        Raises:
            EmulatorError: The emulator does not run; on entering, `SubscriptionRefused`.
        """
        if token is not None and not isinstance(token, str):
            raise TypeError("token takes the token's text: that of what sign_realtime_token returned is its .token.")
        options = {"token": token, "contextOverrides": context_overrides, "replaySeconds": replay_seconds}
        subscription: dict[str, Any] = {
            "channel": channel,
            "isGlobal": is_global,
            "options": {name: value for name, value in options.items() if value is not None},
        }
        if invocation is not None:
            subscription["invocation"] = invocation
        address = f"ws{self.url.removeprefix('http')}/_emulator/subscribe"
        return open_subscription(address, subscription, self._explained)

    def _explained(self, subscription: Mapping[str, Any]) -> Callable[[], str]:
        address, since = self._sidecar.address_of_page(subscription, "subscribe"), self._sidecar.clock.now()
        return lambda: why_not(self._sidecar, address, since)

    def _in_loop(self, change: Callable[[], object]) -> None:
        with self._lock:
            if self._server is None:
                change()
            else:
                self._server.in_loop(change)


def _listen(host: str, port: int) -> socket.socket:
    # With the protocol given, asyncio sets TCP_NODELAY; without it, every call takes 40 ms.
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if sys.platform != "win32":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()
    except (OSError, OverflowError) as error:
        listener.close()
        raise EmulatorError(
            f"The emulator cannot listen on {host} port {port}: {getattr(error, 'strerror', None) or error}."
            " Stop what holds the port, or choose another one; port 0 takes a free one."
        ) from error
    return listener


class _Server(uvicorn.Server):
    """uvicorn in a thread, which stops promptly even when a subscriber does not read."""

    def __init__(self, app: Starlette, listener: socket.socket) -> None:
        super().__init__(
            uvicorn.Config(
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
        self._listener = listener
        self._settled = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{_THREAD_NAME}{self.port}", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._settled.wait()
        if not self.started:
            self._thread.join()
            raise EmulatorError("The emulator's server did not start. The traceback that its thread printed says why.")

    def stop(self) -> None:
        with contextlib.suppress(RuntimeError):  # The loop is closed: the server has ended by itself.
            self._loop.call_soon_threadsafe(self._begin_stop)
        self._thread.join()

    def in_loop(self, change: Callable[[], object]) -> None:
        """Runs something where everything else runs, and returns when it is done."""

        async def run() -> None:
            change()

        asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._sidecar.feed.open()
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        self._settled.set()

    def _run(self) -> None:
        try:
            asyncio.run(self.serve(sockets=[self._listener]))
        finally:
            self._listener.close()
            self._settled.set()

    def _begin_stop(self) -> None:
        self.should_exit = True
        self._sidecar.channels.close("The emulator stopped.")
        self._sidecar.feed.close()
        self._sidecar.faults.end_delays()
        self._loop.call_later(_ABORT_AFTER, self._abort)

    def _abort(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def _is_worth_logging(record: logging.LogRecord) -> bool:
    """Keeps what uvicorn says of an emulator's connections out of the log, and leaves other servers' records alone.

    At DEBUG uvicorn logs whole WebSocket frames, payloads and tokens included.
    """
    if not (record.threadName or "").startswith(_THREAD_NAME):
        return True
    if str(record.msg).startswith("Invalid UTF-8"):
        # A subscriber's fault, which uvicorn logs with a traceback as if it were its own.
        record.exc_info = None
    # How uvicorn takes it that a WebSocket is answered with a status: a web page was refused, which is logged by name.
    return record.levelno >= logging.WARNING and "without completing handshake" not in str(record.msg)
