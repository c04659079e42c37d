from http import HTTPStatus
from typing import Any

import httpx

from ... import errors
from ...client import AuthenticatedClient, Client
from ...models.publish_global_request import PublishGlobalRequest
from ...models.publish_global_response import PublishGlobalResponse
from ...types import Response


def _get_kwargs(
    *,
    body: PublishGlobalRequest,
) -> dict[str, Any]:
    headers: dict[str, Any] = {}

    _kwargs: dict[str, Any] = {
        "method": "post",
        "url": "/forge/realtime/v1/publish/global",
    }

    _kwargs["json"] = body.to_dict()

    headers["Content-Type"] = "application/json"

    _kwargs["headers"] = headers
    return _kwargs


def _parse_response(*, client: AuthenticatedClient | Client, response: httpx.Response) -> PublishGlobalResponse | None:
    if response.status_code == 200:
        response_200 = PublishGlobalResponse.from_dict(response.json())

        return response_200

    if client.raise_on_unexpected_status:
        raise errors.UnexpectedStatus(response.status_code, response.content)
    else:
        return None


def _build_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Response[PublishGlobalResponse]:
    return Response(
        status_code=HTTPStatus(response.status_code),
        content=response.content,
        headers=response.headers,
        parsed=_parse_response(client=client, response=response),
    )


def sync_detailed(
    *,
    client: AuthenticatedClient | Client,
    body: PublishGlobalRequest,
) -> Response[PublishGlobalResponse]:
    """Publish an event to a global realtime channel

     Proxies POST requests to Forge realtime services for publishing events. All clients subscribed to
    this global realtime channel will receive the event.

    Args:
        body (PublishGlobalRequest):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[PublishGlobalResponse]
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
    body: PublishGlobalRequest,
) -> PublishGlobalResponse | None:
    """Publish an event to a global realtime channel

     Proxies POST requests to Forge realtime services for publishing events. All clients subscribed to
    this global realtime channel will receive the event.

    Args:
        body (PublishGlobalRequest):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        PublishGlobalResponse
    """

    return sync_detailed(
        client=client,
        body=body,
    ).parsed


async def asyncio_detailed(
    *,
    client: AuthenticatedClient | Client,
    body: PublishGlobalRequest,
) -> Response[PublishGlobalResponse]:
    """Publish an event to a global realtime channel

     Proxies POST requests to Forge realtime services for publishing events. All clients subscribed to
    this global realtime channel will receive the event.

    Args:
        body (PublishGlobalRequest):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[PublishGlobalResponse]
    """

    kwargs = _get_kwargs(
        body=body,
    )

    response = await client.get_async_httpx_client().request(**kwargs)

    return _build_response(client=client, response=response)


async def asyncio(
    *,
    client: AuthenticatedClient | Client,
    body: PublishGlobalRequest,
) -> PublishGlobalResponse | None:
    """Publish an event to a global realtime channel

     Proxies POST requests to Forge realtime services for publishing events. All clients subscribed to
    this global realtime channel will receive the event.

    Args:
        body (PublishGlobalRequest):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        PublishGlobalResponse
    """

    return (
        await asyncio_detailed(
            client=client,
            body=body,
        )
    ).parsed
