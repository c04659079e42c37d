"""The route of the MCP server for coding assistants. The package that it needs is imported at its first use."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from typing import Any

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from .._platform.sidecar import Sidecar
from .json import JSONResponse

MCP_PATH = "/mcp"


def has_mcp() -> bool:
    """Return whether the extra `mcp` is installed."""
    return find_spec("mcp") is not None


def mcp_route(sidecar: Sidecar) -> Route:
    """Build the route."""
    return Route(MCP_PATH, _MCPEndpoint(sidecar), methods=["POST"])


class _MCPEndpoint:
    """ASGI application that serves MCP over streamable HTTP. There are no sessions: each request stands alone."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not has_mcp():
            message = "Assistants need the extra mcp: pip install 'forge-realtime[mcp]', and start the emulator again."
            await JSONResponse({"code": "MCP_NOT_INSTALLED", "message": message}, 501)(scope, receive, send)
            return
        # In a thread: the import takes a second, for which no call should wait.
        make_manager = await asyncio.to_thread(_load)
        # For one request: a manager belongs to one event loop, and the emulator may start again in another one.
        manager = make_manager(self._sidecar)
        async with manager.run():
            await manager.handle_request(scope, receive, send)


def _load() -> Any:
    from .mcp_tools import make_manager

    return make_manager
