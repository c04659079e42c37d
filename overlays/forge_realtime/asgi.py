"""Middleware for ASGI applications: FastAPI, Starlette, Django under ASGI, and any other.

    app.add_middleware(InvocationMiddleware)                      # FastAPI, Starlette
    application = InvocationMiddleware(get_asgi_application())    # Django, in asgi.py

Then `RealtimeClient().publish(...)`, `current_invocation()` and the log's `forge_invocation` need nothing passed to them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from ._core.invocation import activated, find_invocation

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


class InvocationMiddleware:
    """Makes the invocation of each request, and of each WebSocket, current while the application handles it.

    That includes streamed responses and background tasks. A request without `x-forge-invocation-id` passes through, with
    no invocation current.

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        # Also without one: a server may start a request in the context of the one before it on the connection.
        with activated(find_invocation(scope.get("headers", ()))):
            await self._app(scope, receive, send)
