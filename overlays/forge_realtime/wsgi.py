"""Middleware for WSGI applications: Flask, Django under WSGI, and any other.

    app.wsgi_app = InvocationMiddleware(app.wsgi_app)             # Flask
    application = InvocationMiddleware(get_wsgi_application())    # Django, in wsgi.py

Then `RealtimeClient().publish(...)`, `current_invocation()` and the log's `forge_invocation` need nothing passed to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from ._core.invocation import Invocation, activated, find_invocation


class InvocationMiddleware:
    """Makes the invocation of each request current while the application handles it, streams its response and closes it.

    A request without `x-forge-invocation-id` passes through, with no invocation current.

    Args:
        app: The application.
    """

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        headers = {
            name.removeprefix("HTTP_").replace("_", "-"): value
            for name, value in environ.items()
            if name.startswith("HTTP_")
        }
        invocation = find_invocation(headers)
        with activated(invocation):
            body = self._app(environ, start_response)
        return _Body(body, invocation)


class _Body:
    """A response whose invocation is current while it works, and not between its chunks, when the thread is the server's."""

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
        close: Callable[[], object] | None = getattr(self._body, "close", None)
        if close is not None:
            with activated(self._invocation):
                close()
