"""The package's log. Handlers and filters of the app never change what becomes of a call.

For a first look, the environment variable `FORGE_REALTIME_LOG=debug` or `info` shows it on standard error.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import Final

logger: Final = logging.getLogger(__name__.rpartition("._core.")[0])
"""Named after the package, which has another name where it is vendored."""

VARIABLE: Final = "FORGE_REALTIME_LOG"

# What matters is also raised. Without this, Python would print warnings when logging is not set up.
logger.addHandler(logging.NullHandler())

sending: Final[ContextVar[bool]] = ContextVar("forge_realtime.sending", default=False)
"""Whether this context is carrying out an attempt. httpx, httpcore and asyncio log in its midst, as httpx2 does."""

failure_level: Final[ContextVar[int]] = ContextVar("forge_realtime.failure_level", default=logging.WARNING)
"""Level at which this context logs a call that fails: lower where nothing depends on the call."""

_handling: Final[ContextVar[bool]] = ContextVar("forge_realtime.handling", default=False)
_PARTS: Final = ("connection", "http11", "http2", "proxy", "socks")
_GUARDED: Final = (
    "asyncio",
    *("httpx", *(f"httpcore.{part}" for part in _PARTS)),
    *("httpx2", *(f"httpcore2.{part}" for part in _PARTS)),
)
# The exceptions that were reported, by their type and the line that raised them.
_reported: Final[set[tuple[type, str, int]]] = set()


def log(level: int, message: str, *args: object, exc_info: bool = False) -> None:
    """Log a message.

    An exception of a handler or filter is shown once, as a warning, and changes nothing. What a handler does is not
    logged: one that publishes would never end.
    """
    if logger.isEnabledFor(level):
        _guard(logger.log, level, message, *args, exc_info=exc_info, stacklevel=3)


def _guard(handle: Callable[..., None], *args: object, **options: object) -> None:
    if _handling.get():
        return
    try:
        _handling.set(True)
        handle(*args, **options)
    except Exception as error:  # noqa: BLE001 (the app's handlers may raise anything)
        _warn_once(error)
    finally:
        _handling.set(False)


def _warn_once(error: Exception) -> None:
    """Warn of an exception of the app's code, once for each line that raises it."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    file, line = (last.tb_frame.f_code.co_filename, last.tb_lineno) if last is not None else ("<unknown>", 0)
    if (type(error), file, line) in _reported:
        return
    _reported.add((type(error), file, line))
    message = (
        f"A log handler or filter raised {type(error).__name__} during a call of {logger.name}. The call went on. This "
        "is shown once."
    )
    # The filters of warnings may make it an exception, and the app may show warnings with the same handler.
    with suppress(Exception):
        warnings.warn_explicit(message, RuntimeWarning, file, line)


def _show_log(value: str) -> None:
    """Show the log on standard error, as the environment variable says."""
    if not value:
        return
    level = {"debug": logging.DEBUG, "info": logging.INFO}.get(value.strip().lower())
    if level is None:
        # Not the value: it may be anything.
        warnings.warn(f"{VARIABLE} takes debug or info. Its value is neither.", RuntimeWarning, stacklevel=2)
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("[%(asctime)s %(name)s %(levelname)s] %(message)s"))
    handler.addFilter(_is_not_shown_by_the_app)
    logger.addHandler(handler)
    logger.setLevel(level)


def _is_not_shown_by_the_app(_record: logging.LogRecord) -> bool:
    # An app that logs to its terminal shows the record as well.
    terminal = (sys.stdout, sys.stderr)
    return not (logger.propagate and any(getattr(h, "stream", None) in terminal for h in logging.getLogger().handlers))


_show_log(os.environ.get(VARIABLE, ""))


class _GuardedLogs(logging.Filter):
    """Filter that guards the records of httpx, httpcore and asyncio as `log` guards the package's own."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not sending.get():
            return True
        _guard(self._handle, record)
        return False

    def _handle(self, record: logging.LogRecord) -> None:
        """Pass a record to the later filters, which are the app's, and to the handlers."""
        owner, later = logging.getLogger(record.name), logging.Filterer()
        later.filters = owner.filters[owner.filters.index(self) + 1 :]
        if passed := later.filter(record):
            # From Python 3.12 on, a filter may return another record.
            owner.callHandlers(passed if isinstance(passed, logging.LogRecord) else record)


for _name in _GUARDED:
    logging.getLogger(_name).addFilter(_GuardedLogs())
