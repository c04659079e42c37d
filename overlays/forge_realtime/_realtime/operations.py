"""The named operations: arguments to generated requests, generated responses to results."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias, TypeVar

import attrs

from .._api.api.forge_realtime import publish, publish_global, sign_realtime_token
from .._api.models import (
    PublishGlobalOptions,
    PublishGlobalRequest,
    PublishGlobalResponse,
    PublishOptions,
    PublishRequest,
    PublishResponse,
    RealtimeTokenClaims,
    SignRealtimeTokenRequest,
    SignRealtimeTokenResponse,
)
from .._api.types import UNSET, Unset
from .._core.attempts import Attempt
from .._core.encoding import Encode, encode_json
from .._core.errors import UsageError
from .._core.hidden import Hidden
from .._core.log import log
from .._core.responses import Response
from .._core.retry import http_date
from .results import PublishResult, RealtimeToken, ResponseInfo, epoch_or_iso
from .tokens import PlatformClock, check_token

__all__ = ["publish", "publish_global", "sign_realtime_token"]

T = TypeVar("T")
Permission: TypeAlias = Literal["subscribe", "publish"]
# The documented names. Others are passed on, as the platform may learn more of them.
ContextOverride: TypeAlias = Literal["board", "issue", "project", "content", "space", "repository", "pullRequest"]

LATER: Final = {
    (PublishOptions, "context_overrides"): "publish(context_overrides=...)",
    (SignRealtimeTokenRequest, "permissions"): "sign_realtime_token(permissions=...)",
}
"""Properties that some published revisions of the document lack, and the arguments that send them."""


def publish_request(
    channel: str,
    payload: Hidden[Any],
    token: Hidden[Any],
    context_overrides: Sequence[str] | None,
    *,
    encode: Encode | None,
    clock: PlatformClock,
) -> PublishRequest:
    name = _channel(channel)
    # In this order, and in no variables, which crash reporters show.
    return PublishRequest(
        name=name, payload=_payload(payload, encode), options=_publish_options(token, context_overrides, name, clock)
    )


def publish_global_request(
    channel: str, payload: Hidden[Any], token: Hidden[Any], *, encode: Encode | None, clock: PlatformClock
) -> PublishGlobalRequest:
    name = _channel(channel)
    return PublishGlobalRequest(
        name=name,
        payload=_payload(payload, encode),
        options=UNSET if token.value is None else PublishGlobalOptions(token=_token(token, name, clock)),
    )


def sign_realtime_token_request(
    channel: str, claims: Hidden[Mapping[str, Any]], permissions: Iterable[Permission] | None
) -> SignRealtimeTokenRequest:
    copy = copy_claims(claims)
    granted: dict[str, Any] = {}
    if permissions is not None:
        granted["permissions"] = _permissions(permissions)
        _require(SignRealtimeTokenRequest, "permissions")
    return _model(
        SignRealtimeTokenRequest,
        channel_name=_channel(channel),
        claims=RealtimeTokenClaims.from_dict(copy.value),
        **granted,
    )


def lacking() -> list[str]:
    """List the arguments for which the document that this client was generated from has no property."""
    return [argument for (model, name), argument in LATER.items() if name not in attrs.fields_dict(model)]


def publish_result(
    model: PublishResponse | PublishGlobalResponse, attempts: tuple[Attempt, ...], response: Response
) -> PublishResult:
    if isinstance(model.event_id, Unset) and isinstance(model.event_timestamp, Unset):
        # Null is documented for "nobody was subscribed", absence is not. The reference page documents no property, so
        # this may be all that the platform says of success: an error would send the event again.
        log(
            logging.WARNING,
            "publish: success without eventId and eventTimestamp: unknown whether anybody was subscribed",
        )
    event_id = _known(model.event_id)
    if event_id is not None and not isinstance(event_id, str):
        raise TypeError("eventId")
    timestamp = _time(model.event_timestamp)
    return PublishResult(
        event_id=event_id,
        event_timestamp=epoch_or_iso(timestamp, per_second=1000),
        raw_event_timestamp=timestamp,
        attempts=attempts,
        response=ResponseInfo(response.status_code, response.headers),
    )


def realtime_token(
    clock: PlatformClock, model: SignRealtimeTokenResponse, attempts: tuple[Attempt, ...], response: Response
) -> RealtimeToken:
    token = _known(model.token)
    if not (isinstance(token, str) and token):
        raise ValueError("token")
    expires_at = epoch_or_iso(_time(model.expires_at), per_second=1)
    date = http_date(response.headers.get("date", ""))
    # A clock by which a new token has expired is wrong.
    if date is not None and (expires_at is None or date < expires_at):
        clock.set(date.timestamp())
    elif expires_at is not None and expires_at.timestamp() <= clock.now():
        clock.distrust()
    info = ResponseInfo(response.status_code, response.headers)
    return RealtimeToken(token=token, expires_at=expires_at, attempts=attempts, response=info)


def _channel(channel: str) -> str:
    if not isinstance(channel, str) or not str.strip(channel):
        raise UsageError("channel must be a non-empty string: the name that the front end subscribes to.")
    # Not a subclass, whose methods are the app's.
    return str.__str__(channel)


def _publish_options(
    token: Hidden[Any], context_overrides: Sequence[str] | None, channel: str, clock: PlatformClock
) -> PublishOptions | Unset:
    if token.value is None and context_overrides is None:
        return UNSET
    options: dict[str, Any] = {}
    if context_overrides is not None:
        options["context_overrides"] = _context_overrides(context_overrides)
        _require(PublishOptions, "context_overrides")
    if token.value is not None:
        options["token"] = _token(token, channel, clock)
    return _model(PublishOptions, **options)


def _payload(payload: Hidden[Any], encode: Encode | None) -> str:
    if isinstance(payload.value, str):
        return str.__str__(payload.value)
    return encode_json(payload.value, "payload", encode).decode()


def _token(token: Hidden[Any], channel: str, clock: PlatformClock) -> str:
    text = Hidden(token.value.token if isinstance(token.value, RealtimeToken) else token.value)
    if not isinstance(text.value, str) or not text.value:
        raise UsageError("token must be what sign_realtime_token returned, or its text.")
    text.value = str.__str__(text.value)
    check_token(text.value, channel, clock.now())
    return text.value


def copy_claims(claims: Hidden[Any]) -> Hidden[dict[str, Any]]:
    """Copy and check the claims, because the app's mapping may raise anything."""
    try:
        copy: Hidden[dict[Any, Any]] = Hidden(dict(claims.value) if isinstance(claims.value, Mapping) else {None: None})
    except Exception as error:  # noqa: BLE001 (as above)
        reason = f"; reading them raised {type(error).__name__}"
    else:
        if all(isinstance(name, str) for name in copy.value):
            return copy
        reason = ""
    raise UsageError(f"claims must be a mapping with names of type str, such as {{'team': 'red'}}{reason}.")


def _permissions(permissions: Iterable[Permission]) -> list[Permission]:
    try:
        named = [] if isinstance(permissions, str) else list(permissions)
        if named and all(permission in ("subscribe", "publish") for permission in named):
            return named
    except Exception:  # noqa: BLE001, S110 (as above)
        pass
    raise UsageError("permissions takes a list of 'subscribe' and 'publish'; leave it out to grant both.") from None


def _context_overrides(names: Sequence[str]) -> list[str]:
    try:
        named = list(names) if isinstance(names, Sequence) and not isinstance(names, str) else None
    except Exception:  # noqa: BLE001 (as above)
        named = None
    if named is None or not all(isinstance(name, str) for name in named):
        raise UsageError("context_overrides takes a list of names, such as ['issue'].")
    return named


def _known(value: object) -> object:
    return None if isinstance(value, Unset) else value


def _time(value: object) -> str | float | None:
    if isinstance(value, str):
        return value
    known = _known(value)
    if not isinstance(known, str | int | float | None) or isinstance(known, bool):
        raise TypeError("not a point in time")
    return known


def _model(model: Callable[..., T], **properties: object) -> T:
    """Make a part of a request, of which the document may require more than the arguments of a call give."""
    try:
        return model(**properties)
    except TypeError as error:
        missing = str(error).rpartition("() ")[2]
    # Reporters of crashes show the variables of a frame.
    del properties
    raise UsageError(f"The API document asks for more in this call: {missing}. Pass it too, or regenerate the client.")


def _require(model: type, name: str) -> None:
    if name not in attrs.fields_dict(model):
        raise UsageError(
            f"{LATER[model, name]}: the API document that this client was generated from has no such property. Leave "
            "it out, or use a release that was generated from a document that has it."
        )
