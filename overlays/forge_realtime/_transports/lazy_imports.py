"""Modules that a call would import, among them those of the package that use attrs.

A client imports them when it is made. A child of a fork could wait for ever for an import: another thread of the parent
may have held its lock.
"""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from typing import Final

_MODULES: Final = ("email.utils", "encodings.idna")
# httpcore's locks are anyio's, which loads its parts when they are used first.
ASYNC_MODULES: Final = (
    "sniffio",
    "anyio._core._synchronization",
    "anyio._backends._asyncio",
    "concurrent.futures.thread",
)


def import_lazy_modules(*more: str) -> None:
    """Import what a call may need. A name that is missing is not needed, or the call imports another."""
    for name in (*_MODULES, *more):
        # A RuntimeError: the interpreter is shutting down, and no executor can be used any more.
        with suppress(ImportError, RuntimeError):
            import_module(name)
    import certifi

    from .._core import attempts, authorization, invocation, policy  # noqa: F401 (see the module's docstring)

    # It imports more when it is asked first, as httpx does for a TLS context.
    certifi.where()
