"""Single connections of httpcore, on which httpx stands, as httpx transports.

httpx's own transports keep their connections in a pool, which takes nearly as long for a request as the connection itself, and
with asyncio several times as long while many requests are in flight.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from types import FunctionType
from typing import Final, cast

import httpcore
import httpx

_ERRORS: Final = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.UnsupportedProtocol,
)


def is_intercepted() -> bool:
    """Whether something stands before the blocking transport of httpx, and wants to see all requests: a mock, a tracer."""
    return _is_replaced(httpx.HTTPTransport, "handle_request") or _is_replaced(
        httpcore.ConnectionPool, "handle_request"
    )


def is_intercepted_async() -> bool:
    """As `is_intercepted`, for asyncio."""
    return _is_replaced(httpx.AsyncHTTPTransport, "handle_async_request") or _is_replaced(
        httpcore.AsyncConnectionPool, "handle_async_request"
    )


def _is_replaced(owner: type, name: str) -> bool:
    method = vars(owner)[name]
    # Not isinstance(), to which a wrapper passes itself off as what it wraps.
    return type(method) is not FunctionType or method.__code__.co_qualname != f"{owner.__name__}.{name}"


class Connection(httpx.BaseTransport):
    """One blocking connection, made with the first request.

    Args:
        origin: Any address there.
        context: What certificates are verified with, where the address is one for https.
        keepalive: Seconds after which it is closed when it is idle.
    """

    def __init__(self, origin: httpx.URL, context: ssl.SSLContext | None, keepalive: float) -> None:
        self._core = httpcore.HTTPConnection(_core_url(origin).origin, context, keepalive_expiry=keepalive)

    def is_usable(self) -> bool:
        """Whether another request can be sent, as far as can be seen: the other side has not closed it."""
        return self._core.is_available() and not self._core.has_expired()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        try:
            response = self._core.handle_request(_core_request(request))
        except _ERRORS as error:
            raise _of_httpx(error) from error
        return httpx.Response(
            response.status, headers=response.headers, stream=_Stream(response), extensions=response.extensions
        )

    def close(self) -> None:
        self._core.close()


class AsyncConnection(httpx.AsyncBaseTransport):
    """As `Connection`, with asyncio."""

    def __init__(self, origin: httpx.URL, context: ssl.SSLContext | None, keepalive: float) -> None:
        self._core = httpcore.AsyncHTTPConnection(_core_url(origin).origin, context, keepalive_expiry=keepalive)

    def is_usable(self) -> bool:
        """As `Connection.is_usable`."""
        return self._core.is_available() and not self._core.has_expired()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            response = await self._core.handle_async_request(_core_request(request))
        except _ERRORS as error:
            raise _of_httpx(error) from error
        return httpx.Response(
            response.status, headers=response.headers, stream=_AsyncStream(response), extensions=response.extensions
        )

    async def aclose(self) -> None:
        await self._core.aclose()


class _Stream(httpx.SyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from cast(Iterable[bytes], self._response.stream)
        except _ERRORS as error:
            raise _of_httpx(error) from error

    def close(self) -> None:
        self._response.close()


class _AsyncStream(httpx.AsyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in cast(AsyncIterable[bytes], self._response.stream):
                yield chunk
        except _ERRORS as error:
            raise _of_httpx(error) from error

    async def aclose(self) -> None:
        await self._response.aclose()


def _core_request(request: httpx.Request) -> httpcore.Request:
    return httpcore.Request(
        request.method,
        _core_url(request.url),
        headers=request.headers.raw,
        content=request.stream,
        extensions=request.extensions,
    )


def _core_url(url: httpx.URL) -> httpcore.URL:
    return httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)


def _of_httpx(error: Exception) -> httpx.RequestError:
    # The same tree of errors, under the same names.
    kind: type[httpx.RequestError] = getattr(httpx, type(error).__name__)
    return kind(str(error))
