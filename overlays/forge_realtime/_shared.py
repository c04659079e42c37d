"""What a client shares with its siblings: the connections and the retry budget.

Every connection is a transport of its own. httpx's pool, of many connections, does not tell which socket an exchange runs on,
and gets slow with many calls in flight.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections import deque
from queue import Empty, SimpleQueue
from typing import Final, Generic, TypeVar

import httpx
from attrs import define

from ._fork import renew_after_fork
from ._retry import RetryBudget
from ._watchdog import Watch, Watchdog

_CONNECTIONS: Final = 100
_IDLE_SECONDS: Final = 5.0
_LIMITS: Final = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=_IDLE_SECONDS)
_ANSWER_BYTES: Final = 16 * 1024 * 1024

AnyTransport = TypeVar("AnyTransport", httpx.HTTPTransport, httpx.AsyncHTTPTransport)


@define(eq=False)
class _Line(Generic[AnyTransport]):
    """One connection.

    Attributes:
        secure: Whether the transport verifies certificates: only such a one is for https.
    """

    secure: bool
    transport: AnyTransport
    socket: socket.socket | None = None
    idle_since: float = 0.0

    def abandon(self) -> None:
        """Closes the connection past its transport, whose locks somebody may hold for ever."""
        if self.socket is not None:
            self.socket.close()


class _Idle(Generic[AnyTransport]):
    """The lines that wait for their next use, the last used one first. Every single step is atomic."""

    def __init__(self) -> None:
        self._lines: deque[_Line[AnyTransport]] = deque()

    def take(self) -> _Line[AnyTransport] | None:
        try:
            return self._lines.pop()
        except IndexError:
            return None

    def give(self, line: _Line[AnyTransport]) -> None:
        line.idle_since = time.monotonic()
        self._lines.append(line)

    def take_expired(self) -> _Line[AnyTransport] | None:
        """The line that has been idle longest, if that is too long."""
        try:
            line = self._lines.popleft()
        except IndexError:
            return None
        if line.idle_since > time.monotonic() - _IDLE_SECONDS:
            self._lines.appendleft(line)
            return None
        return line


class _Shared:
    def __init__(self) -> None:
        self.budget = RetryBudget()
        self.closed = False
        self._contexts: dict[bool, ssl.SSLContext] = {}
        renew_after_fork(self)

    def _tls(self, secure: bool) -> ssl.SSLContext:
        # Loading the certificates to verify with takes some 15 ms, and a sidecar with plain http never uses them. Without
        # a lock, which a fork could leave locked: a context too many does no harm.
        if secure not in self._contexts:
            self._contexts[secure] = httpx.create_ssl_context(verify=secure)
        return self._contexts[secure]

    def renew(self) -> None:
        """Starts anew in a forked process: sockets and locks are the parent's."""
        self.budget = RetryBudget()


class Shared(_Shared):
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
        for _ in range(_CONNECTIONS):
            self._free.put(None)
        self._idle: _Idle[httpx.HTTPTransport] = _Idle()
        self._watchdog = Watchdog()

    def renew(self) -> None:
        super().renew()
        while line := self._idle.take():
            # A thread that is not in this process may hold them.
            line.abandon()
        self._begin()

    def send(self, request: httpx.Request, timeout: float) -> httpx.Response:
        """Sends a request and reads the whole answer, within `timeout` seconds.

        Raises:
            httpx.RequestError, OSError: There was no answer, or not all of it.
        """
        until = time.monotonic() + timeout
        if self._given is not None:
            return _exchange(self._given, request, until)
        try:
            self._free.get(timeout=timeout)
        except Empty:
            raise httpx.PoolTimeout(f"all {_CONNECTIONS} connections are in use") from None
        try:
            return self._send_on_line(request, until)
        finally:
            self._free.put(None)

    def _send_on_line(self, request: httpx.Request, until: float) -> httpx.Response:
        secure = request.url.scheme == "https"
        line = self._idle.take()
        if line is not None and line.secure != secure:
            line.transport.close()
            line = None
        line = line or _Line(secure, httpx.HTTPTransport(verify=self._tls(secure), limits=_LIMITS))
        watch = Watch(self._watchdog, until, line.socket)
        # What the wait for a connection left. Nothing else bounds connecting, when there is no socket to shut down yet.
        left = max(0.001, until - time.monotonic())
        request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), left)
        request.extensions["trace"] = watch.trace
        try:
            with watch:
                response = _exchange(line.transport, request, until)
            # What was cut at the end of its time can look complete.
            if watch.expired and response.status_code < 400:
                raise _timed_out()
        except (httpx.RequestError, OSError) as error:
            line.transport.close()
            if watch.expired and not isinstance(error, httpx.TimeoutException):
                # Not from the error, which can quote what was received.
                raise _timed_out() from None
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
        return response

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


class AsyncShared(_Shared):
    """Connections with asyncio. Each event loop has its own.

    Args:
        transport: Used in their place, if given.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport | None) -> None:
        super().__init__()
        self._given = transport
        self._loops: dict[asyncio.AbstractEventLoop, _Loop] = {}

    def renew(self) -> None:
        super().renew()
        # Kept, not collected: closing them would take their sockets out of the parent's selector.
        self._inherited = self._loops
        self._loops = {}

    async def send(self, request: httpx.Request, timeout: float) -> httpx.Response:
        """Sends a request and reads the whole answer, within `timeout` seconds.

        Raises:
            httpx.RequestError, OSError: There was no answer, or not all of it.
        """
        running = asyncio.get_running_loop()
        until = running.time() + timeout
        if self._given is not None:
            return await _aexchange(self._given, request, until)
        if (loop := self._loops.get(running)) is None:
            for closed in [former for former in list(self._loops) if former.is_closed()]:
                self._loops.pop(closed, None)
            loop = self._loops[running] = _Loop()
        try:
            async with asyncio.timeout_at(until):
                await loop.free.acquire()
        except TimeoutError:
            raise httpx.PoolTimeout(f"all {_CONNECTIONS} connections are in use") from None
        try:
            return await self._send_on_line(loop, request, until)
        finally:
            loop.free.release()

    async def _send_on_line(self, loop: _Loop, request: httpx.Request, until: float) -> httpx.Response:
        secure = request.url.scheme == "https"
        line = loop.idle.take()
        if line is not None and line.secure != secure:
            await line.transport.aclose()
            line = None
        line = line or _Line(secure, httpx.AsyncHTTPTransport(verify=self._tls(secure), limits=_LIMITS))
        done = False
        try:
            response = await _aexchange(line.transport, request, until)
            done = True
        finally:
            if done and not self.closed:
                loop.idle.give(line)
            else:
                # Shielded, as this call may be cancelled here once more.
                await asyncio.shield(line.transport.aclose())
        while expired := loop.idle.take_expired():
            await expired.transport.aclose()
        return response

    async def aclose(self) -> None:
        """Closes the idle connections of the running loop now, and the others when their calls are done."""
        self.closed = True
        if self._given is not None:
            await self._given.aclose()
        if loop := self._loops.get(asyncio.get_running_loop()):
            while line := loop.idle.take():
                await line.transport.aclose()


class _Loop:
    def __init__(self) -> None:
        self.free = asyncio.Semaphore(_CONNECTIONS)
        self.idle: _Idle[httpx.AsyncHTTPTransport] = _Idle()


class AnswerTooLargeError(httpx.ReadError):
    """An answer of more than 16 MiB, which no operation gives."""


def _exchange(transport: httpx.BaseTransport, request: httpx.Request, until: float) -> httpx.Response:
    response = transport.handle_request(request)
    response.request = request
    body = bytearray()
    try:
        for chunk in response.iter_bytes():
            if time.monotonic() > until:
                raise _timed_out()
            _add(body, chunk)
    except (httpx.RequestError, OSError):
        # The status of a refusal says all that is needed.
        if response.status_code < 400:
            raise
    finally:
        response.close()
    return _whole(response, body)


async def _aexchange(transport: httpx.AsyncBaseTransport, request: httpx.Request, until: float) -> httpx.Response:
    try:
        async with asyncio.timeout_at(until):
            response = await transport.handle_async_request(request)
    except TimeoutError:
        if not getattr(request.stream, "sent", True):
            raise httpx.ConnectTimeout("no connection in time") from None
        raise _timed_out() from None
    response.request = request
    body = bytearray()
    try:
        async with asyncio.timeout_at(until):
            async for chunk in response.aiter_bytes():
                _add(body, chunk)
    except (httpx.RequestError, OSError) as error:
        if response.status_code < 400:
            raise (_timed_out() if isinstance(error, TimeoutError) else error) from None
    finally:
        await response.aclose()
    return _whole(response, body)


def _add(body: bytearray, chunk: bytes) -> None:
    body += chunk
    if len(body) > _ANSWER_BYTES:
        raise AnswerTooLargeError("the answer is too large")


def _whole(response: httpx.Response, body: bytearray) -> httpx.Response:
    """The answer with its body, decoded."""
    headers = [(name, value) for name, value in response.headers.raw if name.lower() != b"content-encoding"]
    return httpx.Response(response.status_code, headers=headers, content=bytes(body), request=response.request)


def _timed_out() -> httpx.ReadTimeout:
    return httpx.ReadTimeout("the time for this attempt is up")
