"""The user's own httpx2 client or transport, as an httpx transport. Imported only when one is given."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, cast

import httpx2

from .._core.errors import UsageError
from .._core.http import httpx
from .http_client import read_response


class TransportAdapter(httpx.BaseTransport):
    """The user's transport."""

    def __init__(self, transport: httpx2.BaseTransport) -> None:
        self._transport = transport

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        with _errors_of_httpx():
            return _response(self._transport.handle_request(_request(request)), _Stream)

    def close(self) -> None:
        self._transport.close()


class AsyncTransportAdapter(httpx.AsyncBaseTransport):
    """The user's asynchronous transport."""

    def __init__(self, transport: httpx2.AsyncBaseTransport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        with _errors_of_httpx():
            return _response(await self._transport.handle_async_request(_request(request)), _AsyncStream)

    async def aclose(self) -> None:
        await self._transport.aclose()


class ClientAdapter(httpx.BaseTransport):
    """Transport that sends with the user's client. Does not close it."""

    def __init__(self, client: httpx2.Client) -> None:
        self._client = client

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        merged = _merged(self._client, request)
        with _errors_of_httpx(merged):
            try:
                return _response(self._client.send(merged, stream=True), _Stream)
            except httpx2.HTTPStatusError as error:
                return read_response(error.response)


class AsyncClientAdapter(httpx.AsyncBaseTransport):
    """Transport that sends with the user's asynchronous client. Does not close it."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        merged = _merged(self._client, request)
        with _errors_of_httpx(merged):
            try:
                return _response(await self._client.send(merged, stream=True), _AsyncStream)
            except httpx2.HTTPStatusError as error:
                return read_response(error.response)


class _Body(httpx2.ByteStream):
    """Body of a request, which still tells the original whether it may have left."""

    def __init__(self, original: httpx.ByteStream) -> None:
        self._original = original

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._original)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._original.__aiter__()


class _Stream(httpx.SyncByteStream):
    def __init__(self, response: httpx2.Response) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        with _errors_of_httpx():
            yield from cast(httpx2.SyncByteStream, self._response.stream)

    def close(self) -> None:
        self._response.close()


class _AsyncStream(httpx.AsyncByteStream):
    def __init__(self, response: httpx2.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _errors_of_httpx():
            async for chunk in cast(httpx2.AsyncByteStream, self._response.stream):
                yield chunk

    async def aclose(self) -> None:
        await self._response.aclose()


def _request(request: httpx.Request) -> httpx2.Request:
    body = _Body(cast(httpx.ByteStream, request.stream))
    headers, extensions = request.headers.raw, request.extensions
    return httpx2.Request(request.method, str(request.url), headers=headers, stream=body, extensions=extensions)


def _merged(client: httpx2.Client | httpx2.AsyncClient, request: httpx.Request) -> httpx2.Request:
    """Add what the client adds: headers, cookies and parameters. What the request has already wins."""
    if client.is_closed:
        raise UsageError("The httpx2 client that was given as http_client is closed: close it after the last call.")
    original = _request(request)
    merged = client.build_request(
        original.method, original.url, headers=original.headers, extensions=original.extensions
    )
    merged.stream = original.stream
    return merged


def _response(
    response: httpx2.Response, stream: Callable[[httpx2.Response], httpx.SyncByteStream | httpx.AsyncByteStream]
) -> httpx.Response:
    if response.is_stream_consumed:
        return read_response(response)
    return httpx.Response(response.status_code, headers=response.headers.raw, stream=stream(response))


@contextmanager
def _errors_of_httpx(request: httpx2.Request | None = None) -> Iterator[None]:
    """Raise httpx2's errors as those of the same names of httpx.

    Args:
        request: What was given to a client, to notice a redirect.
    """
    try:
        yield
    except httpx2.RequestError as error:
        kind = next(kind for each in type(error).__mro__ if (kind := _KINDS.get(each)) is not None)
        if request is not None and isinstance(error, httpx2.ConnectError | httpx2.PoolTimeout):
            # An error that a hook has raised has no request.
            with suppress(RuntimeError):
                if error.request is not request:
                    # The server that redirected may have accepted the event.
                    raise httpx.ReadError("redirected, and then no connection") from error
        raise kind(str(error)) from error


_KINDS: Final[dict[type, Callable[[str], httpx.RequestError]]] = {
    getattr(httpx2, name): kind
    for name, kind in vars(httpx).items()
    if isinstance(kind, type) and issubclass(kind, httpx.RequestError)
}
_ADAPTERS: Final[dict[str, tuple[type, Callable[[Any], httpx.BaseTransport | httpx.AsyncBaseTransport]]]] = {
    "BaseTransport": (httpx2.BaseTransport, TransportAdapter),
    "AsyncBaseTransport": (httpx2.AsyncBaseTransport, AsyncTransportAdapter),
    "Client": (httpx2.Client, ClientAdapter),
    "AsyncClient": (httpx2.AsyncClient, AsyncClientAdapter),
}


def adapt(value: object, kind: str) -> httpx.BaseTransport | httpx.AsyncBaseTransport | None:
    """Return a transport of httpx for an object of this class of httpx2; None if it is of another class."""
    wanted, adapter = _ADAPTERS[kind]
    return adapter(value) if isinstance(value, wanted) else None
