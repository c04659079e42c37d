"""An httpx client that the user hands in, as a transport: its hooks, headers, authentication and proxies take part."""

from __future__ import annotations

import httpx

from .._core.errors import UsageError


class ClientTransport(httpx.BaseTransport):
    """Sends with a client, and leaves it open: it is its owner's.

    Args:
        client: The client.
    """

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        merged = _merged(self._client, request)
        try:
            return self._client.send(merged, stream=True)
        except httpx.HTTPStatusError as error:
            return _refused(error)
        except (httpx.ConnectError, httpx.PoolTimeout) as error:
            _check_redirect(error, merged)
            raise


class AsyncClientTransport(httpx.AsyncBaseTransport):
    """As `ClientTransport`, with asyncio."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        merged = _merged(self._client, request)
        try:
            return await self._client.send(merged, stream=True)
        except httpx.HTTPStatusError as error:
            return _refused(error)
        except (httpx.ConnectError, httpx.PoolTimeout) as error:
            _check_redirect(error, merged)
            raise


def _merged(client: httpx.Client | httpx.AsyncClient, request: httpx.Request) -> httpx.Request:
    if client.is_closed:
        raise UsageError("The httpx client that was given as http_client is closed: close it after the last call.")
    merged = client.build_request(request.method, request.url, headers=request.headers, extensions=request.extensions)
    merged.stream = request.stream
    return merged


def _check_redirect(error: httpx.RequestError, request: httpx.Request) -> None:
    try:
        redirected = error.request is not request
    except RuntimeError:
        # A hook raised it.
        redirected = False
    if redirected:
        # Whoever redirected may have taken what was sent.
        raise httpx.ReadError("redirected, and then no connection") from error


def _refused(error: httpx.HTTPStatusError) -> httpx.Response:
    # From a hook that raises for the status, before or after it has read the body. What the status says is for this client.
    response = error.response
    headers = [(name, value) for name, value in response.headers.raw if name.lower() != b"content-encoding"]
    content = response.content if response.is_stream_consumed else b""
    return httpx.Response(response.status_code, headers=headers, content=content)
