"""Logs as the platform's log reader expects them: JSON lines on standard output, each with its invocation.

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

# The documented levels, each with the first of Python's that is too high for it.
_LEVELS: Final = (
    (logging.DEBUG, "TRACE"),
    (logging.INFO, "DEBUG"),
    (logging.WARNING, "INFO"),
    (logging.ERROR, "WARN"),
    (logging.CRITICAL, "ERROR"),
)


class InvocationFilter(logging.Filter):
    """Puts `forge_invocation` on every record: the raw log attributes of the current invocation, or None.

    `JsonFormatter` does not need it where records are formatted in the thread or task that made them. Add it to a
    `QueueHandler`, whose records are formatted later in another thread, or to the handler of a format of your own. It
    drops no record.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        record.forge_invocation = _forge_invocation(record)
        return True


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON, in ASCII.

    Its properties:

    * `ts`: when the record was made, in whole milliseconds since the epoch.
    * `level`: `TRACE`, `DEBUG`, `INFO`, `WARN`, `ERROR` or `FATAL`: those that the platform documents, so a Python
      `WARNING` is a `WARN`, and a `CRITICAL` a `FATAL`.
    * `msg`: the message.
    * `forge_invocation`: the raw value of `x-forge-invocation-log-attributes`, from the record if `InvocationFilter` has
      put it there, else of the current invocation; left out when there is none.
    * `exception`: the traceback, and the stack asked for with `stack_info=True`; left out when there is neither. It is
      not among the properties that the platform documents.

    It raises for no record: what cannot be formatted is left out, and the line says so.
    """

    def format(self, record: logging.LogRecord) -> str:
        # A record made by makeLogRecord() may have no level: the platform's default, then.
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
    # JSON can spell a lone surrogate, but strict readers refuse the whole line.
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
