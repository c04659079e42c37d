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

    The value is the raw log attributes of the current invocation, or `None`. Add the filter to a `QueueHandler`, whose
    records are formatted later in another thread, or to a handler with your own format. Otherwise `JsonFormatter` does
    not need it.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Set `forge_invocation` and return `True`."""
        record.forge_invocation = _forge_invocation(record)
        return True


class JsonFormatter(logging.Formatter):
    """Formatter that writes one line of JSON in ASCII.

    Properties of a line:

    * `ts`: time of the record, in whole milliseconds since the epoch.
    * `level`: `TRACE`, `DEBUG`, `INFO`, `WARN`, `ERROR` or `FATAL`, as the platform documents. Python's `WARNING`
      becomes `WARN`, and `CRITICAL` becomes `FATAL`.
    * `msg`: the message.
    * `forge_invocation`: raw value of `x-forge-invocation-log-attributes`, as set by `InvocationFilter` or from the
      current invocation; omitted if there is none.
    * `exception`: traceback, and stack if `stack_info=True`; omitted if there is neither. The platform does not
      document this property.

    It never raises. A message or traceback that cannot be formatted is marked "(cannot be formatted)".
    """

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        # makeLogRecord() can omit the level; INFO is the platform's default.
        level = record.levelno or logging.INFO
        line: dict[str, str | int] = {
            "ts": int(record.created * 1000),
            "level": next((name for too_high, name in _LEVELS if level < too_high), "FATAL"),
            "msg": _message(record),
        }
        if forge_invocation := _forge_invocation(record):
            line["forge_invocation"] = forge_invocation
        if exception := self._exception(record):
            line["exception"] = exception
        return json.dumps({name: _encodable(value) for name, value in line.items()})

    def _exception(self, record: logging.LogRecord) -> str:
        with suppress(Exception):
            traceback = record.exc_text or (self.formatException(record.exc_info) if record.exc_info else "")
            return "\n".join(filter(None, (traceback, record.stack_info)))
        return "(cannot be formatted)"


def _forge_invocation(record: logging.LogRecord) -> str | None:
    attributes = vars(record)
    if "forge_invocation" in attributes:
        value = attributes["forge_invocation"]
        return value if isinstance(value, str) else None
    invocation = current_invocation()
    return invocation.log_attributes if invocation else None


def _message(record: logging.LogRecord) -> str:
    with suppress(Exception):
        return record.getMessage()
    text = record.msg if isinstance(record.msg, str) else type(record.msg).__name__
    return f"{text} (cannot be formatted)"


def _encodable(value: str | int) -> str | int:
    # JSON can encode a lone surrogate, but strict readers reject the whole line.
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
