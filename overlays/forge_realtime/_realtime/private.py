"""Private streams: a global channel that one page can read, and the tokens for it."""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

from attrs import evolve

from .._core.call import Flow, RateLimiter
from .._core.clock import monotonic
from .._core.encoding import encode_json
from .._core.errors import ForgeRealtimeError, InvalidTokenError, RejectedError, UsageError
from .._core.hidden import Hidden
from .._core.policy import RetryPolicy
from .._core.stop import STOP_PATH, StreamHandle
from . import operations
from .results import PublishResult, RealtimeToken

if TYPE_CHECKING:
    from .base import BaseRealtimeClient

T = TypeVar("T")
# Seconds until a renewal that failed is tried again, while the token is still valid.
_RENEWAL_PAUSE: Final = 1.0
_OWN_CLAIMS: Final = ("channel", "nonce")


class PrivateChannel:
    """A global channel with claims that no other stream has, and the token to publish to it.

    Args:
        name: Name of the channel.
        claims: Further claims of the app.
        live: The client to act with.
        find_installation: Looks up the installation, for which the stream goes on once the platform has refused the
            invocation of `live`.
        stop_path: Where the page stops the stream.
    """

    def __init__(
        self,
        name: str,
        claims: Hidden[Mapping[str, Any] | None],
        live: BaseRealtimeClient,
        find_installation: Callable[[float], Flow[str | None]],
        stop_path: str,
    ) -> None:
        if not (isinstance(stop_path, str) and stop_path.startswith("/")):
            raise UsageError(f"private_stream: stop_path must be a path of this service, such as {STOP_PATH!r}.")
        self._name = name
        self._claims = _unique_claims(name, claims)
        self._stop_path = stop_path
        self._secret = Hidden(secrets.token_urlsafe(32))
        self._live = live
        self._find_installation = find_installation
        # The same client for the installation, until it is used.
        self._installation: BaseRealtimeClient | None = None
        self._token: Hidden[RealtimeToken | None] = Hidden(None)
        # By the monotonic clock.
        self._renew_at = self._expires_at = math.inf

    def make_handle(self, stream_id: str, live: BaseRealtimeClient | None = None) -> Flow[StreamHandle]:
        """Sign a token for the page, by the authority of `live` or else of the stream, and return the page's handle."""
        token = yield from self._sign(live or self._live, "subscribe", None)
        return StreamHandle(
            channel=self._name,
            stream=stream_id,
            token=token.token,
            expiresAt=None if token.expires_at is None else int(token.expires_at.timestamp()),
            stop={"path": self._stop_path, "secret": self._secret.value},
        )

    def sign_for_stream(self) -> Flow[None]:
        """Sign the token that the stream publishes with, and look up the installation."""
        yield from self._renew(None)
        installation = yield from self._find_installation(monotonic() + self._live.retry.deadline)
        acting = self._live._acting("private_stream")  # noqa: SLF001 (the client's own room)
        if installation is not None and acting.invocation_id is not None:
            self._installation = self._live.for_installation(installation)

    @property
    def paying(self) -> BaseRealtimeClient:
        """The client whose quota the stream uses."""
        return self._installation or self._live

    def publish(
        self, payload: Hidden[Any], *, retry: RetryPolicy | None = None, limiter: RateLimiter | None = None
    ) -> Flow[PublishResult]:
        """Publish an event, with another token if this one is about to expire or has expired."""
        if monotonic() >= self._renew_at:
            try:
                yield from self._renew(retry)
            except ForgeRealtimeError:
                if monotonic() >= self._expires_at:
                    raise
                self._renew_at = monotonic() + _RENEWAL_PAUSE
        make = self._publishing(payload, retry, limiter)
        try:
            return (yield from self._by_either(make))
        except (RejectedError, InvalidTokenError) as error:
            if error.code != "TOKEN_EXPIRED":
                raise
        # The platform's clock was ahead, or another response has set the client's clock forward meanwhile.
        yield from self._renew(retry)
        return (yield from self._by_either(make))

    def _publishing(
        self, payload: Hidden[Any], retry: RetryPolicy | None, limiter: RateLimiter | None
    ) -> Callable[[BaseRealtimeClient], Flow[PublishResult]]:
        return lambda live: live._publish_global_flow(  # noqa: SLF001 (the client's own room)
            self._name, payload, self._token, retry=retry, limiter=limiter
        )

    def _renew(self, retry: RetryPolicy | None) -> Flow[None]:
        token = yield from self._by_either(lambda live: self._sign(live, "publish", retry))
        self._token.value = token
        self._renew_at = self._expires_at = math.inf
        now = self._live._clock.now()  # noqa: SLF001 (as above)
        if token.expires_at is not None and math.isfinite(now):
            left = token.expires_at.timestamp() - now
            self._renew_at, self._expires_at = monotonic() + 0.9 * left, monotonic() + left

    def _sign(
        self, live: BaseRealtimeClient, permission: operations.Permission, retry: RetryPolicy | None
    ) -> Flow[RealtimeToken]:
        # Its attempts are not those of an event.
        quiet = live.retry if retry is None else evolve(retry, on_attempt=None)
        # In no variable, because crash reporters show the variables of every frame.
        prepared = live._prepare(  # noqa: SLF001 (as above)
            operations.sign_realtime_token,
            body=operations.sign_realtime_token_request(self._name, self._claims, [permission]),
        )
        return live._sign_prepared_flow(prepared, quiet)  # noqa: SLF001 (as above)

    def _by_either(self, make: Callable[[BaseRealtimeClient], Flow[T]]) -> Flow[T]:
        """Run a flow for the invocation, and from its first refusal on for the installation."""
        try:
            return (yield from make(self._live))
        except RejectedError as error:
            refuses_token = error.code is not None and error.code.startswith("TOKEN_")
            if self._installation is None or error.retryable or refuses_token:
                raise
        self._live, self._installation = self._installation, None
        return (yield from make(self._live))


def _unique_claims(name: str, claims: Hidden[Mapping[str, Any] | None]) -> Hidden[Mapping[str, Any]]:
    own = operations.copy_claims(Hidden({} if claims.value is None else claims.value))
    if any(reserved in own.value for reserved in _OWN_CLAIMS):
        raise UsageError("private_stream: the claims 'channel' and 'nonce' are the stream's own: name yours otherwise.")
    unique = Hidden({**own.value, "channel": name, "nonce": os.urandom(16).hex()})
    # The next token has the same claims, even if the app changes a list in them meanwhile.
    return Hidden(json.loads(encode_json(unique.value, "claims")))
