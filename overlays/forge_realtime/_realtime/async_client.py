"""The client for Realtime with asyncio. Names and meaning are those of `RealtimeClient`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import httpx

from .._client.async_forge import AsyncForgeClient, AsyncTransport
from .._core.encoding import Payload
from .._core.retry import RetryPolicy
from .._quota.limiter import Quota
from .._streams.async_stream import AsyncStream
from .._streams.buffer import Merge, Overflow, StreamOptions
from .client import BaseRealtimeClient, checked_quota
from .operations import Permission
from .results import PublishResult, RealtimeToken
from .tokens import TokenCache


class AsyncRealtimeClient(BaseRealtimeClient, AsyncForgeClient):
    """A client with asyncio. Names and meaning are those of `RealtimeClient`; it is safe to use from many tasks.

    Args:
        base_url: The address of the egress sidecar; by default what the environment variable `FORGE_EGRESS_PROXY_URL`,
            which the platform sets in the container, says at each call.
        retry: When a call is tried again; by default `RetryPolicy()`.
        transport: `"aiohttp"` or `"httpx"`: whose connections are used; by default those of aiohttp, which take a third
            less time, where it is installed (`forge-realtime[aiohttp]`). Or any asynchronous httpx transport in their place.
        http_client: An asynchronous httpx client to send with: its event hooks, headers, authentication and proxies take
            part. It stays its owner's to close.
        cache_tokens: Whether `sign_realtime_token` keeps what it signed, as `RealtimeClient` describes it.
        quota: How many operations of an installation may begin, as `RealtimeClient` describes it.

    Raises:
        UsageError: The address is not an http(s) URL, or an argument is of another type.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        retry: RetryPolicy | None = None,
        transport: AsyncTransport | None = None,
        http_client: httpx.AsyncClient | None = None,
        cache_tokens: bool = False,
        quota: Quota | None = None,
    ) -> None:
        super().__init__(base_url, retry=retry, transport=transport, http_client=http_client)
        self._tokens = TokenCache() if cache_tokens else None
        self._quota = checked_quota(quota)

    async def publish(
        self,
        channel: str,
        payload: Payload,
        *,
        token: str | RealtimeToken | None = None,
        context_overrides: Sequence[str] | None = None,
    ) -> PublishResult:
        """As `RealtimeClient.publish`."""
        return await self._run(self._publish_flow(channel, payload, token, context_overrides))

    async def publish_global(
        self, channel: str, payload: Payload, *, token: str | RealtimeToken | None = None
    ) -> PublishResult:
        """As `RealtimeClient.publish_global`."""
        return await self._run(self._publish_global_flow(channel, payload, token))

    def stream(
        self,
        channel: str,
        *,
        merge: Merge = "append",
        interval: float = 0.25,
        max_bytes: int = 16_384,
        max_pending: int = 1_000,
        overflow: Overflow = "wait",
        deadline: float = 10.0,
        token: str | RealtimeToken | None = None,
        context_overrides: Sequence[str] | None = None,
    ) -> AsyncStream:
        """As `RealtimeClient.stream`."""
        options = StreamOptions(
            merge=merge,
            interval=interval,
            max_bytes=max_bytes,
            max_pending=max_pending,
            overflow=overflow,
            deadline=deadline,
        )
        return AsyncStream(options, self._stream_slots(channel, token, context_overrides), self._run, self._retry)

    def stream_global(
        self,
        channel: str,
        *,
        merge: Merge = "append",
        interval: float = 0.25,
        max_bytes: int = 16_384,
        max_pending: int = 1_000,
        overflow: Overflow = "wait",
        deadline: float = 10.0,
        token: str | RealtimeToken | None = None,
    ) -> AsyncStream:
        """As `RealtimeClient.stream_global`."""
        options = StreamOptions(
            merge=merge,
            interval=interval,
            max_bytes=max_bytes,
            max_pending=max_pending,
            overflow=overflow,
            deadline=deadline,
        )
        return AsyncStream(options, self._global_stream_slots(channel, token), self._run, self._retry)

    async def sign_realtime_token(
        self, channel: str, claims: Mapping[str, Any], permissions: Iterable[Permission] | None = None
    ) -> RealtimeToken:
        """As `RealtimeClient.sign_realtime_token`."""
        flow, key = self._sign_flow(channel, claims, permissions)
        if self._tokens is None:
            return await self._run(flow)
        return await self._tokens.aget(key, lambda: self._run(flow), self._retry.deadline)
