"""`doctor` finds problems, and changes nothing on the platform."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trustme
from click.testing import Result

from forge_realtime._cli import doctor as _doctor
from forge_realtime_emulator import Emulator, Settings
from tests.cli.conftest import Run
from tests.support.fault_server import Behaviour, Connection, FaultServer, garbage, http, refused_url
from tests.support.tls_server import https_sidecar

CONTAINER = {"FORGE_APP_ARI": "a", "FORGE_ENV_ARI": "e"}
CHECKS = ["environment", "address", "header", "connection", "sidecar", "round trip"]


def found(result: Result) -> dict[str, tuple[str, str]]:
    """Return the outcome and message of each check, as printed with --json."""
    printed = json.loads(result.stdout)
    assert [finding["check"] for finding in printed["checks"]] == CHECKS
    outcomes = {finding["check"]: (finding["outcome"], finding["message"]) for finding in printed["checks"]}
    assert printed["ok"] == all(outcome != "problem" for outcome, _ in outcomes.values())
    assert result.exit_code == (0 if printed["ok"] else 1)
    return outcomes


def problem(result: Result) -> tuple[str, str]:
    """Return the only check with a problem and its message. All later checks are skipped."""
    outcomes = found(result)
    [wrong] = [check for check, (outcome, _) in outcomes.items() if outcome == "problem"]
    for later in CHECKS[CHECKS.index(wrong) + 1 :]:
        assert outcomes[later] == ("skipped", "needs the check that failed")
    return wrong, outcomes[wrong][1]


def sidecar(paths: Mapping[str, bytes]) -> Behaviour:
    """Respond by path."""

    def behave(connection: Connection) -> bool:
        path = connection.read().path.partition("?")[0]
        response = paths.get(path, http(404))
        connection.send(response)
        return bool(response) and path != "/_emulator/subscribe"

    return behave


def json_response(body: Any, status: int = 200) -> bytes:
    return http(status, json.dumps(body).encode(), {"Content-Type": "application/json"})


STATE = json_response({"kind": "state", "faults": []})
ACCEPTED = json_response({"eventId": "event-1", "eventTimestamp": "1767225600000"})


def stream(*messages: Any) -> bytes:
    return b"".join(
        [b"HTTP/1.1 200 OK\r\n\r\n", *(f"data: {json.dumps(message)}\n\n".encode() for message in messages)]
    )


def test_all_checks_pass_on_emulator(run: Run, own: Emulator) -> None:
    result = run("doctor")
    assert result.exit_code == 0, result.output
    assert [line[:20].strip().split(maxsplit=1) for line in result.stdout.splitlines()] == [
        ["ok", check] for check in CHECKS
    ]
    [event] = own.events
    assert event.delivered == 1
    assert event.channel.startswith("forge-realtime-doctor-")


def test_options_decide_the_identity(run: Run, own: Emulator) -> None:
    own.register(invocations={"inv-1": {"installation": "i-1", "module": "panel"}})
    outcomes = found(run("doctor", "--invocation", "inv-1", "--as", "user", "--account", "secret-account", "--json"))
    assert outcomes["header"] == ("ok", "forge-proxy-authorization: Forge as=user,accountId=…,id=…")
    made_up = found(run("doctor", "--json"))["header"][1]
    assert made_up.endswith("Forge as=app,id=…; the id is made up: no --invocation is given")
    assert outcomes["round trip"][0] == "ok"
    assert own.requests[0].headers["forge-proxy-authorization"] == "Forge as=user,accountId=secret-account,id=inv-1"
    assert own.events[0].address.installation == "i-1"


def test_environment_needs_an_address(run_at: Run) -> None:
    url = refused_url()
    check, message = problem(run_at(None, "doctor", "--json", SERVER_PORT="8080"))
    assert (check, "start `forge-realtime emulate`" in message) == ("environment", True)
    check, message = problem(run_at(None, "doctor", "--json", **CONTAINER))
    assert (check, "The platform sets it: does your code clear it?" in message) == ("environment", True)
    outcomes = found(run_at("http://nowhere.invalid", "doctor", "--json", "--url", url, **CONTAINER))
    where = "in a Forge Container (FORGE_APP_ARI, FORGE_ENV_ARI are set)"
    assert outcomes["environment"] == ("ok", f"--url is given, so FORGE_EGRESS_PROXY_URL is ignored; {where}")
    assert outcomes["address"] == ("ok", url)


@pytest.mark.parametrize("url", ["localhost:7072", "http://user:S3CRET@localhost", "http://localhost/?x", "ftp://x"])
def test_invalid_address_is_a_problem(run_at: Run, url: str) -> None:
    for result, name in (
        (run_at(url, "doctor", "--json"), "FORGE_EGRESS_PROXY_URL"),
        (run_at(None, "doctor", "--url", url, "--json"), "--url"),
    ):
        check, message = problem(result)
        assert (check, f"{name} must be an http:// or https:// address" in message) == ("address", True)
        assert "S3CRET" not in result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--invocation", "a,b"], "id cannot be sent in the header"),
        (["--account", "user-123"], "--account names the user to act as: give it together with --as user"),
    ],
)
def test_invalid_header_is_a_problem(run: Run, own: Emulator, arguments: list[str], said: str) -> None:
    check, message = problem(run("doctor", *arguments, "--json"))
    assert (check, said in message) == ("header", True)
    assert own.requests == []


def test_unresolved_name_is_a_problem(run_at: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    # A real resolver may take long.
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    check, message = problem(run_at("http://sidecar.invalid", "doctor", "--json"))
    assert check == "connection"
    assert message == "The name sidecar.invalid cannot be resolved (Name or service not known). Check its spelling."


def test_refused_connection_is_a_problem(run_at: Run) -> None:
    url = refused_url()
    check, message = problem(run_at(url, "doctor", "--json"))
    assert check == "connection"
    assert f"Nothing accepts connections at 127.0.0.1 port {url.rpartition(':')[2]} (Connection refused)" in message


def test_other_protocol_is_a_problem(run_at: Run) -> None:
    with FaultServer(then=garbage) as server:
        check, message = problem(run_at(server.url, "doctor", "--json"))
    assert (check, "gives no HTTP response (RemoteProtocolError)" in message) == ("sidecar", True)


def test_authorities_in_ssl_cert_file_are_trusted(run_at: Run, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    with https_sidecar(authority) as url:
        untrusted = problem(run_at(url, "doctor", "--json"))
        trusted = problem(run_at(url, "doctor", "--json", SSL_CERT_FILE=str(tmp_path / "authority.pem")))
    assert untrusted[0] == trusted[0] == "sidecar"
    assert "gives no HTTP response (ConnectError)" in untrusted[1]
    assert f"{url} is not the emulator (status 501)" in trusted[1]


def test_waiting_faults_are_a_problem_and_not_consumed(run: Run, own: Emulator) -> None:
    own.fail_next(2, status=503, optional=True)
    check, message = problem(run("doctor", "--json"))
    assert (check, "1 fault(s) waiting" in message) == ("sidecar", True)
    assert own.requests == []


def test_strict_emulator_needs_registered_invocation(run_at: Run) -> None:
    with Emulator(settings=Settings(strict=True)) as emulator:
        without = problem(run_at(emulator.url, "doctor", "--json"))
        check, message = problem(run_at(emulator.url, "doctor", "--invocation", "i", "--json"))
    assert without == (
        "round trip",
        "The emulator is strict: give an --invocation that is registered in it.",
    )
    assert check == "round trip"
    assert "The emulator refused the subscription: Unauthorized request: this invocation is not registered" in message


def test_refused_publish_is_a_problem(run: Run, own: Emulator) -> None:
    own.register(invocations={"timer": {"fromUi": False}})
    check, message = problem(run("doctor", "--invocation", "timer", "--json"))
    assert check == "round trip"
    assert "publish: the platform reported errors in its response, code Unauthorized request" in message
    assert "The emulator says: publish needs the id of an invocation that came from a UI context" in message


@pytest.mark.parametrize(
    ("subscription", "publish", "said"),
    [
        (
            stream({"type": "subscribed"}, {"type": "event", "payload": "x", "eventId": "event-1"}),
            ACCEPTED,
            "received something else",
        ),
        (stream({"type": "subscribed"}), ACCEPTED, "received something else"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ndata: {}\n\n",
            ACCEPTED,
            "The connection broke (RemoteProtocolError)",
        ),
        (http(500, b"[1]"), ACCEPTED, "The emulator refused the subscription: nothing"),
        (stream({"type": "subscribed"}), b"", "publish: no response"),
    ],
)
def test_failed_round_trip_is_a_problem(run_at: Run, subscription: bytes, publish: bytes, said: str) -> None:
    paths = {"/_emulator/state": STATE, "/_emulator/subscribe": subscription, "/forge/realtime/v1/publish": publish}
    with FaultServer(then=sidecar(paths)) as server:
        check, message = problem(run_at(server.url, "doctor", "--json"))
    assert (check, said in message) == ("round trip", True), message


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_messages_of_a_server_cannot_control_the_terminal(encoding: str) -> None:
    refusal = json_response({"message": "✓\x1b[2J\x9b\u202e"}, 400)
    with FaultServer(then=sidecar({"/_emulator/state": STATE, "/_emulator/subscribe": refusal})) as server:
        done = subprocess.run(
            [sys.executable, "-m", "forge_realtime", "doctor", "--url", server.url],
            capture_output=True,
            encoding=encoding,
            env={**os.environ, "PYTHONIOENCODING": encoding},
            timeout=30,
            check=False,
        )
    shown = "✓" if encoding == "utf-8" else r"\u2713"
    said = rf"problem  round trip  The emulator refused the subscription: {shown}\x1b[2J\x9b\u202e"
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, said)


def test_missing_event_is_a_problem(run_at: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_doctor, "_TIMEOUT", 0.2)
    respond = sidecar({"/_emulator/state": STATE, "/forge/realtime/v1/publish": ACCEPTED})

    def behave(connection: Connection) -> bool:
        # The subscription is the second of three.
        if server.connections != 2:
            return respond(connection)
        connection.read()
        connection.send(stream({"type": "subscribed"}))
        connection.leave()
        return False

    with FaultServer(then=behave) as server:
        # The check of the connection connects first, without a request.
        server.connections -= 1
        check, message = problem(run_at(server.url, "doctor", "--json"))
    assert (check, "Nothing came within 0.2 s" in message) == ("round trip", True), message


def test_nothing_is_published_on_real_sidecar(run_at: Run) -> None:
    with FaultServer(then=sidecar({})) as server:
        result = run_at(server.url, "doctor", **CONTAINER)
        outcomes = found(run_at(server.url, "doctor", "--json", **CONTAINER))
        assert {(call.method, call.path) for call in server.received} == {("GET", "/_emulator/state")}
        assert all("forge-proxy-authorization" not in call.headers for call in server.received)
    assert result.exit_code == 0
    assert outcomes["sidecar"] == ("ok", "not the emulator (status 404), so assumed to be the platform's sidecar")
    assert outcomes["round trip"][0] == "skipped"
    assert "give the --invocation" in outcomes["round trip"][1]


def test_other_service_is_a_problem_outside_container(run_at: Run) -> None:
    with FaultServer(then=sidecar({})) as server:
        # SERVER_PORT alone is set in many places.
        check, message = problem(run_at(server.url, "doctor", "--invocation", "inv-1", "--json", SERVER_PORT="8080"))
        assert {(call.method, call.path) for call in server.received} == {("GET", "/_emulator/state")}
        url = server.url
    assert check == "sidecar"
    assert message.startswith(f"{url} is not the emulator (status 404). Is this your own service's port?")


@pytest.mark.parametrize(
    ("response", "outcome", "said"),
    [
        (json_response({"app": {"id": "a"}, "context": {}}), "ok", "nothing was published"),
        (json_response({"code": "UNAUTHORIZED"}, 401), "problem", "was refused (401)"),
        (json_response([]), "problem", "did not respond as documented (status 200)"),
        (http(200, b"<html>"), "problem", "did not respond as documented (status 200)"),
        (http(404), "problem", "did not respond as documented (status 404)"),
        (b"", "problem", "The connection broke (RemoteProtocolError)"),
    ],
)
def test_context_of_invocation_is_requested(run_at: Run, response: bytes, outcome: str, said: str) -> None:
    with FaultServer(then=sidecar({"/invocation/context": response})) as server:
        outcomes = found(run_at(server.url, "doctor", "--invocation", "inv-1", "--json", **CONTAINER))
        call = server.received[-1]
        assert (call.method, call.path) == ("GET", "/invocation/context")
        assert call.headers["forge-proxy-authorization"] == "Forge as=app,id=inv-1"
    assert outcomes["round trip"][0] == outcome
    assert said in outcomes["round trip"][1]
