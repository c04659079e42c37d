"""Logs in the format of the platform: JSON lines on standard output, each with its invocation.

    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])

Or with `logging.config.dictConfig`, for example in Django's `LOGGING`:

    {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"forge": {"()": "forge_realtime.logs.JsonFormatter"}},
        "handlers": {
            "stdout": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "forge"}
        },
        "root": {"level": "INFO", "handlers": ["stdout"]},
    }

Source: https://developer.atlassian.com/platform/forge/containers-reference/ref-logging/
"""

from __future__ import annotations

import json
import logging
import re
from contextlib import suppress
from typing import Any, Final

from ._core.invocation import current_invocation

# Documented levels, each with the lowest level in Python that is above it.
_LEVELS: Final = (
    (logging.DEBUG, "TRACE"),
    (logging.INFO, "DEBUG"),
    (logging.WARNING, "INFO"),
    (logging.ERROR, "WARN"),
    (logging.CRITICAL, "ERROR"),
)
# The attributes of every record. `message`, `asctime` and, from Python 3.12 on, `taskName` are set later.
_USUAL: Final = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "forge_invocation"}
_UNFORMATTED: Final = "(cannot be formatted)"
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


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
    * `logger`: name of the logger.
    * `forge_invocation`: raw `x-forge-invocation-log-attributes` of the invocation, if any.
    * `exception`: traceback, and stack if `stack_info=True`.
    * `extra`: object with the fields of `extra=`, if any. What JSON does not know is text: an exception as
      `LookupError: no board`, others as by `str()`.

    The platform does not document `logger`, `exception` and `extra`. No property occurs twice, whatever the names of
    the fields.

    It never raises. A message, traceback or field that cannot be formatted is marked "(cannot be formatted)".
    """

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        # makeLogRecord() can omit the level; INFO is the platform's default.
        level = record.levelno or logging.INFO
        line = {
            "level": next((name for too_high, name in _LEVELS if level < too_high), "FATAL"),
            "msg": _message(record),
            "logger": str(record.name),
            "forge_invocation": _forge_invocation(record) or None,
            "exception": self._exception(record) or None,
        }
        # JSON can encode a lone surrogate, but strict readers reject the whole line.
        texts: dict[str, Any] = {name: _readable(text) for name, text in line.items() if text is not None}
        if extra := _extra(record):
            texts["extra"] = extra
        return json.dumps({"ts": int(record.created * 1000), **texts})

    def _exception(self, record: logging.LogRecord) -> str:
        with suppress(Exception):
            traceback = record.exc_text or (self.formatException(record.exc_info) if record.exc_info else "")
            return "\n".join(filter(None, (traceback, record.stack_info)))
        return _UNFORMATTED


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    """Return the fields of `extra=` as JSON can hold them."""
    return {_readable(_text(name)): _json_value(value) for name, value in [*vars(record).items()] if name not in _USUAL}


def _json_value(value: Any) -> Any:
    with suppress(Exception):
        text = json.dumps(value, default=_text, allow_nan=False, ensure_ascii=False)
        # Doubled, so that it stands for the backslash itself.
        return json.loads(_SURROGATE.sub(lambda found: f"\\\\u{ord(found[0]):04x}", text))
    # Not a number, a key of another type, or a cycle.
    return _readable(_text(value))


def _text(value: Any) -> str:
    with suppress(Exception):
        return f"{type(value).__name__}: {value}" if isinstance(value, BaseException) else str(value)
    return _UNFORMATTED


def _readable(text: str) -> str:
    return str.encode(text, errors="backslashreplace").decode()


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
    return f"{text} {_UNFORMATTED}"
