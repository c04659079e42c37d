"""The retry policy. It loads with the first client."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Literal

from attrs import field, frozen

from .attempts import Attempt
from .errors import UsageError
from .group import ATTEMPT_TIMEOUT, DEADLINE, DELIVERY
from .retry import is_number, is_plain_function

_DAY = 86_400.0


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
