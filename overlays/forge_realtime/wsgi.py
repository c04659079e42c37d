"""Middleware for WSGI applications, such as Flask. For Django, see `forge_realtime.django`.

    app.wsgi_app = InvocationMiddleware(app.wsgi_app)             # Flask
    app.add_url_rule(STOP_PATH, "stop", StopRoute(), methods=["POST"])    # for private streams

Calls of a client, `current_invocation()` and `JsonFormatter` then find the invocation themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import ClassVar, Self, overload
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from ._core.interfaces import require_interface
from ._core.invocation import (
    AfterEnd,
    CurrentInvocation,
    activated,
    activated_chunks,
    environ_headers,
    find_invocation,
)
from ._core.stop import MOST_BYTES, STOP_PATH, stop_stream

__all__ = ["STOP_PATH", "InvocationMiddleware", "StopRoute"]


class InvocationMiddleware:
    """WSGI middleware that makes the invocation of a request the current one.

    It is current while the application handles the request, streams the response and closes it. A request without
    `x-forge-invocation-id` is handled with no current invocation.

    Args:
        app: The application.
        after_end: What a call does in a task that outlives its request, as for `forge_realtime.asgi`.

    Raises:
        UsageError: `after_end` is not valid, or `app` is no WSGI application.
    """

    # For the MIDDLEWARE of Django, which passes the handler as it is then: it is refused there.
    sync_capable: ClassVar[bool] = True
    async_capable: ClassVar[bool] = True

    def __init__(self, app: WSGIApplication, *, after_end: AfterEnd = "warn") -> None:
        self._app = app
        self._after_end: AfterEnd = CurrentInvocation(None, after_end=after_end).after_end
        require_interface(app, "wsgi")

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handle a request."""
        current = CurrentInvocation(find_invocation(environ_headers(environ)), after_end=self._after_end)
        try:
            with activated(current):
                body = self._app(environ, start_response)
        except BaseException:
            current.ended = True
            raise
        return _Body(body, current)


class _Body:
    """Response body with a current invocation, also while it is closed."""

    def __init__(self, body: Iterable[bytes], current: CurrentInvocation) -> None:
        self._body = body
        self._current = current

    def __iter__(self) -> Iterator[bytes]:
        return activated_chunks(self._body, self._current)

    def close(self) -> None:
        try:
            if close := getattr(self._body, "close", None):
                with activated(self._current):
                    close()
        finally:
            self._current.ended = True


class StopRoute:
    """WSGI application that stops a private stream for its page, as that of `forge_realtime.asgi`.

    For Flask, it is a view as well.
    """

    @overload
    def __call__(self) -> Self: ...

    @overload
    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]: ...

    def __call__(
        self, environ: WSGIEnvironment | None = None, start_response: StartResponse | None = None
    ) -> Iterable[bytes] | Self:
        """Handle a request. Without one, as Flask calls a view, return the application that does."""
        if environ is None or start_response is None:
            return self
        length, most = environ.get("CONTENT_LENGTH") or "", MOST_BYTES + 1
        # A body in chunks has no length, and ends by itself.
        if not environ.get("wsgi.input_terminated"):
            most = min(int(length), most) if re.fullmatch("[0-9]{1,9}", length) else 0
        status, content = stop_stream(environ["REQUEST_METHOD"], environ["wsgi.input"].read(most))
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(content)))]
        start_response(f"{status} {HTTPStatus(status).phrase}", headers)
        return [content]
