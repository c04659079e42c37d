"""Logs in the format of the platform: JSON lines on standard output, each with its invocation.

    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])

Source: https://developer.atlassian.com/platform/forge/containers-reference/ref-logging/
"""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from typing import Final

from ._core.invocation import current_invocation

# Documented levels, each with the lowest level in Python that is above it.
_LEVELS: Final = (
    (logging.DEBUG, "TRACE"),
    (logging.INFO, "DEBUG"),
    (logging.WARNING, "INFO"),
    (logging.ERROR, "WARN"),
    (logging.CRITICAL, "ERROR"),
)


class InvocationFilter(logging.Filter):
    """Filter that sets `forge_invocation` on each record and drops none.

    The value is the raw log attributes of the current invocation, or `None`. A `QueueHandler` needs the filter, since
    another thread formats its records, and so does your own format. Otherwise `JsonFormatter` does not need it.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Set `forge_invocation` and return `True`."""
        record.forge_invocation = _forge_invocation(record)
        return True


class JsonFormatter(logging.Formatter):
    """Formatter that writes one line of JSON in ASCII.

    Properties of a line:

    * `ts`: time of the record, in whole milliseconds since the epoch.
    * `level`: `TRACE`, `DEBUG`, `INFO`, `WARN`, `ERROR` or `FATAL` (Python's `CRITICAL`).
    * `msg`: the message.
    * `forge_invocation`: raw `x-forge-invocation-log-attributes` of the invocation, if any.
    * `exception`: traceback, and stack if `stack_info=True`. The platform does not document this property.

    It never raises. A message or traceback that cannot be formatted is marked "(cannot be formatted)".
    """

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        # makeLogRecord() can omit the level; INFO is the platform's default.
        level = record.levelno or logging.INFO
        line = {
            "level": next((name for too_high, name in _LEVELS if level < too_high), "FATAL"),
            "msg": _message(record),
            "forge_invocation": _forge_invocation(record) or None,
            "exception": self._exception(record) or None,
        }
        # JSON can encode a lone surrogate, but strict readers reject the whole line.
        texts = {
            name: str.encode(text, errors="backslashreplace").decode()
            for name, text in line.items()
            if text is not None
        }
        return json.dumps({"ts": int(record.created * 1000), **texts})

    def _exception(self, record: logging.LogRecord) -> str:
        with suppress(Exception):
            traceback = record.exc_text or (self.formatException(record.exc_info) if record.exc_info else "")
            return "\n".join(filter(None, (traceback, record.stack_info)))
        return "(cannot be formatted)"


def _forge_invocation(record: logging.LogRecord) -> str | None:
    if "forge_invocation" in vars(record):
        value = vars(record)["forge_invocation"]
        return value if isinstance(value, str) else None
    invocation = current_invocation()
    return invocation.log_attributes if invocation else None


def _message(record: logging.LogRecord) -> str:
    with suppress(Exception):
        return record.getMessage()
    # Not the methods of a subclass of str: they may be what failed.
    text = str.__str__(record.msg) if isinstance(record.msg, str) else type(record.msg).__name__
    return f"{text} (cannot be formatted)"
