"""The WebSocket protocol, and the pages that may connect."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Close, Frame, Opcode
from websockets.sync.client import ClientConnection, connect

from forge_realtime_emulator import Emulator
from forge_realtime_emulator._http import subscribers
from tests.emulator.api import Api


@contextmanager
def raw(api: Api, path: str = "subscribe", **kwargs: Any) -> Iterator[ClientConnection]:
    address = f"ws{api.emulator.url.removeprefix('http')}/_emulator/{path}"
    with connect(address, proxy=None, compression=None, max_size=None, **kwargs) as connection:
        yield connection


def end(connection: ClientConnection) -> Close:
    with pytest.raises(ConnectionClosed) as closed:
        connection.recv(timeout=5)
    assert closed.value.rcvd is not None
    return closed.value.rcvd


def test_websocket_follows_the_documented_protocol(api: Api, channel: str) -> None:
    with raw(api) as connection:
        connection.send(json.dumps({"channel": channel, "isGlobal": False, "options": {"contextOverrides": ["issue"]}}))
        assert json.loads(connection.recv()) == {"type": "subscribed"}
        result = api.publish(channel, "moved", contextOverrides=["issue"]).json()
        assert json.loads(connection.recv()) == {"type": "event", "channel": channel, "payload": "moved", **result}


def test_only_the_channel_is_required(api: Api, channel: str) -> None:
    with raw(api) as connection:
        connection.send(json.dumps({"channel": channel}))
        assert json.loads(connection.recv()) == {"type": "subscribed"}


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        (b'{"channel": "x"}', "text frame"),
        ("[]", "must be of type object"),
        ("null", "must be of type object"),
        ("{}", "missing channel"),
        ('{"channel": 1}', "channel: must be of type string"),
        ('{"channel": "x", "isGlobal": 1}', "isGlobal: must be of type boolean"),
        ('{"channel": "x", "options": []}', "options: must be of type object"),
        ('{"channel": "x", "options": {"token": 1}}', "options.token: must be of type string"),
        ('{"channel": "x", "options": {"replay": 1}}', "allowed are token, contextOverrides"),
        ('{"channel": "x", "name": "x"}', "allowed are channel, isGlobal, invocation, options"),
    ],
)
def test_malformed_first_message_is_an_error_and_ends_the_connection(
    api: Api, caplog: pytest.LogCaptureFixture, message: str | bytes, problem: str
) -> None:
    with caplog.at_level(logging.WARNING), raw(api) as connection:
        connection.send(message)
        error = json.loads(connection.recv(timeout=5))
        assert error["type"] == "error"
        assert error["code"] == "INVALID_SUBSCRIPTION"
        assert problem in error["message"]
        assert end(connection).code == 1008
    assert caplog.text == ""


@given(message=st.text(max_size=40) | st.binary(max_size=40))
@settings(deadline=None, max_examples=25)
def test_noise_is_an_error(api: Api, message: str | bytes) -> None:
    with raw(api) as connection:
        connection.send(message)
        assert json.loads(connection.recv(timeout=5))["type"] == "error"
        assert end(connection).code == 1008


def test_second_message_is_an_error_and_ends_the_subscription(
    api: Api, channel: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), raw(api) as connection:
        connection.send(json.dumps({"channel": channel}))
        connection.recv()
        connection.send("again")
        assert json.loads(connection.recv(timeout=5))["code"] == "UNEXPECTED_MESSAGE"
        assert end(connection).code == 1008
    assert caplog.text == ""


def say(connection: ClientConnection, id_: int, type_: str, **more: Any) -> None:
    connection.send(json.dumps({"id": id_, "type": type_, **more}))


def hear(connection: ClientConnection) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(connection.recv(timeout=5))
    return message


def test_page_has_all_its_subscriptions_on_one_connection(api: Api, channel: str) -> None:
    with raw(api, "subscriptions") as connection:
        say(connection, 1, "subscribe", subscription={"channel": channel})
        assert hear(connection) == {"id": 1, "type": "subscribed"}
        say(connection, 2, "subscribe", subscription={"channel": channel, "isGlobal": True})
        assert hear(connection) == {"id": 2, "type": "subscribed"}
        say(connection, 3, "subscribe", subscription={"channel": channel, "options": {"token": "x"}})
        refused = hear(connection)
        assert (refused["id"], refused["type"], refused["code"]) == (3, "error", "INVALID_TOKEN")
        say(connection, 4, "subscribe", subscription={"channel": 1})
        assert hear(connection)["code"] == "INVALID_SUBSCRIPTION"

        result = api.publish(channel, "moved").json()
        assert hear(connection) == {"id": 1, "type": "event", "channel": channel, "payload": "moved", **result}
        say(connection, 1, "unsubscribe")
        assert hear(connection) == {"id": 1, "type": "unsubscribed"}
        assert api.publish(channel, "too late").json()["eventId"] is None
        # A number that is not in use.
        say(connection, 9, "unsubscribe")
        assert hear(connection) == {"id": 9, "type": "unsubscribed"}
        # Used again.
        say(connection, 2, "subscribe", subscription={"channel": channel})
        assert hear(connection) == {"id": 2, "type": "subscribed"}
        assert api.publish(channel, "again").json()["eventId"] is not None
        assert hear(connection)["payload"] == "again"


@pytest.mark.parametrize(
    "message",
    ["", "[]", b"{}", '{"type": "subscribe"}', '{"id": 0, "type": "unsubscribe"}', '{"id": 1, "type": "publish"}'],
)
def test_malformed_message_of_a_page_ends_its_connection(
    api: Api, caplog: pytest.LogCaptureFixture, channel: str, message: str | bytes
) -> None:
    with caplog.at_level(logging.WARNING), raw(api, "subscriptions") as connection:
        say(connection, 1, "subscribe", subscription={"channel": channel})
        hear(connection)
        connection.send(message)
        assert end(connection).code == 1008
    assert api.publish(channel).json()["eventId"] is None
    assert caplog.text == ""


def test_reset_ends_the_subscriptions_of_a_page_and_not_its_connection(own: Api, channel: str) -> None:
    with raw(own, "subscriptions") as connection:
        say(connection, 1, "subscribe", subscription={"channel": channel})
        assert hear(connection)["type"] == "subscribed"
        own.emulator.reset()
        closed = hear(connection)
        assert (closed["id"], closed["type"], closed["code"]) == (1, "closed", 1001)
        say(connection, 1, "subscribe", subscription={"channel": channel})
        assert hear(connection)["type"] == "subscribed"


def test_vanished_page_leaves_nothing_behind(own: Api, channel: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        with raw(own, "subscriptions") as connection:
            say(connection, 1, "subscribe", subscription={"channel": channel})
            hear(connection)
            connection.socket.shutdown(2)
        own.emulator.stop()
    assert caplog.text == ""


@pytest.mark.parametrize("subscribed", [False, True])
@pytest.mark.parametrize(
    ("opcode", "data", "code"),
    [(Opcode.TEXT, b"\xff\xfe", 1007), (Opcode.TEXT, b"x" * (1024 * 1024 + 1), 1009), (Opcode.CONT, b"x", 1002)],
)
def test_broken_frame_ends_the_connection_without_a_traceback(
    api: Api, channel: str, caplog: pytest.LogCaptureFixture, subscribed: bool, opcode: Opcode, data: bytes, code: int
) -> None:
    with caplog.at_level(logging.WARNING), raw(api) as connection:
        if subscribed:
            connection.send(json.dumps({"channel": channel}))
            connection.recv()
        with connection.send_context():
            connection.protocol.send_frame(Frame(opcode, data))
        assert end(connection).code == code
    assert "Traceback" not in caplog.text
    assert api.publish(channel).status_code == 200


@pytest.mark.parametrize("path", ["subscribe", "subscriptions"])
@pytest.mark.parametrize(
    "frame", [Frame(Opcode.TEXT, b"\xff\xfe"), Frame(Opcode.CONT, b"x"), Frame(Opcode.TEXT, b"x" * (1024 * 1024 + 1))]
)
def test_broken_frame_after_a_refused_subscription_leaves_no_traceback(
    own: Api, caplog: pytest.LogCaptureFixture, path: str, frame: Frame
) -> None:
    refused = '{"channel": 1}'
    first = refused if path == "subscribe" else f'{{"id": 1, "type": "subscribe", "subscription": {refused}}}'
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            with raw(own, path) as connection:
                # In one packet, so that the frame is read before the refusal is sent.
                frames = [Frame(Opcode.TEXT, first.encode()), frame]
                connection.socket.sendall(b"".join(each.serialize(mask=True) for each in frames))
                with suppress(ConnectionClosed):
                    while True:
                        connection.recv(timeout=5)
        own.emulator.stop()
    assert "Traceback" not in caplog.text


def test_subscriber_that_says_nothing_is_refused(own: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscribers, "_FIRST_MESSAGE", 0.01)
    with raw(own) as connection:
        error = json.loads(connection.recv(timeout=5))
        assert error["message"].startswith("Invalid subscription: no message came within 0.01 s.")
        assert end(connection).code == 1008


def test_vanished_clients_leave_nothing_behind(own: Api, channel: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for first in (None, json.dumps({"channel": channel})):
            with raw(own) as connection:
                if first is not None:
                    connection.send(first)
                    connection.recv()
                connection.socket.shutdown(2)
        own.emulator.stop()
    assert caplog.text == ""


def origins(api: Api) -> tuple[str, list[str]]:
    port = api.emulator.url.rpartition(":")[2]
    foreign = ["http://evil.example", "null", "http://localhost:1", f"https://127.0.0.1:{port}", "file://"]
    return f"http://127.0.0.1:{port}", foreign


def test_page_of_another_origin_is_refused(api: Api, channel: str) -> None:
    _, foreign = origins(api)
    for origin in foreign:
        with pytest.raises(InvalidStatus) as refused, raw(api, origin=origin):
            pass
        assert refused.value.response.status_code == 403
        assert json.loads(refused.value.response.body)["code"] == "CROSS_ORIGIN"
        for path in ("/_emulator/faults", "/forge/realtime/v1/publish"):
            response = api.post(path, {"status": 500}, headers={"Origin": origin})
            assert response.status_code == 403
            assert "own address" in response.json()["message"]
    assert api.publish(channel).status_code == 200


def test_page_of_the_own_origin_is_served(own: Api, channel: str) -> None:
    origin, _ = origins(own)
    with raw(own, origin=origin) as connection:
        connection.send(json.dumps({"channel": channel}))
        assert json.loads(connection.recv()) == {"type": "subscribed"}
    assert own.post("/_emulator/faults", {"status": 500}, headers={"Origin": origin}).status_code == 200


def test_domain_name_that_points_here_is_not_the_own_origin(api: Api) -> None:
    port = api.emulator.url.rpartition(":")[2]
    for name, status in [(f"evil.example:{port}", 403), (f"localhost:{port}", 400), ("[::1", 403)]:
        response = api.post("/_emulator/faults", {}, headers={"Origin": f"http://{name}", "Host": name})
        assert response.status_code == status, name


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/_emulator/state",
        "/_emulator/feed",
        "/_emulator/context",
        "/_emulator/subscribe",
        "/v1/installations",
        "/v1/installation/default-installation",
        "/invocation/context",
        "/jira/rest/api/3/myself",
        "/bridge.js",
    ],
)
def test_domain_name_that_points_here_shows_nothing_even_without_origin(own: Api, path: str) -> None:
    """A browser sends no Origin with a GET to the page's supposed own server."""
    for name in ("evil.example:7072", "evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "com."):
        response = httpx.get(own.emulator.url + path, headers={"Host": name}, trust_env=False)
        assert (response.status_code, response.json()["code"]) == (403, "FOREIGN_HOST"), name
        assert "http://127.0.0.1" in response.json()["message"]


@pytest.mark.parametrize(
    "name",
    [
        "localhost",
        "127.0.0.1:1",
        "[::1]:7072",
        "192.0.2.7",
        "emulator:7072",
        "host.docker.internal:7072",
        "a.localhost",
    ],
)
def test_local_name_is_served(api: Api, name: str) -> None:
    assert httpx.get(api.emulator.url + "/_emulator/state", headers={"Host": name}, trust_env=False).status_code == 200


def test_operations_are_served_under_every_name(api: Api, channel: str) -> None:
    body = {"name": channel, "payload": "x"}
    assert api.post("/forge/realtime/v1/publish", body, headers={"Host": "emulator.example"}).status_code == 200


@pytest.mark.parametrize("host", ["evil@127.0.0.1:{port}", "127.0.0.1:{port}@evil", "[::1", "a b", "127.0.0.1:x", "é"])
def test_malformed_host_is_refused(api: Api, host: str) -> None:
    name = host.format(port=api.emulator.url.rpartition(":")[2])
    body = {"name": "c", "payload": "x"}
    for headers in ({"Host": name}, {"Host": name, "Origin": f"http://{name}"}):
        encoded = {key.encode(): value.encode() for key, value in headers.items()}
        for response in (
            httpx.get(f"{api.emulator.url}/_emulator/state", headers=encoded, trust_env=False),
            httpx.post(f"{api.emulator.url}/forge/realtime/v1/publish", headers=encoded, json=body, trust_env=False),
        ):
            assert response.status_code in (400, 403)


def test_domain_name_can_be_allowed_as_an_origin(client: httpx.Client) -> None:
    with Emulator(origins=["http://emulator.example:7072", "http://app.example"]) as emulator:
        own = {"Host": "emulator.example:7072"}
        assert client.get(f"{emulator.url}/v1/installations", headers=own).status_code == 200
        with_origin = {**own, "Origin": "http://emulator.example:7072"}
        assert client.post(f"{emulator.url}/_emulator/reset", headers=with_origin).status_code == 200
        for host in ("emulator.example", "emulator.example:7073", "app.example:7072"):
            assert client.get(f"{emulator.url}/v1/installations", headers={"Host": host}).status_code == 403
