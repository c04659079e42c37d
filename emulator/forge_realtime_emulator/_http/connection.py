"""The connection of a request, for ending it in ways that ASGI cannot express."""

from __future__ import annotations

import asyncio

from starlette.types import Scope


def transport_of(scope: Scope) -> asyncio.Transport | None:
    """Return the transport of a request, or `None` if it is gone or the server is not that of `Emulator`."""
    for connection in list(scope["app"].state.connections or ()):
        if connection.client == tuple(scope["client"]):
            transport: asyncio.Transport = connection.transport
            return transport
    return None


def abort(scope: Scope) -> None:
    """End the connection of a request at once, dropping unsent data."""
    transport = transport_of(scope)
    if transport is not None:
        transport.abort()
