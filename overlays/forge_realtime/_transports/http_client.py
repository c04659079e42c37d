"""The user's own client, as a transport: its hooks, headers, authentication and proxies apply."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Protocol

from .._core.errors import UsageError
from .._core.http import httpx


class Httpx2Transport(Protocol):
    """A transport of httpx2, which need not be installed."""

    def handle_request(self, request: Any, /) -> Any: ...

    def close(self) -> None: ...


class AsyncHttpx2Transport(Protocol):
    """An asynchronous transport of httpx2."""

    async def handle_async_request(self, request: Any, /) -> Any: ...

    async def aclose(self) -> None: ...


class Httpx2Client(Protocol):
    """A client of httpx2."""

    def send(self, request: Any, /, *, stream: bool = ...) -> Any: ...

    def close(self) -> None: ...


class AsyncHttpx2Client(Protocol):
    """An asynchronous client of httpx2."""

    async def send(self, request: Any, /, *, stream: bool = ...) -> Any: ...

    async def aclose(self) -> None: ...


def blocking_transport(transport: object, http_client: object) -> httpx.BaseTransport | None:
    """Return a transport for the transport or client of httpx or httpx2 that the user gave; None if there is neither.

    Raises:
        UsageError: It is of another type, or there are both.
    """
    if http_client is None:
        if transport is None or isinstance(transport, httpx.BaseTransport):
            return transport
        adapter: httpx.BaseTransport | None = _adapted(transport, "BaseTransport")
        if adapter is not None:
            return adapter
        raise UsageError(
            "transport takes an httpx.BaseTransport or httpx2.BaseTransport, such as httpx.HTTPTransport()."
        )
    if transport is None:
        if isinstance(http_client, httpx.Client):
            return ClientTransport(http_client)
        adapter = _adapted(http_client, "Client")
        if adapter is not None:
            return adapter
    raise UsageError(
        "http_client takes an httpx.Client or httpx2.Client, which has a transport: do not pass another one."
    )


def async_transport(transport: object, http_client: object) -> httpx.AsyncBaseTransport | None:
    """Return an asynchronous transport, otherwise as `blocking_transport`.

    Raises:
        UsageError: It is of another type, or there are both.
    """
    if http_client is None:
        if transport is None or isinstance(transport, httpx.AsyncBaseTransport):
            return transport
        adapter: httpx.AsyncBaseTransport | None = _adapted(transport, "AsyncBaseTransport")
        if adapter is not None:
            return adapter
        raise UsageError(
            "transport takes 'aiohttp', 'httpx', or an httpx.AsyncBaseTransport or httpx2.AsyncBaseTransport, such as "
            "httpx.AsyncHTTPTransport()."
        )
    if transport is None:
        if isinstance(http_client, httpx.AsyncClient):
            return AsyncClientTransport(http_client)
        adapter = _adapted(http_client, "AsyncClient")
        if adapter is not None:
            return adapter
    raise UsageError(
        "http_client takes an httpx.AsyncClient or httpx2.AsyncClient, which has a transport: do not pass another one."
    )


def _adapted(value: object, kind: str) -> Any:
    """Return a transport of httpx for an object of this class of httpx2; None if it is of another class."""
    if not any(each.__module__.partition(".")[0] == "httpx2" for each in type(value).__mro__):
        return None
    # Where httpx2 is not installed, there is no such object.
    from .httpx2 import adapt

    return adapt(value, kind)


class ClientTransport(httpx.BaseTransport):
    """Transport that sends with the user's client. Does not close it."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        merged = _merged(self._client, request)
        try:
            return self._client.send(merged, stream=True)
        except httpx.HTTPError as error:
            return _response_or_raise(error, merged)


class AsyncClientTransport(httpx.AsyncBaseTransport):
    """Transport that sends with the user's asynchronous client. Does not close it."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        merged = _merged(self._client, request)
        try:
            return await self._client.send(merged, stream=True)
        except httpx.HTTPError as error:
            return _response_or_raise(error, merged)


def _merged(client: httpx.Client | httpx.AsyncClient, request: httpx.Request) -> httpx.Request:
    if client.is_closed:
        raise UsageError("The httpx client that was given as http_client is closed: close it after the last call.")
    merged = client.build_request(request.method, request.url, headers=request.headers, extensions=request.extensions)
    merged.stream = request.stream
    return merged


def _response_or_raise(error: httpx.HTTPError, request: httpx.Request) -> httpx.Response:
    if isinstance(error, httpx.HTTPStatusError):
        # A hook has called raise_for_status(), before or after reading the body. This client judges the status itself.
        return read_response(error.response)
    if isinstance(error, httpx.ConnectError | httpx.PoolTimeout):
        # An error that a hook has raised has no request.
        with suppress(RuntimeError):
            if error.request is not request:
                # The server that redirected may have accepted the event.
                raise httpx.ReadError("redirected, and then no connection") from error
    raise error


def read_response(response: Any) -> httpx.Response:
    """Copy a response of httpx or httpx2 that a mock or a hook has read; one that is unread has no body."""
    headers = [(name, value) for name, value in response.headers.raw if name.lower() != b"content-encoding"]
    content = response.content if response.is_stream_consumed else b""
    return httpx.Response(response.status_code, headers=headers, content=content)
