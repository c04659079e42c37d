from http import HTTPStatus
from typing import Any

import httpx

from ... import errors
from ...client import AuthenticatedClient, Client
from ...models.publish_request import PublishRequest
from ...models.publish_response import PublishResponse
from ...types import Response


def _get_kwargs(
    *,
    body: PublishRequest,
) -> dict[str, Any]:
    headers: dict[str, Any] = {}

    _kwargs: dict[str, Any] = {
        "method": "post",
        "url": "/forge/realtime/v1/publish",
    }

    _kwargs["json"] = body.to_dict()

    headers["Content-Type"] = "application/json"

    _kwargs["headers"] = headers
    return _kwargs


def _parse_response(*, client: AuthenticatedClient | Client, response: httpx.Response) -> PublishResponse | None:
    if response.status_code == 200:
        response_200 = PublishResponse.from_dict(response.json())

        return response_200

    if client.raise_on_unexpected_status:
        raise errors.UnexpectedStatus(response.status_code, response.content)
    else:
        return None


def _build_response(*, client: AuthenticatedClient | Client, response: httpx.Response) -> Response[PublishResponse]:
    return Response(
        status_code=HTTPStatus(response.status_code),
        content=response.content,
        headers=response.headers,
        parsed=_parse_response(client=client, response=response),
    )


def sync_detailed(
    *,
    client: AuthenticatedClient | Client,
    body: PublishRequest,
) -> Response[PublishResponse]:
    """Publish an event to a realtime channel

     Proxies POST requests to Forge realtime services for publishing events. All clients in the same
    context as the sender and subscribed to this realtime channel will receive the event. "Publish"
    requests only work when the request originated from a UI context invocation. In the forge-proxy-
    authorization header you must specify the id of the invocation; you can't perform operations on
    behalf of an installationId.

    Args:
        body (PublishRequest):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[PublishResponse]
    """

    kwargs = _get_kwargs(
        body=body,
    )

    response = client.get_httpx_client().request(
        **kwargs,
    )

    return _build_response(client=client, response=response)


def sync(
    *,
    client: AuthenticatedClient | Client,
    body: PublishRequest,
) -> PublishResponse | None:
    """Publish an event to a realtime channel

     Proxies POST requests to Forge realtime services for publishing events. All clients in the same
    context as the sender and subscribed to this realtime channel will receive the event. "Publish"
    requests only work when the request originated from a UI context invocation. In the forge-proxy-
    authorization header you must specify the id of the invocation; you can't perform operations on
    behalf of an installationId.

    Args:
        body (PublishRequest):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        PublishResponse
    """

    return sync_detailed(
        client=client,
        body=body,
    ).parsed


async def asyncio_detailed(
    *,
    client: AuthenticatedClient | Client,
    body: PublishRequest,
) -> Response[PublishResponse]:
    """Publish an event to a realtime channel

     Proxies POST requests to Forge realtime services for publishing events. All clients in the same
    context as the sender and subscribed to this realtime channel will receive the event. "Publish"
    requests only work when the request originated from a UI context invocation. In the forge-proxy-
    authorization header you must specify the id of the invocation; you can't perform operations on
    behalf of an installationId.

    Args:
        body (PublishRequest):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[PublishResponse]
    """

    kwargs = _get_kwargs(
        body=body,
    )

    response = await client.get_async_httpx_client().request(**kwargs)

    return _build_response(client=client, response=response)


async def asyncio(
    *,
    client: AuthenticatedClient | Client,
    body: PublishRequest,
) -> PublishResponse | None:
    """Publish an event to a realtime channel

     Proxies POST requests to Forge realtime services for publishing events. All clients in the same
    context as the sender and subscribed to this realtime channel will receive the event. "Publish"
    requests only work when the request originated from a UI context invocation. In the forge-proxy-
    authorization header you must specify the id of the invocation; you can't perform operations on
    behalf of an installationId.

    Args:
        body (PublishRequest):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        PublishResponse
    """

    return (
        await asyncio_detailed(
            client=client,
            body=body,
        )
    ).parsed
