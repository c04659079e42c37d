"""Middleware for WSGI applications, such as Flask and Django under WSGI.

    app.wsgi_app = InvocationMiddleware(app.wsgi_app)             # Flask
    application = InvocationMiddleware(get_wsgi_application())    # Django, in wsgi.py

`RealtimeClient().publish(...)`, `current_invocation()` and `JsonFormatter` then find the invocation themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from ._core.invocation import Invocation, activated, find_invocation


class InvocationMiddleware:
    """WSGI middleware that makes the invocation of a request the current one.

    It is current while the application handles the request, streams the response and closes it. A request without
    `x-forge-invocation-id` is handled with no current invocation.
    """

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handle a request."""
        headers = {name[5:].replace("_", "-"): value for name, value in environ.items() if name.startswith("HTTP_")}
        invocation = find_invocation(headers)
        with activated(invocation):
            body = self._app(environ, start_response)
        return _Body(body, invocation)


class _Body:
    """Response body with a current invocation. Between chunks there is none: the server may use the thread."""

    def __init__(self, body: Iterable[bytes], invocation: Invocation | None) -> None:
        self._body = body
        self._invocation = invocation

    def __iter__(self) -> Iterator[bytes]:
        with activated(self._invocation):
            chunks = iter(self._body)
        while True:
            with activated(self._invocation):
                chunk = next(chunks, None)
            if chunk is None:
                return
            yield chunk

    def close(self) -> None:
        if close := getattr(self._body, "close", None):
            with activated(self._invocation):
                close()
