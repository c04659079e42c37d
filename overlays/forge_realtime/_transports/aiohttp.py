"""aiohttp's connections, as an httpx transport. Imported only where aiohttp is installed."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import sys
import weakref
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from contextlib import suppress
from functools import lru_cache, partial
from typing import Any, Final, cast

import aiohttp
import yarl
from aiohttp.abc import AbstractResolver, AbstractStreamWriter, ResolveResult
from aiohttp.client_proto import ResponseHandler

from .._core.http import httpx
from .connection import HEAD_BYTES, QuietSocket, async_resolve, is_whole_response

_PIECE_BYTES: Final = 64 * 1024


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Pool of aiohttp's connections in the running event loop. They are closed after `keepalive` idle seconds.

    Its connections refer to it: it lives until the last one is closed, or the event loop is garbage.
    """

    def __init__(self, context: Callable[[], ssl.SSLContext], connections: int, keepalive: float) -> None:
        self._context = context
        self.open: weakref.WeakSet[asyncio.BaseTransport] = weakref.WeakSet()
        self._session = aiohttp.ClientSession(
            connector=_Connector(self, connections, keepalive),
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
        headers = [(name.decode("ascii"), value.decode("utf-8")) for name, value in request.headers.raw]
        body = _Body(stream) if "content-length" in [name.lower() for name, _ in headers] else None
        if body is None:
            # Nothing tells when a request without a body leaves. From here on, it may have been sent.
            async for _ in stream:
                pass
        try:
            response = await self._session.request(
                request.method,
                _url(str(request.url)),
                headers=headers,
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

    def close_with_loop(self) -> None:
        """Close the connections when the event loop shuts down its asynchronous generators, as under `asyncio.run`."""
        # The loop calls `aclose()` of what it is told here. A true generator that is garbage before its loop is closed
        # would leave a coroutine that nobody awaits.
        if (tell := sys.get_asyncgen_hooks().firstiter) is not None:
            tell(cast(AsyncGenerator[Any], self))

    def close_quietly(self) -> None:
        """Close the connections of an event loop that was closed without a shutdown."""
        for transport in list(self.open):
            _close_quietly(transport)

    async def aclose(self) -> None:
        await self._session.close()


async def _without_repeating(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    # After an error of its own, aiohttp would send a GET or PUT again: an attempt that nobody sees.
    try:
        return await handler(request)
    except aiohttp.ClientError as error:
        raise _of_httpx(error) from error


def _close_quietly(transport: Any) -> None:
    # Private names of asyncio, as no other ones work in a closed loop. Where they are missing, asyncio warns.
    with suppress(AttributeError, OSError):
        if (tls := getattr(transport, "_ssl_protocol", None)) is not None:
            transport._closed = True  # noqa: SLF001 (see above)
            transport = tls._transport  # noqa: SLF001 (see above)
        transport._sock, found = None, transport._sock  # noqa: SLF001 (see above)
        found.close()


class _Resolver(AbstractResolver):
    """The lookup of httpx's connections, which works without threads, too."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host, host=address[0], port=port, family=found, proto=protocol, flags=socket.AI_NUMERICHOST
            )
            for found, _kind, protocol, _name, address in await async_resolve(host, port, family)
        ]

    async def close(self) -> None:
        pass


def _make_socket(address: tuple[Any, ...]) -> socket.socket:
    return QuietSocket(*address[:3])


class _Connector(aiohttp.TCPConnector):
    def __init__(self, owner: AiohttpTransport, connections: int, keepalive: float) -> None:
        super().__init__(
            limit=connections, keepalive_timeout=keepalive, resolver=_Resolver(), socket_factory=_make_socket
        )
        self._factory = cast(partial[ResponseHandler], partial(_Protocol, owner, loop=self._loop))
        self._find_owner = weakref.ref(owner, lambda _: None)

    async def connect(self, req: aiohttp.ClientRequest, *args: Any, **kwargs: Any) -> aiohttp.connector.Connection:
        connection = await super().connect(req, *args, **kwargs)
        cast(_Protocol, connection.protocol).expect_response(req.method)
        return connection

    @property
    def closed(self) -> bool:
        # The session logs that nobody has closed it, unless its connector is closed.
        return super().closed or self._find_owner() is None

    def __del__(self, _warnings: object = None) -> None:
        # aiohttp would write to the log, and in a forked process remove the parent's connections from its selector.
        pass


class _Protocol(ResponseHandler):
    """Protocol that bounds what a server may send before its final status, and takes nothing behind a response."""

    # In bytes; None when the final status is there.
    head_left: int | None = None
    _may_be_whole = False
    _body: aiohttp.StreamReader | None = None
    _connected: asyncio.BaseTransport | None = None

    def __init__(self, owner: AiohttpTransport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        # As long as the event loop knows this connection, the pool lives.
        self._owner = owner

    def expect_response(self, method: str) -> None:
        self.head_left = HEAD_BYTES
        self._body = None
        self._may_be_whole = method != "HEAD"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connected = transport
        self._owner.open.add(transport)

    def __del__(self) -> None:
        # Otherwise asyncio warns about the connection of a loop that was closed without a shutdown. Here, because
        # Python finalizes a protocol before its transport, which is a little younger.
        _close_quietly(self._connected)

    def data_received(self, data: bytes) -> None:
        if self._may_be_whole:
            self._may_be_whole = False
            if is_whole_response(data):
                self._receive(data)
                return
        # The last byte comes alone. If the response is complete before it, there are bytes behind the response.
        for part in (data[:-1], data[-1:]) if len(data) > 1 else (data,):
            # aiohttp itself passes empty data, to go on after a pause.
            if part and self._body is not None and self._body.is_eof():
                self._close_behind()
                return
            self._receive(part)

    def _close_behind(self) -> None:
        self.force_close()
        if self.transport is not None:
            self.transport.close()

    def _receive(self, data: bytes) -> None:
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
            if self._body is not None:
                # A second response. The first one may have given the connection back already.
                self._close_behind()
                return
            self.head_left = None
            self._body = data[1]
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
