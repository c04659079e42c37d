"""Strict JSON parsing: no NaN, no Infinity, no number out of range."""

from __future__ import annotations

import json
import math
from typing import Any


def parse(text: str) -> Any:
    """Parse JSON.

    Raises:
        ValueError: The text is not JSON, or has a number that a float cannot hold.
        RecursionError: The JSON is nested too deeply.
    """
    return _DECODER.decode(text)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is out of range")
    return number


def _reject_constant(_: str) -> None:
    raise ValueError("NaN and Infinity are not JSON")


_DECODER = json.JSONDecoder(parse_constant=_reject_constant, parse_float=_finite)
