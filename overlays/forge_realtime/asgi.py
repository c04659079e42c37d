"""Middleware for ASGI applications, such as FastAPI and Starlette. For Django, see `forge_realtime.django`.

    app.add_middleware(InvocationMiddleware)                      # FastAPI, Starlette
    app.router.routes.append(Route(STOP_PATH, StopRoute()))       # for private streams

Calls of a client, `current_invocation()` and `JsonFormatter` then find the invocation themselves.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, ClassVar, TypeAlias

from ._core.hidden import Hidden
from ._core.interfaces import require_interface
from ._core.invocation import AfterEnd, CurrentInvocation, activated, find_invocation
from ._core.stop import MOST_BYTES, STOP_PATH, stop_stream

__all__ = ["STOP_PATH", "InvocationMiddleware", "StopRoute"]

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


class InvocationMiddleware:
    """ASGI middleware that makes the invocation of a request or WebSocket the current one.

    It stays current during streamed responses, Starlette's background tasks and FastAPI's dependencies with `yield`. A
    request without `x-forge-invocation-id` is handled with no current invocation.

    Args:
        app: The application.
        after_end: What a call does in a task that outlives its request and has not entered `Invocation.active()`. Such
            a task may work for the requests of other tenants, too. `"warn"` warns once for each request, with `logging`
            and `warnings`, and makes the call; `"allow"` makes it silently, for apps whose tasks are meant to inherit
            the invocation; `"refuse"` raises NoInvocationError.

    Raises:
        UsageError: `after_end` is none of these, or `app` is no ASGI application.
    """

    # For the MIDDLEWARE of Django, which passes the handler as it is then: it is refused there.
    sync_capable: ClassVar[bool] = True
    async_capable: ClassVar[bool] = True

    def __init__(self, app: ASGIApp, *, after_end: AfterEnd = "warn") -> None:
        self._app = app
        self._after_end: AfterEnd = CurrentInvocation(None, after_end=after_end).after_end
        require_interface(app, "asgi")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, a WebSocket or the application's lifespan."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        # Even for None: a server may start a request in the context of the previous request on its connection.
        current = CurrentInvocation(find_invocation(scope.get("headers", ())), after_end=self._after_end)
        try:
            with activated(current):
                await self._app(scope, receive, send)
        finally:
            current.ended = True


class StopRoute:
    """ASGI application that stops a private stream for its page. It answers a POST with JSON, as `invokeService` needs.

    The request names the stream and the secret of its handle, which nobody else has. The status is 200 if the stream
    was stopped, and 404 if this process has no such stream or the secret is wrong. It is 400 if the body is something
    else or longer than 4 KiB, and 405 if the method is not POST.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        # Crash reporters show the variables of every frame.
        body, more = Hidden(b""), True
        while more and len(body.value) <= MOST_BYTES:
            message = Hidden(await receive())
            if message.value["type"] == "http.disconnect":
                return
            body.value += message.value.get("body", b"")
            more = message.value.get("more_body", False)
        status, content = stop_stream(scope["method"], body.value)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})
