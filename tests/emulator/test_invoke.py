"""Calls of the app's service by a page, without a browser: `invokeService()` as Atlassian documents it."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import httpx
import pytest

from forge_realtime_emulator import Emulator, Settings
from forge_realtime_emulator._http import bridge as _bridge
from tests.emulator.api import Api

Responds = Callable[[int, bytes, bytes], str]
JSON = b"Content-Type: application/json\r\n"


@pytest.fixture
def service() -> Iterator[Responds]:
    """Start services that respond with this status, these header lines and this body; return their URL."""
    with ExitStack() as stack:

        def start(status: int, head: bytes, body: bytes) -> str:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            threading.Thread(target=serve, args=(listener, status, head, body), daemon=True).start()
            return f"http://127.0.0.1:{listener.getsockname()[1]}"

        yield start


def serve(listener: socket.socket, status: int, head: bytes, body: bytes) -> None:
    with suppress(OSError):  # The listener is closed, or the emulator has read enough.
        while True:
            accepted, _ = listener.accept()
            with accepted:
                accepted.recv(1024 * 1024)
                length = b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
                accepted.sendall(b"HTTP/1.1 %d X\r\n" % status + head + length + body)


def invoke(client: httpx.Client, emulator: Emulator, **call: Any) -> dict[str, Any]:
    response = client.post(f"{emulator.url}/_emulator/invoke", json={"path": "/", "method": "GET", **call})
    assert response.status_code == 200, response.text
    result: dict[str, Any] = response.json()
    return result


def unavailable(client: httpx.Client, emulator: Emulator, **call: Any) -> tuple[int, str]:
    """Call a service that cannot be reached, and return the status and the error that a page gets."""
    result = invoke(client, emulator, **call)
    assert result["success"] is False
    assert list(result) == ["success", "error"]
    assert result["error"]["headers"] == {}
    return result["error"]["status"], result["error"]["error"]


def rejection(client: httpx.Client, emulator: Emulator, **call: Any) -> tuple[str, str]:
    """Make a call that `invokeService()` rejects, and return the code and the message."""
    response = client.post(f"{emulator.url}/_emulator/invoke", json={"path": "/", "method": "GET", **call})
    assert response.status_code == 502
    return response.json()["code"], response.json()["message"]


@pytest.fixture(scope="module")
def without_service() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


def test_invoke_without_service_says_how_to_set_one(without_service: Emulator, client: httpx.Client) -> None:
    status, error = unavailable(client, without_service)
    assert status == 503
    assert error.startswith("NO_SERVICE: ")
    assert "--service" in error


@pytest.mark.parametrize(
    "call",
    [{"path": "x"}, {"path": "http://other"}, {"method": "TRACE"}, {"headers": {"a": 1}}, {"headers": []}, {"more": 1}],
)
def test_malformed_invoke_is_refused(without_service: Emulator, client: httpx.Client, call: dict[str, Any]) -> None:
    response = client.post(f"{without_service.url}/_emulator/invoke", json={"path": "/", "method": "GET", **call})
    assert response.status_code == 400
    assert response.json()["code"] == "INVALID_REQUEST"


@pytest.mark.parametrize(
    ("path", "call"),
    [
        ("invoke", {"method": "GET", "path": "/\ud800"}),
        ("invoke", {"method": "GET", "path": "/", "headers": {"a": "\ud800"}}),
        ("invoke", {"method": "GET", "path": "/", "headers": {"\ud800": "a"}}),
        ("mocked", {"method": "GET", "path": "/\ud800"}),
        ("mocks", {"method": "GET", "path": "/\ud800"}),
    ],
)
def test_lone_surrogate_is_refused(api: Api, path: str, call: dict[str, Any]) -> None:
    response = api.post(f"/_emulator/{path}", call)
    assert response.status_code == 400
    assert "a lone surrogate, which UTF-8 cannot encode; send valid Unicode." in response.json()["message"]


@pytest.mark.parametrize("path", ["publish", "publish/global", "token"])
def test_lone_surrogate_in_a_call_is_no_error_of_the_emulator(api: Api, path: str) -> None:
    text = "\ud800"
    options = {"token": text} if path == "publish/global" else {"contextOverrides": [text]}
    body: dict[str, Any] = {"name": text, "payload": text, "options": options}
    if path == "token":
        body = {"channelName": text, "claims": {text: text}}
    assert api.post(f"/forge/realtime/v1/{path}", body).status_code == 200
    assert api.get("/_emulator/state").status_code == 200


def test_unreachable_service_is_reported(client: httpx.Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with Emulator(service=url) as emulator:
        status, error = unavailable(client, emulator)
    assert status == 503
    assert error.startswith("SERVICE_UNREACHABLE: ")
    assert url in error


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def test_silent_service_times_out(client: httpx.Client, silent: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_bridge, "_TIMEOUT", 0.1)
    with Emulator(service=f"http://127.0.0.1:{silent.getsockname()[1]}") as emulator:
        status, error = unavailable(client, emulator)
    assert status == 504
    assert error.startswith("SERVICE_TIMED_OUT: ")
    assert "0.1 s" in error


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

    calling = threading.Thread(target=call, daemon=True)
    calling.start()
    accepted, _ = silent.accept()
    with accepted:
        assert accepted.recv(65536).startswith(b"GET / HTTP/1.1\r\n")
        emulator.stop()
        # The emulator has closed its connection to the service too.
        assert accepted.recv(65536) == b""
    calling.join(30)
    assert outcome == [httpx.RemoteProtocolError]


@pytest.mark.parametrize(
    "response", [b"SSH-2.0-x\r\n", b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort"]
)
def test_service_that_breaks_http_is_reported(client: httpx.Client, silent: socket.socket, response: bytes) -> None:
    def serve() -> None:
        accepted, _ = silent.accept()
        with accepted:
            accepted.recv(65536)
            accepted.sendall(response)

    serving = threading.Thread(target=serve, daemon=True)
    serving.start()
    with Emulator(service=f"http://127.0.0.1:{silent.getsockname()[1]}") as emulator:
        status, error = unavailable(client, emulator)
        assert status == 502
        assert error.startswith("SERVICE_FAILED: ")
    serving.join(30)
    assert not serving.is_alive()


@pytest.mark.parametrize("headers", [{"a": "b\r\nc: d"}, {"a\n": "b"}, {"a": "ü\u4e00"}])
def test_headers_that_cannot_be_sent_are_reported(
    client: httpx.Client, service: Responds, headers: dict[str, str]
) -> None:
    with Emulator(service=service(200, JSON, b"{}")) as emulator:
        assert unavailable(client, emulator, headers=headers)[0] == 502


@pytest.mark.parametrize(
    ("status", "head", "body", "received"),
    [
        (200, JSON, b'{"a": [1]}', {"a": [1]}),
        (202, b"content-type: Application/JSON; charset=utf-8\r\n", b"null", None),
        (302, JSON + b"Location: http://127.0.0.1:1/\r\n", b'"elsewhere"', "elsewhere"),
        (200, JSON, b'{"a": "\\ud800"}', {"a": "\ud800"}),
        (200, JSON, '{"a": "\u00fc"}'.encode("latin-1"), {"a": "\ufffd"}),  # as in a browser
    ],
)
def test_json_below_400_is_passed_on(
    client: httpx.Client, service: Responds, status: int, head: bytes, body: bytes, received: Any
) -> None:
    with Emulator(service=service(status, head, body)) as emulator:
        result = invoke(client, emulator)
    assert result["success"] is True
    assert result["payload"]["status"] == status
    assert result["payload"]["body"] == received
    assert "content-length" not in result["payload"]["headers"]
    if status == 302:
        assert result["payload"]["headers"]["location"] == ["http://127.0.0.1:1/"]


@pytest.mark.parametrize(
    ("status", "head", "body", "problem"),
    [
        (200, b"Content-Type: text/plain\r\n", b"plain", "the content type text/plain"),
        (200, b"Content-Type: application/problem+json\r\n", b"{}", "the content type application/problem+json"),
        (200, b"", b'{"a": 1}', "no content type"),
        (302, b"Location: http://127.0.0.1:1/\r\n", b"", "no content type"),
        (200, JSON, b"", "is not the JSON"),
        (200, JSON, b'{"a": NaN}', "is not the JSON"),
        (200, JSON, b'{"a": 1e999}', "is not the JSON"),
        (200, JSON, b"[" * 5000 + b"]" * 5000, "is not the JSON"),
        (200, JSON, b"{", "is not the JSON"),
    ],
)
def test_other_responses_below_400_are_rejected(
    client: httpx.Client, service: Responds, status: int, head: bytes, body: bytes, problem: str
) -> None:
    with Emulator(service=service(status, head, body)) as emulator:
        code, message = rejection(client, emulator)
    assert code == "RESPONSE_NOT_JSON"
    assert problem in message
    assert f"responded with {status}" in message


@pytest.mark.parametrize(
    ("status", "head", "body"),
    [
        (400, JSON, b'{"code": "TOO_LATE"}'),
        (404, b"Content-Type: text/html\r\n", b"<h1>Not found</h1>"),
        (503, b"Retry-After: 3\r\n", b""),
    ],
)
def test_error_status_is_passed_on_with_the_body_as_text(
    client: httpx.Client, service: Responds, status: int, head: bytes, body: bytes
) -> None:
    with Emulator(service=service(status, head, body)) as emulator:
        result = invoke(client, emulator)
    assert result["success"] is False
    error = result["error"]
    assert list(error) == ["status", "headers", "error"]
    assert error["status"] == status
    assert error["error"] == body.decode()
    if status == 503:
        assert error["headers"]["retry-after"] == ["3"]


def test_oversized_request_is_rejected(client: httpx.Client, service: Responds) -> None:
    with Emulator(service=service(200, JSON, b"{}")) as emulator:
        code, message = rejection(client, emulator, method="POST", body="\u00fc" * 250_000 + "x")
        assert code == "REQUEST_TOO_LARGE"
        assert "500001 bytes" in message
        assert invoke(client, emulator, method="POST", body="\u00fc" * 250_000)["success"] is True


@pytest.mark.parametrize("status", [200, 500])
def test_oversized_response_is_rejected(client: httpx.Client, service: Responds, status: int) -> None:
    body = b'"' + b"x" * 4_999_998 + b'"'
    with Emulator(service=service(status, JSON, body)) as emulator:
        assert invoke(client, emulator)["success"] is (status == 200)
    with Emulator(service=service(status, JSON, body + b" ")) as emulator:
        assert rejection(client, emulator)[0] == "RESPONSE_TOO_LARGE"


def test_container_without_traffic_responds_503_until_it_has_started(client: httpx.Client, service: Responds) -> None:
    settings = Settings(cold_start_after=900, cold_start_duration=60)
    with Emulator(service=service(200, JSON, b"{}"), settings=settings) as emulator:

        def statuses() -> list[int]:
            results = [invoke(client, emulator) for _ in range(2)]
            return [(result.get("payload") or result["error"])["status"] for result in results]

        assert statuses() == [200, 200]
        emulator.advance(890)
        assert statuses() == [200, 200]
        emulator.advance(900)
        assert statuses() == [503, 503]
        assert "900 s" in invoke(client, emulator)["error"]["error"]
        emulator.advance(50)
        assert statuses() == [503, 503]
        emulator.advance(10)
        assert statuses() == [200, 200]
        emulator.advance(900)
        emulator.reset()
        assert statuses() == [200, 200]


def test_log_has_no_query_and_no_body(
    client: httpx.Client, service: Responds, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with Emulator(service=service(200, JSON, b"{}")) as emulator:
        invoke(client, emulator, path="/jobs?secret=1", method="POST", body={"secret": 1}, headers={"x-key": "secret"})
        ours = [record.getMessage() for record in caplog.records if record.name == "forge_realtime_emulator"]
    assert [message.split() for message in ours] == [["invoke", "200", "POST", "/jobs"]]


def test_only_the_last_invocations_are_kept(
    client: httpx.Client, service: Responds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forge_realtime_emulator._platform.contexts.INVOKED_LIMIT", 2)
    with Emulator(service=service(200, JSON, b"{}"), contexts={"invocations": {"kept": {}}}) as emulator:
        for _ in range(3):
            invoke(client, emulator)
        invocations = client.get(f"{emulator.url}/_emulator/state").json()["contexts"]["invocations"]
    assert len(invocations) == 3
    assert "kept" in invocations


def test_invocation_lifetime_begins_when_a_page_causes_it(
    client: httpx.Client, service: Responds, api_of: Callable[[Emulator], Api]
) -> None:
    with Emulator(service=service(200, JSON, b"{}"), settings=Settings(invocation_lifetime=60)) as emulator:
        invoke(client, emulator)
        [id_] = client.get(f"{emulator.url}/_emulator/state").json()["contexts"]["invocations"]
        emulator.advance(60)
        assert api_of(emulator).publish("c", authorization=f"Forge id={id_}").status_code == 401
