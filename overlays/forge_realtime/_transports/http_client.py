"""The user's own httpx client, as a transport: its hooks, headers, authentication and proxies apply."""

from __future__ import annotations

from contextlib import suppress

import httpx

from .._core.errors import UsageError


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
        response = error.response
        headers = [(name, value) for name, value in response.headers.raw if name.lower() != b"content-encoding"]
        content = response.content if response.is_stream_consumed else b""
        return httpx.Response(response.status_code, headers=headers, content=content)
    if isinstance(error, httpx.ConnectError | httpx.PoolTimeout):
        # An error that a hook has raised has no request.
        with suppress(RuntimeError):
            if error.request is not request:
                # The server that redirected may have accepted the event.
                raise httpx.ReadError("redirected, and then no connection") from error
    raise error
