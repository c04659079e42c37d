"""`publish`, `publish-global` and `sign-token`."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import click
import pytest

from forge_realtime._cli.commands import cli
from forge_realtime_emulator import Emulator
from tests.cli.conftest import VARIABLES, Run
from tests.support.fault_server import Behaviour, Connection, FaultServer, answer, http, refused_url, reset_after, stall
from tests.support.features import needs
from tests.support.tokens import token

INVOCATION = ("--invocation", "invocation-123")
SECRET = "S3CRET"


@pytest.mark.parametrize("way", ["argument", "standard input", "file"])
@pytest.mark.parametrize("payload", ["moved", '{"moved": 7}\r\n', " Prêt ✓ \n", "-x", '"x"'])
def test_payload_arrives_unchanged(run: Run, own: Emulator, tmp_path: Path, way: str, payload: str) -> None:
    file = tmp_path / "payload"
    file.write_bytes(payload.encode())
    given = {"argument": ["--", payload], "standard input": ["-"], "file": ["--payload-file", str(file)]}[way]
    with own.subscribe("board-42") as subscription:
        result = run("publish", *INVOCATION, "board-42", *given, stdin=payload.encode())
        event = subscription.receive()
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{event.event_id}\n", "")
    assert event.payload == payload


@contextmanager
def standard_input(monkeypatch: pytest.MonkeyPatch, content: bytes | Path | None) -> Iterator[None]:
    """Replace standard input by a pipe with this content, by a file, or by nothing."""
    file = None
    if isinstance(content, bytes):
        reading, writing = os.pipe()
        os.write(writing, content)
        os.close(writing)
        file = os.fdopen(reading)
    elif content is not None:
        file = content.open()
    with file or nullcontext(), monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", file)
        yield


def test_payload_is_read_from_a_pipe_or_file(
    run: Run, own: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed = run("sign-token", "c", "--claims", "{}", *INVOCATION).stdout.strip()
    for name, text in (("payload", "of a file"), ("empty", ""), ("token", signed)):
        (tmp_path / name).write_text(text)
    token_file = ["--token-file", str(tmp_path / "token")]
    inputs: list[tuple[bytes | Path | None, list[str], str | None]] = [
        ("Prêt ✓ \n".encode(), [], "Prêt ✓ \n"),
        (b"of a pipe", token_file, "of a pipe"),
        (tmp_path / "payload", [], "of a file"),
        (b"unused", ["argument"], "argument"),
        (signed.encode(), ["argument", "--token-file", "-"], "argument"),
        # Neither nothing nor an empty pipe is an empty payload.
        (b"", [], None),
        (tmp_path / "empty", [], None),
        (Path(os.devnull), [], None),
        (None, [], None),
        (signed.encode(), ["--token-file", "-"], None),
        (b"twice", ["argument", "--payload-file", "-"], None),
        (None, ["-"], None),
    ]
    for content, given, payload in inputs:
        own.reset()
        with standard_input(monkeypatch, content):
            publish = partial(cli.main, ["publish", "c", *INVOCATION, "--url", own.url, *given], standalone_mode=False)
            if payload is None:
                with pytest.raises(click.UsageError, match="Give the payload once: as PAYLOAD, by a pipe or as - for"):
                    publish()
            else:
                publish()
        assert [request.body["payload"] for request in own.requests] == ([] if payload is None else [payload])


def test_payload_is_piped(own: Emulator) -> None:
    command = [sys.executable, "-m", "forge_realtime", "publish", "c", *INVOCATION, "--url", own.url]
    done = subprocess.run(command, input=b"piped", capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"Nobody was subscribed.\n")
    assert [request.body["payload"] for request in own.requests] == ["piped"]


def test_output_says_nobody_was_subscribed(run: Run) -> None:
    result = run("publish", "board-42", "moved", *INVOCATION)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "Nobody was subscribed.\n")


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_output_is_what_the_terminal_can_show(encoding: str) -> None:
    evil = "✓\x1b[2J\x9b\u202e"
    with FaultServer(then=answer(200, {"eventId": evil, "eventTimestamp": "1"})) as server:
        done = run_command("publish", "c", "x", "--invocation", "i", url=server.url, encoding=encoding)
        assert (done.returncode, done.stdout) == (0, r"\u2713\x1b[2J\x9b\u202e" + "\n")
    with FaultServer(then=answer(400, evil.encode())) as server:
        done = run_command("publish", "c", "x", "--invocation", "i", url=server.url, encoding=encoding, show=True)
        assert done.returncode == 1
        assert done.stderr.endswith(r"The response: \u2713\x1b[2J\x9b\u202e" + "\n")
        assert all(line.isprintable() for line in done.stderr.splitlines())


def run_command(*arguments: str, url: str, encoding: str, show: bool = False) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "forge_realtime", *arguments, "--url", url, *(["--show-response"] if show else [])],
        capture_output=True,
        encoding=encoding,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        timeout=30,
        check=False,
    )


def test_json_has_result_and_attempts(run: Run, own: Emulator) -> None:
    own.fail_next(status=429)
    with own.subscribe("board-42") as subscription:
        result = run("publish", "board-42", "moved", *INVOCATION, "--json")
        event = subscription.receive()
    printed = json.loads(result.stdout)
    attempts = printed.pop("attempts")
    assert printed == {"eventId": event.event_id, "eventTimestamp": event.event_timestamp, "delivery": "accepted"}
    assert [(attempt["status"], attempt["delivery"]) for attempt in attempts] == [(429, "rejected"), (200, "accepted")]
    assert [attempt["wait"] for attempt in attempts] == [0.0, None]


def test_warning_about_possible_duplicate(run: Run, own: Emulator) -> None:
    own.fail_next(status=500, delivered=True)
    with own.subscribe("board-42") as subscription:
        result = run("publish", "board-42", "moved", *INVOCATION)
        assert [subscription.receive().payload for _ in range(2)] == ["moved", "moved"]
    assert result.exit_code == 0
    assert "subscribers may see it twice" in result.stderr


@needs("context_overrides")
def test_context_overrides_and_user_reach_the_call(run: Run, own: Emulator) -> None:
    overrides = ["--context-override", "project", "--context-override", "issue"]
    result = run("publish", "c", "x", *INVOCATION, *overrides, "--as", "user", FORGE_REALTIME_ACCOUNT="user-123")
    assert result.exit_code == 0
    [request] = own.requests
    assert request.headers["forge-proxy-authorization"] == "Forge as=user,accountId=user-123,id=invocation-123"
    assert request.body == {"name": "c", "payload": "x", "options": {"contextOverrides": ["project", "issue"]}}


def test_no_options_are_sent_by_default(run: Run, own: Emulator) -> None:
    run("publish", "c", "x", FORGE_REALTIME_INVOCATION="of-the-environment")
    assert own.requests[0].body == {"name": "c", "payload": "x"}
    assert own.requests[0].headers["forge-proxy-authorization"] == "Forge as=app,id=of-the-environment"


@pytest.mark.parametrize("way", ["option", "environment", "file"])
def test_token_from_option_environment_or_file(run: Run, own: Emulator, tmp_path: Path, way: str) -> None:
    signing = run("sign-token", "c", "--claims", '{"team": "red"}', *INVOCATION)
    signed = signing.stdout.strip()
    assert signing.stderr.startswith("It expires at 20")
    (tmp_path / "token").write_text(f"{signed}\n")
    given = {"option": ["--token", signed], "file": ["--token-file", str(tmp_path / "token")]}.get(way, [])
    # The command line takes precedence over the environment.
    variable = {"FORGE_REALTIME_TOKEN": signed if way == "environment" else "another"}
    for command in ("publish", "publish-global"):
        with own.subscribe("c", token=signed, is_global=command == "publish-global") as subscription:
            result = run(command, "c", "x", *INVOCATION, *given, **variable)
            assert result.exit_code == 0, result.stderr
            assert subscription.receive().payload == "x"
        assert signed not in result.output


def test_publish_global_acts_for_installation_or_invocation(run: Run, own: Emulator) -> None:
    assert run("publish-global", "news", "x", "--installation", "i-1").exit_code == 0
    assert run("publish-global", "news", "x", *INVOCATION).exit_code == 0
    # The command line takes precedence over the environment.
    assert run("publish-global", "news", "x", "--installation", "i-2", FORGE_REALTIME_INVOCATION="x").exit_code == 0
    headers = [request.headers["forge-proxy-authorization"] for request in own.requests]
    assert headers == [
        "Forge as=app,installationId=i-1",
        "Forge as=app,id=invocation-123",
        "Forge as=app,installationId=i-2",
    ]


@needs("permissions")
def test_token_has_claims_and_permissions(run: Run, own: Emulator, tmp_path: Path) -> None:
    (tmp_path / "claims").write_text('{"team": "red"}')
    options = ["--claims-file", str(tmp_path / "claims"), "--permission", "subscribe", "--installation", "i-1"]
    result = run("sign-token", "c", *options, "--json")
    printed = json.loads(result.stdout)
    assert sorted(printed) == ["attempts", "expiresAt", "token"]
    payload = json.loads(base64.urlsafe_b64decode(printed["token"].split(".")[1] + "=="))
    assert (payload["permissions"], payload["exp"]) == (["subscribe"], printed["expiresAt"])
    assert own.requests[0].body["claims"] == {"team": "red"}
    with own.subscribe("c", token=printed["token"]):
        result = run("publish", "c", "x", *INVOCATION, "--token", printed["token"])
    assert (result.exit_code, "MISSING_PERMISSION" in result.stderr) == (2, True)


def test_token_without_expiry(run_at: Run) -> None:
    with FaultServer(then=answer(200, {"token": "t"})) as server:
        result = run_at(server.url, "sign-token", "c", "--claims", "{}", *INVOCATION)
        assert (result.stdout, result.stderr) == ("t\n", "")
        printed = json.loads(run_at(server.url, "sign-token", "c", "--claims", "{}", *INVOCATION, "--json").stdout)
    assert (printed["token"], printed["expiresAt"]) == ("t", None)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["publish", "c", *INVOCATION], "Give the payload once"),
        (["publish", "c", "x", "--payload-file", "-", *INVOCATION], "Give the payload once"),
        (["publish", "c", "x", "y", *INVOCATION], "put it in quotes"),
        (["publish", "c", "x"], "Missing option '--invocation'"),
        (["publish", "c", "x", "--invocation", "a,b"], "cannot be sent in the header"),
        (
            ["publish", "c", "x", "--account", "a", *INVOCATION],
            "--account names the user to act as: give it together with --as user",
        ),
        (["publish", " ", "x", *INVOCATION], "channel must be a non-empty string"),
        (["publish", "c", "-", *INVOCATION], "The payload is not UTF-8"),
        (["publish", "c", "--payload-file", "/no/such/file", *INVOCATION], "No such file"),
        (["publish", "c", "x", "--token", "no-token", *INVOCATION], "INVALID_TOKEN"),
        (["publish", "c", "x", "--token", "a", "--token-file", "-", *INVOCATION], "Give the token once"),
        (["publish-global", "c", "x"], "exactly one of --invocation ID and --installation ID"),
        (["publish-global", "c", "x", "--installation", "i", *INVOCATION], "exactly one of --invocation ID"),
        (["sign-token", "c", *INVOCATION], "Give the claims once"),
        (["sign-token", "c", "--claims", "[]", *INVOCATION], "The claims must be a JSON object"),
        (["sign-token", "c", "--claims", "{", *INVOCATION], "The claims must be a JSON object"),
        (["sign-token", "c", "--claims", '{"n": NaN}', *INVOCATION], "cannot be encoded as JSON"),
        (["sign-token", "c", "--claims", "{}", "--permission", "all", *INVOCATION], "is not one of"),
        (["publish", "c", "x", *INVOCATION, "--url", "localhost:7072"], "--url must be an http:// or https:// address"),
    ],
)
def test_wrong_usage_exits_with_2_and_sends_nothing(
    run: Run, own: Emulator, arguments: list[str], problem: str
) -> None:
    result = run(*arguments, stdin=b"\xff")
    assert (result.exit_code, result.stdout) == (2, "")
    assert problem in " ".join(result.stderr.split())
    assert own.requests == []


def test_error_for_missing_address_says_how_to_get_one(run_at: Run) -> None:
    result = run_at(None, "publish", "c", "x", *INVOCATION)
    assert result.exit_code == 2
    assert "FORGE_EGRESS_PROXY_URL is not set" in result.stderr
    assert "pass --url" in result.stderr


FAILURES: dict[str, tuple[Behaviour | None, int, str]] = {
    "refused": (answer(400, {"code": "INVALID_REQUEST", "message": "no"}), 1, "it was not carried out"),
    "rate limited": (answer(429), 1, "it was not carried out"),
    "no connection": (None, 1, "it was not sent"),
    "reset": (reset_after, 3, "it may have been carried out"),
    "failed": (answer(500), 3, "it may have been carried out"),
    "another status": (answer(201, {}), 3, "it may have been carried out"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_exit_code_says_whether_event_may_have_arrived(run_at: Run, failure: str) -> None:
    behaviour, code, known = FAILURES[failure]
    with FaultServer(then=behaviour or stall) as server:
        url = refused_url() if behaviour is None else server.url
        result = run_at(url, "publish", "c", "x", *INVOCATION)
        described = run_at(url, "publish-global", "c", "x", *INVOCATION, "--json")
        signing = run_at(url, "sign-token", "c", "--claims", "{}", *INVOCATION)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith("Error: publish: ")
    assert known in result.stderr
    assert described.exit_code == code
    printed = json.loads(described.stdout)
    assert known in printed["message"]
    assert printed["message"] in described.stderr
    assert printed["delivery"] == {1: "rejected", 3: "unknown"}[code] if behaviour else "not sent"
    assert len(printed["attempts"]) in (1, 6)
    assert (signing.exit_code, signing.stdout) == (1, "")


def test_response_is_printed_on_request(run_at: Run) -> None:
    body = {"code": "INVALID_REQUEST", "message": "no such channel \x1b[31m"}
    with FaultServer(then=answer(400, body, {"Retry-After": "7"})) as server:
        silent = run_at(server.url, "publish", "c", "x", *INVOCATION)
        shown = run_at(server.url, "publish", "c", "x", *INVOCATION, "--show-response", "--json")
    assert "no such channel" not in silent.output
    assert "(--show-response prints the response)" in silent.stderr
    assert '"no such channel \\u001b[31m"' in shown.stderr
    printed = json.loads(shown.stdout)
    assert json.loads(printed["response"]) == body
    assert (printed["error"], printed["status"], printed["code"]) == ("RejectedError", 400, "INVALID_REQUEST")
    assert printed["retryAfter"] == 7


def echo(status: int) -> Behaviour:
    def behave(connection: Connection) -> bool:
        request = connection.read()
        sent = request.headers.get("forge-proxy-authorization", SECRET)
        connection.send(http(status, request.body, {"forge-proxy-error": sent, "Echo": sent}))
        return True

    return behave


@pytest.mark.parametrize("status", [200, 201, 400, 429, 500])
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_failed_call_prints_no_secrets(run_at: Run, status: int, form: list[str]) -> None:
    signed = token("c", claims={"team": SECRET})
    secrets = {
        "FORGE_REALTIME_ACCOUNT": f"account-{SECRET}",
        "FORGE_REALTIME_INVOCATION": f"invocation-{SECRET}",
        "FORGE_REALTIME_TOKEN": signed,
    }
    acting = ["--as", "user", *form]
    with FaultServer(then=echo(status)) as server:
        for arguments in (
            ["publish", "c", f"payload-{SECRET}", *acting],
            ["publish", "d", f"payload-{SECRET}", *acting],
            ["publish", "c", "two", f"words-{SECRET}", *acting],
            ["publish-global", "c", "-", *acting],
            ["publish-global", "c", "-", "--installation", f"{SECRET},"],
            ["sign-token", "c", "--claims", json.dumps({SECRET: SECRET}), *acting],
            ["sign-token", "c", "--claims", SECRET, *acting],
            ["doctor", *acting],
        ):
            result = run_at(server.url, *arguments, stdin=SECRET.encode(), **secrets)
            assert result.output
            assert SECRET not in result.output
            assert signed not in result.output


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT cannot be sent to one process")
def test_interrupted_call_may_have_been_carried_out() -> None:
    environment: dict[str, Any] = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    with FaultServer(then=stall) as server:
        arguments = ["publish", "c", "x", *INVOCATION, "--url", server.url, "--json"]
        command = [sys.executable, "-m", "forge_realtime", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        deadline = time.monotonic() + 30
        while not server.received:
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=20)
    assert process.returncode == 3
    assert errors == "Error: Interrupted; it may have been carried out.\n"
    assert json.loads(output)["delivery"] == "unknown"
