"""The documented rate limit: a number of operations per second and installation."""

from __future__ import annotations

from collections import defaultdict, deque

from .errors import RefusedError

WINDOW = 1.0
"""Length of the sliding window, in seconds."""


class Limit:
    """Sliding-window counter of operations by installation."""

    def __init__(self) -> None:
        self._counted: defaultdict[str, deque[float]] = defaultdict(deque)

    def count(self, installation: str, now: float, limit: int | None, retry_after: int | None) -> None:
        """Count one operation.

        Args:
            installation: The installation that makes the call.
            now: The time by the emulator's clock, in seconds.
            limit: Operations per second; `None` disables the limit.
            retry_after: Whole seconds for the `Retry-After` header, or `None` for no header.

        Raises:
            RefusedError: The installation is at its limit. This operation is not counted.
        """
        counted = self._recent(installation, now)
        if limit is not None and len(counted) >= limit:
            message = f"Over {limit} operations per second for the installation; nothing was done. Back off and retry."
            raise RefusedError(429, "RATE_LIMIT_EXCEEDED", message, retry_after=retry_after)
        counted.append(now)

    def rates(self, now: float) -> dict[str, int]:
        """Return the number of operations in the last second, by installation."""
        return {installation: len(self._recent(installation, now)) for installation in list(self._counted)}

    def _recent(self, installation: str, now: float) -> deque[float]:
        counted = self._counted[installation]
        while counted and counted[0] <= now - WINDOW:
            counted.popleft()
        return counted
