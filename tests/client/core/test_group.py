"""Calls of operations that differ from those of Forge Realtime, as the traits of their group say."""

from __future__ import annotations

from types import ModuleType
from typing import Any
from urllib.parse import quote

import pytest
from forge_realtime._api.errors import UnexpectedStatus

from forge_realtime import NoInvocationError, RealtimeClient, RejectedError, UnexpectedResponseError, UsageError
from forge_realtime._core import group, responses
from forge_realtime._core.group import Traits
from tests.support.callers import INVOCATION, QUICK
from tests.support.fault_server import Behaviour, FaultServer, answer

OPERATION = "forge_other._api.api.other.get_other_target"


class Operation(ModuleType):
    """A stand-in for a generated module whose response has no documented schema."""

    def _get_kwargs(self, target: str, body: Any = None, method: str = "get") -> dict[str, Any]:
        url = f"/other/{quote(target, safe='')}"
        return {"method": method, "url": url, **({} if body is None else {"json": body})}

    def _parse_response(self, *, client: Any, response: Any) -> None:
        if response.status_code != 200:
            raise UnexpectedStatus(response.status_code, response.content)


@pytest.fixture
def traits(monkeypatch: pytest.MonkeyPatch) -> dict[str, Traits]:
    """The traits of a group, to be filled."""
    traits: dict[str, Traits] = {"other.something_else": Traits(header=False)}
    monkeypatch.setattr(group, "TRAITS", traits)
    return traits


def call(server: FaultServer, *arguments: Any, **keywords: Any) -> Any:
    with RealtimeClient(server.url, retry=QUICK) as client:
        return client.for_invocation(INVOCATION).call(Operation(OPERATION), *arguments, **keywords)


def test_operation_without_traits_is_called_like_any_other(traits: dict[str, Traits]) -> None:
    with FaultServer(then=answer(200, {"a": 1})) as server:
        assert call(server, "a/b") == {"a": 1}
    [received] = server.received
    assert received.path == "/other/a%2Fb"
    assert received.headers["accept"] == "application/json"
    assert received.headers["forge-proxy-authorization"] == "Forge as=app,id=invocation-123"


def test_operation_without_header_needs_no_invocation(traits: dict[str, Traits]) -> None:
    with FaultServer(then=answer(200, {})) as server, RealtimeClient(server.url, retry=QUICK) as client:
        with pytest.raises(NoInvocationError):
            client.call(Operation(OPERATION), "a")
        traits["other.get_other_target"] = Traits(header=False, accept="text/csv")
        client.call(Operation(OPERATION), "a")
        client.for_invocation(INVOCATION).call(Operation(OPERATION), "a", {"b": 1})
    assert [request.headers["accept"] for request in server.received] == ["text/csv"] * 2
    assert ["forge-proxy-authorization" in request.headers for request in server.received] == [False, False]
    assert [request.headers.get("content-length") for request in server.received] == [None, "7"]


def test_wildcard_keeps_slashes_but_no_query_and_no_dot_segment(traits: dict[str, Traits]) -> None:
    traits["other.get_other_target"] = Traits(wildcard=2)
    with FaultServer(then=answer(200, {})) as server:
        call(server, "a/b c/%2F")
        with pytest.raises(UsageError, match=r"Pass it as query="):
            call(server, "a?b")
        with pytest.raises(UsageError, match=r"segment '\.' or '\.\.'"):
            call(server, "a/../b")
    assert [request.path for request in server.received] == ["/other/a/b%20c/%252F"]


def test_stream_is_refused_before_anything_is_sent(traits: dict[str, Traits]) -> None:
    with FaultServer(then=answer(200, {})) as server:
        traits["other.get_other_target"] = Traits(stream="text/event-stream")
        with pytest.raises(UsageError, match=r"responds with a stream \(text/event-stream\).* Nothing was sent"):
            call(server, "a")
        traits["other.get_other_target"] = Traits(stream_property="stream")
        with pytest.raises(UsageError, match=r"asks for a stream \(stream: true\).* Nothing was sent"):
            call(server, "a", {"stream": True})
        assert server.received == []
        call(server, "a", {"stream": False})
    assert len(server.received) == 1


@pytest.mark.parametrize(
    ("response", "result"),
    [
        (answer(200, [1]), [1]),
        (answer(200, b"a", {"Content-Type": "text/plain"}), "a"),
        (answer(200, b"\xff", {"Content-Type": "image/png"}), b"\xff"),
        (answer(204), None),
    ],
)
def test_body_without_documented_schema_is_returned(response: Behaviour, result: object) -> None:
    with FaultServer(then=response) as server:
        assert call(server, "a") == result


def test_rules_for_success_hold_for_realtime_only(monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultServer(then=answer(200, {"errors": [{"message": "no"}]})) as server:
        with pytest.raises(RejectedError):
            call(server, "a")
        monkeypatch.setattr(responses, "REALTIME", False)
        assert call(server, "a") == {"errors": [{"message": "no"}]}
        server.received.clear()
        server.then = answer(200, b"<html>")
        with pytest.raises(UnexpectedResponseError):
            call(server, "a")
    assert len(server.received) == 1
