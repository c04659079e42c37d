"""What the named operations return."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from attrs import field, frozen

from .._core.errors import Attempt


@frozen(kw_only=True)
class PublishResult:
    """An event that the platform accepted.

    Attributes:
        event_id: The platform's id of the event; None when nobody was subscribed, which is not an error.
        event_timestamp: When it was published, in UTC; None when nobody was subscribed or the platform's value cannot be
            read.
        raw_event_timestamp: `eventTimestamp` as received: documented as epoch milliseconds in a string, or null.
        attempts: Every attempt that it took. After one that ended UNKNOWN, subscribers may see the event twice.
    """

    event_id: str | None
    event_timestamp: datetime | None
    raw_event_timestamp: str | float | None
    attempts: tuple[Attempt, ...]


@frozen(kw_only=True)
class RealtimeToken:
    """A signed Realtime token. `repr` and `str` hide it.

    Attributes:
        token: What the front end subscribes with, and `publish(..., token=...)` takes.
        expires_at: When it expires, in UTC; None when the platform does not say.
        attempts: Every attempt that it took to have it signed.
    """

    token: str = field(repr=False)
    expires_at: datetime | None
    attempts: tuple[Attempt, ...]


def epoch_or_iso(value: str | float | None, *, per_second: int) -> datetime | None:
    """Reads a point in time from epoch units in a number or a string, or from ISO 8601 text.

    Args:
        value: As received.
        per_second: Units per second: 1000 for `eventTimestamp`, 1 for `expiresAt`.

    Returns:
        The time in UTC, or None when the value is null or cannot be read.
    """
    if value is None:
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    except ValueError:
        # Not the documented form, and it takes long to load.
        import dateutil.parser

        try:
            moment = dateutil.parser.isoparse(str(value))
            return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            return None
    try:
        return datetime.fromtimestamp(number / per_second, UTC) if math.isfinite(number) else None
    except (ValueError, OverflowError, OSError):
        return None
