"""`listen` and `fail` with a running emulator."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.server import ServerConnection, serve

from forge_realtime_emulator import Emulator
from forge_realtime_emulator._platform.contexts import OVERRIDES
from tests.cli.conftest import VARIABLES, Run
from tests.support.fault_server import Behaviour, Connection, FaultServer, answer, garbage, http, refused_url
from tests.support.features import needs

COMMAND = Path(sys.executable).with_name("forge-realtime")


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """Restore the handler that `listen` replaces: SIGTERM ends `listen`, and must not end this process."""
    former = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, former)


@contextmanager
def listening(url: str, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run `listen` in a process, and wait until it has subscribed."""
    given = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    process = subprocess.Popen(
        [COMMAND, "listen", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**given, "FORGE_EGRESS_PROXY_URL": url, "PYTHONUNBUFFERED": "", **environment},
    )
    try:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("Listening to ")
        yield process
    finally:
        process.kill()
        process.communicate()


def test_events_are_printed_until_a_signal(run: Run, own: Emulator) -> None:
    for ending in (signal.SIGINT, signal.SIGTERM):
        with listening(own.url, "board-42") as process:
            assert process.stdout is not None
            for payload, printed in (("moved", "moved"), ("Prêt ✓", "Prêt ✓"), ("a\n\x1b[31m", r"a\n\x1b[31m")):
                assert run("publish", "--invocation", "i", "board-42", payload).exit_code == 0
                line = process.stdout.readline()
                assert re.fullmatch(rf"\d\d:\d\d:\d\d  {re.escape(printed)}\n", line)
            process.send_signal(ending)
            output, errors = process.communicate(timeout=20)
        assert (process.returncode, output, errors) == (0, "", "")


def test_json_is_exact_and_one_object_per_line(run: Run, own: Emulator) -> None:
    with listening(own.url, "news", "--global", "--json", "--count", "2") as process:
        printed = [
            json.loads(run("publish-global", "news", payload, "--installation", "i", "--json").stdout)
            for payload in ("a\r\n\x1b\x7f", "Prêt")
        ]
        output, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "")
    assert [json.loads(line) for line in output.splitlines()] == [
        {"channel": "news", "payload": payload, "eventId": event["eventId"], "eventTimestamp": event["eventTimestamp"]}
        for payload, event in zip(("a\r\n\x1b\x7f", "Prêt"), printed, strict=True)
    ]


@pytest.mark.parametrize(
    ("encoding", "printed"),
    [
        ("cp1252", r"é \U0001f389 \x1b[2J \x9b \u202e"),
        ("latin-1", r"é \U0001f389 \x1b[2J \x9b \u202e"),
        ("ascii", r"\xe9 \U0001f389 \x1b[2J \x9b \u202e"),
        ("utf-8", r"é 🎉 \x1b[2J \x9b \u202e"),
    ],
)
def test_terminal_gets_what_it_can_show(run: Run, own: Emulator, encoding: str, printed: str) -> None:
    channel = payload = "é 🎉 \x1b[2J \x9b \u202e"
    process = subprocess.Popen(
        [COMMAND, "listen", channel, "--url", own.url, "--count", "2", "--timeout", "20"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding=encoding,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    try:
        assert process.stderr is not None
        said = process.stderr.readline()
        assert said == f"Listening to the channel {printed} at {own.url} (Ctrl-C ends it).\n"
        for sent in (payload, "second"):
            assert run("publish", "--invocation", "i", channel, sent).exit_code == 0
        output, errors = process.communicate(timeout=20)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, errors) == (0, "")
    assert [line.partition("  ")[2] for line in output.splitlines()] == [printed, "second"]


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_added_fault_is_shown_as_the_terminal_can(own: Emulator, encoding: str) -> None:
    command = [str(COMMAND), "fail", "--status", "500", "--url", own.url, "--channel"]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    for given, escaped in (("✓\x1b[2J", r"\u2713\x1b[2J"), ("\u202e", r"\u202e")):
        done = subprocess.run([*command, given], capture_output=True, encoding=encoding, env=environment, check=True)
        assert (done.stdout, done.stderr) == ("", f"The next call on channel {escaped} gets 500.\n")
        assert own._sidecar.faults.waiting()[-1]["channel"] == given
    own.reset()


def test_errors_of_a_server_cannot_control_the_terminal(run_at: Run) -> None:
    evil = "\x1b[2J\x9b\u202e"

    def refuse(connection: ServerConnection) -> None:
        connection.recv()
        connection.send(json.dumps({"type": "error", "code": "x", "message": evil}))

    with websocket_server(refuse) as url:
        result = run_at(url, "listen", "c")
    assert result.stderr == r"Error: The emulator refused the subscription: \x1b[2J\x9b\u202e" + "\n"

    def behave(connection: Connection) -> bool:
        body = {"kind": "state"} if connection.read().method == "GET" else {"message": evil}
        connection.send(http(200 if "kind" in body else 400, json.dumps(body).encode()))
        return True

    with FaultServer(then=behave) as server:
        result = run_at(server.url, "fail", "--status", "500")
    assert result.exit_code == 2
    assert r"Error: \x1b[2J\x9b\u202e" in result.stderr


def test_unread_output_does_not_outlast_a_signal(own: Emulator) -> None:
    own.change(limit=None)
    client = httpx.Client(trust_env=False)
    with client, listening(own.url, "c") as process, own.subscribe("c") as other:
        # A pipe holds 64 KiB.
        body = {"name": "c", "payload": "x" * 1000}
        header = {"forge-proxy-authorization": "Forge id=i"}
        for _ in range(200):
            response = client.post(f"{own.url}/forge/realtime/v1/publish", json=body, headers=header)
            assert response.json()["eventId"] is not None
            other.receive()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0


def test_closed_output_ends_it(run: Run, own: Emulator) -> None:
    with listening(own.url, "c") as process:
        assert process.stdout is not None
        process.stdout.close()
        run("publish", "--invocation", "i", "c", "x")
        assert process.wait(timeout=20) == 1
        assert process.stderr is not None
        assert process.stderr.read() == ""


@needs("context_overrides")
def test_options_select_the_subscription(run: Run, own: Emulator, tmp_path: Path) -> None:
    own.register(invocations={"a": {"context": {"issue": "1", "project": "P"}}})
    own.change(keep_unheard=True)
    signed = run("sign-token", "c", "--claims", '{"team": "red"}', "--invocation", "a").stdout.strip()
    (tmp_path / "token").write_text(f"{signed}\n")
    options = ["--context-override", "project", "--context-override", "issue", "--invocation", "a"]
    assert run("publish", "c", "x", *options, "--token", signed).exit_code == 0
    for given, variables in (
        (["--token", signed], {}),
        (["--token-file", str(tmp_path / "token")], {}),
        ([], {"FORGE_REALTIME_TOKEN": signed}),
    ):
        result = run("listen", "c", *options, *given, "--replay", "60", "--count", "1", **variables)
        assert result.exit_code == 0
        assert result.stdout.endswith("  x\n")
        assert signed not in result.output


def test_timeout_fails_only_with_count(run: Run) -> None:
    result = run("listen", "c", "--count", "1", "--timeout", "1")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.endswith("Error: 0 of 1 event(s) came within 1 s.\n")
    assert run("listen", "c", "--timeout", "1").exit_code == 0


def test_refused_subscription_says_why(run: Run, own: Emulator) -> None:
    result = run("listen", "c", "--token", "S3CRET")
    said = "The emulator refused the subscription: Realtime token validation failed: INVALID_TOKEN"
    assert (result.exit_code, said in result.stderr) == (1, True), result.stderr
    assert "S3CRET" not in result.output


@pytest.mark.parametrize("command", ["listen", "publish"])
def test_only_documented_overrides_are_accepted(run: Run, own: Emulator, command: str) -> None:
    result = run(command, "c", "--context-override", "planet")
    assert result.exit_code == 2
    assert f"'planet' is not one of {', '.join(map(repr, OVERRIDES))}." in result.stderr
    assert own.requests == []


def test_emulator_reset_is_reported(own: Emulator) -> None:
    with listening(own.url, "c") as process:
        own.reset()
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert errors == "Error: The emulator closed the subscription with code 1001: The emulator was reset.\n"


@contextmanager
def websocket_server(handler: Callable[[ServerConnection], None]) -> Iterator[str]:
    with serve(handler, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()
            thread.join()


def too_slow(connection: ServerConnection) -> None:
    connection.recv()
    connection.send('{"type": "subscribed"}')
    connection.close(1013, "The subscriber read too slowly.")


def lost(connection: ServerConnection) -> None:
    connection.recv()
    connection.send('{"type": "subscribed"}')
    connection.socket.shutdown(socket.SHUT_RDWR)


def saying(message: str) -> Callable[[ServerConnection], None]:
    def handler(connection: ServerConnection) -> None:
        connection.recv()
        connection.send(message)

    return handler


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        (too_slow, "with code 1013: The subscriber read too slowly."),
        (lost, "with code 1006: the connection was lost"),
        (saying("no JSON"), "There is no emulator at "),
        (saying("{}"), "There is no emulator at "),
    ],
)
def test_broken_subscription_is_reported(run_at: Run, handler: Callable[[ServerConnection], None], said: str) -> None:
    with websocket_server(handler) as url:
        result = run_at(url, "listen", "c")
    assert result.exit_code == 1
    assert said in result.stderr


@pytest.mark.parametrize("command", [["listen", "c", "--token", "S3CRET"], ["fail", "--status", "503"]])
@pytest.mark.parametrize(
    ("other", "said"),
    [
        (answer(404), "it answered 404"),
        (answer(200, {}), "it answered 200"),
        (answer(200, []), "it answered 200"),
        (answer(200, b"<html>"), "it answered 200"),
        (garbage, "answer"),
    ],
)
def test_other_server_is_no_emulator(run_at: Run, other: Behaviour, said: str, command: list[str]) -> None:
    with FaultServer(then=other) as server:
        url = server.url
        result = run_at(url, *command)
        # Only GET requests were sent.
        assert {(call.method, call.body) for call in server.received} == {("GET", b"")}
        assert "S3CRET" not in str(server.received)
    assert result.exit_code == 1
    assert f"There is no emulator at {url}" in result.stderr
    assert said in result.stderr
    assert "forge-realtime emulate only" in result.stderr


@pytest.mark.parametrize("command", [["listen", "c"], ["fail", "--clear"]])
def test_refused_connection_says_what_to_start(run_at: Run, command: list[str]) -> None:
    url = refused_url()
    result = run_at(url, *command)
    assert result.exit_code == 1
    assert f"No emulator can be reached at {url}" in result.stderr
    assert "Start forge-realtime emulate" in result.stderr


@pytest.mark.parametrize("command", [["listen", "c"], ["fail", "--clear"]])
@pytest.mark.parametrize(
    "url", [None, "localhost:7072", "http://user:S3CRET@h", "http://h/?x", "http://[", "http://h:0"]
)
def test_invalid_address_is_wrong_usage(run_at: Run, command: list[str], url: str | None) -> None:
    result = run_at(url, *command)
    assert result.exit_code == 2
    said = (
        "FORGE_EGRESS_PROXY_URL is not set" if url is None else "The emulator's address must be an http:// or https://"
    )
    assert said in result.stderr
    assert "S3CRET" not in result.output


def test_fault_waits_for_its_call(run: Run, own: Emulator) -> None:
    given = ["--operation", "publish", "--channel", "c", "--times", "2", "--status", "429", "--retry-after", "0"]
    result = run("fail", *given)
    assert (result.exit_code, result.stdout, result.stderr) == (
        0,
        "",
        "The next 2 calls of publish on channel c get 429 with Retry-After 0.\n",
    )
    assert run("publish", "c", "x", "--invocation", "i").exit_code == 0
    assert [request.status for request in own.requests] == [429, 429, 200]


def test_options_describe_the_fault(run: Run, own: Emulator) -> None:
    given = ["--answer", "not-json", "--delay", "0.25", "--delivered", "--installation", "i-1"]
    result = run("fail", *given, "--json")
    fault: dict[str, Any] = {"times": 1, "answer": "not-json", "delay": 0.25, "delivered": True, "installation": "i-1"}
    assert json.loads(result.stdout) == fault
    assert run("fail", "--answer", "reset").stderr == "The next call gets a reset connection.\n"
    assert own._sidecar.faults.waiting() == [fault, {"times": 1, "answer": "reset"}]
    assert run("fail", *given).stderr == (
        "The next call for installation i-1 gets a response that is not JSON, 0.25 s late,"
        " and is carried out all the same.\n"
    )
    assert run("fail", "--delay", "2").stderr == "The next call gets the normal response, 2 s late.\n"
    assert run("fail", "--clear").stderr == "All pending faults were dropped.\n"
    assert own._sidecar.faults.waiting() == []
    assert run("fail", "--clear", "--json").stdout == "{}\n"


def test_probability_needs_no_number_of_calls(run: Run, own: Emulator) -> None:
    result = run("fail", "--status", "503", "--probability", "0.1", "--seed", "7", "--operation", "publish")
    assert (result.exit_code, result.stdout, result.stderr) == (
        0,
        "",
        "With probability 0.1 (seed 7), each call of publish gets 503.\n",
    )
    fault = {"status": 503, "probability": 0.1, "seed": 7, "operation": "publish"}
    assert own._sidecar.faults.waiting() == [fault]
    own.reset()
    result = run("fail", "--answer", "reset", "--probability", "1", "--times", "2", "--json")
    [waiting] = own._sidecar.faults.waiting()
    # Without --seed it is a random one, which is printed.
    assert json.loads(result.stdout) == waiting
    assert waiting.keys() == {"answer", "probability", "times", "seed"}
    own.reset()
    assert re.fullmatch(
        r"With probability 0\.5 \(seed \d+\), up to 2 time\(s\), each call gets 500\.\n",
        run("fail", "--status", "500", "--probability", "0.5", "--times", "2").stderr,
    )
    own.reset()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Say what the next calls get: --status, --answer or --delay."),
        (["--status", "429", "--answer", "reset"], "give either status or answer"),
        (["--delay", "1", "--retry-after", "1"], "retryAfter goes with a status"),
        (["--status", "429", "--operation", "subscribe"], "operation: must be one of publish"),
        (["--delay", "nan"], "the body is not valid JSON"),
        (["--status", "200"], "400<=x<=599"),
        (["--clear", "--status", "429"], "--clear takes no other option"),
        (["--clear", "--times", "2"], "--clear takes no other option"),
        (["--status", "503", "--seed", "7"], "--seed goes with --probability."),
        (["--status", "503", "--probability", "0"], "0<x<=1"),
    ],
)
def test_invalid_fault_is_wrong_usage(run: Run, own: Emulator, arguments: list[str], said: str) -> None:
    result = run("fail", *arguments)
    assert (result.exit_code, said in result.stderr) == (2, True), result.stderr
    assert own._sidecar.faults.waiting() == []
