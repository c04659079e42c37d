"""The documented limit: so many operations per second and installation."""

from __future__ import annotations

from collections import defaultdict, deque

from .errors import RefusedError

WINDOW = 1.0
"""Seconds. The window slides: never are more operations than the limit in any second."""


class Limit:
    """Counts operations by installation."""

    def __init__(self) -> None:
        self._counted: defaultdict[str, deque[float]] = defaultdict(deque)

    def count(self, installation: str, now: float, most: int | None, retry_after: int | None) -> None:
        """Counts one operation.

        Args:
            installation: Whose.
            now: Seconds of the emulator's clock.
            most: Operations per second; None: no limit.
            retry_after: Whole seconds for `Retry-After`, or None for no such header.

        Raises:
            RefusedError: There were too many already; this one is not counted.
        """
        counted = self._recent(installation, now)
        if most is not None and len(counted) >= most:
            message = (
                f"Over {most} operations per second for the installation; nothing was done. Back off and try again."
            )
            raise RefusedError(429, "RATE_LIMIT_EXCEEDED", message, retry_after=retry_after)
        counted.append(now)

    def rates(self, now: float) -> dict[str, int]:
        """Operations in the last second, by installation."""
        return {installation: len(self._recent(installation, now)) for installation in list(self._counted)}

    def _recent(self, installation: str, now: float) -> deque[float]:
        counted = self._counted[installation]
        while counted and counted[0] <= now - WINDOW:
            counted.popleft()
        return counted
