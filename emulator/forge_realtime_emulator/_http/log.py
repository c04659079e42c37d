"""The emulator's log: one line per call. It names channels, never payloads, tokens, claims or accounts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from .._platform.errors import RefusedError, join_code
from .._platform.records import RecordedEvent, RecordedInvoke, RecordedRequest
from .._platform.text import printable

log = logging.getLogger("forge_realtime_emulator")

_SHOWN = 100
"""Length of a channel name in a line, in characters. Lines may have to wait until somebody reads them."""


def _escape(record: logging.LogRecord) -> bool:
    """Escape control characters, so that text from outside stays on its line and cannot control a terminal."""
    record.msg, record.args = printable(record.getMessage()), None
    return True


log.addFilter(_escape)


def log_call(request: RecordedRequest) -> None:
    """Log the outcome of a call."""
    keys = _keys(
        request.operation,
        request.status,
        channel=request.channel,
        code=request.code,
        event=request.event,
        duration=request.duration,
    )
    if request.code is not None:
        reason = join_code(request.code, request.message or "", request.detail)
        _log_refusal(request.operation, request.status or "reset", reason, request.channel, keys)
    elif request.event is not None:
        _log_event(request.operation, request.event, keys)
    else:
        log.info("%-20s %d  on %.100r", request.operation, request.status, request.channel, extra=keys)


def log_event(call: str, event: RecordedEvent) -> None:
    """Log how many subscribers an event of a page reached. If it reached none, log the near misses."""
    _log_event(call, event, _keys(call, 200, channel=event.channel, event=event))


def log_invoke(invoke: RecordedInvoke) -> None:
    """Log how the service responded to its page."""
    path = f"{invoke.method} {invoke.path}"
    keys = _keys("invoke", invoke.status, channel=path, code=invoke.code, duration=invoke.duration)
    log.info("%-20s %s  %s", "invoke", invoke.status or invoke.code, path, extra=keys)


def log_refusal(call: str, status: int | None, refused: RefusedError) -> None:
    """Log why a call, or a subscription that has no status, was refused."""
    reason = join_code(refused.code, refused.message, refused.detail)
    _log_refusal(call, status or "refused", reason, None, _keys(call, status, code=refused.code))


def _log_event(call: str, event: RecordedEvent, keys: Mapping[str, Any]) -> None:
    log.info("%-20s 200  on %.100r, reached %d subscriber(s)", call, event.channel, event.delivered, extra=keys)
    for miss in event.near_misses:
        log.info("%-20s      %s", "", miss)


def _log_refusal(call: str, status: object, reason: str, channel: str | None, keys: Mapping[str, Any]) -> None:
    if channel is None:
        log.info("%-20s %s  %s", call, status, reason, extra=keys)
    else:
        log.info("%-20s %s  on %.100r: %s", call, status, channel, reason, extra=keys)


def _keys(
    operation: str,
    status: int | None,
    *,
    channel: str | None = None,
    code: str | None = None,
    event: RecordedEvent | None = None,
    duration: float | None = None,
) -> dict[str, dict[str, Any]]:
    """Describe a call for log lines in JSON, as an attribute `call` of the log record."""
    described = {
        "operation": operation,
        "status": status,
        "code": code,
        "channel": channel if channel is None else channel[:_SHOWN],
        "delivered": None if event is None else event.delivered,
        "duration": duration if duration is None else round(duration, 6),
    }
    return {"call": described}
