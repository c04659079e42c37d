"""The named operations: arguments to generated requests, generated responses to results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias, TypeVar

import attrs

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
from .._core.encoding import Payload, encode_json
from .._core.errors import Attempt, UsageError
from .._core.log import logger
from .results import PublishResult, RealtimeToken, epoch_or_iso
from .tokens import check_token

T = TypeVar("T")
Permission: TypeAlias = Literal["subscribe", "publish"]

LATER: Final = {
    (PublishOptions, "context_overrides"): "publish(context_overrides=...)",
    (SignRealtimeTokenRequest, "permissions"): "sign_realtime_token(permissions=...)",
}
"""Properties that some published revisions of the document lack, and the arguments that send them."""


def publish_request(
    channel: str, payload: Payload, token: str | RealtimeToken | None, context_overrides: Sequence[str] | None
) -> PublishRequest:
    options: dict[str, Any] = {}
    if token is not None:
        options["token"] = _token(token, channel)
    if context_overrides is not None:
        options["context_overrides"] = _context_overrides(context_overrides)
        _require(PublishOptions, "context_overrides")
    return PublishRequest(
        name=_channel(channel),
        payload=_payload(payload),
        options=_model(PublishOptions, **options) if options else UNSET,
    )


def publish_global_request(channel: str, payload: Payload, token: str | RealtimeToken | None) -> PublishGlobalRequest:
    options = UNSET if token is None else PublishGlobalOptions(token=_token(token, channel))
    return PublishGlobalRequest(name=_channel(channel), payload=_payload(payload), options=options)


def sign_realtime_token_request(
    channel: str, claims: Mapping[str, Any], permissions: Iterable[Permission] | None
) -> SignRealtimeTokenRequest:
    if not isinstance(claims, Mapping) or not all(isinstance(name, str) for name in claims):
        raise UsageError("claims must be a mapping with names of type str, such as {'team': 'red'}.")
    granted: dict[str, Any] = {}
    if permissions is not None:
        a_list = isinstance(permissions, Iterable) and not isinstance(permissions, str)
        named = granted["permissions"] = list(permissions) if a_list else []
        if not (named and all(permission in ("subscribe", "publish") for permission in named)):
            raise UsageError("permissions takes a list of 'subscribe' and 'publish'; leave it out to grant both.")
        _require(SignRealtimeTokenRequest, "permissions")
    return _model(
        SignRealtimeTokenRequest,
        channel_name=_channel(channel),
        claims=RealtimeTokenClaims.from_dict(claims),
        **granted,
    )


def lacking() -> list[str]:
    """List the arguments for which the document that this client was generated from has no property."""
    return [argument for (model, name), argument in LATER.items() if name not in attrs.fields_dict(model)]


def publish_result(response: PublishResponse | PublishGlobalResponse, attempts: tuple[Attempt, ...]) -> PublishResult:
    if isinstance(response.event_id, Unset) and isinstance(response.event_timestamp, Unset):
        # Null is documented for "nobody was subscribed", absence is not. The reference page documents no property, so
        # this may be all that the platform says of success: an error would send the event again.
        logger.warning("publish: success without eventId and eventTimestamp: unknown whether anybody was subscribed")
    event_id = _known(response.event_id)
    if event_id is not None and not isinstance(event_id, str):
        raise TypeError("eventId")
    timestamp = _time(response.event_timestamp)
    return PublishResult(
        event_id=event_id,
        event_timestamp=epoch_or_iso(timestamp, per_second=1000),
        raw_event_timestamp=timestamp,
        attempts=attempts,
    )


def realtime_token(response: SignRealtimeTokenResponse, attempts: tuple[Attempt, ...]) -> RealtimeToken:
    token = _known(response.token)
    if not (isinstance(token, str) and token):
        raise ValueError("token")
    expires_at = epoch_or_iso(_time(response.expires_at), per_second=1)
    return RealtimeToken(token=token, expires_at=expires_at, attempts=attempts)


def _channel(channel: str) -> str:
    if not isinstance(channel, str) or not channel.strip():
        raise UsageError("channel must be a non-empty string: the name that the front end subscribes to.")
    return channel


def _payload(payload: Payload) -> str:
    return payload if isinstance(payload, str) else encode_json(payload, "payload").decode()


def _token(token: str | RealtimeToken, channel: str) -> str:
    text = token.token if isinstance(token, RealtimeToken) else token
    if not isinstance(text, str) or not text:
        raise UsageError("token must be what sign_realtime_token returned, or its text.")
    check_token(text, channel)
    return text


def _context_overrides(names: Sequence[str]) -> list[str]:
    if not isinstance(names, Sequence) or isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise UsageError("context_overrides takes a list of names, such as ['issue'].")
    return list(names)


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
    raise UsageError(f"The API document asks for more in this call: {missing}. Pass it too, or regenerate the client.")


def _require(model: type, name: str) -> None:
    if name not in attrs.fields_dict(model):
        raise UsageError(
            f"{LATER[model, name]}: the API document that this client was generated from has no such property. Leave "
            "it out, or use a release that was generated from a document that has it."
        )
