"""The connections of a client with asyncio and its siblings."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from importlib.util import find_spec
from types import FunctionType
from typing import TYPE_CHECKING, cast

from .._core.errors import UsageError
from .._core.fork import reset_if_forked
from .._core.http import httpx
from .._core.responses import Response
from .connection import AsyncPooledConnection
from .http import httpcore
from .pool import (
    CONNECTIONS,
    IDLE_SECONDS,
    RESPONSE_BYTES,
    BaseConnectionPool,
    IdleConnections,
    ResponseTooLargeError,
    needs_decoding,
)

if TYPE_CHECKING:
    from .aiohttp import AiohttpTransport


class AsyncConnectionPool(BaseConnectionPool):
    """Connections with asyncio, of each event loop its own, or the user's own transport in their place.

    `aiohttp` chooses aiohttp's connections or httpx's; `None` uses aiohttp's if it is installed.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport | None, *, aiohttp: bool | None = None) -> None:
        super().__init__()
        self.transport = transport
        self._loops: dict[asyncio.AbstractEventLoop, _LoopConnections] = {}
        self._inherited: list[dict[asyncio.AbstractEventLoop, _LoopConnections]] = []
        self._aiohttp: type[AiohttpTransport] | None = None
        if transport is None and aiohttp is not False and find_spec("aiohttp") is not None:
            # Not in the first call, inside an event loop: it takes a tenth of a second.
            from .aiohttp import AiohttpTransport

            self._aiohttp = AiohttpTransport
        elif aiohttp:
            raise UsageError("transport='aiohttp' needs aiohttp: install forge-realtime[aiohttp].")

    def reset_after_fork(self) -> None:
        super().reset_after_fork()
        # Kept, not collected: closing them would take their sockets out of the parent's selector.
        self._inherited.append(self._loops)
        self._loops = {}

    async def send(self, request: httpx.Request, timeout: float) -> Response:  # noqa: ASYNC109 (as the blocking pool)
        """Send a request and read the whole response within `timeout` seconds, or raise one of `TRANSPORT_ERRORS`."""
        reset_if_forked()
        until = time.monotonic() + timeout
        if self.transport is not None:
            request.extensions = {"timeout": httpx.Timeout(timeout).as_dict()}
            return await _exchange(self.transport.handle_async_request(request), request, until)
        loop = self._loop()
        if loop.places.locked():
            try:
                async with asyncio.timeout(timeout):
                    await loop.places.acquire()
            except TimeoutError:
                raise httpx.PoolTimeout(f"all {CONNECTIONS} connections are in use") from None
        else:
            await loop.places.acquire()
        try:
            if self._aiohttp is not None and not is_intercepted():
                return await self._send_with_aiohttp(self._aiohttp, loop, request, until)
            return await self._send(loop, request, until)
        finally:
            loop.places.release()

    def _loop(self) -> _LoopConnections:
        running = asyncio.get_running_loop()
        if (loop := self._loops.get(running)) is None:
            for former in list(self._loops):
                if former.is_closed():
                    self._loops.pop(former, None)
            loop = self._loops[running] = _LoopConnections()
        return loop

    async def _send(self, loop: _LoopConnections, request: httpx.Request, until: float) -> Response:
        connection = loop.idle.take()
        if connection is not None and not connection.is_usable(request.url):
            await connection.aclose()
            connection = None
        if connection is None:
            context = self._tls() if request.url.scheme == "https" else None
            connection = AsyncPooledConnection(request.url, context, IDLE_SECONDS)
        done = False
        try:
            response = await _exchange(connection.send(request), request, until)
            done = True
        finally:
            if done and not self.closed:
                loop.idle.give(connection)
            else:
                # Shielded: this call may be cancelled here once more.
                await asyncio.shield(connection.aclose())
        while expired := loop.idle.take_expired():
            await expired.aclose()
        return response

    async def _send_with_aiohttp(
        self, make: type[AiohttpTransport], loop: _LoopConnections, request: httpx.Request, until: float
    ) -> Response:
        if loop.aiohttp is None:
            loop.aiohttp = make(self._tls, CONNECTIONS, IDLE_SECONDS)
        loop.in_aiohttp += 1
        try:
            return await _exchange(loop.aiohttp.handle_async_request(request), request, until)
        finally:
            loop.in_aiohttp -= 1
            if self.closed:
                await asyncio.shield(loop.close_aiohttp())

    async def aclose(self) -> None:
        """Close the idle connections of the running loop now, and the others when their calls are done."""
        self.closed = True
        if self.transport is not None:
            await self.transport.aclose()
        if loop := self._loops.get(asyncio.get_running_loop()):
            while connection := loop.idle.take():
                await connection.aclose()
            await loop.close_aiohttp()


class _LoopConnections:
    def __init__(self) -> None:
        self.places = asyncio.Semaphore(CONNECTIONS)
        self.idle: IdleConnections[AsyncPooledConnection] = IdleConnections()
        self.aiohttp: AiohttpTransport | None = None
        self.in_aiohttp = 0

    async def close_aiohttp(self) -> None:
        """Close aiohttp's connections, unless they are in use. A call that is retried later makes new ones."""
        if self.aiohttp is not None and not self.in_aiohttp:
            transport, self.aiohttp = self.aiohttp, None
            await transport.aclose()


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
        async with asyncio.timeout(until - time.monotonic()):
            response = await sending
            response.request = request
            raw = cast(httpx.AsyncByteStream, response.stream)
            async for chunk in response.aiter_bytes() if needs_decoding(response) else raw:
                # A loop that is busy notices late that the time is up.
                if time.monotonic() > until:
                    raise TimeoutError  # noqa: TRY301 (ends as the timeout does)
                chunks.append(chunk)
                if (size := size + len(chunk)) > RESPONSE_BYTES:
                    raise ResponseTooLargeError("the response is too large")
    except TimeoutError:
        if response is None and not getattr(request.stream, "sent", True):
            raise httpx.ConnectTimeout("no connection in time") from None
        if response is None or response.status_code < 400:
            chunks, chunk = [], b""
            raise httpx.ReadTimeout("the time for this attempt is up") from None
    except (httpx.RequestError, OSError):
        if response is None or response.status_code < 400:
            # Crash reporters show variables, and a response may repeat what was sent, or hold a token.
            chunks, chunk = [], b""
            raise
    finally:
        if response is not None:
            await response.aclose()
    assert response is not None
    return Response(response.status_code, response.headers, b"".join(chunks))
