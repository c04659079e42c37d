"""JSON as the client sends it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from .errors import UsageError

Payload: TypeAlias = str | int | float | bool | Mapping[str, Any] | Sequence[Any] | None


def encode_json(value: object, what: str) -> bytes:
    """Encode as compact JSON in UTF-8.

    Args:
        value: What to encode.
        what: Its name in the error message.

    Raises:
        UsageError: The value cannot be JSON. The message never shows it.
    """
    try:
        return _encode(value).encode()
    except (TypeError, ValueError, RecursionError) as error:
        reason = "it holds a lone surrogate" if isinstance(error, UnicodeError) else str(error)
    # Raised outside of the handler, because the encoder's error can hold the value.
    raise UsageError(f"{what} cannot be encoded as JSON ({reason}). Convert it to str, numbers, lists and dicts first.")


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return list(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


# Made once: json.dumps() makes an encoder for each call with options.
_encode: Final = json.JSONEncoder(default=_plain, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
