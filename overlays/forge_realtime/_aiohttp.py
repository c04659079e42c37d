"""The connections of aiohttp, as an httpx transport. Imported only where aiohttp is installed."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Callable
from functools import lru_cache
from typing import cast

import aiohttp
import httpx
import yarl


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
            connector=aiohttp.TCPConnector(limit=connections, keepalive_timeout=keepalive),
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
        body = "content-length" in request.headers
        try:
            response = await self._session.request(
                request.method,
                _url(str(request.url)),
                headers=[(name.decode("ascii"), value.decode("ascii")) for name, value in request.headers.raw],
                data=aiohttp.AsyncIterablePayload(cast(AsyncIterable[bytes], request.stream)) if body else None,
                allow_redirects=False,
                ssl=self._context() if request.url.scheme == "https" else True,
            )
        except aiohttp.ClientError as error:
            raise _of_httpx(error) from error
        return httpx.Response(response.status, headers=response.raw_headers, stream=_Stream(response))

    async def aclose(self) -> None:
        await self._session.close()


class _Stream(httpx.AsyncByteStream):
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._response.content.iter_any():
                yield chunk
        except aiohttp.ClientError as error:
            raise _of_httpx(error) from error

    async def aclose(self) -> None:
        # One that was read to its end has given its connection back already.
        self._response.close()


@lru_cache(maxsize=64)
def _url(text: str) -> yarl.URL:
    return yarl.URL(text, encoded=True)


def _of_httpx(error: aiohttp.ClientError) -> httpx.RequestError:
    # Not aiohttp's own messages, which tell of its settings.
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return httpx.ConnectError(str(error.certificate_error))
    if isinstance(error, aiohttp.ClientConnectorError):
        cause = error.os_error
        if cause.errno is None or isinstance(cause, ssl.SSLError):
            return httpx.ConnectError(str(cause))
        return httpx.ConnectError(os.strerror(cause.errno))
    if isinstance(error, aiohttp.ClientResponseError):
        return httpx.RemoteProtocolError(str(error))
    return httpx.ReadError(str(error))
