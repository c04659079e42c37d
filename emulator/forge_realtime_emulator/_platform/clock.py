"""The emulator's clock, which tests can advance."""

from __future__ import annotations

import time


class Clock:
    """Clock of tokens, the rate limit, events and replay."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def now(self) -> float:
        """Return the time in seconds since the epoch."""
        return time.time() + self._ahead

    def advance(self, seconds: float) -> None:
        """Advance the clock.

        Raises:
            ValueError: `seconds` is not a number, or is negative.
        """
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 1e10:
            raise ValueError("the clock is advanced by a number of seconds, 0 or more")
        self._ahead += seconds
