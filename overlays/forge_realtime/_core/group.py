"""What differs between the groups of the API document.

These are the values for Forge Realtime. `make client` writes this module anew in a client for other groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple


class Traits(NamedTuple):
    """How an operation differs from most others.

    Attributes:
        header: Whether it takes the header `forge-proxy-authorization`.
        wildcard: Number of slashes in its path before the parameter that stands for a whole path; 0 if it has none.
        accept: Media types that it responds with.
        stream: Media type of its response if that is a stream; else empty.
        stream_property: Property of the JSON body that asks for a stream; empty if it has none.
    """

    header: bool = True
    wildcard: int = 0
    accept: str = "application/json"
    stream: str = ""
    stream_property: str = ""


REALTIME: Final[bool] = True
"""Whether `errors` in a 200 are a failure, and whether an unreadable response of success can be retried."""
DELIVERY: Final[Literal["at_least_once", "at_most_once"]] = "at_least_once"
DEADLINE: Final[float] = 5.0
ATTEMPT_TIMEOUT: Final[float] = 2.0

TRAITS: Final[Mapping[str, Traits]] = {}
"""Operations that differ, by the last two parts of their module's name."""
