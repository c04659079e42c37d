"""What `pipe` of both streams reads from: any iterable, closed at its end."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncIterable, Iterable
from typing import Any

from .._core.errors import UsageError
from .._core.hidden import Hidden
from .._transports.timeouts import limit_time


def check_async_source(source: object) -> None:
    """Raise UsageError if `source` cannot be read with `async for`."""
    if isinstance(source, AsyncIterable):
        return
    if inspect.isawaitable(source):
        if inspect.iscoroutine(source):
            source.close()
        raise UsageError("stream: pipe takes an asynchronous iterable: await the call first that returns it.")
    raise UsageError(
        f"stream: pipe takes an asynchronous iterable, and this is of type {type(source).__name__}. Use the "
        "asynchronous client of the model; send the items of a list with `await stream.send(item)`."
    )


def check_source(source: object) -> None:
    """Raise UsageError if `source` cannot be read with `for`."""
    if not isinstance(source, Iterable):
        raise UsageError(
            f"stream: pipe takes an iterable, and this is of type {type(source).__name__}. An asynchronous "
            "one needs the stream of an AsyncRealtimeClient; or use the blocking client of the model."
        )


async def aclose_source(iterator: object, source: Hidden[Any], seconds: float) -> None:
    """Close an asynchronous source, so that the model stops too. What that raises does not concern the stream.

    Each step is given up after some `seconds`: the end of the stream must not depend on the model's connection.
    """
    try:
        await _aclose(Hidden(iterator), seconds)
    finally:
        # Also if the task is cancelled again and again, as anyio does.
        if source.value is not iterator:
            await _aclose(source, seconds)


async def _aclose(each: Hidden[Any], seconds: float) -> None:
    with contextlib.suppress(Exception):
        close = getattr(each.value, "aclose", None) or getattr(each.value, "close", None)
        if callable(close):
            async with limit_time(seconds):
                closing = close()
                if inspect.isawaitable(closing):
                    await closing


def close_source(iterator: object, source: Hidden[Any]) -> None:
    """Close a source, so that the model stops too. What that raises does not concern the stream."""
    try:
        _close(Hidden(iterator))
    finally:
        if source.value is not iterator:
            _close(source)


def _close(each: Hidden[Any]) -> None:
    with contextlib.suppress(Exception):
        close = getattr(each.value, "close", None)
        if callable(close):
            close()
