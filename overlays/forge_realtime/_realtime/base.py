"""What the blocking and the asyncio Realtime client share: the flows of the named operations.

The generated code, tokens, the quota, streams and all that uses attrs are imported when the first client is made: they
take as long as half of httpx.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self, cast

from .._client.forge import UNCHANGED, BaseClient
from .._core.call import Flow, PreparedRequest, RateLimiter, operation_name
from .._core.clock import monotonic
from .._core.encoding import Encode
from .._core.errors import Delivery, ForgeRealtimeError, RejectedError
from .._core.hidden import Hidden

if TYPE_CHECKING:
    from .._core.attempts import Attempt
    from .._core.policy import RetryPolicy
    from .._core.stop import StreamHandle
    from .._quota.limiter import Quota
    from .._streams.buffer import PublishSlot
    from .operations import Permission
    from .private import PrivateChannel
    from .results import PublishResult, RealtimeToken
    from .settings import RealtimeSettings
    from .tokens import PlatformClock, TokenCache, TokenKey

_OPERATIONS: Final = f"{__name__.removesuffix('._realtime.base')}._api.api.forge_realtime"


def _numbered(attempts: tuple[Attempt, ...]) -> tuple[Attempt, ...]:
    from attrs import evolve

    return tuple(evolve(attempt, number=number) for number, attempt in enumerate(attempts, 1))


class BaseRealtimeClient(BaseClient[Any]):
    """Settings and flows of the named operations."""

    _INVOCATION_ONLY: ClassVar[frozenset[str]] = frozenset({f"{_OPERATIONS}.publish"})
    _HARMLESS_TWICE: ClassVar[frozenset[str]] = frozenset({f"{_OPERATIONS}.sign_realtime_token"})

    _clock: PlatformClock
    _tokens: TokenCache | None

    def _set_up_tokens(self, cache_tokens: bool) -> None:  # noqa: FBT001 (as the constructors have it)
        # All that a call would import.
        from .._quota import limiter  # noqa: F401 (see above)
        from .._streams import buffer  # noqa: F401 (see above)
        from . import operations, private  # noqa: F401 (see above)
        from .tokens import PlatformClock, TokenCache

        self._clock = PlatformClock()
        self._tokens = TokenCache(self._clock) if cache_tokens else None

    @property
    def quota(self) -> Quota | None:
        """Rate limit for calls; None disables it."""
        return cast("RealtimeSettings", self._settings).quota

    @property
    def _encode(self) -> Encode | None:
        return cast("RealtimeSettings", self._settings).encode

    def with_options(
        self,
        *,
        retry: RetryPolicy = UNCHANGED,
        quota: Quota | None = UNCHANGED,
        encode: Encode | None = UNCHANGED,
        show_response: bool = UNCHANGED,
    ) -> Self:
        """Return a sibling with other options. It shares the connections and is cheap to make.

        Args:
            retry: When calls are retried; unchanged by default.
            quota: Rate limit for calls; None disables it. Unchanged by default.
            encode: Encodes payloads other than `str`; None for the `json` module. Unchanged by default.
            show_response: Whether the message of an error quotes the platform's response; unchanged by default.

        Raises:
            UsageError: An argument has the wrong type.
        """
        return self._with(retry=retry, quota=quota, encode=encode, show_response=show_response)

    def _limiter(self, operation: object) -> RateLimiter | None:
        if (quota := self.quota) is None:
            return None
        from .._quota.limiter import QuotaLimiter

        return QuotaLimiter(quota, self._address(), self._acting(operation_name(operation)), stream=False)

    def _publish_flow(
        self,
        channel: str,
        payload: Hidden[Any],
        token: Hidden[Any],
        context_overrides: Sequence[str] | None,
        *,
        retry: RetryPolicy | None = None,
        limiter: RateLimiter | None = None,
        renew: bool = True,
    ) -> Flow[PublishResult]:
        from . import operations

        encode, clock = self._encode, self._clock
        prepared = self._prepare(
            operations.publish,
            body=operations.publish_request(channel, payload, token, context_overrides, encode=encode, clock=clock),
        )
        flow = self._flow(operations.publish, prepared, operations.publish_result, retry=retry, limiter=limiter)
        if token.value is None or self._tokens is None or not renew:
            return flow
        again = partial(self._publish_flow, channel, payload, token, context_overrides, limiter=limiter, renew=False)
        return self._renewing_flow(flow, again, token, retry or self.retry)

    def _publish_global_flow(
        self,
        channel: str,
        payload: Hidden[Any],
        token: Hidden[Any],
        *,
        retry: RetryPolicy | None = None,
        limiter: RateLimiter | None = None,
        renew: bool = True,
    ) -> Flow[PublishResult]:
        from . import operations

        encode, clock = self._encode, self._clock
        prepared = self._prepare(
            operations.publish_global,
            body=operations.publish_global_request(channel, payload, token, encode=encode, clock=clock),
        )
        flow = self._flow(operations.publish_global, prepared, operations.publish_result, retry=retry, limiter=limiter)
        if token.value is None or self._tokens is None or not renew:
            return flow
        again = partial(self._publish_global_flow, channel, payload, token, limiter=limiter, renew=False)
        return self._renewing_flow(flow, again, token, retry or self.retry)

    def _renewing_flow(
        self,
        flow: Flow[PublishResult],
        again: Callable[..., Flow[PublishResult]],
        token: Hidden[Any],
        policy: RetryPolicy,
    ) -> Flow[PublishResult]:
        """Publish with a token. If the platform refuses a cached one as expired, sign it anew and publish once more."""
        deadline = monotonic() + policy.deadline
        try:
            return (yield from flow)
        except RejectedError as error:
            key = self._drop_expired(token, error)
            if key is None:
                raise
            refused = error
        from attrs import evolve

        def remaining() -> RetryPolicy:
            return evolve(policy, deadline=max(0.001, deadline - monotonic()))

        assert self._tokens is not None
        try:
            # Its attempts are not those of the event, so the policy's hook does not see them.
            sign = self._sign_prepared_flow(key.prepared, evolve(remaining(), on_attempt=None))
            # A stream goes on with it.
            token.value = yield from self._tokens.get(key, sign, deadline)
        except ForgeRealtimeError:
            raise refused from None
        try:
            result = yield from again(retry=remaining())
        except ForgeRealtimeError as error:
            error.attempts = _numbered(refused.attempts + error.attempts)
            raise
        return evolve(result, attempts=_numbered(refused.attempts + result.attempts))

    def _drop_expired(self, token: Hidden[Any], error: RejectedError) -> TokenKey | None:
        """Forget a cached token that was refused as expired, and return what it was signed for."""
        if self._tokens is None or error.code != "TOKEN_EXPIRED" or error.delivery is not Delivery.REJECTED:
            return None
        from .results import RealtimeToken
        from .tokens import TokenKey

        text = Hidden(token.value.token if isinstance(token.value, RealtimeToken) else token.value)
        key = self._tokens.drop(text.value)
        return key if isinstance(key, TokenKey) else None

    def _stream_slots(
        self, channel: str, token: str | RealtimeToken | None, context_overrides: Sequence[str] | None
    ) -> Callable[[], PublishSlot]:
        wrapped_token = Hidden(token)
        del token
        live = self._acting_for(self._acting("stream"))
        publish = partial(live._publish_flow, channel, token=wrapped_token, context_overrides=context_overrides)  # noqa: SLF001 (own class)
        return self._slots(publish)

    def _global_stream_slots(self, channel: str, token: str | RealtimeToken | None) -> Callable[[], PublishSlot]:
        wrapped_token = Hidden(token)
        del token
        live = self._acting_for(self._acting("stream"))
        return self._slots(partial(live._publish_global_flow, channel, token=wrapped_token))  # noqa: SLF001 (own class)

    def _slots(self, publish: Callable[..., Flow[PublishResult]]) -> Callable[[], PublishSlot]:
        """Return a function that makes the slots in which a stream publishes."""
        # Refuse at once what would be refused later.
        publish(Hidden("")).close()
        from .._quota.limiter import Quota, QuotaLimiter
        from .._streams.buffer import PublishSlot

        acting, instrument, stream_quota = self._acting("stream"), self._settings.instrument, Quota()

        def slot() -> PublishSlot:
            limiter = QuotaLimiter(self.quota or stream_quota, self._address(), acting, stream=True)

            def reserve(until: float) -> Flow[bool]:
                waiting = limiter.reserve(until)
                return waiting if instrument is None else instrument.wait_for_quota(waiting)

            return PublishSlot(
                reserve,
                lambda text, retry: publish(Hidden(text), retry=retry, limiter=limiter),
                limiter.skip_hold,
            )

        return slot

    def _sign_flow(
        self, channel: str, claims: Hidden[Mapping[str, Any]], permissions: Iterable[Permission] | None
    ) -> Flow[RealtimeToken]:
        from . import operations
        from .tokens import TokenKey

        prepared = self._prepare(
            operations.sign_realtime_token, body=operations.sign_realtime_token_request(channel, claims, permissions)
        )
        flow = self._sign_prepared_flow(prepared, self.retry)
        if self._tokens is None:
            return flow
        # The address belongs to it, since the environment may change it; the headers say whom the token is for.
        key = TokenKey((str(prepared.url), *prepared.headers.raw, prepared.content), prepared)
        return self._tokens.get(key, flow, monotonic() + self.retry.deadline)

    def _sign_prepared_flow(self, prepared: PreparedRequest, retry: RetryPolicy) -> Flow[RealtimeToken]:
        from . import operations

        convert = partial(operations.realtime_token, self._clock)
        return self._flow(operations.sign_realtime_token, prepared, convert, retry=retry)

    def _private_channel(
        self, channel: str, claims: Hidden[Mapping[str, Any] | None], stop_path: str
    ) -> PrivateChannel:
        from .._quota.limiter import Quota, QuotaLimiter
        from .private import PrivateChannel

        acting = self._acting("private_stream")
        limiter = QuotaLimiter(self.quota or Quota(), self._address(), acting, stream=True)
        live = self._acting_for(acting)
        return PrivateChannel(channel, claims, live, limiter.find_installation, stop_path)

    def _private_slots(self, private: PrivateChannel) -> Callable[[], PublishSlot]:
        return private.paying._slots(private.publish)  # noqa: SLF001 (own class)

    def _renewal(self, handle: Mapping[str, Any]) -> Flow[StreamHandle] | None:
        """Return the flow that renews a handle; None if no stream of this process has it."""
        from .._core.stop import private_streams

        found = Hidden(handle)
        del handle
        # It comes from a page: anything else than a handle is none of ours.
        stop = Hidden(found.value.get("stop") if isinstance(found.value, Mapping) else None)
        if not isinstance(stop.value, Mapping):
            return None
        stream = private_streams.find(found.value.get("stream"), stop.value.get("secret"))
        return None if stream is None else stream._renewal(self)  # noqa: SLF001 (not for the app)
