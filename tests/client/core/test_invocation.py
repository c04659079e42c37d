from __future__ import annotations

from typing import Any

import pytest

from forge_realtime import Invocation, NoInvocationError, UsageError

HEADERS = {
    "X-Forge-Invocation-Id": "invocation-123",
    "x-forge-invocation-log-attributes": "b3BhcXVl",
    "X-B3-TraceId": "463ac35c9f6413ad",
    "x-b3-spanid": "a2fb4a1d1a96d312",
    "Accept": "*/*",
}


class WerkzeugLike:
    """Headers with items() that are no Mapping, such as Flask's."""

    def items(self) -> Any:
        return iter(HEADERS.items())


@pytest.mark.parametrize(
    "headers",
    [
        HEADERS,
        {name.upper(): value for name, value in HEADERS.items()},
        [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()],
        iter(HEADERS.items()),
        WerkzeugLike(),
    ],
    ids=["mapping", "upper case", "ASGI", "pairs", "werkzeug"],
)
def test_headers_of_every_framework_are_read(headers: Any) -> None:
    assert Invocation.from_headers(headers) == Invocation(
        "invocation-123", log_attributes="b3BhcXVl", trace_id="463ac35c9f6413ad", span_id="a2fb4a1d1a96d312"
    )


@pytest.mark.parametrize(
    "headers", [{}, {"x-forge-invocation-id": ""}, {"x-forge-invocation-id": " "}, [(b"accept", b"*/*")]]
)
def test_headers_without_invocation_are_refused(headers: Any) -> None:
    with pytest.raises(NoInvocationError, match=r"x-forge-invocation-id.*for_installation"):
        Invocation.from_headers(headers)


@pytest.mark.parametrize("headers", ["invocation-123", 5, [1, 2]])
def test_other_types_are_refused(headers: Any) -> None:
    with pytest.raises(UsageError, match="Expected a request, or its headers"):
        Invocation.from_headers(headers)


def test_none_is_refused_with_where_an_invocation_comes_from() -> None:
    with pytest.raises(
        NoInvocationError,
        match=r"^None is no invocation: current_invocation\(\) returns it where none is current\. Pass "
        r"request\.headers of the request .* `with invocation\.active\(\)` with the request's current_invocation\(\)",
    ):
        Invocation.from_headers(None)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("id_", ["", " ", None, 5, {"x-forge-invocation-id": "invocation-123"}])
def test_invocation_without_an_id_is_refused(id_: Any) -> None:
    with pytest.raises(UsageError, match=r"x-forge-invocation-id.*Invocation\.from_headers\(request\.headers\)"):
        Invocation(id_)


def test_repr_shows_no_id() -> None:
    assert "invocation-123" not in repr(Invocation.from_headers(HEADERS))
