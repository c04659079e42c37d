"""The connections of the client with asyncio, and what it shares with its siblings."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from typing import TYPE_CHECKING, cast

import httpx

from .._core.responses import Response
from .._core.errors import UsageError
from .connection import AsyncConnection, is_intercepted_async
from .pool import (
    ANSWER_BYTES,
    CONNECTIONS,
    IDLE_SECONDS,
    LIMITS,
    BaseConnectionPool,
    IdleConnections,
    Origin,
    PooledConnection,
    ResponseTooLargeError,
    needs_decoding,
    timed_out,
    timeout_of,
)

if TYPE_CHECKING:
    from .aiohttp import AiohttpTransport


class AsyncConnectionPool(BaseConnectionPool):
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

    def reset_after_fork(self) -> None:
        super().reset_after_fork()
        # Kept, not collected: closing them would take their sockets out of the parent's selector.
        self._inherited = self._loops
        self._loops = {}

    async def send(self, request: httpx.Request, timeout: float) -> Response:
        """Sends a request and reads the whole answer, within `timeout` seconds.

        Raises:
            httpx.RequestError, OSError: There was no answer, or not all of it.
        """
        running = asyncio.get_running_loop()
        until = running.time() + timeout
        if self._given is not None:
            request.extensions = {"timeout": timeout_of(timeout)}
            return await _aexchange(self._given, request, until)
        if (loop := self._loops.get(running)) is None:
            for closed in [former for former in list(self._loops) if former.is_closed()]:
                self._loops.pop(closed, None)
            loop = self._loops[running] = _Loop()
        if loop.free.locked():
            try:
                async with asyncio.timeout_at(until):
                    await loop.free.acquire()
            except TimeoutError:
                raise httpx.PoolTimeout(f"all {CONNECTIONS} connections are in use") from None
        else:
            await loop.free.acquire()
        try:
            return await self._send_on_line(loop, request, until)
        finally:
            loop.free.release()

    async def _send_on_line(self, loop: _Loop, request: httpx.Request, until: float) -> Response:
        url = request.url
        origin = (url.scheme, url.netloc, is_intercepted_async())
        if self._aiohttp is not None and not origin[2]:
            return await self._send_with_aiohttp(self._aiohttp, loop, request, until)
        line = loop.idle.take()
        if line is not None and not line.is_usable_for(origin):
            await line.transport.aclose()
            line = None
        line = line or PooledConnection(origin, self._connection(url, origin))
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
    ) -> Response:
        if loop.aiohttp is None:
            loop.aiohttp = make(self._tls, CONNECTIONS, IDLE_SECONDS)
        loop.in_aiohttp += 1
        try:
            return await _aexchange(loop.aiohttp, request, until)
        finally:
            loop.in_aiohttp -= 1
            if self.closed:
                await asyncio.shield(loop.close_aiohttp())

    def _connection(self, url: httpx.URL, origin: Origin) -> httpx.AsyncBaseTransport:
        context = self._tls() if url.scheme == "https" else None
        if origin[2]:
            return httpx.AsyncHTTPTransport(verify=context or False, limits=LIMITS)
        return AsyncConnection(url, context, IDLE_SECONDS)

    async def aclose(self) -> None:
        """Closes the idle connections of the running loop now, and the others when their calls are done."""
        self.closed = True
        if self._given is not None:
            await self._given.aclose()
        if loop := self._loops.get(asyncio.get_running_loop()):
            while line := loop.idle.take():
                await line.transport.aclose()
            await loop.close_aiohttp()


class _Loop:
    def __init__(self) -> None:
        self.free = asyncio.Semaphore(CONNECTIONS)
        self.idle: IdleConnections[httpx.AsyncBaseTransport] = IdleConnections()
        self.aiohttp: AiohttpTransport | None = None
        self.in_aiohttp = 0

    async def close_aiohttp(self) -> None:
        """Closes it, if it is not in use. A call that waits for its next attempt makes another one."""
        if self.aiohttp is not None and not self.in_aiohttp:
            transport, self.aiohttp = self.aiohttp, None
            await transport.aclose()


def _aiohttp_transport(*, required: bool | None) -> type[AiohttpTransport] | None:
    # Not at the first call, in the midst of an event loop: it takes a tenth of a second.
    if find_spec("aiohttp") is None:
        if required:
            raise UsageError("transport='aiohttp' needs aiohttp: install forge-realtime[aiohttp].")
        return None
    from .aiohttp import AiohttpTransport

    return AiohttpTransport


async def _aexchange(transport: httpx.AsyncBaseTransport, request: httpx.Request, until: float) -> Response:
    response: httpx.Response | None = None
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout_at(until):
            response = await transport.handle_async_request(request)
            response.request = request
            stream = (
                response.aiter_bytes() if needs_decoding(response) else cast(httpx.AsyncByteStream, response.stream)
            )
            async for chunk in stream:
                chunks.append(chunk)
                if (size := size + len(chunk)) > ANSWER_BYTES:
                    raise ResponseTooLargeError
    except TimeoutError:
        if response is None and not getattr(request.stream, "sent", True):
            raise httpx.ConnectTimeout("no connection in time") from None
        if response is None or response.status_code < 400:
            raise timed_out() from None
    except (httpx.RequestError, OSError):
        if response is None or response.status_code < 400:
            raise
    finally:
        if response is not None:
            await response.aclose()
    assert response is not None
    return Response(response.status_code, response.headers, b"".join(chunks))
