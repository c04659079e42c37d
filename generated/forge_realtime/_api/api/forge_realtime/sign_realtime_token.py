from http import HTTPStatus
from typing import Any

import httpx

from ... import errors
from ...client import AuthenticatedClient, Client
from ...models.sign_realtime_token_request import SignRealtimeTokenRequest
from ...models.sign_realtime_token_response import SignRealtimeTokenResponse
from ...types import Response


def _get_kwargs(
    *,
    body: SignRealtimeTokenRequest,
) -> dict[str, Any]:
    headers: dict[str, Any] = {}

    _kwargs: dict[str, Any] = {
        "method": "post",
        "url": "/forge/realtime/v1/token",
    }

    _kwargs["json"] = body.to_dict()

    headers["Content-Type"] = "application/json"

    _kwargs["headers"] = headers
    return _kwargs


def _parse_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> SignRealtimeTokenResponse | None:
    if response.status_code == 200:
        response_200 = SignRealtimeTokenResponse.from_dict(response.json())

        return response_200

    if client.raise_on_unexpected_status:
        raise errors.UnexpectedStatus(response.status_code, response.content)
    else:
        return None


def _build_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Response[SignRealtimeTokenResponse]:
    return Response(
        status_code=HTTPStatus(response.status_code),
        content=response.content,
        headers=response.headers,
        parsed=_parse_response(client=client, response=response),
    )


def sync_detailed(
    *,
    client: AuthenticatedClient | Client,
    body: SignRealtimeTokenRequest,
) -> Response[SignRealtimeTokenResponse]:
    """Sign a forge realtime token

     Signs a forge realtime token that can be used to securely publish events to realtime channels.

    Args:
        body (SignRealtimeTokenRequest):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[SignRealtimeTokenResponse]
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
    body: SignRealtimeTokenRequest,
) -> SignRealtimeTokenResponse | None:
    """Sign a forge realtime token

     Signs a forge realtime token that can be used to securely publish events to realtime channels.

    Args:
        body (SignRealtimeTokenRequest):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        SignRealtimeTokenResponse
    """

    return sync_detailed(
        client=client,
        body=body,
    ).parsed


async def asyncio_detailed(
    *,
    client: AuthenticatedClient | Client,
    body: SignRealtimeTokenRequest,
) -> Response[SignRealtimeTokenResponse]:
    """Sign a forge realtime token

     Signs a forge realtime token that can be used to securely publish events to realtime channels.

    Args:
        body (SignRealtimeTokenRequest):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[SignRealtimeTokenResponse]
    """

    kwargs = _get_kwargs(
        body=body,
    )

    response = await client.get_async_httpx_client().request(**kwargs)

    return _build_response(client=client, response=response)


async def asyncio(
    *,
    client: AuthenticatedClient | Client,
    body: SignRealtimeTokenRequest,
) -> SignRealtimeTokenResponse | None:
    """Sign a forge realtime token

     Signs a forge realtime token that can be used to securely publish events to realtime channels.

    Args:
        body (SignRealtimeTokenRequest):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        SignRealtimeTokenResponse
    """

    return (
        await asyncio_detailed(
            client=client,
            body=body,
        )
    ).parsed
