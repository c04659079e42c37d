"""A call in the middle of another call of the same thread, as a signal handler makes it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import forge_realtime

_PACKAGE = str(Path(forge_realtime.__file__).parent)


def in_the_midst(call: Callable[[], object], other: Callable[[int], object]) -> int:
    """Make the other call before every line of the package that the first call executes.

    Returns:
        The number of lines.
    """
    moments = 0

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal moments
        if not frame.f_code.co_filename.startswith(_PACKAGE):
            return None
        if event == "line":
            moments += 1
            # Python does not trace inside of a trace function.
            other(moments)
        return trace

    ended = threading.Event()

    def run() -> None:
        sys.settrace(trace)
        call()
        sys.settrace(None)
        ended.set()

    threading.Thread(target=run, daemon=True).start()
    assert ended.wait(30), "the calls wait for each other"
    return moments
