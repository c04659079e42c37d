"""The blocking connections of a client and its siblings."""

from __future__ import annotations

import queue
import ssl
import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar, cast

from .._core import clock
from .._core.fork import register_fork_reset, reset_if_forked
from .._core.http import httpx
from .._core.responses import Response
from .._core.retry import RetryBudget
from .connection import AsyncPooledConnection, PooledConnection

CONNECTIONS: Final = 100
IDLE_SECONDS: Final = 5.0
RESPONSE_BYTES: Final = 16 * 1024 * 1024

AnyConnection = TypeVar("AnyConnection", PooledConnection, AsyncPooledConnection)


class IdleConnections(deque[AnyConnection]):
    """Idle connections, the most recently used one last. Thread-safe, as each step is atomic."""

    def take(self, url: httpx.URL) -> AnyConnection | None:
        """Return the connection that was used last, if it can be used for `url`."""
        try:
            connection = self.pop()
        except IndexError:
            return None
        if connection.is_usable(url):
            return connection
        connection.close()
        return None

    def give(self, connection: AnyConnection) -> None:
        """Keep a connection, and close those that have been idle for longer than `IDLE_SECONDS`."""
        connection.idle_since = now = clock.monotonic()
        self.append(connection)
        while True:
            try:
                oldest = self.popleft()
            except IndexError:
                return
            if oldest.idle_since > now - IDLE_SECONDS:
                self.appendleft(oldest)
                return
            oldest.close()

    def close_all(self) -> None:
        with suppress(IndexError):
            while True:
                self.pop().close()


class BaseConnectionPool:
    """State that both kinds of pools have."""

    def __init__(self) -> None:
        self.budget = RetryBudget()
        self.closed = False
        self._context: ssl.SSLContext | None = None
        register_fork_reset(self)

    def _tls(self) -> ssl.SSLContext:
        # Loading the certificates takes 15 ms. No lock, which a fork could leave locked: a second context is harmless.
        if self._context is None:
            self._context = httpx.create_ssl_context()
        return self._context

    def reset_after_fork(self) -> None:
        self.budget = RetryBudget()


class ConnectionPool(BaseConnectionPool):
    """Blocking connections, or the user's own transport in their place."""

    def __init__(self, transport: httpx.BaseTransport | None) -> None:
        super().__init__()
        self.transport = transport
        self._idle: IdleConnections[PooledConnection] = IdleConnections()
        self._places = _Places()

    def reset_after_fork(self) -> None:
        super().reset_after_fork()
        self._idle.close_all()
        self._places = _Places()

    def send(self, request: httpx.Request, timeout: float) -> Response:
        """Send a request and read the whole response within `timeout` seconds, or raise one of `TRANSPORT_ERRORS`."""
        reset_if_forked()
        until = clock.monotonic() + timeout
        if self.transport is not None:
            begun = BegunRequests()
            request.extensions = extensions(self.transport, timeout, begun.trace)
            try:
                response = self.transport.handle_request(request)
            except (httpx.ConnectError, httpx.PoolTimeout) as error:
                begun.check(request, error)
                raise
            return _read(response, request, until)
        places = self._places
        place = places.take(timeout)
        try:
            return self._send(request, until)
        finally:
            places.put(place)

    def _send(self, request: httpx.Request, until: float) -> Response:
        connection = self._idle.take(request.url)
        if connection is None:
            context = self._tls() if request.url.scheme == "https" else None
            connection = PooledConnection(request.url, context, IDLE_SECONDS)
        try:
            response = _read(connection.send(request, until), request, until)
        except BaseException:
            connection.close()
            raise
        self._idle.give(connection)
        if self.closed:
            self._idle.close_all()
        return response

    def close(self) -> None:
        """Close the idle connections now, and the others when their calls are done."""
        self.closed = True
        if self.transport is not None:
            self.transport.close()
        self._idle.close_all()


class _Place:
    __slots__ = ("__weakref__",)


class _Places:
    """Free places, as many as there may be connections.

    A signal handler can raise between any two steps of a call, also just when the call has taken a place. Nobody puts
    such a place back, but its weak reference is dead then. Not a semaphore: an interrupt can leave its lock locked.
    """

    def __init__(self) -> None:
        # Not a name of this module: gevent and eventlet may replace the class after the import.
        self._free: queue.SimpleQueue[_Place] = queue.SimpleQueue()
        self.put = self._free.put
        self._all: list[Callable[[], _Place | None]] = [lambda: None] * CONNECTIONS
        # Reentrant: a signal handler may make a call in the midst of it.
        self._lock = threading.RLock()
        self._replace_lost()

    def take(self, timeout: float) -> _Place:
        if self._free.empty():
            self._replace_lost()
        try:
            return self._free.get(timeout=timeout)
        except queue.Empty:
            raise httpx.PoolTimeout(f"all {CONNECTIONS} connections are in use") from None

    def _replace_lost(self) -> None:
        with self._lock:
            for number, existing in enumerate(self._all):
                if existing() is None:
                    place = _Place()
                    self._all[number] = weakref.ref(place)
                    self.put(place)


class ResponseTooLargeError(httpx.ReadError):
    """A response of more than 16 MiB, which no operation gives."""


def _read(response: httpx.Response, request: httpx.Request, until: float) -> Response:
    response.request = request
    chunks: list[bytes] = []
    size = 0
    try:
        raw = cast(httpx.SyncByteStream, response.stream)
        # A mock or a hook may have read it already.
        for chunk in response.iter_bytes() if response.is_stream_consumed else raw:
            if clock.monotonic() > until:
                raise httpx.ReadTimeout("the time for this attempt is up")  # noqa: TRY301 (handled as any other)
            chunks.append(chunk)
            if (size := size + len(chunk)) > RESPONSE_BYTES:
                raise ResponseTooLargeError("the response is too large")  # noqa: TRY301 (handled as any other)
    except Exception:
        # The status of a refusal says all that is needed.
        if response.status_code < 400:
            # Crash reporters show variables, and a response may repeat what was sent, or hold a token.
            chunks, chunk = [], b""
            raise
    finally:
        response.close()
    return Response(response.status_code, response.headers, join_body(response, chunks))


def join_body(response: httpx.Response, chunks: list[bytes]) -> bytes:
    """Return the body. An encoded one is never decoded, as no encoding was asked for: a few bytes could become many."""
    for name, value in response.headers.raw:
        if name.lower() == b"content-encoding" and value.strip(b" ,").lower() not in (b"", b"identity"):
            return b""
    return b"".join(chunks)


def extensions(transport: object, timeout: float, trace: Callable[[str, dict[str, Any]], object]) -> dict[str, Any]:
    """Return the extensions of a request that the user's transport sends: its timeout in seconds, and the trace."""
    found: dict[str, Any] = {"timeout": dict.fromkeys(("connect", "read", "write", "pool"), timeout)}
    # httpx's own never send a request twice. Without a trace, a call takes a tenth less time.
    if type(transport) not in (httpx.HTTPTransport, httpx.AsyncHTTPTransport):
        found["trace"] = trace
    return found


class BegunRequests:
    """Finds out whether a user's transport had sent the request before it failed to connect.

    It may send again by itself, follow a redirect or answer a challenge. Then the failure says nothing of what it sent
    before.
    """

    def __init__(self) -> None:
        self._headers_sent = False

    def trace(self, event: str, _: dict[str, Any]) -> None:
        """Listen to httpcore, which every transport of httpx uses."""
        if event.endswith(".send_request_headers.complete"):
            self._headers_sent = True

    async def async_trace(self, event: str, info: dict[str, Any]) -> None:
        self.trace(event, info)

    def check(self, request: httpx.Request, error: httpx.TransportError) -> None:
        """Raise a ReadError if the request may have been sent before this error."""
        body = request.stream
        if getattr(body, "sent", False) and (self._headers_sent or getattr(body, "times", 0) > 1):
            raise httpx.ReadError("the transport had sent the request before it failed to connect") from error
