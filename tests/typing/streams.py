"""Typing tests of streams and of the quota. mypy and pyright check them; they never run."""

from __future__ import annotations

from typing import assert_type

from forge_realtime import (
    AsyncRealtimeClient,
    AsyncStream,
    OverQuotaError,
    Quota,
    RealtimeClient,
    Stream,
    StreamError,
    StreamReport,
    TimedOutError,
)
from forge_realtime.redis import RedisStore


def with_blocking_io(live: RealtimeClient) -> None:
    assert_type(live.stream("chat"), Stream)
    with live.stream(
        "chat", merge="latest", interval=0.5, overflow="drop_oldest", context_overrides=["issue"]
    ) as stream:
        assert_type(stream, Stream)
        assert_type(stream.send({"done": 7}), None)
        assert_type(stream.flush(), None)
    assert_type(stream.report, StreamReport)
    assert_type(stream.report.sent, int)
    with live.stream_global("news", merge=lambda a, b: a + b) as counter:
        counter.send(1)


async def with_asyncio(live: AsyncRealtimeClient) -> None:
    assert_type(live.stream_global("news", merge="batch", max_bytes=1000, max_pending=10, deadline=1), AsyncStream)
    async with live.stream("chat") as stream:
        assert_type(stream, AsyncStream)
        assert_type(await stream.send("token"), None)
        assert_type(await stream.flush(), None)


def refused(live: RealtimeClient) -> None:
    live.stream("chat", merge="join")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    live.stream("chat", overflow="block")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    live.stream_global("news", context_overrides=[])  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    live.stream("chat").send(object())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Quota(20)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Quota(store="redis://localhost")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    RedisStore("redis://localhost")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    live.with_options(quota=40)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    live.quota.burst = 3  # type: ignore[union-attr, misc]  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]


def shared_by_replicas() -> None:
    quota = Quota(per_second=30, burst=5, installation_id="i", store=RedisStore("redis://localhost", replicas=4))
    client = RealtimeClient(quota=quota)
    assert_type(client.quota, Quota | None)
    assert_type(client.with_options(quota=None), RealtimeClient)
    assert_type(AsyncRealtimeClient(quota=quota).with_options(quota=Quota()), AsyncRealtimeClient)


def errors(error: StreamError, over: OverQuotaError) -> TimedOutError:
    assert_type(error.report, StreamReport)
    return over
