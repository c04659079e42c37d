"""Pages of other origins, and calls of the service, without a browser."""

from __future__ import annotations

import asyncio
import http.server
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from forge_realtime_emulator import Emulator, Settings, create_app
from forge_realtime_emulator._http import bridge as _bridge
from tests.emulator.api import Api

ORIGIN = "http://localhost:5173"
SHARED = {
    "/bridge.js": "GET",
    "/streams.js": "GET",
    "/_emulator/context": "GET",
    "/_emulator/invoke": "POST",
    "/_emulator/publish": "POST",
}
OWN_ONLY = [
    "/_emulator/subscribe",
    "/_emulator/state",
    "/_emulator/feed",
    "/_emulator/reset",
    "/_emulator/faults",
    "/forge/realtime/v1/publish",
]


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator(origins=[ORIGIN, "https://app.example:443/"]) as emulator:
        yield emulator


def preflight(client: httpx.Client, url: str, origin: str) -> httpx.Response:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    return client.options(url, headers=headers)


def allowed(response: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name.startswith("access-control-")}


@pytest.mark.parametrize("path", SHARED)
@pytest.mark.parametrize("origin", [ORIGIN, "https://app.example"])
def test_allowed_origin_may_use_the_bridge(emulator: Emulator, client: httpx.Client, path: str, origin: str) -> None:
    preflighted = preflight(client, emulator.url + path, origin)
    assert preflighted.status_code == 204
    assert allowed(preflighted) == {
        "access-control-allow-origin": origin,
        "access-control-allow-methods": SHARED[path],
        "access-control-allow-headers": "Content-Type",
        "access-control-max-age": "600",
    }
    response = client.request(SHARED[path], emulator.url + path, headers={"Origin": origin})
    assert response.status_code in (200, 400)
    assert allowed(response) == {"access-control-allow-origin": origin}
    assert {preflighted.headers["vary"], response.headers["vary"]} == {"Origin"}


@pytest.mark.parametrize("path", OWN_ONLY)
def test_allowed_origin_may_use_nothing_else(emulator: Emulator, client: httpx.Client, path: str) -> None:
    responses = [
        preflight(client, emulator.url + path, ORIGIN),
        client.get(emulator.url + path, headers={"Origin": ORIGIN}),
        client.post(emulator.url + path, headers={"Origin": ORIGIN}, json={}),
    ]
    for response in responses:
        assert response.status_code == 403
        assert allowed(response) == {}


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost:5174",
        "https://localhost:5173",
        "http://localhost:5173.evil.example",
        "http://LOCALHOST:5173",
        "null",
    ],
)
def test_other_origin_may_use_nothing(emulator: Emulator, client: httpx.Client, origin: str) -> None:
    for path, method in SHARED.items():
        for response in (
            preflight(client, emulator.url + path, origin),
            client.request(method, emulator.url + path, headers={"Origin": origin}),
        ):
            assert response.status_code == 403
            assert allowed(response) == {}
            assert response.headers["vary"] == "Origin"
    with pytest.raises(InvalidStatus), subscribed(emulator, origin):
        pass


def test_refused_page_is_logged_once(
    emulator: Emulator, client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            with pytest.raises(InvalidStatus), subscribed(emulator, "http://localhost:4444"):
                pass
            client.get(f"{emulator.url}/bridge.js", headers={"Origin": "http://localhost:4444"})
        # An allowed origin is refused here too, but not logged.
        client.get(f"{emulator.url}/_emulator/state", headers={"Origin": ORIGIN})
    [record] = caplog.records
    assert record.getMessage() == (
        "A web page of 'http://localhost:4444' was refused. Is it your app's front end? Then: forge-realtime emulate"
        " --origin 'http://localhost:4444'"
    )


def subscribed(emulator: Emulator, origin: str) -> Any:
    url = f"ws{emulator.url.removeprefix('http')}/_emulator/subscribe"
    return connect(url, additional_headers={"Origin": origin}, proxy=None)


def test_allowed_origin_may_subscribe(emulator: Emulator) -> None:
    with subscribed(emulator, ORIGIN) as connection:
        connection.send(json.dumps({"channel": "board"}))
        assert json.loads(connection.recv(timeout=5)) == {"type": "subscribed"}


def test_responses_for_one_origin_are_not_cached_for_another(emulator: Emulator, client: httpx.Client) -> None:
    response = client.get(f"{emulator.url}/bridge.js")
    assert response.headers["vary"] == "Origin"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["content-type"] == "text/javascript; charset=utf-8"
    assert allowed(response) == {}


@pytest.mark.parametrize(
    "origin",
    [
        "*",
        "null",
        "localhost:5173",
        "http://",
        "http://*.example",
        "http://a@b",
        "http://a/page",
        "ftp://a",
        "http://a:x",
    ],
)
def test_value_that_is_not_an_origin_is_an_error(origin: str) -> None:
    with pytest.raises(ValueError, match="origin"):
        Emulator(origins=[origin])


@pytest.mark.parametrize("service", ["localhost:8080", "http://", "ftp://a", "http://a?b", "", "http://a:x"])
def test_value_that_is_not_a_service_url_is_an_error(service: str) -> None:
    with pytest.raises(ValueError, match="service"):
        create_app(service=service)


def invoke(client: httpx.Client, emulator: Emulator, **call: Any) -> dict[str, Any]:
    response = client.post(f"{emulator.url}/_emulator/invoke", json={"path": "/", "method": "GET", **call})
    assert response.status_code == 200, response.text
    result: dict[str, Any] = response.json()
    return result


def error(client: httpx.Client, emulator: Emulator, **call: Any) -> tuple[str, str]:
    result = invoke(client, emulator, **call)
    assert result["success"] is False
    assert list(result) == ["success", "error"]
    return result["error"]["code"], result["error"]["message"]


def test_invoke_without_service_says_how_to_set_one(emulator: Emulator, client: httpx.Client) -> None:
    code, message = error(client, emulator)
    assert code == "NO_SERVICE"
    assert "--service" in message


@pytest.mark.parametrize(
    "call",
    [{"path": "x"}, {"path": "http://other"}, {"method": "TRACE"}, {"headers": {"a": 1}}, {"headers": []}, {"more": 1}],
)
def test_malformed_invoke_is_refused(emulator: Emulator, client: httpx.Client, call: dict[str, Any]) -> None:
    response = client.post(f"{emulator.url}/_emulator/invoke", json={"path": "/", "method": "GET", **call})
    assert response.status_code == 400
    assert response.json()["code"] == "INVALID_REQUEST"


def test_unreachable_service_is_reported(client: httpx.Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with Emulator(service=url) as emulator:
        code, message = error(client, emulator)
    assert code == "SERVICE_UNREACHABLE"
    assert url in message


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def test_silent_service_times_out(client: httpx.Client, silent: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_bridge, "_TIMEOUT", 0.1)
    with Emulator(service=f"http://127.0.0.1:{silent.getsockname()[1]}") as emulator:
        code, message = error(client, emulator)
    assert code == "SERVICE_TIMED_OUT"
    assert "0.1 s" in message


def test_silent_service_does_not_delay_stop(silent: socket.socket) -> None:
    emulator = Emulator(service=f"http://127.0.0.1:{silent.getsockname()[1]}")
    emulator.start()
    outcome: list[type[Exception]] = []

    def call() -> None:
        with httpx.Client(trust_env=False, timeout=20) as client:
            try:
                invoke(client, emulator)
            except httpx.HTTPError as failure:
                outcome.append(type(failure))

    calling = threading.Thread(target=call)
    calling.start()
    accepted, _ = silent.accept()
    with accepted:
        assert accepted.recv(65536).startswith(b"GET / HTTP/1.1\r\n")
        emulator.stop()
        # The emulator has closed its connection to the service too.
        assert accepted.recv(65536) == b""
    calling.join()
    assert outcome == [httpx.RemoteProtocolError]


@pytest.mark.parametrize(
    ("response", "code"),
    [(b"SSH-2.0-x\r\n", "SERVICE_FAILED"), (b"", "SERVICE_FAILED"), (b"HTTP/1.1 200", "SERVICE_FAILED")],
)
def test_service_that_breaks_http_is_reported(
    client: httpx.Client, silent: socket.socket, response: bytes, code: str
) -> None:
    def serve() -> None:
        accepted, _ = silent.accept()
        with accepted:
            accepted.recv(65536)
            accepted.sendall(response)

    serving = threading.Thread(target=serve)
    serving.start()
    with Emulator(service=f"http://127.0.0.1:{silent.getsockname()[1]}") as emulator:
        assert error(client, emulator)[0] == code
    serving.join()


@pytest.mark.parametrize("headers", [{"a": "b\r\nc: d"}, {"a\n": "b"}, {"a": "ü\u4e00"}])
def test_headers_that_cannot_be_sent_are_reported(
    client: httpx.Client, page_server: str, headers: dict[str, str]
) -> None:
    with Emulator(service=page_server) as emulator:
        assert error(client, emulator, headers=headers)[0] == "SERVICE_FAILED"


def test_redirect_is_passed_on(client: httpx.Client, page_server: str) -> None:
    with Emulator(service=page_server) as emulator:
        payload = invoke(client, emulator)["payload"]
    assert payload["status"] == 302
    assert payload["headers"]["location"] == ["http://127.0.0.1:1/"]


@pytest.mark.parametrize(
    ("body", "received"),
    [
        (b'{"a": "\\ud800"}', {"a": "\ud800"}),
        (b'{"a": NaN}', '{"a": NaN}'),
        (b'{"a": 1e999}', '{"a": 1e999}'),
        (b"[" * 5000 + b"]" * 5000, "[" * 5000 + "]" * 5000),
        ('{"a": "\u00fc"}'.encode("latin-1"), {"a": "\ufffd"}),  # as in a browser
        (b"{", "{"),
    ],
)
def test_json_unreadable_for_a_page_is_passed_on_as_text(
    client: httpx.Client, silent: socket.socket, body: bytes, received: Any
) -> None:
    def serve() -> None:
        accepted, _ = silent.accept()
        with accepted:
            accepted.recv(65536)
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            accepted.sendall(head.encode() + body)

    serving = threading.Thread(target=serve)
    serving.start()
    with Emulator(service=f"http://127.0.0.1:{silent.getsockname()[1]}") as emulator:
        assert invoke(client, emulator)["payload"]["body"] == received
    serving.join()


def test_log_has_no_query_and_no_body(client: httpx.Client, page_server: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with Emulator(service=page_server) as emulator:
        invoke(client, emulator, path="/jobs?secret=1", method="POST", body={"secret": 1}, headers={"x-key": "secret"})
        ours = [record.getMessage() for record in caplog.records if record.name == "forge_realtime_emulator"]
    assert [message.split() for message in ours] == [["invoke", "302", "POST", "/jobs"]]


def test_only_the_last_invocations_are_kept(
    client: httpx.Client, page_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forge_realtime_emulator._platform.contexts.INVOKED_LIMIT", 2)
    with Emulator(service=page_server, contexts={"invocations": {"kept": {}}}) as emulator:
        for _ in range(3):
            invoke(client, emulator)
        invocations = client.get(f"{emulator.url}/_emulator/state").json()["contexts"]["invocations"]
    assert len(invocations) == 3
    assert "kept" in invocations


def test_invocation_lifetime_begins_when_a_page_causes_it(
    client: httpx.Client, page_server: str, api_of: Callable[[Emulator], Api]
) -> None:
    with Emulator(service=page_server, settings=Settings(invocation_lifetime=60)) as emulator:
        invoke(client, emulator)
        [id_] = client.get(f"{emulator.url}/_emulator/state").json()["contexts"]["invocations"]
        emulator.advance(60)
        assert api_of(emulator).publish("c", authorization=f"Forge id={id_}").status_code == 401


@pytest.fixture
def page_server() -> Iterator[str]:
    with closing(_Redirecting()) as server:
        yield server.url


class _Redirecting:
    def __init__(self) -> None:
        self._server = http.server.HTTPServer(("127.0.0.1", 0), _Redirect)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Redirect(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.send_response(302)
        self.send_header("Location", "http://127.0.0.1:1/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_GET  # noqa: N815 - the name that the base class calls

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
        pass


def test_create_app_works_in_another_server() -> None:
    async def live() -> list[str]:
        events = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
        responses: list[str] = []

        async def receive() -> Any:
            return events.pop(0)

        async def send(message: Any) -> None:
            responses.append(message["type"])

        await create_app()({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)
        return responses

    assert asyncio.run(live()) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
