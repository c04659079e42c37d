"""Differences between the groups of the API document.

These are the values for Forge Realtime. In a client for other groups, `make client` writes its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import unquote

from .errors import UsageError
from .hidden import Hidden


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


USUAL: Final = Traits()
HEADER: Final = "forge-proxy-authorization"
"""The header that `Traits.header` is about."""

REALTIME: Final[bool] = True
"""Whether `errors` in a 200 are a failure, and whether an unreadable response of success can be retried."""
DELIVERY: Final[Literal["at_least_once", "at_most_once"]] = "at_least_once"
DEADLINE: Final[float] = 5.0
ATTEMPT_TIMEOUT: Final[float] = 2.0

TRAITS: Final[Mapping[str, Traits]] = {}
"""Operations that differ, by the last two parts of their module's name."""


def traits_of(operation: object) -> Traits:
    """Return the traits of a generated operation."""
    if not TRAITS:
        return USUAL
    return TRAITS.get(".".join(str(getattr(operation, "__name__", "")).split(".")[-2:]), USUAL)


def adapt_request(name: str, traits: Traits, request: Hidden[dict[str, Any]]) -> None:
    """Open the wildcard in a request's path, and refuse a request whose response would be a stream.

    Args:
        name: The operation's name, for error messages.
        traits: The operation's traits.
        request: What the generated operation makes of its arguments. Its `url` is changed.

    Raises:
        UsageError: The operation responds with a stream or its body asks for one; or the argument that stands for a
            whole path has a query, or a segment `.` or `..`.
    """
    body = request.value.get("json")
    asks = bool(traits.stream_property) and isinstance(body, dict) and body.get(traits.stream_property) is True
    del body
    if traits.stream or asks:
        what = f"it responds with a stream ({traits.stream})"
        if asks:
            what = f"its body asks for a stream ({traits.stream_property}: true)"
        raise UsageError(
            f"{name}: {what}, and call() reads whole responses only. Nothing was sent. Ask for a whole response, or "
            "send the request with httpx.stream() and the header forge-proxy-authorization, the `header` of an "
            "Authorization."
        )
    if traits.wildcard:
        request.value["url"] = _open_wildcard(name, request.value["url"], traits.wildcard)


def _open_wildcard(name: str, path: str, slashes: int) -> str:
    """Restore the slashes in the part of a path after so many slashes. Generated code encodes them."""
    *before, wildcard = path.split("/", slashes)
    if "%3F" in wildcard:
        raise UsageError(
            f"{name}: the path has a query, which would be sent as part of the path. Pass it as query=, an object of "
            "the generated model, for example GetJiraTargetQuery.from_dict({'name': 'value'})."
        )
    wildcard = wildcard.replace("%2F", "/")
    if any(unquote(unquote(segment)) in (".", "..") for segment in wildcard.split("/")):
        raise UsageError(f"{name}: the path has a segment '.' or '..'. Pass the path that it stands for.")
    return "/".join([*before, wildcard])
