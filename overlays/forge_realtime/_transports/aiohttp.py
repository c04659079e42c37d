"""aiohttp's connections, as an httpx transport. Imported only where aiohttp is installed."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Callable
from functools import lru_cache, partial
from typing import Any, Final, cast

import aiohttp
import yarl
from aiohttp.abc import AbstractStreamWriter
from aiohttp.client_proto import ResponseHandler

from .._core.http import httpx
from .connection import HEAD_BYTES

_PIECE_BYTES: Final = 64 * 1024


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Pool of aiohttp's connections in the running event loop. They are closed after `keepalive` idle seconds."""

    def __init__(self, context: Callable[[], ssl.SSLContext], connections: int, keepalive: float) -> None:
        self._context = context
        self._session = aiohttp.ClientSession(
            connector=_Connector(connections, keepalive),
            # The caller bounds the time.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            auto_decompress=False,
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        # Let the loop run twice. It then knows which connections the server has closed, and aiohttp does not use them.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        stream = cast(AsyncIterable[bytes], request.stream)
        body = _Body(stream) if "content-length" in request.headers else None
        if body is None:
            # Nothing tells when a request without a body leaves. From here on, it may have been sent.
            async for _ in stream:
                pass
        try:
            response = await self._session.request(
                request.method,
                _url(str(request.url)),
                headers=[(name.decode("ascii"), value.decode("utf-8")) for name, value in request.headers.raw],
                data=body,
                allow_redirects=False,
                # aiohttp repeats no POST.
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
        # Otherwise the session logs that nobody has closed it.
        self._session.detach()


async def _without_repeating(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    # After an error of its own, aiohttp would send a GET or PUT again: an attempt that nobody sees.
    try:
        return await handler(request)
    except aiohttp.ClientError as error:
        raise _of_httpx(error) from error


class _Connector(aiohttp.TCPConnector):
    def __init__(self, connections: int, keepalive: float) -> None:
        super().__init__(limit=connections, keepalive_timeout=keepalive)
        self._factory = cast(partial[ResponseHandler], partial(_Protocol, loop=self._loop))

    async def connect(self, *args: Any, **kwargs: Any) -> aiohttp.connector.Connection:
        connection = await super().connect(*args, **kwargs)
        cast(_Protocol, connection.protocol).head_left = HEAD_BYTES
        return connection

    def __del__(self, _warnings: object = None) -> None:
        # asyncio warns about the sockets. aiohttp would write to the log, and in a forked process remove the parent's
        # connections from its selector.
        pass


class _Protocol(ResponseHandler):
    """Protocol that bounds what a server may send before its final status."""

    # In bytes; None when the final status is there.
    head_left: int | None = None

    def data_received(self, data: bytes) -> None:
        if self.head_left is not None:
            head, data = data[: self.head_left], data[self.head_left :]
            self.head_left -= len(head)
            super().data_received(head)
            if self.head_left == 0:
                if self.transport is not None:
                    self.transport.abort()
                self.set_exception(aiohttp.ServerDisconnectedError())
                return
        if data:
            super().data_received(data)

    def feed_data(self, data: tuple[Any, Any], size: int = 0) -> None:
        if data[0].code >= 200:
            self.head_left = None
        super().feed_data(data, size)


class _Body(aiohttp.Payload):
    """Request body, written in small pieces because the writer copies them. Knows its connection."""

    _transport: asyncio.WriteTransport | None = None
    written = False

    async def write(self, writer: AbstractStreamWriter) -> None:
        self._transport = writer.transport
        if self._transport is None or self._transport.is_closing():
            raise aiohttp.ClientConnectionError("closed before the request")
        async for chunk in self._value:
            view = memoryview(chunk)
            # Crash reporters show the variables of every frame.
            del chunk
            for start in range(0, len(view), _PIECE_BYTES):
                await writer.write(view[start : start + _PIECE_BYTES])
        self.written = True

    def abort(self) -> None:
        """Close the connection at once. aiohttp waits until the server has read all that is buffered."""
        if self._transport is not None:
            self._transport.abort()

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        raise NotImplementedError  # Only logs and multipart bodies use it.


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
        # A response that was read to its end has given its connection back, if the request was written completely.
        if self._body is not None and (self._response.connection is not None or not self._body.written):
            self._body.abort()
        self._response.close()


@lru_cache(maxsize=64)
def _url(text: str) -> yarl.URL:
    return yarl.URL(text, encoded=True)


def _of_httpx(error: aiohttp.ClientError) -> httpx.RequestError:
    # Not aiohttp's own messages: they show its settings and quote what was received.
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return httpx.ConnectError(str(error.certificate_error))
    if isinstance(error, aiohttp.ClientConnectorError):
        return httpx.ConnectError(_reason(error.os_error))
    if isinstance(error, aiohttp.ClientResponseError | aiohttp.ClientPayloadError | aiohttp.ServerDisconnectedError):
        # The last one quotes the headers received so far.
        return httpx.RemoteProtocolError("not a complete HTTP response")
    return httpx.ReadError(_reason(error) if isinstance(error, OSError) else "the server closed the connection")


def _reason(error: OSError) -> str:
    if error.errno is None or isinstance(error, ssl.SSLError | socket.gaierror):
        return str(error)
    return os.strerror(error.errno)
