"""Middleware for ASGI applications, such as FastAPI, Starlette and Django under ASGI.

    app.add_middleware(InvocationMiddleware)                      # FastAPI, Starlette
    application = InvocationMiddleware(get_asgi_application())    # Django, in asgi.py

`RealtimeClient().publish(...)`, `current_invocation()` and `JsonFormatter` then find the invocation themselves.
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
    """ASGI middleware that makes the invocation of a request or WebSocket the current one.

    It stays current during streamed responses and background tasks. A request without `x-forge-invocation-id` is
    handled with no current invocation.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, a WebSocket or the application's lifespan."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        # Even for None: a server may start a request in the context of the previous request on its connection.
        with activated(find_invocation(scope.get("headers", ()))):
            await self._app(scope, receive, send)
