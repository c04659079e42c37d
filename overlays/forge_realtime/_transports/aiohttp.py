"""The connections of aiohttp, as an httpx transport. Imported only where aiohttp is installed."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Callable
from functools import lru_cache
from typing import Final, cast

import aiohttp
import httpx
import yarl
from aiohttp.abc import AbstractStreamWriter

_PIECE_BYTES: Final = 64 * 1024


class AiohttpTransport(httpx.AsyncBaseTransport):
    """A pool of connections, for the event loop in which it is made.

    Args:
        context: Gives what certificates are verified with.
        connections: How many there are at most.
        keepalive: Seconds after which a connection is closed when it is idle.
    """

    def __init__(self, context: Callable[[], ssl.SSLContext], connections: int, keepalive: float) -> None:
        self._context = context
        self._session = aiohttp.ClientSession(
            connector=_Connector(limit=connections, keepalive_timeout=keepalive),
            # The caller of the transport bounds the time.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            auto_decompress=False,
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        # Twice round the loop: connections that the other side has closed meanwhile are known as such then, and not used.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        stream = cast(AsyncIterable[bytes], request.stream)
        body = _Body(stream) if "content-length" in request.headers else None
        if body is None:
            # Nothing tells when a request without a body leaves: it may have from here on.
            async for _ in stream:
                pass
        try:
            response = await self._session.request(
                request.method,
                _url(str(request.url)),
                headers=[(name.decode("ascii"), value.decode("utf-8")) for name, value in request.headers.raw],
                data=body,
                allow_redirects=False,
                # aiohttp repeats nothing that is sent with POST.
                middlewares=None if request.method == "POST" else (_without_repeating,),
                ssl=self._context() if request.url.scheme == "https" else True,
            )
        except BaseException as error:
            if body is not None:
                body.abort()
            if isinstance(error, aiohttp.ClientError):
                raise _of_httpx(error) from error
            if isinstance(error, ValueError):
                raise httpx.LocalProtocolError("a header cannot be sent") from error
            raise
        return httpx.Response(response.status, headers=response.raw_headers, stream=_Stream(response, body))

    async def aclose(self) -> None:
        await self._session.close()

    def __del__(self) -> None:
        # The session would complain in the log that nobody has closed it.
        self._session.detach()


async def _without_repeating(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    # Of an error of its own, aiohttp would send a GET or PUT once more: an attempt that nobody knows of.
    try:
        return await handler(request)
    except aiohttp.ClientError as error:
        raise _of_httpx(error) from error


class _Connector(aiohttp.TCPConnector):
    def __del__(self, _warnings: object = None) -> None:
        """Leaves the sockets to asyncio, which warns of them.

        aiohttp writes to the log, and in a forked process takes the parent's connections out of the parent's selector.
        """


class _Body(aiohttp.Payload):
    """Is handed over in pieces, as what is handed over is copied; and knows the connection."""

    def __init__(self, stream: AsyncIterable[bytes]) -> None:
        super().__init__(stream)
        self._stream = stream
        self._transport: asyncio.WriteTransport | None = None
        self.written = False

    async def write(self, writer: AbstractStreamWriter) -> None:
        self._transport = writer.transport
        if self._transport is None or self._transport.is_closing():
            raise aiohttp.ClientConnectionError("closed before the request")
        async for chunk in self._stream:
            view = memoryview(chunk)
            for start in range(0, len(view), _PIECE_BYTES):
                await writer.write(view[start : start + _PIECE_BYTES])
        self.written = True

    def abort(self) -> None:
        """Closes the connection at once. aiohttp waits until the other side has taken what was handed over."""
        if self._transport is not None:
            self._transport.abort()

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        raise NotImplementedError


class _Stream(httpx.AsyncByteStream):
    def __init__(self, response: aiohttp.ClientResponse, body: _Body | None) -> None:
        self._response = response
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._response.content.iter_any():
                yield chunk
        except aiohttp.ClientError as error:
            raise _of_httpx(error) from error

    async def aclose(self) -> None:
        # An answer that was read to its end has given its connection back, if the request had been written.
        if self._body is not None and (self._response.connection is not None or not self._body.written):
            self._body.abort()
        self._response.close()


@lru_cache(maxsize=64)
def _url(text: str) -> yarl.URL:
    return yarl.URL(text, encoded=True)


def _of_httpx(error: aiohttp.ClientError) -> httpx.RequestError:
    # Not aiohttp's own messages, which tell of its settings, and quote what was received.
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return httpx.ConnectError(str(error.certificate_error))
    if isinstance(error, aiohttp.ClientConnectorError):
        return httpx.ConnectError(_reason(error.os_error))
    if isinstance(error, aiohttp.ClientResponseError | aiohttp.ClientPayloadError | aiohttp.ServerDisconnectedError):
        # The last one has what was received of the headers.
        return httpx.RemoteProtocolError("not HTTP, or not all of it")
    return httpx.ReadError(_reason(error) if isinstance(error, OSError) else "the other side closed the connection")


def _reason(error: OSError) -> str:
    if error.errno is None or isinstance(error, ssl.SSLError | socket.gaierror):
        return str(error)
    return os.strerror(error.errno)
