"""Strict JSON parsing: no NaN, no Infinity, no number out of range, no deep nesting."""

from __future__ import annotations

import json
import math
from typing import Any

_DEPTH = 100
"""Most levels of nesting. What is parsed is encoded again within other JSON, and shown in the console."""


def parse(text: str) -> Any:
    """Parse JSON.

    Raises:
        ValueError: The text is not JSON, or has a number that a float cannot hold.
        RecursionError: The JSON is nested too deeply.
    """
    value = _DECODER.decode(text)
    if text.count("[") + text.count("{") > _DEPTH and _is_deeper(value, _DEPTH):
        raise RecursionError("the JSON is nested too deeply")
    return value


def _is_deeper(value: Any, depth: int) -> bool:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(depth):
        children = (child for item in level for child in (item.values() if isinstance(item, dict) else item))
        level = [child for child in children if isinstance(child, dict | list)]
    return bool(level)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is out of range")
    return number


def _reject_constant(_: str) -> None:
    raise ValueError("NaN and Infinity are not JSON")


_DECODER = json.JSONDecoder(parse_constant=_reject_constant, parse_float=_finite)
