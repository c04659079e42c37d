"""What a client shares with its siblings: the connections and the retry budget.

Every connection is a transport of its own. httpx's pool, of many connections, does not tell which socket an exchange runs on,
and gets slow with many calls in flight. Only where something stands before the transports of httpx, to see all requests, are
they used, one for each connection.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections import deque
from importlib.util import find_spec
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, TypeVar, cast

import httpx
from attrs import define

from ._call import Answer
from ._connections import AsyncConnection, Connection, is_intercepted, is_intercepted_async
from ._errors import UsageError
from ._fork import renew_after_fork
from ._retry import RetryBudget
from ._watchdog import Watch, Watchdog

if TYPE_CHECKING:
    from ._aiohttp import AiohttpTransport

_CONNECTIONS: Final = 100
_IDLE_SECONDS: Final = 5.0
_LIMITS: Final = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=_IDLE_SECONDS)
_ANSWER_BYTES: Final = 16 * 1024 * 1024

_Origin: TypeAlias = tuple[str, bytes, bool]
AnyTransport = TypeVar("AnyTransport", bound=httpx.BaseTransport | httpx.AsyncBaseTransport)


@define(eq=False)
class _Line(Generic[AnyTransport]):
    """One connection.

    Attributes:
        origin: Where it leads to, and whether something intercepts httpx.
    """

    origin: _Origin
    transport: AnyTransport
    socket: socket.socket | None = None
    idle_since: float = 0.0

    def is_usable_for(self, origin: _Origin) -> bool:
        """Whether a request can be sent there, as far as can be seen."""
        if self.origin != origin:
            return False
        return not isinstance(self.transport, Connection | AsyncConnection) or self.transport.is_usable()

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
        self._context: ssl.SSLContext | None = None
        renew_after_fork(self)

    def _tls(self) -> ssl.SSLContext:
        # Loading the certificates takes some 15 ms, and a sidecar with plain http never uses them. Without a lock, which a
        # fork could leave locked: a context too many does no harm.
        if self._context is None:
            self._context = httpx.create_ssl_context()
        return self._context

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
        self._idle: _Idle[httpx.BaseTransport] = _Idle()
        self._watchdog = Watchdog()

    def renew(self) -> None:
        super().renew()
        while line := self._idle.take():
            # A thread that is not in this process may hold them.
            line.abandon()
        self._begin()

    def send(self, request: httpx.Request, timeout: float) -> Answer:
        """Sends a request and reads the whole answer, within `timeout` seconds.

        Raises:
            httpx.RequestError, OSError: There was no answer, or not all of it.
        """
        until = time.monotonic() + timeout
        if self._given is not None:
            request.extensions = {"timeout": _timeout(timeout)}
            return _exchange(self._given, request, until)
        try:
            self._free.get(timeout=timeout)
        except Empty:
            raise httpx.PoolTimeout(f"all {_CONNECTIONS} connections are in use") from None
        try:
            return self._send_on_line(request, until)
        finally:
            self._free.put(None)

    def _send_on_line(self, request: httpx.Request, until: float) -> Answer:
        url = request.url
        origin = (url.scheme, url.netloc, is_intercepted())
        line = self._idle.take()
        if line is not None and not line.is_usable_for(origin):
            line.transport.close()
            line = None
        line = line or _Line(origin, self._connection(url, origin))
        watch = Watch(self._watchdog, until, line.socket)
        # What the wait for a connection left. Nothing else bounds connecting, when there is no socket to shut down yet.
        extensions: dict[str, Any] = {"timeout": _timeout(max(0.001, until - time.monotonic()))}
        if line.socket is None or not isinstance(line.transport, Connection):
            # A transport of httpx may make a new connection for a later request, too.
            extensions["trace"] = watch.trace
        request.extensions = extensions
        try:
            with watch:
                answer = _exchange(line.transport, request, until)
            # What was cut at the end of its time can look complete.
            if watch.expired and answer.status_code < 400:
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
        return answer

    def _connection(self, url: httpx.URL, origin: _Origin) -> httpx.BaseTransport:
        context = self._tls() if url.scheme == "https" else None
        if origin[2]:
            return httpx.HTTPTransport(verify=context or False, limits=_LIMITS)
        return Connection(url, context, _IDLE_SECONDS)

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
        aiohttp: Whether they are those of aiohttp; None: if it is installed.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport | None, *, aiohttp: bool | None = None) -> None:
        super().__init__()
        self._given = transport
        self._loops: dict[asyncio.AbstractEventLoop, _Loop] = {}
        self._aiohttp = None if transport is not None or aiohttp is False else _aiohttp_transport(required=aiohttp)

    def renew(self) -> None:
        super().renew()
        # Kept, not collected: closing them would take their sockets out of the parent's selector.
        self._inherited = self._loops
        self._loops = {}

    async def send(self, request: httpx.Request, timeout: float) -> Answer:
        """Sends a request and reads the whole answer, within `timeout` seconds.

        Raises:
            httpx.RequestError, OSError: There was no answer, or not all of it.
        """
        running = asyncio.get_running_loop()
        until = running.time() + timeout
        if self._given is not None:
            request.extensions = {"timeout": _timeout(timeout)}
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

    async def _send_on_line(self, loop: _Loop, request: httpx.Request, until: float) -> Answer:
        url = request.url
        origin = (url.scheme, url.netloc, is_intercepted_async())
        if self._aiohttp is not None and not origin[2]:
            return await self._send_with_aiohttp(self._aiohttp, loop, request, until)
        line = loop.idle.take()
        if line is not None and not line.is_usable_for(origin):
            await line.transport.aclose()
            line = None
        line = line or _Line(origin, self._connection(url, origin))
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

    async def _send_with_aiohttp(
        self, make: type[AiohttpTransport], loop: _Loop, request: httpx.Request, until: float
    ) -> Answer:
        if loop.aiohttp is None:
            loop.aiohttp = make(self._tls, _CONNECTIONS, _IDLE_SECONDS)
        loop.in_aiohttp += 1
        try:
            return await _aexchange(loop.aiohttp, request, until)
        finally:
            loop.in_aiohttp -= 1
            if self.closed and not loop.in_aiohttp:
                await asyncio.shield(loop.aiohttp.aclose())

    def _connection(self, url: httpx.URL, origin: _Origin) -> httpx.AsyncBaseTransport:
        context = self._tls() if url.scheme == "https" else None
        if origin[2]:
            return httpx.AsyncHTTPTransport(verify=context or False, limits=_LIMITS)
        return AsyncConnection(url, context, _IDLE_SECONDS)

    async def aclose(self) -> None:
        """Closes the idle connections of the running loop now, and the others when their calls are done."""
        self.closed = True
        if self._given is not None:
            await self._given.aclose()
        if loop := self._loops.get(asyncio.get_running_loop()):
            while line := loop.idle.take():
                await line.transport.aclose()
            if loop.aiohttp is not None and not loop.in_aiohttp:
                await loop.aiohttp.aclose()


class _Loop:
    def __init__(self) -> None:
        self.free = asyncio.Semaphore(_CONNECTIONS)
        self.idle: _Idle[httpx.AsyncBaseTransport] = _Idle()
        self.aiohttp: AiohttpTransport | None = None
        self.in_aiohttp = 0


def _aiohttp_transport(*, required: bool | None) -> type[AiohttpTransport] | None:
    # Not at the first call, in the midst of an event loop: it takes a tenth of a second.
    if find_spec("aiohttp") is None:
        if required:
            raise UsageError("transport='aiohttp' needs aiohttp: install forge-realtime[aiohttp].")
        return None
    from ._aiohttp import AiohttpTransport

    return AiohttpTransport


class AnswerTooLargeError(httpx.ReadError):
    """An answer of more than 16 MiB, which no operation gives."""

    def __init__(self) -> None:
        super().__init__("the answer is too large")


def _timeout(seconds: float) -> dict[str, float]:
    return {"connect": seconds, "read": seconds, "write": seconds, "pool": seconds}


def _exchange(transport: httpx.BaseTransport, request: httpx.Request, until: float) -> Answer:
    response = transport.handle_request(request)
    response.request = request
    chunks: list[bytes] = []
    size = 0
    try:
        for chunk in response.iter_bytes() if _to_decode(response) else cast(httpx.SyncByteStream, response.stream):
            if time.monotonic() > until:
                raise _timed_out()
            chunks.append(chunk)
            if (size := size + len(chunk)) > _ANSWER_BYTES:
                raise AnswerTooLargeError
    except (httpx.RequestError, OSError):
        # The status of a refusal says all that is needed.
        if response.status_code < 400:
            raise
    finally:
        response.close()
    return Answer(response.status_code, response.headers, b"".join(chunks))


async def _aexchange(transport: httpx.AsyncBaseTransport, request: httpx.Request, until: float) -> Answer:
    response: httpx.Response | None = None
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout_at(until):
            response = await transport.handle_async_request(request)
            response.request = request
            stream = response.aiter_bytes() if _to_decode(response) else cast(httpx.AsyncByteStream, response.stream)
            async for chunk in stream:
                chunks.append(chunk)
                if (size := size + len(chunk)) > _ANSWER_BYTES:
                    raise AnswerTooLargeError
    except TimeoutError:
        if response is None and not getattr(request.stream, "sent", True):
            raise httpx.ConnectTimeout("no connection in time") from None
        if response is None or response.status_code < 400:
            raise _timed_out() from None
    except (httpx.RequestError, OSError):
        if response is None or response.status_code < 400:
            raise
    finally:
        if response is not None:
            await response.aclose()
    assert response is not None
    return Answer(response.status_code, response.headers, b"".join(chunks))


def _to_decode(response: httpx.Response) -> bool:
    # What something between has read is decoded, and its stream is spent.
    return response.is_stream_consumed or any(name.lower() == b"content-encoding" for name, _ in response.headers.raw)


def _timed_out() -> httpx.ReadTimeout:
    return httpx.ReadTimeout("the time for this attempt is up")
