"""Retries: the policy, and the budget that keeps an outage from being multiplied."""

from __future__ import annotations

import math
import random
import re
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from inspect import iscoroutinefunction
from typing import Final, Literal

from attrs import field, frozen

from .errors import Attempt, UsageError
from .group import ATTEMPT_TIMEOUT, DEADLINE, DELIVERY

_DAY = 86_400.0
# Seconds. More than any date can ask for.
_LONGEST: Final = 1e12
# Compiled at its first use, as that takes long.
_HTTP_DATE: Final = (
    r"([A-Z][a-z]{2}, \d{1,2} [A-Z][a-z]{2} \d{4}"  # Sun, 06 Nov 1994 08:49:37 GMT
    r"|[A-Z][a-z]{5,8}, \d\d-[A-Z][a-z]{2}-\d\d"  # Sunday, 06-Nov-94 08:49:37 GMT
    r") \d\d:\d\d:\d\d (GMT|UTC|[+-]0000)"
    r"|[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}"  # Sun Nov  6 08:49:37 1994
)


@frozen(kw_only=True)
class RetryPolicy:
    """When and how often a call is retried. All times are in seconds.

    A request that was certainly not carried out (no connection, the rate limit, 503 with `Retry-After`) is retried. One
    that may have been carried out (reset, read timeout, other 5xx, unreadable response) is retried only if a duplicate
    is harmless: always for tokens and reading operations, otherwise as `delivery` says.

    Attributes:
        delivery: `"at_least_once"` sends an event again if it is unknown whether it arrived, and may publish it twice;
            `"at_most_once"` raises instead.
        deadline: Limit for a whole call, all attempts and waits together.
        attempt_timeout: Limit for one attempt.
        max_attempts: Attempts of a call, including the first.
        backoff_initial: The wait before the second attempt is random between 0 and this; the bound doubles with each
            further attempt ("full jitter"). A `Retry-After` of the server takes its place.
        backoff_max: Highest bound of such a wait.
        budget: Retries that each call earns for the client and its siblings. They start with 100, and never hold more.
            `math.inf` disables the limit.
        on_attempt: Plain function, called after each attempt in the thread or task of the call. An exception that it
            raises is logged and changes nothing.

    Raises:
        UsageError: A value is out of range.
    """

    delivery: Literal["at_least_once", "at_most_once"] = DELIVERY
    deadline: float = DEADLINE
    attempt_timeout: float = ATTEMPT_TIMEOUT
    max_attempts: int = 6
    backoff_initial: float = 0.1
    backoff_max: float = 2.0
    budget: float = 0.2
    on_attempt: Callable[[Attempt], object] | None = field(default=None, eq=False)

    def __attrs_post_init__(self) -> None:
        if self.delivery not in ("at_least_once", "at_most_once"):
            raise UsageError("RetryPolicy: delivery must be 'at_least_once' or 'at_most_once'.")
        for name in ("deadline", "attempt_timeout"):
            if not (is_number(value := getattr(self, name)) and 0 < value <= _DAY):
                raise UsageError(f"RetryPolicy: {name} must be a positive number of seconds, a day at most.")
        if not (type(self.max_attempts) is int and self.max_attempts >= 1):
            raise UsageError("RetryPolicy: max_attempts must be a whole number of at least 1.")
        for name in ("backoff_initial", "backoff_max"):
            if not (is_number(value := getattr(self, name)) and 0 <= value <= _DAY):
                raise UsageError(f"RetryPolicy: {name} must be a number of seconds, 0 or more and a day at most.")
        if not (is_number(self.budget) and self.budget >= 0):
            raise UsageError("RetryPolicy: budget must be a number of retries per call, 0 or more.")
        if self.on_attempt is not None and not is_plain_function(self.on_attempt):
            raise UsageError("RetryPolicy: on_attempt must be a plain function (not async) of one Attempt.")

    def backoff(self, attempt: int) -> float:
        """Choose a random wait in seconds after the attempt with this number (from 1)."""
        # 2.0 ** 1024 overflows, long after any bound is reached.
        return random.uniform(0, min(self.backoff_max, self.backoff_initial * 2.0 ** min(attempt - 1, 1000)))


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
