"""The two clients: one with blocking I/O, one with asyncio. Names and meaning are the same in both."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import httpx

from ._api.api.forge_realtime import publish as _publish
from ._api.api.forge_realtime import publish_global as _publish_global
from ._api.api.forge_realtime import sign_realtime_token as _sign_realtime_token
from ._base import AsyncForgeClient, AsyncTransport, BaseClient, ForgeClient
from ._call import Steps
from ._operations import (
    Payload,
    Permission,
    publish_global_request,
    publish_request,
    publish_result,
    realtime_token,
    sign_realtime_token_request,
)
from ._results import PublishResult, RealtimeToken
from ._retry import RetryPolicy
from ._tokens import TokenCache


class _Realtime(BaseClient[Any]):
    """How the named operations begin."""

    _INVOCATION_ONLY: ClassVar[frozenset[object]] = frozenset({_publish})
    _HARMLESS_TWICE: ClassVar[frozenset[object]] = frozenset({_sign_realtime_token})

    def _publish_steps(
        self,
        channel: str,
        payload: Payload,
        token: str | RealtimeToken | None,
        context_overrides: Sequence[str] | None,
    ) -> Steps[PublishResult]:
        body = publish_request(channel, payload, token, context_overrides)
        return self._steps(_publish, self._prepare(_publish, body=body), publish_result)

    def _publish_global_steps(
        self, channel: str, payload: Payload, token: str | RealtimeToken | None
    ) -> Steps[PublishResult]:
        body = publish_global_request(channel, payload, token)
        return self._steps(_publish_global, self._prepare(_publish_global, body=body), publish_result)

    def _sign_steps(
        self, channel: str, claims: Mapping[str, Any], permissions: Iterable[Permission] | None
    ) -> tuple[Steps[RealtimeToken], Hashable]:
        """The steps, and what makes the token the one that it is."""
        body = sign_realtime_token_request(channel, claims, permissions)
        prepared = self._prepare(_sign_realtime_token, body=body)
        # With the address, which the environment may have changed since; the headers say on whose behalf.
        key = (str(prepared.url), *prepared.headers, prepared.content)
        return self._steps(_sign_realtime_token, prepared, realtime_token), key


class RealtimeClient(_Realtime, ForgeClient):
    """A client with blocking I/O.

    Make one for the life of the process, and from it a sibling for each invocation or installation. It is thread-safe.

    Args:
        base_url: The address of the egress sidecar; by default what the environment variable `FORGE_EGRESS_PROXY_URL`,
            which the platform sets in the container, says at each call.
        retry: When a call is tried again; by default `RetryPolicy()`.
        transport: Any httpx transport, in place of the client's own connections.
        http_client: An httpx client to send with: its event hooks, headers, authentication and proxies take part. It
            stays its owner's to close.
        cache_tokens: Whether `sign_realtime_token` keeps what it signed for the same invocation or installation, channel,
            claims and permissions, until a tenth of its life is left.

    Raises:
        UsageError: The address is not an http(s) URL, or an argument is of another type.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        retry: RetryPolicy | None = None,
        transport: httpx.BaseTransport | None = None,
        http_client: httpx.Client | None = None,
        cache_tokens: bool = False,
    ) -> None:
        super().__init__(base_url, retry=retry, transport=transport, http_client=http_client)
        self._tokens = TokenCache() if cache_tokens else None

    def publish(
        self,
        channel: str,
        payload: Payload,
        *,
        token: str | RealtimeToken | None = None,
        context_overrides: Sequence[str] | None = None,
    ) -> PublishResult:
        """Publishes an event to the subscribers of a channel in the context of the invocation.

        Args:
            channel: The channel's name; case-sensitive.
            payload: A `str` travels as it is; anything else is encoded as JSON.
            token: A token signed with the claims that the subscribers' tokens have too.
            context_overrides: Names of the parts of the context (such as `"issue"`, `"project"`) that replace the default
                scope; they must be exactly those of the subscribers. `[]` stands for no context at all.

        Returns:
            The event's id and time, both None when nobody was subscribed.

        Raises:
            UsageError: Something was refused before it was sent, for example a payload that cannot be JSON.
            ForgeRealtimeError: The call failed; `delivery` says whether the event may have arrived.
        """
        return self._run(self._publish_steps(channel, payload, token, context_overrides))

    def publish_global(
        self, channel: str, payload: Payload, *, token: str | RealtimeToken | None = None
    ) -> PublishResult:
        """Publishes an event to the global subscribers of a channel, in the whole installation.

        Args:
            channel: The channel's name; case-sensitive.
            payload: A `str` travels as it is; anything else is encoded as JSON.
            token: A token signed with the claims that the subscribers' tokens have too.

        Returns:
            The event's id and time, both None when nobody was subscribed.

        Raises:
            UsageError: Something was refused before it was sent, for example a payload that cannot be JSON.
            ForgeRealtimeError: The call failed; `delivery` says whether the event may have arrived.
        """
        return self._run(self._publish_global_steps(channel, payload, token))

    def sign_realtime_token(
        self, channel: str, claims: Mapping[str, Any], permissions: Iterable[Permission] | None = None
    ) -> RealtimeToken:
        """Signs a token that ties publishers and subscribers of a channel together by their claims.

        Args:
            channel: The channel's name; case-sensitive.
            claims: What must match exactly between publisher and subscriber.
            permissions: `"subscribe"`, `"publish"` or both; both when left out.

        Raises:
            UsageError: Something was refused before it was sent, for example claims that cannot be JSON.
            ForgeRealtimeError: The call failed. Signing is tried again in every case in which it may help.
        """
        steps, key = self._sign_steps(channel, claims, permissions)
        if self._tokens is None:
            return self._run(steps)
        return self._tokens.get(key, lambda: self._run(steps), self._retry.deadline)


class AsyncRealtimeClient(_Realtime, AsyncForgeClient):
    """A client with asyncio. Names and meaning are those of `RealtimeClient`; it is safe to use from many tasks.

    Args:
        base_url: The address of the egress sidecar; by default what the environment variable `FORGE_EGRESS_PROXY_URL`,
            which the platform sets in the container, says at each call.
        retry: When a call is tried again; by default `RetryPolicy()`.
        transport: `"aiohttp"` or `"httpx"`: whose connections are used; by default those of aiohttp, which take half the
            time, where it is installed (`forge-realtime[aiohttp]`). Or any asynchronous httpx transport in their place.
        http_client: An asynchronous httpx client to send with: its event hooks, headers, authentication and proxies take
            part. It stays its owner's to close.
        cache_tokens: Whether `sign_realtime_token` keeps what it signed, as `RealtimeClient` describes it.

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
    ) -> None:
        super().__init__(base_url, retry=retry, transport=transport, http_client=http_client)
        self._tokens = TokenCache() if cache_tokens else None

    async def publish(
        self,
        channel: str,
        payload: Payload,
        *,
        token: str | RealtimeToken | None = None,
        context_overrides: Sequence[str] | None = None,
    ) -> PublishResult:
        """As `RealtimeClient.publish`."""
        return await self._run(self._publish_steps(channel, payload, token, context_overrides))

    async def publish_global(
        self, channel: str, payload: Payload, *, token: str | RealtimeToken | None = None
    ) -> PublishResult:
        """As `RealtimeClient.publish_global`."""
        return await self._run(self._publish_global_steps(channel, payload, token))

    async def sign_realtime_token(
        self, channel: str, claims: Mapping[str, Any], permissions: Iterable[Permission] | None = None
    ) -> RealtimeToken:
        """As `RealtimeClient.sign_realtime_token`."""
        steps, key = self._sign_steps(channel, claims, permissions)
        if self._tokens is None:
            return await self._run(steps)
        return await self._tokens.aget(key, lambda: self._run(steps), self._retry.deadline)
