"""The interface between a middleware and what it wraps, checked when the app is made."""

from __future__ import annotations

from inspect import signature
from typing import Final, Literal, TypeAlias

from .errors import UsageError

Interface: TypeAlias = Literal["asgi", "wsgi", "django"]

_PACKAGE: Final = __name__.rpartition("._core.")[0]
# What each middleware wraps, with how many arguments this is called, and how to add the middleware.
_WRAPPED: Final[dict[Interface, tuple[str, int, str]]] = {
    "asgi": ("an ASGI application", 3, "app.add_middleware(InvocationMiddleware) in FastAPI and Starlette"),
    "wsgi": ("a WSGI application", 2, "app.wsgi_app = InvocationMiddleware(app.wsgi_app) in Flask"),
    "django": ("a handler of Django", 1, f"list '{_PACKAGE}.django.InvocationMiddleware' in MIDDLEWARE"),
}


def require_interface(app: object, expected: Interface) -> None:
    """Refuse an application that the middleware of another interface has to wrap.

    Raises:
        UsageError: It cannot be called as `expected` calls it. The message names the right middleware.
    """
    found: list[Interface] = [interface for interface, (_, arguments, _) in _WRAPPED.items() if _takes(app, arguments)]
    if expected in found:
        return
    message = f"{_PACKAGE}.{expected}.InvocationMiddleware wraps {_WRAPPED[expected][0]}"
    if not found:
        raise UsageError(f"{message}, not a {type(app).__name__}.")
    application, _, use = _WRAPPED[found[0]]
    raise UsageError(f"{message}, and this is {application}. Use {_PACKAGE}.{found[0]}.InvocationMiddleware: {use}.")


def _takes(app: object, arguments: int) -> bool:
    """Tell whether this can be called with so many positional arguments, as far as its signature tells."""
    if not callable(app):
        return False
    try:
        found = signature(app)
    except ValueError:
        # It is written in C.
        return True
    try:
        found.bind(*[None] * arguments)
    except TypeError:
        return False
    return True
