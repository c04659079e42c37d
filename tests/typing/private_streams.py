"""Typing tests of private streams and `pipe`. mypy and pyright check them; they never run."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any, assert_type
from wsgiref.types import WSGIApplication

from starlette.applications import Starlette
from starlette.routing import Route

from forge_realtime import (
    AsyncPrivateStream,
    AsyncRealtimeClient,
    AsyncStream,
    PrivateStream,
    RealtimeClient,
    Stream,
    StreamHandle,
    asgi,
    wsgi,
)


class Event:
    text: str | None


def with_blocking_io(live: RealtimeClient, words: Iterator[str], events: list[Event], handle: dict[str, Any]) -> None:
    stream = live.private_stream("answer", claims={"account": "a"}, stop_path="/stop", merge="batch")
    assert_type(stream, PrivateStream)
    assert_type(stream.handle, StreamHandle)
    assert_type(stream.cancelled, threading.Event)
    returned: dict[str, Any] = stream.handle
    with stream:
        assert_type(stream.pipe(words), None)
        stream.pipe(events, key=lambda event: event.text)
        stream.pipe(events)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        stream.stop()
        stream.stop("enough")
        stream.fail("model_unavailable", "Ask again.")
    assert_type(live.renew_handle(returned), StreamHandle | None)
    plain: Stream = stream
    plain.pipe(["a", "b"])


async def with_asyncio(live: AsyncRealtimeClient, words: AsyncIterator[str], events: AsyncIterator[Event]) -> None:
    stream = await live.private_stream("answer")
    assert_type(stream, AsyncPrivateStream)
    assert_type(stream.cancelled, asyncio.Event)
    async with stream:
        assert_type(await stream.pipe(words), None)
        await stream.pipe(events, key=lambda event: event.text)
        await stream.pipe(["a"])  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    assert_type(await live.renew_handle(stream.handle), StreamHandle | None)
    plain: AsyncStream = stream
    await plain.cancelled.wait()


def refused(live: RealtimeClient) -> None:
    live.private_stream("answer", token="x")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    live.private_stream("answer", context_overrides=[])  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def routes() -> tuple[Starlette, WSGIApplication]:
    return Starlette(routes=[Route(asgi.STOP_PATH, asgi.StopRoute())]), wsgi.StopRoute()
