"""The emulator's log: one line per call. It names channels, never payloads, tokens, claims or accounts."""

from __future__ import annotations

import logging
from typing import Any

from .._platform.errors import RefusedError, join_code
from .._platform.records import RecordedEvent
from .._platform.text import printable

log = logging.getLogger("forge_realtime_emulator")


def _escape(record: logging.LogRecord) -> bool:
    """Escape control characters, so that text from outside stays on its line and cannot control a terminal."""
    record.msg, record.args = printable(record.getMessage()), None
    return True


log.addFilter(_escape)


def log_event(call: str, event: RecordedEvent) -> None:
    """Log how many subscribers an event reached. If it reached none, log the near misses."""
    log.info("%-20s 200  on %.100r, reached %d subscriber(s)", call, event.channel, event.delivered)
    for miss in event.near_misses:
        log.info("%-20s      %s", "", miss)


def log_refusal(call: str, status: object, refused: RefusedError, channel: Any = None) -> None:
    """Log why a call or a subscription was refused."""
    reason = join_code(refused.code, refused.message, refused.detail)
    if channel is None:
        log.info("%-20s %s  %s", call, status, reason)
    else:
        log.info("%-20s %s  on %.100r: %s", call, status, channel, reason)
