"""The emulator's clock, which tests can advance."""

from __future__ import annotations

import sys
import time
from functools import partial

if sys.platform == "win32":
    _elapsed = partial(time.monotonic)
else:
    # freezegun replaces time.monotonic. On Linux only CLOCK_BOOTTIME counts while a laptop sleeps; without that, new
    # tokens would have expired by the wall clock.
    _elapsed = partial(time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def elapsed() -> float:
    """Return the real seconds since some point in the past, also while a test has frozen the clock."""
    return _elapsed()


_MOST_AHEAD = 1e10
"""Seconds. Dates of later times cannot be written everywhere."""


class Clock:
    """Clock of tokens, the rate limit, events and replay.

    It reads the wall clock once and counts from there, so setting back or freezing the wall clock does not stop it.
    """

    def __init__(self) -> None:
        self._epoch = time.time() - elapsed()
        self.ahead = 0.0
        """Seconds that the clock was advanced by."""

    def now(self) -> float:
        """Return the time in seconds since the epoch."""
        return self._epoch + elapsed() + self.ahead

    def advance(self, seconds: float) -> None:
        """Advance the clock.

        Raises:
            ValueError: `seconds` is not a number or is negative, or the clock would be more than 300 years ahead.
        """
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < _MOST_AHEAD:
            raise ValueError("the clock is advanced by a number of seconds, 0 or more")
        if self.ahead + seconds >= _MOST_AHEAD:
            raise ValueError("the clock cannot be more than 300 years ahead. Reset the emulator")
        self.ahead += seconds
