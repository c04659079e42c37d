"""Middleware for Django, under WSGI and ASGI.

    MIDDLEWARE = ["forge_realtime.django.InvocationMiddleware", ...]
    urlpatterns = [path(STOP_PATH[1:], StopRoute()), ...]               # for private streams

Calls of a client, `current_invocation()` and `JsonFormatter` then find the invocation themselves, in the server, with
`django.test.Client` and with `AsyncClient`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, ClassVar

from ._core.interfaces import require_interface
from ._core.invocation import AfterEnd, CurrentInvocation, activated, activated_chunks, find_invocation
from ._core.stop import MOST_BYTES, STOP_PATH, stop_stream

__all__ = ["STOP_PATH", "InvocationMiddleware", "StopRoute"]


class InvocationMiddleware:
    """Django middleware that makes the invocation of a request the current one. List it first in `MIDDLEWARE`.

    It is current in the later middleware and the view, sync or async, and while the response is streamed and closed. A
    request without `x-forge-invocation-id` is handled with no current invocation.

    Attributes:
        after_end: What a call does in a task that outlives its request, as for `forge_realtime.asgi`. To change it,
            list a subclass with another value.

    Raises:
        UsageError: It wraps an ASGI or WSGI application and no handler of Django.
    """

    sync_capable: ClassVar[bool] = True
    async_capable: ClassVar[bool] = True
    after_end: ClassVar[AfterEnd] = "warn"

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        require_interface(get_response, "django")
        # Django's own dependency.
        from asgiref.sync import iscoroutinefunction, markcoroutinefunction

        self._get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: Any) -> Any:
        """Handle a request; return the response, or an awaitable of it if `get_response` is async."""
        current = CurrentInvocation(find_invocation(request.headers), after_end=self.after_end)
        if self._is_async:
            return self._handle_async(request, current)
        try:
            with activated(current):
                return _until_closed(self._get_response(request), current)
        except BaseException:
            current.ended = True
            raise

    async def _handle_async(self, request: Any, current: CurrentInvocation) -> Any:
        try:
            with activated(current):
                response: Awaitable[Any] = self._get_response(request)
                return _until_closed(await response, current)
        except BaseException:
            current.ended = True
            raise


def _until_closed(response: Any, current: CurrentInvocation) -> Any:
    """Make the invocation current while a response is streamed and closed, and end it then."""
    # Files are sent by the server, and no code of the app runs.
    if response.streaming and getattr(response, "file_to_stream", None) is None:
        content = response.streaming_content
        wrap = _async_chunks if response.is_async else activated_chunks
        response.streaming_content = wrap(content, current)
    close = response.close

    def close_and_end() -> None:
        try:
            with activated(current):
                close()
        finally:
            current.ended = True

    response.close = close_and_end
    return response


async def _async_chunks(content: Any, current: CurrentInvocation) -> AsyncIterator[bytes]:
    with activated(current):
        chunks = aiter(content)
    while True:
        # As in `activated_chunks`.
        with activated(current):
            chunk = await anext(chunks, None)
        if chunk is None:
            return
        yield chunk


class StopRoute:
    """Django view that stops a private stream for its page, as the application of `forge_realtime.asgi`."""

    # The secret in the request takes the place of a CSRF token.
    csrf_exempt: ClassVar[bool] = True

    def __call__(self, request: Any) -> Any:
        """Handle a request."""
        from django.http import HttpResponse  # type: ignore[import-untyped]

        status, content = stop_stream(request.method, request.read(MOST_BYTES + 1))
        return HttpResponse(content, status=status, content_type="application/json")
