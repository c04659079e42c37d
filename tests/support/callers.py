"""The same calls through the blocking and the asyncio client, on the connections of httpx, aiohttp and httpx2."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias, get_args

import pytest

from forge_realtime import AsyncRealtimeClient, ForgeRealtimeError, RealtimeClient, RetryPolicy

AsyncKind: TypeAlias = Literal["async", "aiohttp"]
Kind: TypeAlias = Literal["sync"] | AsyncKind
# A transport of httpx2 that the app hands in.
Httpx2Kind: TypeAlias = Literal["httpx2", "async httpx2"]
ASYNC_KINDS: Final[tuple[AsyncKind, ...]] = get_args(AsyncKind)
KINDS: Final[tuple[Kind, ...]] = ("sync", *ASYNC_KINDS)
HTTPX2_KINDS: Final[tuple[Httpx2Kind, ...]] = get_args(Httpx2Kind)

INVOCATION = {"x-forge-invocation-id": "invocation-123"}
# Waits that are too short to slow down a test.
QUICK = RetryPolicy(backoff_initial=0.001, backoff_max=0.01)


def async_client(kind: AsyncKind, url: str | None = None, **settings: Any) -> AsyncRealtimeClient:
    """Return an asyncio client that uses httpx or aiohttp."""
    return AsyncRealtimeClient(url, transport="httpx" if kind == "async" else "aiohttp", **settings)


class Caller:
    """Makes calls on one client, and returns the result or the error of each."""

    def __init__(self, kind: Kind | Httpx2Kind) -> None:
        self.kind = kind

    def __call__(
        self, url: str, *calls: Callable[[Any], Any], retry: RetryPolicy = QUICK, cache_tokens: bool = False
    ) -> list[Any]:
        if self.kind in ("sync", "httpx2"):
            transport = None
            if self.kind == "httpx2":
                transport = pytest.importorskip("httpx2").HTTPTransport(verify=False)
            with RealtimeClient(url, retry=retry, cache_tokens=cache_tokens, transport=transport) as client:
                return [_outcome(call, client.for_invocation(INVOCATION)) for call in calls]

        async def run() -> list[Any]:
            client = self._async_client(url, retry=retry, cache_tokens=cache_tokens)
            async with client:
                return [await _async_outcome(call, client.for_invocation(INVOCATION)) for call in calls]

        return asyncio.run(run())

    def _async_client(self, url: str, **settings: Any) -> AsyncRealtimeClient:
        if self.kind == "async httpx2":
            transport = pytest.importorskip("httpx2").AsyncHTTPTransport(verify=False)
            return AsyncRealtimeClient(url, transport=transport, **settings)
        return async_client("aiohttp" if self.kind == "aiohttp" else "async", url, **settings)


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
