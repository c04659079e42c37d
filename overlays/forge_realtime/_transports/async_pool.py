"""The connections of a client with asyncio and its siblings."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from types import FunctionType
from typing import TYPE_CHECKING, cast

from .._core import clock
from .._core.errors import UsageError
from .._core.fork import reset_if_forked
from .._core.http import httpx
from .._core.responses import Response
from .connection import AsyncPooledConnection
from .event_loop import running_loop
from .http import httpcore
from .pool import (
    CONNECTIONS,
    IDLE_SECONDS,
    RESPONSE_BYTES,
    BaseConnectionPool,
    BegunRequests,
    IdleConnections,
    ResponseTooLargeError,
    extensions,
    join_body,
)
from .timeouts import limit_time

if TYPE_CHECKING:
    from .aiohttp import AiohttpTransport


class AsyncConnectionPool(BaseConnectionPool):
    """Connections with asyncio, of each event loop its own, or the user's own transport in their place.

    Args:
        transport: The user's own transport.
        aiohttp: Whether to use aiohttp's connections instead of httpx's.

    Raises:
        UsageError: aiohttp is not installed.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport | None, *, aiohttp: bool = False) -> None:
        super().__init__()
        self.transport = transport
        # No connection may refer to its event loop: what a loop has here is to go with it, even if it is never closed.
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopConnections] = (
            weakref.WeakKeyDictionary()
        )
        self._inherited: list[AiohttpTransport | None] = []
        self._aiohttp: type[AiohttpTransport] | None = None
        if aiohttp:
            if find_spec("aiohttp") is None:
                raise UsageError(
                    "transport='aiohttp' needs the package aiohttp, at least 3.12: install it, or the extra `aiohttp`."
                )
            # Not in the first call, inside an event loop: it takes a tenth of a second.
            from .aiohttp import AiohttpTransport

            self._aiohttp = AiohttpTransport

    def reset_after_fork(self) -> None:
        super().reset_after_fork()
        # Kept, not collected: closing them would take their sockets out of the parent's selector.
        self._inherited += [connections.aiohttp() for connections in self._loops.values()]
        self._loops = weakref.WeakKeyDictionary()

    async def send(self, request: httpx.Request, timeout: float) -> Response:  # noqa: ASYNC109 (as the blocking pool)
        """Send a request and read the whole response within `timeout` seconds, or raise one of `TRANSPORT_ERRORS`."""
        reset_if_forked()
        until = clock.monotonic() + timeout
        if self.transport is not None:
            begun = BegunRequests()
            request.extensions = extensions(self.transport, timeout, begun.async_trace)
            try:
                return await _exchange(self.transport.handle_async_request(request), request, until)
            except (httpx.ConnectError, httpx.PoolTimeout) as error:
                begun.check(request, error)
                raise
        loop = self._loop()
        place = _Place(loop)
        try:
            if self._aiohttp is not None and not is_intercepted():
                return await self._send_with_aiohttp(self._aiohttp, loop, place, request, until)
            return await self._send(loop, place, request, until)
        except httpx.ConnectTimeout:
            if place.taken:
                raise
            raise httpx.PoolTimeout(f"all {CONNECTIONS} connections are in use") from None
        finally:
            place.leave()

    def _loop(self) -> _LoopConnections:
        running = asyncio.get_running_loop()
        if (loop := self._loops.get(running)) is None:
            for former in list(self._loops):
                if former.is_closed() and (connections := self._loops.pop(former, None)):
                    connections.idle.close_all()
                    if (transport := connections.aiohttp()) is not None:
                        transport.close_quietly()
            loop = self._loops[running] = _LoopConnections()
        return loop

    async def _send(self, loop: _LoopConnections, place: _Place, request: httpx.Request, until: float) -> Response:
        connection: AsyncPooledConnection | None = None

        async def send() -> httpx.Response:
            nonlocal connection
            await place.take()
            connection = loop.idle.take(request.url)
            if connection is None:
                context = self._tls() if request.url.scheme == "https" else None
                connection = AsyncPooledConnection(request.url, context, IDLE_SECONDS)
            return await connection.send(request, until)

        try:
            response = await _exchange(send(), request, until)
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        if connection is not None:
            loop.idle.give(connection)
        if self.closed:
            loop.idle.close_all()
        return response

    async def _send_with_aiohttp(
        self,
        make: type[AiohttpTransport],
        loop: _LoopConnections,
        place: _Place,
        request: httpx.Request,
        until: float,
    ) -> Response:
        async def send() -> httpx.Response:
            await place.take()
            if (transport := loop.aiohttp()) is None:
                transport = make(self._tls, CONNECTIONS, IDLE_SECONDS)
                loop.aiohttp = weakref.ref(transport)
                transport.close_with_loop()
            return await transport.handle_async_request(request)

        try:
            return await _exchange(send(), request, until)
        finally:
            if self.closed and loop.busy == 1:
                # Shielded: this call may be cancelled here once more.
                await asyncio.shield(loop.close_aiohttp())

    async def aclose(self) -> None:
        """Close the idle connections of the running loop now, and the others when their calls are done."""
        running = running_loop()
        self.closed = True
        if self.transport is not None:
            await self.transport.aclose()
        if loop := self._loops.get(running):
            loop.idle.close_all()
            if not loop.busy:
                await loop.close_aiohttp()


class _LoopConnections:
    """What a client has in one event loop.

    Attributes:
        busy: Calls that have a place or wait for one.
        idle: Idle connections.
        aiohttp: The pool of aiohttp, which lives as long as it has a connection; None if it is gone.
        places: As many as there may be connections.
        contended: Whether a call has waited for a place.
    """

    def __init__(self) -> None:
        self.busy = 0
        self.idle: IdleConnections[AsyncPooledConnection] = IdleConnections()
        self.aiohttp: Callable[[], AiohttpTransport | None] = lambda: None
        self.places = asyncio.Semaphore(CONNECTIONS)
        self.contended = False

    async def close_aiohttp(self) -> None:
        """Close aiohttp's connections. A call that is retried later makes new ones."""
        if (transport := self.aiohttp()) is not None:
            self.aiohttp = lambda: None
            await transport.aclose()


class _Place:
    """A call's place among the connections of its loop, which is busy until the call leaves it.

    The limit of the attempt bounds the wait for it.
    """

    __slots__ = ("_loop", "taken")

    def __init__(self, loop: _LoopConnections) -> None:
        loop.busy += 1
        self._loop = loop
        self.taken = False

    async def take(self) -> None:
        if self._loop.places.locked():
            self._loop.contended = True
        await self._loop.places.acquire()
        self.taken = True

    def leave(self) -> None:
        loop = self._loop
        if self.taken:
            loop.places.release()
        loop.busy -= 1
        if not loop.busy and loop.contended:
            # A semaphore that was waited for refers to its event loop.
            loop.places, loop.contended = asyncio.Semaphore(CONNECTIONS), False


def is_intercepted() -> bool:
    """Return whether a mock or a tracer has patched httpx or httpcore. It would not see what aiohttp sends."""
    return _is_patched(httpx.AsyncHTTPTransport) or _is_patched(httpcore.AsyncHTTPConnection)


def _is_patched(owner: type) -> bool:
    method = vars(owner)["handle_async_request"]
    # Not isinstance(): some wrappers claim to be what they wrap.
    return type(method) is not FunctionType or method.__code__.co_qualname != f"{owner.__name__}.handle_async_request"


async def _exchange(sending: Awaitable[httpx.Response], request: httpx.Request, until: float) -> Response:
    response: httpx.Response | None = None
    chunks: list[bytes] = []
    size = 0
    try:
        async with limit_time(until - clock.monotonic()):
            response = await sending
            response.request = request
            raw = cast(httpx.AsyncByteStream, response.stream)
            # A mock or a hook may have read it already.
            already_read = response.is_stream_consumed
            async for chunk in response.aiter_bytes() if already_read else raw:
                # A loop that is busy notices late that the time is up.
                if clock.monotonic() > until:
                    raise TimeoutError  # noqa: TRY301 (ends as the timeout does)
                chunks.append(chunk)
                if (size := size + len(chunk)) > RESPONSE_BYTES:
                    raise ResponseTooLargeError("the response is too large")  # noqa: TRY301 (handled as any other)
    except TimeoutError:
        if response is None and not getattr(request.stream, "sent", True):
            raise httpx.ConnectTimeout("no connection in time") from None
        if response is None or response.status_code < 400:
            chunks, chunk = [], b""
            raise httpx.ReadTimeout("the time for this attempt is up") from None
    except Exception:
        if response is None or response.status_code < 400:
            # Crash reporters show variables, and a response may repeat what was sent, or hold a token.
            chunks, chunk = [], b""
            raise
    finally:
        if response is not None:
            await response.aclose()
    assert response is not None
    return Response(response.status_code, response.headers, join_body(response, chunks))
