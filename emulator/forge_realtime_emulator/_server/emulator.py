"""The emulator, served from a thread of this process."""

from __future__ import annotations

import dataclasses
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from .._http.routes import create_app
from .._platform.errors import EmulatorError
from .._platform.recording import read_recording
from .._platform.records import RecordedEvent, RecordedRequest
from .._platform.settings import Settings
from .._platform.sidecar import Sidecar
from .._platform.streams import RecordedStream
from .._platform.tokens import derive_key
from .._platform.transcript import make_transcript
from .._platform.why_not import why_not
from .subscription import Subscription
from .uvicorn_thread import UvicornThread


class _Token(Protocol):
    """Signed token, such as the client's `RealtimeToken`."""

    @property
    def token(self) -> str: ...


class Emulator:
    """Local stand-in for the egress sidecar. Use it as a context manager, or call `start()` and `stop()`.

    Records, pending faults and tokens survive a stop and a new start; with a fixed port, tokens also survive a new
    process. All methods are thread-safe.

    Args:
        host: Address to listen on; by default only this machine can connect.
        port: Port to listen on; 0 takes a free one at each start.
        document: OpenAPI document; by default the derived one shipped with the package.
        contexts: Invocations and installations, in the form that `register` takes. They survive `reset()`.
        settings: Behaviour of the emulator; by default `Settings()`.
        service: Base URL of the app's service for `invokeService()` in a browser, such as `http://localhost:8080`.
        origins: Origins of the pages that may use `/bridge.js`, such as `["http://localhost:5173"]`.
        mocks: Mock routes, such as `[{"method": "GET", "path": "/jira/rest/api/3/myself", "json": {}}]`. They survive
            `reset()`.

    Raises:
        EmulatorError: The document cannot be used.
        ValueError: The contexts or a mock route have another form, the service is not a URL, or an origin is not an
            origin.
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
        mocks: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self._host = host
        self._port = port
        self._app = create_app(document, settings, service=service, origins=origins)
        self._sidecar: Sidecar = self._app.state.sidecar
        if port:
            self._sidecar.sign_with(derive_key(host, port))
        if contexts is not None:
            self._sidecar.keep(contexts)
        self._sidecar.mocks.keep([*mocks])
        self._server: UvicornThread | None = None
        # Held while the emulator starts, stops or changes, so that a change meets either the whole server or none.
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
        """Start the server, and return when it accepts connections.

        Raises:
            EmulatorError: The emulator is already running, the port is not available, or the server did not start.
        """
        with self._lock:
            if self._server is not None:
                raise EmulatorError(f"The emulator already runs at {self.url}. Stop it before starting it again.")
            server = UvicornThread(self._app, _listen(self._host, self._port))
            server.start()
            self._server = server

    def stop(self) -> None:
        """Close all subscriptions and connections and end the thread. Does nothing if the emulator is not running.

        Takes 6 s at most. Whatever did not end within 5 s is cancelled and named in a `RuntimeWarning`.
        """
        with self._lock:
            server, self._server = self._server, None
            if server is not None:
                server.stop()

    @property
    def is_running(self) -> bool:
        """Whether the emulator has been started and not stopped."""
        return self._server is not None

    @property
    def url(self) -> str:
        """The base URL, for `FORGE_EGRESS_PROXY_URL`: for example `http://127.0.0.1:43121`.

        Raises:
            EmulatorError: The emulator is not running.
        """
        if self._server is None:
            raise EmulatorError("The emulator does not run. Use it in a with statement, or call start() first.")
        # Not every system lets a client connect to a wildcard address.
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)  # noqa: S104 - binds nothing
        return f"http://{f'[{host}]' if ':' in host else host}:{self._server.port}"

    @property
    def requests(self) -> list[RecordedRequest]:
        """The calls of operations, in the order of their responses: the last 10,000 and at most 64 MiB of bodies."""
        return list(self._sidecar.requests)

    @property
    def events(self) -> list[RecordedEvent]:
        """The accepted events, in order: the last 10,000 and at most 64 MiB of payloads."""
        return list(self._sidecar.events)

    @property
    def streams(self) -> list[RecordedStream]:
        """The streams among these events, each reassembled by its id, in the order in which they began.

        The last 1,000, and at most 64 MiB of their payloads.
        """
        records: list[RecordedStream] = []
        self._in_loop(lambda: records.extend(self._sidecar.streams.records()))
        return records

    def transcript(self) -> dict[str, list[dict[str, Any]]]:
        """Return what was called and published, for snapshot tests: the same in every run of a test.

        It has the `calls` of operations, the accepted `events` with the number of subscribers that got each one, and
        the reassembled `streams`, whose single publishes are left out. Each list is sorted by channel, and within a
        channel in the order of `requests`, `events` and `streams`. Payloads that are JSON objects or arrays are parsed.

        In every text, UUIDs are replaced by `<id 1>`, tokens by `<token 1>` and times in ISO 8601 by `<time>`. Equal
        ones get the same number. All else is as it was sent, payloads and claims too.
        """
        return make_transcript(self.requests, self.events, self.streams)

    @property
    def unused_faults(self) -> list[dict[str, Any]]:
        """The pending faults that are not optional, in the form of `POST /_emulator/faults`.

        A fault with a probability is never unused: by chance it may make no call fail.
        """
        waiting = self._sidecar.faults.waiting()
        return [fault for fault in waiting if not fault.get("optional") and "probability" not in fault]

    def fail_next(
        self,
        times: int | None = None,
        *,
        status: int | None = None,
        retry_after: int | None = None,
        answer: Literal["reset", "truncated", "not-json"] | None = None,
        delay: float | None = None,
        delivered: bool = False,
        operation: str | None = None,
        channel: str | None = None,
        installation: str | None = None,
        optional: bool = False,
        probability: float | None = None,
        seed: int | None = None,
    ) -> None:
        """Make the next calls fail. Give `status`, `answer` or `delay`, or `delay` with one of the other two.

        Args:
            times: Number of calls that fail; `None` means 1, or with a `probability`, no bound.
            status: HTTP status to respond with, 400 to 599.
            retry_after: Whole seconds for the `Retry-After` header, or `None` for no header. Needs `status`.
            answer: `"reset"` closes the connection, `"truncated"` cuts the body short, `"not-json"` sends HTML.
            delay: Seconds before the response. Alone, the call gets its normal response, late.
            delivered: Whether the call is carried out all the same. A client that retries then makes a duplicate.
            operation: The `operationId` that the fault is limited to, or `None` for all.
            channel: The channel name that the fault is limited to, or `None` for all.
            installation: The installation that the fault is limited to, or `None` for all.
            optional: Whether a test with the fixture `realtime_emulator` passes even if not all these calls are made.
            probability: Probability with which each call fails, above 0 and at most 1; `None` for always. The fault
                then stays until `reset()`, unless `times` is given.
            seed: Seed of this chance: the same one fails the same calls. `None` takes a random one.

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
            "optional": optional or None,
            "probability": probability,
            "seed": seed,
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
        """Register contexts. `reset()` forgets them.

        Args:
            invocations: A context for each invocation id, such as `{"invocation-123": {"installation": "i-1", "module":
                "panel", "context": {"project": "DEMO", "issue": "DEMO-1"}, "account": "user-123", "fromUi": True}}`.
                Omitted keys use the default context.
            installations: More installation ids. An installation is a bare id or an ARI, here and above.
            default: The context of unregistered ids, and of subscribers that name no invocation.

        Raises:
            ValueError: An argument has another form. Nothing was registered.
        """
        given = {"invocations": invocations, "installations": installations, "default": default}
        registry = {name: value for name, value in given.items() if value is not None}
        self._in_loop(lambda: self._sidecar.contexts.register(registry))

    def mock(self, method: str, path: str, *, status: int = 200, json: Any = None) -> None:
        """Add a mock route, for what the emulator does not carry out. `reset()` forgets it.

        It responds to the container at that path of the sidecar, such as `/jira/rest/api/3/issue/{key}` or
        `/forge/storage/kvs/v1/get`, and to a page: to `requestJira`, `requestConfluence` and `requestBitbucket` at
        `/jira…`, `/confluence…` and `/bitbucket…`, to `invoke` at `POST /invoke/<function key>`, to `invokeRemote` at
        `/remote…` and to `requestRemote` at `/remote/<remote key>…`. Of several that match, the last one added
        responds.

        Args:
            method: The HTTP method, in capitals.
            path: The path without query; `{name}` matches one segment.
            status: The HTTP status, 200 to 599.
            json: The JSON body, or `None` for no body.

        Raises:
            ValueError: An argument is out of range, or the emulator carries out this path itself.
        """
        route = {"method": method, "path": path, "status": status, **({} if json is None else {"json": json})}
        self._in_loop(lambda: self._sidecar.mocks.add(route))

    def advance(self, seconds: float) -> None:
        """Advance the emulator's clock: tokens expire, the rate limit's second passes, events become older.

        Raises:
            ValueError: `seconds` is not a number, or is negative.
        """
        self._in_loop(lambda: self._sidecar.clock.advance(seconds))

    def reset(self) -> None:
        """Restore the settings and contexts of the start, forget the rest, and close all subscriptions."""
        self._in_loop(self._sidecar.reset)

    def replay(self, path: str | Path) -> None:
        """Show the recording in a file, with its settings and contexts, until `reset()`, and go on from there.

        Args:
            path: The file, with what `GET /_emulator/recording` returned.

        Raises:
            EmulatorError: The file is not a recording. Nothing was changed.
        """
        recording = read_recording(path)
        self._in_loop(lambda: self._sidecar.show(recording.settings, recording.contexts, recording.records))

    def change(self, **settings: Any) -> None:
        """Change settings until `reset()`, for example `change(limit=None)`.

        Raises:
            TypeError: There is no such setting.
            ValueError: A value is out of range.
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
        token: str | _Token | None = None,
        context_overrides: Sequence[str] | None = None,
        replay_seconds: float | None = None,
        invocation: str | None = None,
    ) -> Subscription:
        """Subscribe for the length of a `with` or `async with` statement, over a real WebSocket.

        Args:
            channel: The channel name.
            is_global: Whether to subscribe to the global channel instead of the scoped one.
            token: A realtime token signed by the emulator, as text or as the client's `RealtimeToken`, or `None`.
            context_overrides: The context that replaces the default scope, for example `["issue"]`, or `None`.
            replay_seconds: Number of seconds for which to replay earlier events, or `None` for no replay.
            invocation: The registered invocation whose context to subscribe in; `None` for the default context.

        Raises:
            EmulatorError: The emulator is not running. On entering: `SubscriptionRefused`.
        """
        token = getattr(token, "token", token)
        if token is not None and not isinstance(token, str):
            raise TypeError("token takes what sign_realtime_token returned, or its text: the .token of that.")
        options = {"token": token, "contextOverrides": context_overrides, "replaySeconds": replay_seconds}
        subscription: dict[str, Any] = {
            "channel": channel,
            "isGlobal": is_global,
            "options": {name: value for name, value in options.items() if value is not None},
        }
        if invocation is not None:
            subscription["invocation"] = invocation
        url = f"ws{self.url.removeprefix('http')}/_emulator/subscribe"
        return Subscription(url, subscription, self._explainer)

    def _explainer(self, subscription: Mapping[str, Any]) -> Callable[[], str]:
        """Make the function that explains, when no event comes to a new subscription, why none came."""
        sidecar = self._sidecar
        address, since = sidecar.address_of_page(subscription, "subscribe"), sidecar.clock.now()
        return lambda: why_not(self.events, self.requests, address, since=since, default_scope=sidecar.default_scope())

    def _in_loop(self, change: Callable[[], object]) -> None:
        with self._lock:
            if self._server is None:
                change()
            else:
                self._server.in_loop(change)


def _listen(host: str, port: int) -> socket.socket:
    # asyncio sets TCP_NODELAY only if the protocol is given; without it, every call takes 40 ms.
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
