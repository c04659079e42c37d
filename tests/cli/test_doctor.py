"""`doctor`: what it finds, and that it changes nothing on the platform."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from typing import Any

import pytest
from click.testing import Result

from forge_realtime._cli import doctor as _doctor
from forge_realtime_emulator import Emulator, Settings
from tests.cli.conftest import Run
from tests.support.fault_server import Behaviour, Connection, FaultServer, garbage, http, refused_url

CONTAINER = {"FORGE_APP_ARI": "a", "FORGE_ENV_ARI": "e"}
CHECKS = ["environment", "address", "header", "connection", "sidecar", "round trip"]


def found(result: Result) -> dict[str, tuple[str, str]]:
    """What a run with --json found: the outcome and the message of each check."""
    printed = json.loads(result.stdout)
    assert [finding["check"] for finding in printed["checks"]] == CHECKS
    outcomes = {finding["check"]: (finding["outcome"], finding["message"]) for finding in printed["checks"]}
    assert printed["ok"] == all(outcome != "problem" for outcome, _ in outcomes.values())
    assert result.exit_code == (0 if printed["ok"] else 1)
    return outcomes


def problem(result: Result) -> tuple[str, str]:
    """The one check with a problem, and what it says. All that follow it are skipped."""
    outcomes = found(result)
    [wrong] = [check for check, (outcome, _) in outcomes.items() if outcome == "problem"]
    for later in CHECKS[CHECKS.index(wrong) + 1 :]:
        assert outcomes[later] == ("skipped", "not looked at: it needs what is wrong above")
    return wrong, outcomes[wrong][1]


def sidecar(paths: Mapping[str, bytes]) -> Behaviour:
    """Answers by path."""

    def behave(connection: Connection) -> bool:
        path = connection.read().path.partition("?")[0]
        answer = paths.get(path, http(404))
        connection.send(answer)
        return bool(answer) and path != "/_emulator/subscribe"

    return behave


def json_answer(body: Any, status: int = 200) -> bytes:
    return http(status, json.dumps(body).encode(), {"Content-Type": "application/json"})


STATE = json_answer({"kind": "state", "faults": []})
ACCEPTED = json_answer({"eventId": "event-1", "eventTimestamp": "1767225600000"})


def stream(*messages: Any) -> bytes:
    return b"".join(
        [b"HTTP/1.1 200 OK\r\n\r\n", *(f"data: {json.dumps(message)}\n\n".encode() for message in messages)]
    )


def test_on_the_emulator_all_is_well(run: Run, own: Emulator) -> None:
    result = run("doctor")
    assert result.exit_code == 0, result.output
    assert [line[:20].strip().split(maxsplit=1) for line in result.stdout.splitlines()] == [
        ["ok", check] for check in CHECKS
    ]
    [event] = own.events
    assert event.delivered == 1
    assert event.channel.startswith("forge-realtime-doctor-")


def test_it_acts_as_it_is_told(run: Run, own: Emulator) -> None:
    own.register(invocations={"inv-1": {"installation": "i-1", "module": "panel"}})
    outcomes = found(run("doctor", "--invocation", "inv-1", "--as", "user", "--account", "secret-account", "--json"))
    assert outcomes["header"] == ("ok", "forge-proxy-authorization: Forge as=user,accountId=…,id=…")
    made_up = found(run("doctor", "--json"))["header"][1]
    assert made_up.endswith("Forge as=app,id=…; no --invocation is given, so its id is one made up for this")
    assert outcomes["round trip"][0] == "ok"
    assert own.requests[0].headers["forge-proxy-authorization"] == "Forge as=user,accountId=secret-account,id=inv-1"
    assert own.events[0].address.installation == "i-1"


def test_the_environment(run_at: Run) -> None:
    url = refused_url()
    check, message = problem(run_at(None, "doctor", "--json", SERVER_PORT="8080"))
    assert (check, "start `forge-realtime emulate`" in message) == ("environment", True)
    check, message = problem(run_at(None, "doctor", "--json", **CONTAINER))
    assert (check, "The platform sets it: does your code clear it?" in message) == ("environment", True)
    outcomes = found(run_at("http://nowhere.invalid", "doctor", "--json", "--url", url, **CONTAINER))
    assert outcomes["environment"] == (
        "ok",
        "--url is given, and FORGE_EGRESS_PROXY_URL not looked at; in a Forge Container, as FORGE_APP_ARI, FORGE_ENV_ARI say",
    )
    assert outcomes["address"] == ("ok", url)


@pytest.mark.parametrize("url", ["localhost:7072", "http://user:S3CRET@localhost", "http://localhost/?x", "ftp://x"])
def test_an_address_that_is_none(run_at: Run, url: str) -> None:
    for result in (run_at(url, "doctor", "--json"), run_at(None, "doctor", "--url", url, "--json")):
        check, message = problem(result)
        assert (check, "must be an http:// or https:// address" in message) == ("address", True)
        assert "S3CRET" not in result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--invocation", "a,b"], "id cannot be sent in the header"),
        (["--account", "user-123"], "--account names the user to act as: give it together with --as user"),
    ],
)
def test_a_header_that_cannot_be_built(run: Run, own: Emulator, arguments: list[str], said: str) -> None:
    check, message = problem(run("doctor", *arguments, "--json"))
    assert (check, said in message) == ("header", True)
    assert own.requests == []


def test_a_name_that_cannot_be_resolved(run_at: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    # Asking a real resolver takes as long as it likes.
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    check, message = problem(run_at("http://sidecar.invalid", "doctor", "--json"))
    assert check == "connection"
    assert message == "The name sidecar.invalid cannot be resolved (Name or service not known). Is it spelt right?"


def test_where_nothing_listens(run_at: Run) -> None:
    url = refused_url()
    check, message = problem(run_at(url, "doctor", "--json"))
    assert check == "connection"
    assert f"Nothing takes connections at 127.0.0.1 port {url.rpartition(':')[2]} (Connection refused)" in message


def test_what_does_not_speak_http(run_at: Run) -> None:
    with FaultServer(then=garbage) as server:
        check, message = problem(run_at(server.url, "doctor", "--json"))
    assert (check, "gives no HTTP answer (RemoteProtocolError)" in message) == ("sidecar", True)


def test_faults_that_wait_are_found_and_not_used_up(run: Run, own: Emulator) -> None:
    own.fail_next(2, status=503)
    check, message = problem(run("doctor", "--json"))
    assert (check, "1 fault(s) wait" in message) == ("sidecar", True)
    assert own.requests == []


def test_a_strict_emulator_wants_a_registered_invocation(run_at: Run) -> None:
    with Emulator(settings=Settings(strict=True)) as emulator:
        without = problem(run_at(emulator.url, "doctor", "--json"))
        check, message = problem(run_at(emulator.url, "doctor", "--invocation", "i", "--json"))
    assert without == (
        "round trip",
        "The emulator is strict. Give --invocation ID of an invocation that is registered in it.",
    )
    assert check == "round trip"
    assert "The emulator refused a subscription: Unauthorized request: this invocation is not registered" in message


def test_an_invocation_that_cannot_publish(run: Run, own: Emulator) -> None:
    own.register(invocations={"timer": {"fromUi": False}})
    check, message = problem(run("doctor", "--invocation", "timer", "--json"))
    assert check == "round trip"
    assert "publish: the platform refused the request (400)" in message
    assert "The emulator says: Invalid request: publish needs an invocation that came from a UI context" in message


@pytest.mark.parametrize(
    ("subscription", "publish", "said"),
    [
        (
            stream({"type": "subscribed"}, {"type": "event", "payload": "x", "eventId": "event-1"}),
            ACCEPTED,
            "not that event",
        ),
        (stream({"type": "subscribed"}), ACCEPTED, "not that event"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ndata: {}\n\n",
            ACCEPTED,
            "The subscription broke (RemoteProtocolError)",
        ),
        (http(500, b"[1]"), ACCEPTED, "The emulator refused a subscription: nothing"),
        (stream({"type": "subscribed"}), b"", "publish: no response"),
    ],
)
def test_a_round_trip_that_fails(run_at: Run, subscription: bytes, publish: bytes, said: str) -> None:
    paths = {"/_emulator/state": STATE, "/_emulator/subscribe": subscription, "/forge/realtime/v1/publish": publish}
    with FaultServer(then=sidecar(paths)) as server:
        check, message = problem(run_at(server.url, "doctor", "--json"))
    assert (check, said in message) == ("round trip", True), message


def test_an_event_that_does_not_come(run_at: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_doctor, "_TIMEOUT", 0.2)
    answer = sidecar({"/_emulator/state": STATE, "/forge/realtime/v1/publish": ACCEPTED})

    def behave(connection: Connection) -> bool:
        # The subscription is the second of three.
        if server.connections != 2:
            return answer(connection)
        connection.read()
        connection.send(stream({"type": "subscribed"}))
        connection.leave()
        return False

    with FaultServer(then=behave) as server:
        # Connecting is a check of its own, before any request.
        server.connections -= 1
        check, message = problem(run_at(server.url, "doctor", "--json"))
    assert (check, "The event did not come within 0.2 s" in message) == ("round trip", True), message


def test_nothing_is_published_on_a_real_sidecar(run_at: Run) -> None:
    with FaultServer(then=sidecar({})) as server:
        result = run_at(server.url, "doctor", **CONTAINER)
        outcomes = found(run_at(server.url, "doctor", "--json", **CONTAINER))
        assert {(call.method, call.path) for call in server.received} == {("GET", "/_emulator/state")}
        assert all("forge-proxy-authorization" not in call.headers for call in server.received)
    assert result.exit_code == 0
    assert outcomes["sidecar"] == ("ok", "not the emulator (it answered 404), so taken for the platform's sidecar")
    assert outcomes["round trip"][0] == "skipped"
    assert "Give --invocation ID" in outcomes["round trip"][1]


def test_the_port_of_ones_own_service_is_a_problem_outside_of_a_container(run_at: Run) -> None:
    with FaultServer(then=sidecar({})) as server:
        # Every framework's and shell's, and so no sign of a container.
        check, message = problem(run_at(server.url, "doctor", "--invocation", "inv-1", "--json", SERVER_PORT="8080"))
        assert {(call.method, call.path) for call in server.received} == {("GET", "/_emulator/state")}
        url = server.url
    assert check == "sidecar"
    assert message.startswith(
        f"Something answers at {url} that is not the emulator (with 404). Is this your own service's port?"
    )


@pytest.mark.parametrize(
    ("answered", "outcome", "said"),
    [
        (json_answer({"app": {"id": "a"}, "context": {}}), "ok", "nothing was published"),
        (json_answer({"code": "UNAUTHORIZED"}, 401), "problem", "was refused (401)"),
        (json_answer([]), "problem", "was answered 200, and not as documented"),
        (http(200, b"<html>"), "problem", "was answered 200, and not as documented"),
        (http(404), "problem", "was answered 404, and not as documented"),
        (b"", "problem", "got no answer"),
    ],
)
def test_the_context_of_an_invocation_is_asked_for(run_at: Run, answered: bytes, outcome: str, said: str) -> None:
    with FaultServer(then=sidecar({"/invocation/context": answered})) as server:
        outcomes = found(run_at(server.url, "doctor", "--invocation", "inv-1", "--json", **CONTAINER))
        call = server.received[-1]
        assert (call.method, call.path) == ("GET", "/invocation/context")
        assert call.headers["forge-proxy-authorization"] == "Forge as=app,id=inv-1"
    assert outcomes["round trip"][0] == outcome
    assert said in outcomes["round trip"][1]
