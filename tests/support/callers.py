"""The same calls through the blocking client, and through the asyncio client on httpx and on aiohttp."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias, get_args

from forge_realtime import AsyncRealtimeClient, ForgeRealtimeError, RealtimeClient, RetryPolicy

AsyncKind: TypeAlias = Literal["async", "aiohttp"]
Kind: TypeAlias = Literal["sync"] | AsyncKind
ASYNC_KINDS: Final[tuple[AsyncKind, ...]] = get_args(AsyncKind)
KINDS: Final[tuple[Kind, ...]] = ("sync", *ASYNC_KINDS)

INVOCATION = {"x-forge-invocation-id": "invocation-123"}
# Waits that are too short to slow down a test.
QUICK = RetryPolicy(backoff_initial=0.001, backoff_max=0.01)


def async_client(kind: AsyncKind, url: str | None = None, **settings: Any) -> AsyncRealtimeClient:
    """Return an asyncio client that uses httpx or aiohttp."""
    return AsyncRealtimeClient(url, transport="httpx" if kind == "async" else "aiohttp", **settings)


class Caller:
    """Makes calls on one client, and returns the result or the error of each."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind

    def __call__(
        self, url: str, *calls: Callable[[Any], Any], retry: RetryPolicy = QUICK, cache_tokens: bool = False
    ) -> list[Any]:
        kind = self.kind
        if kind == "sync":
            with RealtimeClient(url, retry=retry, cache_tokens=cache_tokens) as client:
                return [_outcome(call, client.for_invocation(INVOCATION)) for call in calls]

        asynchronous: AsyncKind = "aiohttp" if kind == "aiohttp" else "async"

        async def run() -> list[Any]:
            async with async_client(asynchronous, url, retry=retry, cache_tokens=cache_tokens) as client:
                return [await _async_outcome(call, client.for_invocation(INVOCATION)) for call in calls]

        return asyncio.run(run())


def _outcome(call: Callable[[Any], Any], live: RealtimeClient) -> Any:
    try:
        return call(live)
    except ForgeRealtimeError as error:
        return error


async def _async_outcome(call: Callable[[Any], Any], live: AsyncRealtimeClient) -> Any:
    try:
        return await call(live)
    except ForgeRealtimeError as error:
        return error
