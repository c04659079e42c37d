"""The route of the MCP server for coding assistants. The package that it needs is imported at its first use."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from .._platform.sidecar import Sidecar
from .json import BODY_LIMIT, JSONResponse

if TYPE_CHECKING:
    from mcp.server import Server

MCP_PATH = "/mcp"


def has_mcp() -> bool:
    """Return whether the extra `mcp` is installed."""
    return find_spec("mcp") is not None


class MCPEndpoint:
    """ASGI application that serves MCP over streamable HTTP. There are no sessions: each request stands alone.

    Args:
        sidecar: The sidecar that the tools show and change.
    """

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar
        self._server: Server[Any] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not has_mcp():
            message = "Assistants need the extra mcp: pip install 'forge-realtime[mcp]', and start the emulator again."
            await JSONResponse({"code": "MCP_NOT_INSTALLED", "message": message}, 501)(scope, receive, send)
            return
        # In a thread: the import takes a second, for which no call should wait.
        manager_of, make_server = await asyncio.to_thread(_load)
        self._server = self._server or make_server(self._sidecar)
        # A manager belongs to one event loop, and the emulator may start again in another one.
        manager = manager_of(self._server, stateless=True, json_response=True, max_request_body_size=BODY_LIMIT)
        async with manager.run():
            await manager.handle_request(scope, receive, send)


def _load() -> Any:
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

    from .mcp_tools import make_server

    return StreamableHTTPSessionManager, make_server


def mcp_route(sidecar: Sidecar) -> Route:
    """Build the route."""
    return Route(MCP_PATH, MCPEndpoint(sidecar), methods=["POST"])
