"""Retries: the budget that keeps an outage from being multiplied, and the wait that a server asks for."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from inspect import iscoroutinefunction
from typing import Final

# Seconds. More than any date can ask for.
_LONGEST: Final = 1e12
# Compiled at its first use, as that takes long.
_HTTP_DATE: Final = (
    r"([A-Z][a-z]{2}, \d{1,2} [A-Z][a-z]{2} \d{4}"  # Sun, 06 Nov 1994 08:49:37 GMT
    r"|[A-Z][a-z]{5,8}, \d\d-[A-Z][a-z]{2}-\d\d"  # Sunday, 06-Nov-94 08:49:37 GMT
    r") \d\d:\d\d:\d\d (GMT|UTC|[+-]0000)"
    r"|[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}"  # Sun Nov  6 08:49:37 1994
)


class RetryBudget:
    """Retries that a client and its siblings may still make. Thread-safe."""

    _MOST = 100.0

    def __init__(self) -> None:
        self._left = self._MOST
        # Reentrant, because a signal handler may make a call while it is held.
        self._lock = threading.RLock()

    def deposit(self, retries: float) -> None:
        """Add the retries that one call earns."""
        with self._lock:
            self._left = min(self._MOST, self._left + retries)

    def withdraw(self) -> bool:
        """Take one retry. Returns False if none is left."""
        with self._lock:
            if self._left < 1:
                return False
            self._left -= 1
            return True


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Read `Retry-After`, a number or a date, as seconds to wait; None if it is absent or unreadable.

    A date is compared with the response's own `Date`, if it has one, so that the two clocks need not agree.
    Source: https://www.rfc-editor.org/rfc/rfc9110#name-retry-after
    """
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", value, re.ASCII):
        # Finite, however many digits there are.
        return min(float(value), _LONGEST)
    if (until := http_date(value)) is None:
        return None
    now = http_date(headers.get("date", "")) or datetime.now(UTC)
    return max(0.0, (until - now).total_seconds())


def http_date(text: str) -> datetime | None:
    """Read a date in one of the three formats of HTTP; None if it is none of them.

    Source: https://www.rfc-editor.org/rfc/rfc9110#name-date-time-formats
    """
    if not re.fullmatch(_HTTP_DATE, text, re.ASCII):
        return None
    # Rarely needed, and slow to load.
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(text).replace(tzinfo=UTC)
    except ValueError:
        # No such day or time, for example on 30 February.
        return None


def is_plain_function(value: object) -> bool:
    """Tell whether this can be called without await."""
    return callable(value) and not iscoroutinefunction(value)


def is_number(value: object) -> bool:
    """Tell whether this is a number other than NaN."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)
