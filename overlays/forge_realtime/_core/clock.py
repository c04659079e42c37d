"""The monotonic clock, in seconds, by a reference that freezegun and time-machine do not replace."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Final

# Not `time.monotonic`: this module may be loaded while that is frozen. Both are the same clock. Windows has only that.
monotonic: Final[Callable[[], float]] = (
    partial(time.clock_gettime, time.CLOCK_MONOTONIC) if hasattr(time, "clock_gettime") else partial(time.monotonic)
)
