"""What the blocking and the asyncio Realtime client share: settings, and the flows of the named operations."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Final, Self

from attrs import field, frozen

from .._api.api.forge_realtime import publish as _publish
from .._api.api.forge_realtime import publish_global as _publish_global
from .._api.api.forge_realtime import sign_realtime_token as _sign_realtime_token
from .._client.forge import BaseClient, ClientSettings
from .._core.call import Flow, RateLimiter, operation_name
from .._core.encoding import Payload
from .._core.errors import UsageError
from .._core.retry import RetryPolicy
from .._quota.limiter import Quota, QuotaLimiter
from .._streams.buffer import PublishSlot
from .operations import (
    Permission,
    publish_global_request,
    publish_request,
    publish_result,
    realtime_token,
    sign_realtime_token_request,
)
from .results import PublishResult, RealtimeToken

_UNCHANGED: Final[Any] = object()
_STREAM_QUOTA: Final = Quota()


def _check_quota(_instance: object, _attribute: object, value: Quota | None) -> None:
    if value is not None and not isinstance(value, Quota):
        raise UsageError("quota takes a Quota, for example Quota(per_second=40.0), or None.")


@frozen(kw_only=True)
class RealtimeSettings(ClientSettings):
    """Settings of one Realtime client; `quota` None disables the rate limit."""

    quota: Quota | None = field(default=None, validator=_check_quota)


class BaseRealtimeClient(BaseClient[Any]):
    """Settings and flows of the named operations."""

    _INVOCATION_ONLY: ClassVar[frozenset[object]] = frozenset({_publish})
    _HARMLESS_TWICE: ClassVar[frozenset[object]] = frozenset({_sign_realtime_token})

    @property
    def quota(self) -> Quota | None:
        """Rate limit for calls; None disables it."""
        assert isinstance(self._settings, RealtimeSettings)
        return self._settings.quota

    def with_options(self, *, retry: RetryPolicy = _UNCHANGED, quota: Quota | None = _UNCHANGED) -> Self:
        """Return a sibling with another retry policy or quota. It shares the connections and is cheap to make.

        Args:
            retry: When calls are retried; unchanged by default.
            quota: Rate limit for calls; None disables it. Unchanged by default.

        Raises:
            UsageError: An argument has the wrong type.
        """
        changes = {"retry": retry, "quota": quota}
        return self._sibling(**{name: value for name, value in changes.items() if value is not _UNCHANGED})

    def _limiter(self, operation: object) -> RateLimiter | None:
        if (quota := self.quota) is None:
            return None
        return QuotaLimiter(quota, self._address(), self._acting(operation_name(operation)), stream=False)

    def _publish_flow(
        self,
        channel: str,
        payload: Payload,
        token: str | RealtimeToken | None,
        context_overrides: Sequence[str] | None,
        *,
        retry: RetryPolicy | None = None,
        limiter: RateLimiter | None = None,
    ) -> Flow[PublishResult]:
        body = publish_request(channel, payload, token, context_overrides)
        prepared = self._prepare(_publish, body=body)
        return self._flow(_publish, prepared, publish_result, retry=retry, limiter=limiter)

    def _publish_global_flow(
        self,
        channel: str,
        payload: Payload,
        token: str | RealtimeToken | None,
        *,
        retry: RetryPolicy | None = None,
        limiter: RateLimiter | None = None,
    ) -> Flow[PublishResult]:
        body = publish_global_request(channel, payload, token)
        prepared = self._prepare(_publish_global, body=body)
        return self._flow(_publish_global, prepared, publish_result, retry=retry, limiter=limiter)

    def _stream_slots(
        self, channel: str, token: str | RealtimeToken | None, context_overrides: Sequence[str] | None
    ) -> Callable[[], PublishSlot]:
        live = self._sibling(authorization=self._acting("stream"))
        publish = partial(live._publish_flow, channel, token=token, context_overrides=context_overrides)  # noqa: SLF001 (own class)
        return self._slots(publish)

    def _global_stream_slots(self, channel: str, token: str | RealtimeToken | None) -> Callable[[], PublishSlot]:
        live = self._sibling(authorization=self._acting("stream"))
        return self._slots(partial(live._publish_global_flow, channel, token=token))  # noqa: SLF001 (own class)

    def _slots(self, publish: Callable[..., Flow[PublishResult]]) -> Callable[[], PublishSlot]:
        """Return a function that makes the slots in which a stream publishes."""
        # Refuse at once what would be refused later.
        publish("").close()
        acting = self._acting("stream")
        instrument = self._settings.instrument

        def reserve(limiter: QuotaLimiter, until: float) -> Flow[bool]:
            waiting = limiter.reserve(until)
            return waiting if instrument is None else instrument.wait_for_quota(waiting)

        def slot() -> PublishSlot:
            limiter = QuotaLimiter(self.quota or _STREAM_QUOTA, self._address(), acting, stream=True)
            return PublishSlot(
                partial(reserve, limiter), lambda payload, retry: publish(payload, retry=retry, limiter=limiter)
            )

        return slot

    def _sign_flow(
        self, channel: str, claims: Mapping[str, Any], permissions: Iterable[Permission] | None
    ) -> tuple[Flow[RealtimeToken], Hashable]:
        """Return the flow, and a key of all that makes the token what it is."""
        body = sign_realtime_token_request(channel, claims, permissions)
        prepared = self._prepare(_sign_realtime_token, body=body)
        # The address belongs to it, since the environment may change it; the headers say whom the token is for.
        key = (str(prepared.url), *prepared.headers, prepared.content)
        return self._flow(_sign_realtime_token, prepared, realtime_token), key
