"""Typing tests of the client. mypy and pyright check them; they never run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, assert_type

import httpx
from forge_realtime._api.api.forge_realtime import publish, sign_realtime_token
from forge_realtime._api.models import (
    PublishRequest,
    PublishResponse,
    RealtimeTokenClaims,
    SignRealtimeTokenRequest,
    SignRealtimeTokenResponse,
)

from forge_realtime import (
    AsyncRealtimeClient,
    Delivery,
    ForgeRealtimeError,
    PublishResult,
    RealtimeClient,
    RealtimeToken,
    ResponseInfo,
)
from forge_realtime._realtime.operations import ContextOverride


def with_blocking_io(client: RealtimeClient, headers: dict[str, str], asgi: list[tuple[bytes, bytes]]) -> None:
    assert_type(client.for_invocation(asgi), RealtimeClient)
    live = client.for_invocation(headers)
    assert_type(live, RealtimeClient)
    result = live.publish("board-42", {"moved": 7})
    assert_type(result, PublishResult)
    assert_type(result.event_id, str | None)
    assert_type(result.event_timestamp, datetime | None)
    signed = live.sign_realtime_token("board-42", {"team": "red"}, permissions=["subscribe"])
    assert_type(signed, RealtimeToken)
    live.publish_global("news", "plain text", token=signed)
    response = live.call(publish, body=PublishRequest("board-42", "moved"))
    assert_type(response, PublishResponse)


async def with_asyncio(client: AsyncRealtimeClient, headers: dict[str, str]) -> None:
    async with client.for_invocation(headers) as live:
        assert_type(await live.publish("board-42", "moved", context_overrides=["issue"]), PublishResult)
        body = SignRealtimeTokenRequest("board-42", RealtimeTokenClaims())
        assert_type(await live.call(sign_realtime_token, body=body), SignRealtimeTokenResponse)


def context_overrides(live: RealtimeClient, asynchronous: AsyncRealtimeClient, chosen: list[str], name: str) -> None:
    documented: list[Literal["board", "issue"]] = ["board", "issue"]
    live.publish("c", "x", context_overrides=documented)
    live.publish("c", "x", context_overrides=chosen)
    live.stream("c", context_overrides=[name])
    asynchronous.stream("c", context_overrides=("pullRequest", "repository"))
    names: list[ContextOverride] = ["board", "issue", "project", "content", "space", "repository", "pullRequest"]
    asynchronous.stream("c", context_overrides=names)
    names = ["moon"]  # type: ignore[list-item]  # pyright: ignore[reportAssignmentType]
    live.publish("c", "x", context_overrides=[1])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]


async def results(live: RealtimeClient, asynchronous: AsyncRealtimeClient) -> None:
    told = live.with_options(show_response=True, retry=live.retry)
    assert_type(told.publish("c", "x").response, ResponseInfo)
    assert_type(told.publish("c", "x").response.status, int)
    assert_type((await asynchronous.publish("c", "x")).response.headers, Mapping[str, str])
    AsyncRealtimeClient(show_response="yes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def transports(address: str) -> None:
    RealtimeClient(address, transport=httpx.HTTPTransport())
    RealtimeClient(address, http_client=httpx.Client())
    AsyncRealtimeClient(address, transport=httpx.ASGITransport(app=asgi))
    AsyncRealtimeClient(address, transport="aiohttp")
    AsyncRealtimeClient(address, transport="httpx")
    AsyncRealtimeClient(address, http_client=httpx.AsyncClient())
    RealtimeClient(address, encode=json.dumps).with_options(encode=lambda value: str(value).encode())
    AsyncRealtimeClient(address, encode=json.dumps).with_options(encode=None)
    RealtimeClient(encode=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    RealtimeClient(transport="aiohttp")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    RealtimeClient(http_client=httpx.AsyncClient())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    AsyncRealtimeClient(transport="curl")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    AsyncRealtimeClient(http_client=httpx.Client())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def asgi(scope: Any, receive: Any, send: Any) -> None: ...


def refused(live: RealtimeClient) -> None:
    live.publish("board-42")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    live.publish("board-42", object())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    live.publish_global("news", "x", context_overrides=[])  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    live.sign_realtime_token("c", {}, ["admin"])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    live.call(publish, body="moved")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    live.call(publish, text="moved")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def errors(error: ForgeRealtimeError) -> None:
    assert_type(error.delivery, Delivery)
