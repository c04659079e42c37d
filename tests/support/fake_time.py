"""Libraries with which the tests of an app freeze or move the time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import freezegun
import time_machine

# The first one is before this machine was started.
FAKES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "freezegun in the past": partial(freezegun.freeze_time, "1970-01-01"),
    "freezegun": partial(freezegun.freeze_time, "2030-01-01"),
    "freezegun that ticks": partial(freezegun.freeze_time, "2030-01-01", tick=True),
    "freezegun with real asyncio": partial(freezegun.freeze_time, "2030-01-01", real_asyncio=True),
    "time-machine": partial(time_machine.travel, 1, tick=False),
    "time-machine that ticks": partial(time_machine.travel, 2e9, tick=True),
}
