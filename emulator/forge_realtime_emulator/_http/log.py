"""A line for each call: what `emulate` prints. Channels are named in it, and no payload, token, claim or account."""

from __future__ import annotations

import logging
from typing import Any

from .._platform.errors import Refused, spoken
from .._platform.records import RecordedEvent

log = logging.getLogger("forge_realtime_emulator")


def log_event(call: str, event: RecordedEvent) -> None:
    """Says how many an event reached, and when there was nobody, who would have got it but for a difference."""
    log.info("%-20s 200  on %.100r, reached %d subscriber(s)", call, event.channel, event.delivered)
    for miss in event.near_misses:
        log.info("%-20s      %s", "", miss)


def log_refusal(call: str, status: object, refused: Refused, channel: Any = None) -> None:
    """Says why a call or a subscription was not accepted."""
    said = spoken(refused.code, refused.message)
    if channel is None:
        log.info("%-20s %s  %s", call, status, said)
    else:
        log.info("%-20s %s  on %.100r: %s", call, status, channel, said)
