"""The invocation that a container answers, as the platform describes it in the headers of the inbound request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from attrs import field, frozen

from ._errors import NoInvocationError, UsageError

Headers: TypeAlias = (
    Mapping[str, str] | Mapping[bytes, bytes] | Iterable[tuple[bytes, bytes]] | Iterable[tuple[str, str]]
)


@frozen
class Invocation:
    """One invocation of the app.

    Source: the documented headers of requests to a Forge Container. How long an id stays valid is not documented.

    Attributes:
        id: `x-forge-invocation-id`.
        log_attributes: `x-forge-invocation-log-attributes`, opaque base64 for the platform's log reader.
        trace_id: `x-b3-traceid`.
        span_id: `x-b3-spanid`.
    """

    id: str = field(repr=False)
    log_attributes: str | None = field(default=None, kw_only=True, repr=False)
    trace_id: str | None = field(default=None, kw_only=True)
    span_id: str | None = field(default=None, kw_only=True)

    @classmethod
    def from_headers(cls, headers: Headers) -> Invocation:
        """Reads the invocation from the headers of an inbound request.

        Args:
            headers: A mapping or pairs of names and values, as text or bytes (ASGI), the names in any case.

        Raises:
            UsageError: These are no headers.
            NoInvocationError: There is no `x-forge-invocation-id` in them.
        """
        # Not every framework's headers are a Mapping, but all that are not pairs have items().
        items: Callable[[], Any] = getattr(headers, "items", lambda: headers)
        try:
            found = {_text(name).lower(): _text(value) for name, value in items()}
        except (TypeError, ValueError):
            raise UsageError("Expected the headers of a request: a mapping, or pairs of names and values.") from None
        if not (id_ := found.get("x-forge-invocation-id")):
            raise NoInvocationError(
                "These headers carry no x-forge-invocation-id. Pass the headers of the request that the platform sent to "
                "the container; outside of one, use for_installation(...) with publish_global."
            )
        return cls(
            id_,
            log_attributes=found.get("x-forge-invocation-log-attributes"),
            trace_id=found.get("x-b3-traceid"),
            span_id=found.get("x-b3-spanid"),
        )


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
