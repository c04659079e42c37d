"""The connection below a request, for ending it in ways that ASGI has no word for."""

from __future__ import annotations

import asyncio

from starlette.types import Scope


def transport_of(scope: Scope) -> asyncio.Transport | None:
    """The transport of a request's connection; None when it is gone, or the server is not that of `Emulator`."""
    for connection in list(scope["app"].state.connections or ()):
        if connection.client == tuple(scope["client"]):
            transport: asyncio.Transport = connection.transport
            return transport
    return None


def abort(scope: Scope) -> None:
    """Ends a request's connection at once, and drops what could not be sent."""
    transport = transport_of(scope)
    if transport is not None:
        transport.abort()
