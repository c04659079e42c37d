"""Rates as the platform's limit counts them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable


def most_in_a_second(times: Iterable[float]) -> int:
    """Return the highest count in any sliding window of 1 second, as the platform's limit counts."""
    window: deque[float] = deque()
    most = 0
    for at in sorted(times):
        window.append(at)
        while window[0] <= at - 1.0:
            window.popleft()
        most = max(most, len(window))
    return most
