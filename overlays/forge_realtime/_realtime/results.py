"""Results of the named operations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from attrs import field, frozen

from .._core.attempts import Attempt


@frozen
class ResponseInfo:
    """Status and headers of a response of success. `repr` and `str` hide the headers.

    Attributes:
        status: Status of the response.
        headers: Its headers; names in any case.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)


_NO_RESPONSE: Final = ResponseInfo(200, {})


@frozen(kw_only=True)
class PublishResult:
    """An event that the platform accepted.

    Attributes:
        event_id: Id of the event; None if nobody was subscribed, which is no error. Also None if the response does not
            say, with a warning in the log.
        event_timestamp: Time of publishing in UTC; None if nobody was subscribed or the platform's value is unreadable.
        raw_event_timestamp: `eventTimestamp` as received. Documented as epoch milliseconds in a string, or null.
        attempts: Every attempt, in order. After one that ended UNKNOWN, subscribers may see the event twice.
        response: Status and headers of the last response; not compared.
    """

    event_id: str | None
    event_timestamp: datetime | None
    raw_event_timestamp: str | float | None = field(repr=False)
    attempts: tuple[Attempt, ...]
    response: ResponseInfo = field(default=_NO_RESPONSE, eq=False, repr=False)


@frozen(kw_only=True)
class RealtimeToken:
    """A signed Realtime token. `repr` and `str` hide it.

    Attributes:
        token: Text of the token, for the front end's subscription and for `publish(..., token=...)`.
        expires_at: Time of expiry in UTC; None if the platform does not say.
        attempts: Every attempt to have it signed, in order.
        response: Status and headers of the response; not compared.
    """

    token: str = field(repr=False)
    expires_at: datetime | None
    attempts: tuple[Attempt, ...]
    response: ResponseInfo = field(default=_NO_RESPONSE, eq=False, repr=False)


def epoch_or_iso(value: str | float | None, *, per_second: int) -> datetime | None:
    """Read a time from epoch units (`per_second`: 1000 for milliseconds) or ISO 8601 text; None if it is neither."""
    if value is None:
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    except ValueError:
        # Not the documented form.
        try:
            moment = datetime.fromisoformat(str(value))
            return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            return None
    try:
        return datetime.fromtimestamp(number / per_second, UTC) if math.isfinite(number) else None
    except (ValueError, OverflowError, OSError):
        return None
