"""The three named operations: from arguments to the generated request, from the generated answer to the result."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from ._api.models import (
    PublishAnswer,
    PublishGlobalAnswer,
    PublishGlobalOptions,
    PublishGlobalRequest,
    PublishOptions,
    PublishRequest,
    RealtimeTokenClaims,
    SignRealtimeTokenAnswer,
    SignRealtimeTokenRequest,
)
from ._api.types import UNSET, Unset
from ._errors import Attempt, UsageError
from ._results import PublishResult, RealtimeToken, epoch_or_iso
from ._tokens import check_token

Payload: TypeAlias = str | int | float | bool | Mapping[str, Any] | Sequence[Any] | None
Permission: TypeAlias = Literal["subscribe", "publish"]


def publish_request(
    channel: str, payload: Payload, token: str | RealtimeToken | None, context_overrides: Sequence[str] | None
) -> PublishRequest:
    options: PublishOptions | Unset = UNSET
    if token is not None or context_overrides is not None:
        options = PublishOptions(token=_token(token, channel), context_overrides=_context_overrides(context_overrides))
    return PublishRequest(name=_channel(channel), payload=_payload(payload), options=options)


def publish_global_request(channel: str, payload: Payload, token: str | RealtimeToken | None) -> PublishGlobalRequest:
    options = UNSET if token is None else PublishGlobalOptions(token=_token(token, channel))
    return PublishGlobalRequest(name=_channel(channel), payload=_payload(payload), options=options)


def sign_realtime_token_request(
    channel: str, claims: Mapping[str, Any], permissions: Iterable[Permission] | None
) -> SignRealtimeTokenRequest:
    if not isinstance(claims, Mapping) or not all(isinstance(name, str) for name in claims):
        raise UsageError("claims must be a mapping with names of type str, such as {'team': 'red'}.")
    checked: list[Permission] | Unset = UNSET
    if permissions is not None:
        a_list = isinstance(permissions, Iterable) and not isinstance(permissions, str)
        checked = list(permissions) if a_list else []
        if not (a_list and all(permission in ("subscribe", "publish") for permission in checked)):
            raise UsageError("permissions takes a list of 'subscribe' and 'publish'; leave it out to grant both.")
    return SignRealtimeTokenRequest(
        channel_name=_channel(channel), claims=RealtimeTokenClaims.from_dict(claims), permissions=checked
    )


def publish_result(answer: PublishAnswer | PublishGlobalAnswer, attempts: tuple[Attempt, ...]) -> PublishResult:
    event_id = _known(answer.event_id)
    if not isinstance(event_id, str | None):
        raise TypeError("eventId")
    timestamp = _time(answer.event_timestamp)
    return PublishResult(
        event_id=event_id,
        event_timestamp=epoch_or_iso(timestamp, per_second=1000),
        raw_event_timestamp=timestamp,
        attempts=attempts,
    )


def realtime_token(answer: SignRealtimeTokenAnswer, attempts: tuple[Attempt, ...]) -> RealtimeToken:
    token = _known(answer.token)
    if not (isinstance(token, str) and token):
        raise ValueError("token")
    expires_at = epoch_or_iso(_time(answer.expires_at), per_second=1)
    return RealtimeToken(token=token, expires_at=expires_at, attempts=attempts)


def encode_json(value: object, what: str) -> bytes:
    """Encodes compactly, as UTF-8.

    Raises:
        UsageError: The value cannot be JSON; names `what`, never the value.
    """
    try:
        return json.dumps(value, default=_plain, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        reason = "it holds a lone surrogate" if isinstance(error, UnicodeError) else str(error)
    # Raised outside of the handler: the error of the encoder can hold the value.
    raise UsageError(f"{what} cannot be encoded as JSON ({reason}). Convert it to str, numbers, lists and dicts first.")


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return list(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _channel(channel: str) -> str:
    if not isinstance(channel, str) or not channel.strip():
        raise UsageError("channel must be a non-empty string: the name that the front end subscribes to.")
    return channel


def _payload(payload: Payload) -> str:
    return payload if isinstance(payload, str) else encode_json(payload, "payload").decode()


def _token(token: str | RealtimeToken | None, channel: str) -> str | Unset:
    if token is None:
        return UNSET
    text = token.token if isinstance(token, RealtimeToken) else token
    if not isinstance(text, str) or not text:
        raise UsageError("token must be what sign_realtime_token returned, or its text.")
    check_token(text, channel)
    return text


def _context_overrides(names: Sequence[str] | None) -> list[str] | Unset:
    if names is None:
        return UNSET
    if not isinstance(names, Sequence) or isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise UsageError("context_overrides takes a list of names, such as ['issue'].")
    return list(names)


def _known(value: object) -> object:
    return None if isinstance(value, Unset) else value


def _time(value: object) -> str | float | None:
    known = _known(value)
    if not isinstance(known, str | int | float | None) or isinstance(known, bool):
        raise TypeError("not a point in time")
    return known
