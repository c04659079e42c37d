"""The clock of deadlines, waits and permits. Tests of an app that freeze or move the time do not affect it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Final

# Neither freezegun nor time-machine changes this clock. A partial, because freezegun replaces the functions of `time`
# in every module that has one of them as an attribute. Windows has no clock_gettime.
monotonic: Final[Callable[[], float]] = (
    partial(time.clock_gettime, time.CLOCK_MONOTONIC)
    if hasattr(time, "clock_gettime")
    else partial(time.perf_counter)
)
"""Return the seconds of a clock that never goes back."""
