"""The event loop that a call of the asynchronous client runs in."""

from __future__ import annotations

import asyncio

from .._core.errors import UsageError


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the running event loop.

    Raises:
        UsageError: There is none, or it is trio's.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise UsageError(
            "The asynchronous client runs on asyncio only, and no asyncio event loop is running here. Under trio, use "
            "the blocking client in a thread: await trio.to_thread.run_sync(live.publish, channel, payload)."
        ) from None
