"""What a client shares with its siblings: the connections and the retry budget.

Every connection is a transport of its own. httpx's pool, of many connections, does not tell which socket an exchange runs on,
and gets slow with many calls in flight. Only where something stands before the transports of httpx, to see all requests, are
they used, one for each connection.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections import deque
from queue import Empty, SimpleQueue
from typing import Any, Final, Generic, TypeAlias, TypeVar, cast

import httpx
from attrs import define

from .._core.responses import Response
from .._core.fork import register_fork_reset
from .._core.retry import RetryBudget
from .connection import AsyncConnection, Connection, is_intercepted
from .watchdog import Watch, Watchdog

CONNECTIONS: Final = 100
IDLE_SECONDS: Final = 5.0
LIMITS: Final = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=IDLE_SECONDS)
ANSWER_BYTES: Final = 16 * 1024 * 1024

Origin: TypeAlias = tuple[str, bytes, bool]
AnyTransport = TypeVar("AnyTransport", bound=httpx.BaseTransport | httpx.AsyncBaseTransport)


@define(eq=False)
class PooledConnection(Generic[AnyTransport]):
    """One connection.

    Attributes:
        origin: Where it leads to, and whether something intercepts httpx.
    """

    origin: Origin
    transport: AnyTransport
    socket: socket.socket | None = None
    idle_since: float = 0.0

    def is_usable_for(self, origin: Origin) -> bool:
        """Whether a request can be sent there, as far as can be seen."""
        if self.origin != origin:
            return False
        return not isinstance(self.transport, Connection | AsyncConnection) or self.transport.is_usable()

    def abandon(self) -> None:
        """Closes the connection past its transport, whose locks somebody may hold for ever."""
        if self.socket is not None:
            self.socket.close()


class IdleConnections(Generic[AnyTransport]):
    """The lines that wait for their next use, the last used one first. Every single step is atomic."""

    def __init__(self) -> None:
        self._lines: deque[PooledConnection[AnyTransport]] = deque()

    def take(self) -> PooledConnection[AnyTransport] | None:
        try:
            return self._lines.pop()
        except IndexError:
            return None

    def give(self, line: PooledConnection[AnyTransport]) -> None:
        line.idle_since = time.monotonic()
        self._lines.append(line)

    def take_expired(self) -> PooledConnection[AnyTransport] | None:
        """The line that has been idle longest, if that is too long."""
        try:
            line = self._lines.popleft()
        except IndexError:
            return None
        if line.idle_since > time.monotonic() - IDLE_SECONDS:
            self._lines.appendleft(line)
            return None
        return line


class BaseConnectionPool:
    def __init__(self) -> None:
        self.budget = RetryBudget()
        self.closed = False
        self._context: ssl.SSLContext | None = None
        register_fork_reset(self)

    def _tls(self) -> ssl.SSLContext:
        # Loading the certificates takes some 15 ms, and a sidecar with plain http never uses them. Without a lock, which a
        # fork could leave locked: a context too many does no harm.
        if self._context is None:
            self._context = httpx.create_ssl_context()
        return self._context

    def reset_after_fork(self) -> None:
        """Starts anew in a forked process: sockets and locks are the parent's."""
        self.budget = RetryBudget()


class ConnectionPool(BaseConnectionPool):
    """Blocking connections.

    Args:
        transport: Used in their place, if given.
    """

    def __init__(self, transport: httpx.BaseTransport | None) -> None:
        super().__init__()
        self._given = transport
        self._begin()

    def _begin(self) -> None:
        # Not a semaphore, whose lock a KeyboardInterrupt can leave locked for ever.
        self._free: SimpleQueue[None] = SimpleQueue()
        for _ in range(CONNECTIONS):
            self._free.put(None)
        self._idle: IdleConnections[httpx.BaseTransport] = IdleConnections()
        self._watchdog = Watchdog()

    def reset_after_fork(self) -> None:
        super().reset_after_fork()
        while line := self._idle.take():
            # A thread that is not in this process may hold them.
            line.abandon()
        self._begin()

    def send(self, request: httpx.Request, timeout: float) -> Response:
        """Sends a request and reads the whole answer, within `timeout` seconds.

        Raises:
            httpx.RequestError, OSError: There was no answer, or not all of it.
        """
        until = time.monotonic() + timeout
        if self._given is not None:
            request.extensions = {"timeout": timeout_of(timeout)}
            return _exchange(self._given, request, until)
        try:
            self._free.get(timeout=timeout)
        except Empty:
            raise httpx.PoolTimeout(f"all {CONNECTIONS} connections are in use") from None
        try:
            return self._send_on_line(request, until)
        finally:
            self._free.put(None)

    def _send_on_line(self, request: httpx.Request, until: float) -> Response:
        url = request.url
        origin = (url.scheme, url.netloc, is_intercepted())
        line = self._idle.take()
        if line is not None and not line.is_usable_for(origin):
            line.transport.close()
            line = None
        line = line or PooledConnection(origin, self._connection(url, origin))
        watch = Watch(self._watchdog, until, line.socket)
        # What the wait for a connection left. Nothing else bounds connecting, when there is no socket to shut down yet.
        extensions: dict[str, Any] = {"timeout": timeout_of(max(0.001, until - time.monotonic()))}
        if line.socket is None or not isinstance(line.transport, Connection):
            # A transport of httpx may make a new connection for a later request, too.
            extensions["trace"] = watch.trace
        request.extensions = extensions
        try:
            with watch:
                answer = _exchange(line.transport, request, until)
            # What was cut at the end of its time can look complete.
            if watch.expired and answer.status_code < 400:
                raise timed_out()
        except (httpx.RequestError, OSError) as error:
            line.transport.close()
            if watch.expired and not isinstance(error, httpx.TimeoutException):
                # Not from the error, which can quote what was received.
                raise timed_out() from None
            raise
        except BaseException:
            # An interrupt can leave the transport locked, and come in the midst of the end of the watch.
            self._watchdog.remove(watch)
            line.socket = watch.socket
            line.abandon()
            raise
        line.socket = watch.socket
        if watch.expired:
            line.transport.close()
        else:
            self._idle.give(line)
        if self.closed:
            self._close_idle()
        while expired := self._idle.take_expired():
            expired.transport.close()
        return answer

    def _connection(self, url: httpx.URL, origin: Origin) -> httpx.BaseTransport:
        context = self._tls() if url.scheme == "https" else None
        if origin[2]:
            return httpx.HTTPTransport(verify=context or False, limits=LIMITS)
        return Connection(url, context, IDLE_SECONDS)

    def close(self) -> None:
        """Closes the idle connections now and the others when their calls are done."""
        self.closed = True
        self._watchdog.stop()
        if self._given is not None:
            self._given.close()
        self._close_idle()

    def _close_idle(self) -> None:
        while line := self._idle.take():
            line.transport.close()


class ResponseTooLargeError(httpx.ReadError):
    """An answer of more than 16 MiB, which no operation gives."""

    def __init__(self) -> None:
        super().__init__("the answer is too large")


def timeout_of(seconds: float) -> dict[str, float]:
    return {"connect": seconds, "read": seconds, "write": seconds, "pool": seconds}


def _exchange(transport: httpx.BaseTransport, request: httpx.Request, until: float) -> Response:
    response = transport.handle_request(request)
    response.request = request
    chunks: list[bytes] = []
    size = 0
    try:
        for chunk in response.iter_bytes() if needs_decoding(response) else cast(httpx.SyncByteStream, response.stream):
            if time.monotonic() > until:
                raise timed_out()
            chunks.append(chunk)
            if (size := size + len(chunk)) > ANSWER_BYTES:
                raise ResponseTooLargeError
    except (httpx.RequestError, OSError):
        # The status of a refusal says all that is needed.
        if response.status_code < 400:
            raise
    finally:
        response.close()
    return Response(response.status_code, response.headers, b"".join(chunks))


def needs_decoding(response: httpx.Response) -> bool:
    # What something between has read is decoded, and its stream is spent.
    return response.is_stream_consumed or any(name.lower() == b"content-encoding" for name, _ in response.headers.raw)


def timed_out() -> httpx.ReadTimeout:
    return httpx.ReadTimeout("the time for this attempt is up")
