"""Requests as they are sent, and calls that are refused before."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import UserDict, deque
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import httpx
import pytest
from forge_realtime._api.api.forge_realtime import publish
from forge_realtime._api.models import PublishRequest, PublishResponse

import forge_realtime
from forge_realtime import (
    AsyncRealtimeClient,
    Authorization,
    Delivery,
    NoInvocationError,
    RealtimeClient,
    RealtimeToken,
    RetryPolicy,
    UsageError,
)
from forge_realtime._realtime.operations import lacking
from tests.support.callers import INVOCATION, KINDS, Caller, Kind, async_client
from tests.support.fault_server import FaultServer, answer
from tests.support.features import needs
from tests.support.tokens import token


def test_publish_sends_the_documented_request(caller: Caller) -> None:
    with FaultServer() as server:
        [result] = caller(server.url, lambda live: live.publish("board-42", "plain, as it is"))
    [request] = server.received
    assert (request.method, request.path) == ("POST", "/forge/realtime/v1/publish")
    assert request.json == {"name": "board-42", "payload": "plain, as it is"}
    assert request.headers["forge-proxy-authorization"] == "Forge as=app,id=invocation-123"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["accept"] == "application/json"
    assert request.headers["user-agent"] == f"forge-realtime/{forge_realtime.__version__}"
    assert result.event_id == "event-1"
    assert result.event_timestamp == datetime(2026, 1, 1, tzinfo=UTC)
    assert result.raw_event_timestamp == "1767225600000"


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        ("", ""),
        ('"quoted"', '"quoted"'),
        ("naïve 🚀", "naïve 🚀"),
        ({"moved": 7, "to": ["done", None]}, '{"moved":7,"to":["done",null]}'),
        ({"name": "Zoë"}, '{"name":"Zoë"}'),
        ([], "[]"),
        (7, "7"),
        (1.5, "1.5"),
        (True, "true"),
        (None, "null"),
        (MappingProxyType({"a": UserDict(b=deque([1]))}), '{"a":{"b":[1]}}'),
        (range(3), "[0,1,2]"),
    ],
)
def test_strings_are_sent_as_they_are_and_the_rest_as_json(caller: Caller, payload: Any, text: str) -> None:
    with FaultServer() as server:
        caller(server.url, lambda live: live.publish("c", payload), lambda live: live.publish_global("c", payload))
    for request in server.received:
        assert json.loads(request.body)["payload"] == text
        # Compact, and UTF-8 in place of escapes.
        assert b'", "' not in request.body
        assert b"\\u" not in request.body


@needs("context_overrides")
def test_token_and_context_overrides_are_sent_as_options(caller: Caller) -> None:
    text = token("c", exp=4e9, permissions=["publish"])
    signed = RealtimeToken(token=text, expires_at=None, attempts=())
    with FaultServer() as server:
        caller(
            server.url,
            lambda live: live.publish("c", "p", token=signed, context_overrides=["project", "issue"]),
            lambda live: live.publish("c", "p", token=text),
            lambda live: live.publish("c", "p", context_overrides=[]),
            lambda live: live.publish_global("c", "p", token=signed),
        )
    assert [json.loads(request.body)["options"] for request in server.received] == [
        {"token": text, "contextOverrides": ["project", "issue"]},
        {"token": text},
        {"contextOverrides": []},
        {"token": text},
    ]
    assert server.received[-1].path == "/forge/realtime/v1/publish/global"


@needs("permissions")
def test_sign_realtime_token_sends_the_documented_request(caller: Caller) -> None:
    with FaultServer(then=answer(200, {"token": "a.b.c", "expiresAt": 1767225600})) as server:
        [result, _] = caller(
            server.url,
            lambda live: live.sign_realtime_token("c", UserDict(team="red")),
            lambda live: live.sign_realtime_token("c", {}, permissions=["subscribe"]),
        )
    assert [request.path for request in server.received] == ["/forge/realtime/v1/token"] * 2
    assert server.received[0].json == {"channelName": "c", "claims": {"team": "red"}}
    assert server.received[1].json == {"channelName": "c", "claims": {}, "permissions": ["subscribe"]}
    assert result.token == "a.b.c"
    assert result.expires_at == datetime(2026, 1, 1, tzinfo=UTC)
    assert "a.b.c" not in repr(result) + str(result)


def test_call_takes_a_generated_operation(caller: Caller) -> None:
    with FaultServer() as server:
        [result] = caller(server.url, lambda live: live.call(publish, body=PublishRequest("c", "p")))
    assert isinstance(result, PublishResponse)
    assert result.event_id == "event-1"
    assert server.received[0].headers["forge-proxy-authorization"] == "Forge as=app,id=invocation-123"


def refusals() -> dict[str, tuple[Any, str]]:
    recursive: list[Any] = []
    recursive.append(recursive)
    return {
        "empty channel": (lambda live: live.publish("", "p"), "channel must be a non-empty string"),
        "blank channel": (lambda live: live.publish_global(" ", "p"), "channel must be a non-empty string"),
        "channel of another type": (lambda live: live.sign_realtime_token(None, {}), "channel must be"),
        "payload of bytes": (lambda live: live.publish("c", b"p"), "payload cannot be encoded as JSON"),
        "payload with a set": (lambda live: live.publish_global("c", {"p": {1}}), "payload cannot be encoded as JSON"),
        "payload with NaN": (lambda live: live.publish("c", [float("nan")]), "payload cannot be encoded as JSON"),
        "recursive payload": (lambda live: live.publish("c", recursive), "payload cannot be encoded as JSON"),
        "lone surrogate": (lambda live: live.publish("c", "\ud800"), "lone surrogate"),
        "channel with a surrogate": (lambda live: live.publish("\ud800", "p"), "the body of publish .*lone surrogate"),
        "lone surrogate inside": (lambda live: live.publish("c", {"p": "\ud800"}), "lone surrogate"),
        "empty token": (lambda live: live.publish("c", "p", token=""), "token must be what sign_realtime_token"),
        "token of another type": (lambda live: live.publish_global("c", "p", token=5), "token must be what"),
        "overrides as a string": (
            lambda live: live.publish("c", "p", context_overrides="issue"),
            r"context_overrides takes a list of names, such as \['issue'\]",
        ),
        "overrides that are no list": (lambda live: live.publish("c", "p", context_overrides=5), "context_overrides"),
        "permissions that are no list": (lambda live: live.sign_realtime_token("c", {}, 5), "permissions takes a list"),
        "overrides of another type": (lambda live: live.publish("c", "p", context_overrides=[1]), "context_overrides"),
        "claims of another type": (lambda live: live.sign_realtime_token("c", ["red"]), "claims must be a mapping"),
        "claims with other names": (lambda live: live.sign_realtime_token("c", {1: 2}), "claims must be a mapping"),
        "claims that cannot be JSON": (
            lambda live: live.sign_realtime_token("c", {"a": {1}}),
            "the body of sign_realtime",
        ),
        "unknown permission": (lambda live: live.sign_realtime_token("c", {}, ["admin"]), "permissions takes a list"),
        "no permission": (lambda live: live.sign_realtime_token("c", {}, []), "permissions takes a list"),
        "permissions as a string": (lambda live: live.sign_realtime_token("c", {}, "publish"), "permissions takes"),
        "another module": (lambda live: live.call(json), "call\\(\\) takes a generated operation"),
        "a function": (lambda live: live.call(publish.sync, body=None), "call\\(\\) takes a generated operation"),
        "a dict in place of a model": (
            lambda live: live.call(publish, body={"name": "c"}),
            "publish: these are not its arguments",
        ),
        "no argument": (lambda live: live.call(publish), "missing 1 required keyword-only argument: 'body'"),
        "publish for an installation": (
            lambda live: live.for_installation("installation-1").publish("c", "p"),
            "refuses it on behalf of an installation",
        ),
        "the same by call": (
            lambda live: live.for_installation("installation-1").call(publish, body=PublishRequest("c", "p")),
            "refuses it on behalf of an installation",
        ),
    }


@pytest.mark.parametrize("case", refusals())
def test_invalid_arguments_are_refused_before_sending(caller: Caller, case: str) -> None:
    call, says = refusals()[case]
    with FaultServer() as server:
        [error] = caller(server.url, call)
        assert server.connections == 0
    assert isinstance(error, UsageError)
    assert isinstance(error, ValueError)
    assert (error.delivery, error.attempts) == (Delivery.NOT_SENT, ())
    with pytest.raises(UsageError, match=says):
        raise error


def test_installation_publishes_globally_and_signs(caller: Caller) -> None:
    with FaultServer(then=answer(200, {"eventId": "e", "token": "a.b.c"})) as server:
        caller(
            server.url,
            lambda live: live.for_installation("installation-1").publish_global("c", "p"),
            lambda live: live.for_installation("installation-1").sign_realtime_token("c", {}),
        )
    assert [request.headers["forge-proxy-authorization"] for request in server.received] == [
        "Forge as=app,installationId=installation-1"
    ] * 2


def test_call_without_invocation_is_refused() -> None:
    with (
        FaultServer() as server,
        RealtimeClient(server.url) as client,
        pytest.raises(NoInvocationError, match=r"publish: no invocation is current.*for_invocation\(request.headers\)"),
    ):
        client.publish("c", "p")


@pytest.mark.parametrize("client", [RealtimeClient, AsyncRealtimeClient])
@pytest.mark.parametrize(
    "address",
    [
        "localhost:7072",
        "ftp://localhost",
        "http://",
        "//localhost",
        "http://user:secret@localhost",
        "http://localhost/?x=1",
        "http://[::1",
        "nonsense",
        "http://a..b",
        "http://localhost:7072?",
        "http://localhost:7072/?",
        "http://localhost:7072#",
        "http://localhost:7072/#",
        "http://localhost:7072/prefix?",
        "http://localhost:99999",
        "http://localhost:-1",
    ],
)
def test_invalid_addresses_are_refused(client: Any, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="base_url must be an http:// or https:// address") as caught:
        client(address)
    assert "secret" not in str(caught.value)
    monkeypatch.setenv("FORGE_EGRESS_PROXY_URL", address)
    with pytest.raises(UsageError, match="FORGE_EGRESS_PROXY_URL must be an http:// or https:// address"):
        publish_once(client())


@pytest.mark.parametrize("client", [RealtimeClient, AsyncRealtimeClient])
def test_missing_address_is_refused(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORGE_EGRESS_PROXY_URL", raising=False)
    with pytest.raises(UsageError, match=r"FORGE_EGRESS_PROXY_URL is not set.*forge-realtime emulate"):
        publish_once(client())
    monkeypatch.setenv("FORGE_EGRESS_PROXY_URL", "")
    with pytest.raises(UsageError, match="FORGE_EGRESS_PROXY_URL is not set"):
        publish_once(client())
    with pytest.raises(UsageError, match="base_url is not set"):
        client("")


def publish_once(client: RealtimeClient | AsyncRealtimeClient) -> None:
    live = client.for_invocation(INVOCATION)
    if isinstance(live, RealtimeClient):
        live.publish("c", "p")
    else:
        asyncio.run(live.publish("c", "p"))


@pytest.mark.parametrize("kind", KINDS)
def test_client_can_be_made_before_the_address_is_set(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORGE_EGRESS_PROXY_URL", raising=False)
    early = RealtimeClient() if kind == "sync" else async_client(kind)
    assert repr(early) == f"<{type(early).__name__} $FORGE_EGRESS_PROXY_URL without an invocation>"

    async def publish_three_times(client: AsyncRealtimeClient) -> None:
        async with client:
            for server in servers:
                monkeypatch.setenv("FORGE_EGRESS_PROXY_URL", server.url)
                await client.for_invocation(INVOCATION).publish("c", "p")

    with FaultServer() as first, FaultServer() as second:
        servers = (first, second, first)
        if isinstance(early, AsyncRealtimeClient):
            asyncio.run(publish_three_times(early))
        else:
            with early:
                for server in servers:
                    monkeypatch.setenv("FORGE_EGRESS_PROXY_URL", server.url)
                    early.for_invocation(INVOCATION).publish("c", "p")
        assert [len(server.received) for server in (first, second)] == [2, 1]


def test_address_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultServer() as server:
        monkeypatch.setenv("FORGE_EGRESS_PROXY_URL", f"{server.url}/prefix/")
        # The sidecar is on the same machine, so proxies are ignored.
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        with RealtimeClient() as client:
            client.for_invocation(INVOCATION).publish("c", "p")
    assert server.received[0].path == "/prefix/forge/realtime/v1/publish"


@pytest.mark.parametrize("client", [RealtimeClient, AsyncRealtimeClient])
def test_other_types_of_policy_are_refused(client: Any) -> None:
    with pytest.raises(UsageError, match="retry takes a RetryPolicy"):
        client("http://localhost:7072", retry=5)


@pytest.mark.parametrize(
    ("client", "transport"),
    [
        (RealtimeClient, httpx.AsyncHTTPTransport()),
        (RealtimeClient, httpx.Client),
        (AsyncRealtimeClient, httpx.HTTPTransport()),
    ],
)
def test_other_types_of_transport_are_refused(client: Any, transport: Any) -> None:
    with pytest.raises(UsageError, match=r"transport takes .*an httpx\.(Async)?BaseTransport"):
        client("http://localhost:7072", transport=transport)


@pytest.mark.parametrize("address", [5, ["http://localhost"], {}, b"http://localhost"])
def test_addresses_of_other_types_are_refused(address: Any) -> None:
    with pytest.raises(UsageError, match=r"base_url must be an http:// or https:// address .*such as http://local"):
        RealtimeClient(address)


@pytest.mark.parametrize("installation_id", [None, "", " ", 5, uuid.uuid4(), ["installation-1"]])
def test_other_types_of_installation_id_are_refused(installation_id: Any) -> None:
    client = RealtimeClient("http://localhost:7072")
    with pytest.raises(UsageError, match=r"for_installation takes the id of an installation .*GET /v1/installations"):
        client.for_installation(installation_id)


def test_authorization_needs_an_id() -> None:
    with pytest.raises(UsageError, match=r"for an installation \(for_installation\)\. Its id is a string"):
        Authorization()


@pytest.mark.parametrize("invocation", ["invocation-123", 5, object()])
def test_id_in_place_of_headers_is_refused(invocation: Any) -> None:
    client = RealtimeClient("http://localhost:7072")
    with pytest.raises(UsageError, match=r"such as request\.headers\. .*pass Invocation\(id\)"):
        client.for_invocation(invocation)


def test_siblings_do_not_change_each_other() -> None:
    with FaultServer() as server, RealtimeClient(server.url) as client:
        first = client.for_invocation({"x-forge-invocation-id": "first"})
        second = client.for_invocation({"x-forge-invocation-id": "second"}, as_="user", account_id="user-123")
        other = second.with_options(retry=RetryPolicy(max_attempts=1))
        for live in (first, second, other, first):
            live.publish("c", "p")
        assert (first.retry, second.retry, other.retry.max_attempts) == (client.retry, client.retry, 1)
    assert [request.headers["forge-proxy-authorization"] for request in server.received] == [
        "Forge as=app,id=first",
        "Forge as=user,accountId=user-123,id=second",
        "Forge as=user,accountId=user-123,id=second",
        "Forge as=app,id=first",
    ]


def test_closed_client_refuses_calls() -> None:
    client = RealtimeClient("http://localhost:7072")
    live = client.for_invocation(INVOCATION)
    client.close()
    with pytest.raises(UsageError, match="This client is closed"):
        live.publish("c", "p")


def test_repr_shows_no_id() -> None:
    with RealtimeClient("http://localhost:7072") as client:
        assert repr(client) == "<RealtimeClient http://localhost:7072 without an invocation>"
        assert "invocation-123" not in repr(client.for_invocation(INVOCATION))


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda live: live.publish("c", "p", context_overrides=["issue"]), "publish(context_overrides=...)"),
        (lambda live: live.sign_realtime_token("c", {}, ["publish"]), "sign_realtime_token(permissions=...)"),
    ],
)
def test_arguments_missing_in_the_document_are_refused(
    caller: Caller, monkeypatch: pytest.MonkeyPatch, call: Any, argument: str
) -> None:
    monkeypatch.setattr("attrs.fields_dict", lambda _: {})
    assert argument in lacking()
    with FaultServer() as server:
        [error] = caller(server.url, call)
    assert isinstance(error, UsageError)
    assert str(error).startswith(
        f"{argument}: the API document that this client was generated from has no such property"
    )
    assert server.received == []
