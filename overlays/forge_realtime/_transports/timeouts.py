"""Timeouts with asyncio in real time: tests of an app may have frozen or moved the time of event loops."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from types import TracebackType
from typing import Final

from .._core import clock

# Seconds. On Windows, the two clocks differ by some milliseconds.
_FAKED: Final = 1.0


def call_later(seconds: float, callback: Callable[[], object]) -> asyncio.TimerHandle | threading.Timer:
    """Call a function in the running loop after so many seconds, unless the result is cancelled before."""
    loop = asyncio.get_running_loop()
    return _start_timer(loop, seconds, callback) if _is_faked() else loop.call_later(seconds, callback)


def limit_time(seconds: float | None) -> AbstractAsyncContextManager[object]:
    """Limit the time of a block as `asyncio.timeout` does."""
    return _Timeout(seconds) if seconds is not None and _is_faked() else asyncio.timeout(seconds)


def _is_faked() -> bool:
    return abs(time.monotonic() - clock.monotonic()) > _FAKED


class _Timeout:
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._limit = asyncio.timeout(None)

    async def __aenter__(self) -> None:
        await self._limit.__aenter__()
        self._timer = _start_timer(asyncio.get_running_loop(), self._seconds, self._expire)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        await self._limit.__aexit__(kind, error, traceback)

    def _expire(self) -> None:
        # The block may just have ended.
        with suppress(RuntimeError):
            self._limit.reschedule(-math.inf)


def _start_timer(loop: asyncio.AbstractEventLoop, seconds: float, callback: Callable[[], object]) -> threading.Timer:
    def end() -> None:
        # The loop may be closed by now.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(callback)

    timer = threading.Timer(max(0.0, seconds), end)
    timer.daemon = True
    timer.start()
    return timer
