"""Collects garbage, whatever other threads do."""

from __future__ import annotations

import gc
import weakref


class _Cycle:
    def __init__(self) -> None:
        self.myself = self


def collect() -> None:
    """Collect all garbage. `gc.collect()` does nothing while another thread collects, as a server's thread may."""
    was_enabled = gc.isenabled()
    # Otherwise a collection of the young objects only, in another thread, could take the cycle.
    gc.disable()
    cycle = weakref.ref(_Cycle())
    while cycle() is not None:
        gc.collect()
    if was_enabled:
        gc.enable()
