"""The documented rate limits."""

from __future__ import annotations

from collections import defaultdict, deque


class Limit:
    """Sliding-window counters, such as of operations by installation.

    Args:
        window: Length of the sliding window, in seconds.
    """

    def __init__(self, window: float) -> None:
        self._window = window
        self._counted: defaultdict[str, deque[float]] = defaultdict(deque)

    def count(self, key: str, now: float, limit: int | None) -> bool:
        """Count one call, unless the limit is reached.

        Args:
            key: Whose call it is.
            now: The time by the emulator's clock, in seconds.
            limit: Calls per window; `None` disables the limit.

        Returns:
            Whether the call is within the limit. If not, it is not counted.
        """
        counted = self._recent(key, now)
        if limit is not None and len(counted) >= limit:
            return False
        counted.append(now)
        return True

    def rates(self, now: float) -> dict[str, int]:
        """Return the number of calls in the last window, by key."""
        return {key: len(self._recent(key, now)) for key in list(self._counted)}

    def _recent(self, key: str, now: float) -> deque[float]:
        counted = self._counted[key]
        while counted and counted[0] <= now - self._window:
            counted.popleft()
        return counted
