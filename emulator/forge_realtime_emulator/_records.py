"""What the emulator remembers of calls and events, for tests to look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ._authorization import Authorization

RECORD_LIMIT = 10_000
"""Calls and events that are remembered; the oldest go first."""


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """One call of an operation, whatever its outcome.

    Attributes:
        operation: The `operationId`.
        status: The HTTP status that was answered.
        authorization: What the authorization header said, or None when it was refused.
        headers: The request's headers by lower-case name; hidden in the repr.
        body: The JSON body, or None when the call was refused before its body was read; hidden in the repr.
    """

    operation: str
    status: int
    authorization: Authorization | None
    headers: Mapping[str, str] = field(repr=False)
    body: Any = field(repr=False)


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """One event that a publish operation accepted.

    Attributes:
        channel: The channel's name.
        payload: The payload exactly as published; hidden in the repr.
        is_global: Whether it was published globally.
        event_id: The id that was answered, or None when nobody got the event.
        event_timestamp: Epoch milliseconds as a string, or None when nobody got the event.
        delivered: How many subscribers got the event.
    """

    channel: str
    payload: str = field(repr=False)
    is_global: bool
    event_id: str | None
    event_timestamp: str | None
    delivered: int
