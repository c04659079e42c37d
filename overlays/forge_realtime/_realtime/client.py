"""The client for Realtime with blocking I/O, and what it has in common with the one with asyncio."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import httpx

from .._api.api.forge_realtime import publish as _publish
from .._api.api.forge_realtime import publish_global as _publish_global
from .._api.api.forge_realtime import sign_realtime_token as _sign_realtime_token
from .._client.forge import BaseClient, ForgeClient
from .._core.call import Flow, operation_name
from .._core.encoding import Payload
from .._core.errors import UsageError
from .._core.retry import RetryPolicy
from .._quota.limiter import Quota, QuotaLimiter
from .._streams.buffer import Merge, Overflow, PublishSlot, StreamOptions
from .._streams.worker import StreamWorker
from .operations import (
    Permission,
    publish_global_request,
    publish_request,
    publish_result,
    realtime_token,
    sign_realtime_token_request,
)
from .results import PublishResult, RealtimeToken
from .tokens import TokenCache

if TYPE_CHECKING:
    from .._streams.stream import Stream

_UNCHANGED: Final[Any] = object()
_QUOTA_OF_STREAMS: Final = Quota()


class BaseRealtimeClient(BaseClient[Any]):
    """How the named operations begin."""

    _INVOCATION_ONLY: ClassVar[frozenset[object]] = frozenset({_publish})
    _HARMLESS_TWICE: ClassVar[frozenset[object]] = frozenset({_sign_realtime_token})

    _quota: Quota | None
    _reserved: QuotaLimiter | None = None

    @property
    def quota(self) -> Quota | None:
        """How many operations may begin; None: plain calls are not held."""
        return self._quota

    def with_options(self, *, retry: RetryPolicy = _UNCHANGED, quota: Quota | None = _UNCHANGED) -> Self:
        """Returns a sibling with another policy for retries or another quota. It shares the connections; making one is cheap.

        Args:
            retry: When a call is tried again; by default as before.
            quota: How many operations may begin; None: plain calls are not held. By default as before.
        """
        sibling = self if retry is _UNCHANGED else super().with_options(retry=retry)
        return sibling if quota is _UNCHANGED else sibling._sibling(_quota=checked_quota(quota))

    def _limiter(self, operation: object) -> QuotaLimiter | None:
        if self._reserved is not None or self._quota is None:
            return self._reserved
        return QuotaLimiter(self._quota, self._address(), self._acting(operation_name(operation)), stream=False)

    def _stream_limiter(self) -> QuotaLimiter:
        quota = _QUOTA_OF_STREAMS if self._quota is None else self._quota
        return QuotaLimiter(quota, self._address(), self._acting("stream"), stream=True)

    def _publish_flow(
        self,
        channel: str,
        payload: Payload,
        token: str | RealtimeToken | None,
        context_overrides: Sequence[str] | None,
    ) -> Flow[PublishResult]:
        body = publish_request(channel, payload, token, context_overrides)
        return self._flow(_publish, self._prepare(_publish, body=body), publish_result)

    def _publish_global_flow(
        self, channel: str, payload: Payload, token: str | RealtimeToken | None
    ) -> Flow[PublishResult]:
        body = publish_global_request(channel, payload, token)
        return self._flow(_publish_global, self._prepare(_publish_global, body=body), publish_result)

    def _stream_slots(
        self, channel: str, token: str | RealtimeToken | None, context_overrides: Sequence[str] | None
    ) -> Callable[[], PublishSlot]:
        return self._slots_of(lambda live, payload: live._publish_flow(channel, payload, token, context_overrides))

    def _global_stream_slots(self, channel: str, token: str | RealtimeToken | None) -> Callable[[], PublishSlot]:
        return self._slots_of(lambda live, payload: live._publish_global_flow(channel, payload, token))

    def _slots_of(self, publish: Callable[[BaseRealtimeClient, str], Flow[PublishResult]]) -> Callable[[], PublishSlot]:
        """How a stream publishes, on behalf of whom it is made for."""
        live = self._sibling(_authorization=self._acting("stream"))
        # Refuses at once what would be refused later.
        publish(live, "").close()

        def slot() -> PublishSlot:
            limiter = live._stream_limiter()
            holder = live._sibling(_reserved=limiter)
            return PublishSlot(
                limiter.reserve, lambda payload, retry: publish(holder.with_options(retry=retry), payload)
            )

        return slot

    def _sign_flow(
        self, channel: str, claims: Mapping[str, Any], permissions: Iterable[Permission] | None
    ) -> tuple[Flow[RealtimeToken], Hashable]:
        """The flow, and what makes the token the one that it is."""
        body = sign_realtime_token_request(channel, claims, permissions)
        prepared = self._prepare(_sign_realtime_token, body=body)
        # With the address, which the environment may have changed since; the headers say on whose behalf.
        key = (str(prepared.url), *prepared.headers, prepared.content)
        return self._flow(_sign_realtime_token, prepared, realtime_token), key


class RealtimeClient(BaseRealtimeClient, ForgeClient):
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
        quota: How many operations of an installation may begin; the others wait within their deadline. By default plain
            calls are not held.

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
        quota: Quota | None = None,
    ) -> None:
        super().__init__(base_url, retry=retry, transport=transport, http_client=http_client)
        self._tokens = TokenCache() if cache_tokens else None
        self._quota = checked_quota(quota)
        self._stream_worker = StreamWorker(self._pool)

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
        return self._run(self._publish_flow(channel, payload, token, context_overrides))

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
        return self._run(self._publish_global_flow(channel, payload, token))

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
    ) -> Stream:
        """Makes a stream: updates are sent as fast as they come, and published merged, in order and envelope.

        The first update goes out at once; then there is a publish each `interval` seconds, if anything is pending. Each
        carries an envelope that the front end's `onStream` reads. What fails for a while is sent again, under the same
        number, for as long as the block runs. Streams of a client that has no quota keep to `Quota()`.

        Args:
            channel: The channel's name; case-sensitive.
            merge: What becomes of updates that are published together: `"append"` joins texts, of `"latest"` the last one
                wins, `"batch"` makes a list. Or a function that makes one update of two, which it gets as JSON has them (lists
                for tuples, say), and calls nothing of the stream.
            interval: Seconds between two publishes, at least; 0: each begins when the last one is done.
            max_bytes: As soon as so many bytes of JSON are pending, they are published without waiting. One event carries
                more only if it is a single update.
            max_pending: How many updates may be pending; their bytes may be 64 times `max_bytes`. With `"latest"` or a
                function there is never more than one.
            overflow: What `send` does when there is no room: `"wait"`; `"merge"` what is pending into as few events as
                `max_bytes` allows, and wait only if that is not enough; `"drop_oldest"`; or `"raise"` a StreamFullError.
            deadline: Seconds that the end of the block, a flush, or a `send` that waits may take.
            token: A token signed with the claims that the subscribers' tokens have too.
            context_overrides: As for `publish`.

        Returns:
            The stream, to be used once, as a context manager. At the end of the block it publishes what is pending and an
            end mark, which has the name of the exception's type if the block raised. It tries that for a second only if the
            block was interrupted or cancelled.

        Raises:
            UsageError: Something was refused before anything was sent.
            StreamError: From the end of the block: not everything was published; `report` says what became of the updates.
                It never takes the place of an exception of the block itself.
        """
        options = StreamOptions(
            merge=merge,
            interval=interval,
            max_bytes=max_bytes,
            max_pending=max_pending,
            overflow=overflow,
            deadline=deadline,
        )
        return self._stream(options, self._stream_slots(channel, token, context_overrides))

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
    ) -> Stream:
        """As `stream`, to the global subscribers of a channel. For an installation it is the only one."""
        options = StreamOptions(
            merge=merge,
            interval=interval,
            max_bytes=max_bytes,
            max_pending=max_pending,
            overflow=overflow,
            deadline=deadline,
        )
        return self._stream(options, self._global_stream_slots(channel, token))

    def _stream(self, options: StreamOptions, slots: Callable[[], PublishSlot]) -> Stream:
        # It loads asyncio, which nothing else here needs.
        from .._streams.stream import Stream

        return Stream(options, slots, self._retry, self._stream_worker)

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
        flow, key = self._sign_flow(channel, claims, permissions)
        if self._tokens is None:
            return self._run(flow)
        return self._tokens.get(key, lambda: self._run(flow), self._retry.deadline)


def checked_quota(quota: Quota | None) -> Quota | None:
    if quota is not None and not isinstance(quota, Quota):
        raise UsageError("quota takes a Quota, for example Quota(per_second=40.0), or None.")
    return quota
