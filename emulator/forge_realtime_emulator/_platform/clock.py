"""The emulator's clock, which tests can put forward."""

from __future__ import annotations

import time


class Clock:
    """Tells the time of tokens, the limit, events and replay."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time() + self._ahead

    def advance(self, seconds: float) -> None:
        """Puts the clock forward.

        Raises:
            ValueError: It is no number of seconds, or it would go back.
        """
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 1e10:
            raise ValueError("the clock is advanced by a number of seconds, 0 or more")
        self._ahead += seconds
