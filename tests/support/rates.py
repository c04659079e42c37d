"""How the platform's limit counts."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable


def most_in_a_second(times: Iterable[float]) -> int:
    """As the platform's limit counts: in a window of a second that slides."""
    window: deque[float] = deque()
    most = 0
    for at in sorted(times):
        window.append(at)
        while window[0] <= at - 1.0:
            window.popleft()
        most = max(most, len(window))
    return most
