"""JSON as the client sends it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from .errors import UsageError

Payload: TypeAlias = str | int | float | bool | Mapping[str, Any] | Sequence[Any] | None
Encode: TypeAlias = Callable[[Any], str | bytes]

# Field names appear in messages. Other keys may be data: ids, names, addresses.
_FIELD_NAME: Final = re.compile(r"[a-z][a-zA-Z_]{0,39}", re.ASCII)
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_MOST_CONTAINERS: Final = 100_000
# An attribute of the type, and how to convert a value that has it.
_CONVERSIONS: Final = (
    ("model_dump", 'with model_dump(mode="json")'),
    ("isoformat", "with isoformat()"),
    ("__attrs_attrs__", "with attrs.asdict()"),
    ("__dataclass_fields__", "with dataclasses.asdict()"),
    ("__members__", "to its value"),
    ("decode", "with decode()"),
    ("tolist", "with tolist()"),
    ("__iter__", "with list()"),
    ("__str__", "with str()"),
)


def encode_json(value: object, what: str, encode: Encode | None = None) -> bytes:
    """Encode as compact JSON in UTF-8, or with the app's own encoder.

    Args:
        value: What to encode.
        what: Its name in the error message.
        encode: The app's encoder, called in place of the `json` module.

    Raises:
        UsageError: The value cannot be encoded. The message never shows it, but names the path to the part that cannot.
    """
    cause: Exception | None = None
    try:
        if encode is None:
            return _encode(value).encode()
        return _utf_8(encode(value))
    except Exception as error:  # noqa: BLE001 (a mapping or an encoder of the app may raise anything)
        if encode is None:
            message = f"{what} cannot be encoded as JSON: {_reason(error, value, what)}."
        else:
            cause = error
            message = f"{what} cannot be encoded: the function given as encode= raised {type(error).__name__}."
            if isinstance(error, _ResultError):
                cause, message = None, f"{what} cannot be encoded: {error}."
    # Raised outside of the handler, because the encoder's error can hold the value.
    del value
    raise UsageError(message) from cause


class _ResultError(Exception):
    """The app's encoder returned something that cannot be sent."""


def _utf_8(encoded: object) -> bytes:
    try:
        if isinstance(encoded, str):
            return str.encode(encoded)
        if isinstance(encoded, bytes):
            str(encoded, "utf-8")
            return bytes(encoded)
    except UnicodeError:
        raise _ResultError("the result of the function given as encode= is not UTF-8") from None
    raise _ResultError(f"the function given as encode= must return str or bytes, and returned {type(encoded).__name__}")


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return list(value)
    raise TypeError


# Made once: json.dumps() makes an encoder for each call with options.
_encode: Final = json.JSONEncoder(default=_plain, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def _reason(error: Exception, value: object, what: str) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply, or contains itself"
    try:
        fault = _fault(value, what if what == "payload" else "value")
    except Exception:  # noqa: BLE001 (as above)
        fault = None
    if fault is not None:
        return fault
    if isinstance(error, ValueError) and "Circular" in str(error):
        return "it contains itself"
    return f"reading it raised {type(error).__name__}. If something else changes it meanwhile, pass a copy"


def _fault(value: object, path: str) -> str | None:
    """Describe the first part that cannot be JSON; None if all can."""
    seen: set[int] = set()
    todo = [(path, value)]
    # A mapping that makes its values as it is read may never end.
    while todo and len(seen) < _MOST_CONTAINERS:
        path, value = todo.pop()
        if isinstance(value, Mapping):
            if id(value) not in seen:
                seen.add(id(value))
                items = list(value.items())
                for key, _ in items:
                    if not isinstance(key, str | int | float | bool | None):
                        return f"a key of {path} is of type {type(key).__name__}. Convert it with str()"
                    if isinstance(key, str) and _SURROGATE.search(key):
                        return f"a key of {path} holds a lone surrogate"
                todo += [(f"{path}{_step(key)}", item) for key, item in reversed(items)]
        elif isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray | memoryview):
            if id(value) not in seen:
                seen.add(id(value))
                items = list(enumerate(value))
                todo += [(f"{path}[{index}]", item) for index, item in reversed(items)]
        elif (fault := _scalar_fault(value)) is not None:
            return f"{path} {fault}"
    return None


def _step(key: object) -> str:
    return f".{key}" if isinstance(key, str) and _FIELD_NAME.fullmatch(key) else "[…]"


def _scalar_fault(value: object) -> str | None:
    if isinstance(value, str):
        return "holds a lone surrogate" if _SURROGATE.search(value) else None
    if isinstance(value, float):
        return None if math.isfinite(value) else "is infinite or not a number"
    if isinstance(value, int):
        try:
            int.__repr__(value)
        except ValueError:
            return "is an integer with too many digits"
        return None
    if value is None:
        return None
    kind = type(value)
    convert = next(how for attribute, how in _CONVERSIONS if hasattr(kind, attribute))
    return f"is of type {kind.__name__}. Convert it {convert}"
