"""The command `forge-realtime emulate`, run as a process."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from websockets.sync.client import connect

from forge_realtime_emulator import Emulator
from forge_realtime_emulator._cli.group import cli

COMMAND = [sys.executable, "-m", "forge_realtime_emulator"]


@contextmanager
def emulate(*arguments: str, **environment: str) -> Any:
    process = subprocess.Popen(
        [*COMMAND, "emulate", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding=environment.get("PYTHONIOENCODING"),
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "", **environment},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=20)


def exported(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    assert process.stderr is not None
    for line in process.stdout:
        if line.startswith("export "):
            return line.removeprefix("export FORGE_EGRESS_PROXY_URL=").strip()
    raise AssertionError(process.stderr.read())


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_emulate_prints_calls_and_ends_cleanly(client: httpx.Client, ending: signal.Signals) -> None:
    with emulate("--port", "0") as process:
        url = exported(process)
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)
        header = {"forge-proxy-authorization": "Forge as=user,accountId=secret-account,id=i"}
        body = {"name": "x", "payload": "secret-payload"}
        assert client.post(f"{url}/forge/realtime/v1/publish", json=body, headers=header).status_code == 200
        assert client.post(f"{url}/forge/realtime/v1/publish", json=body).status_code == 401
        process.send_signal(ending)
        output, errors = process.communicate(timeout=10)
        assert process.returncode == 0
        assert output == ""
        banner, mcp, console, first, second = errors.splitlines()
        assert mcp == f"For coding assistants, MCP over HTTP: {url}/mcp"
        assert banner == f"The emulator listens at {url} (Ctrl-C ends it)."
        assert console == f"Console: open {url} in a browser. In the app's shell:"
        assert re.fullmatch(r"\d\d:\d\d:\d\d  publish +200  on 'x', reached 0 subscriber\(s\)", first)
        assert re.fullmatch(
            r"\d\d:\d\d:\d\d  publish +401  UNAUTHORIZED: the header forge-proxy-authorization is missing\..*", second
        )
        assert "secret" not in errors


def test_quiet_emulate_prints_address_and_warnings_only(client: httpx.Client) -> None:
    with emulate("--port", "0", "--quiet") as process:
        url = exported(process)
        publish(client, url)
        assert client.get(f"{url}/", headers={"Origin": "http://other.example"}).status_code == 403
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=10)
        assert (process.returncode, output) == (0, "")
        banner, _, console, warning = errors.splitlines()
        assert banner.startswith("The emulator listens at ")
        assert console.startswith("Console: open ")
        assert "A web page of 'http://other.example' was refused." in warning


def test_log_has_one_json_object_per_line(client: httpx.Client) -> None:
    with emulate("--port", "0", "--log", "json") as process:
        url = exported(process)
        path = f"{url}/forge/realtime/v1/publish"
        header = {"forge-proxy-authorization": "Forge as=user,accountId=secret-account,id=secret-invocation"}
        channel = "é \x7f\x1b[2J\u202e" + "x" * 100
        client.post(path, json={"name": channel, "payload": "secret-payload"}, headers=header)
        client.post(path, json={"name": "x", "payload": "secret", "options": {"token": "secret-token"}}, headers=header)
        client.post(path, json={"name": "x", "payload": "secret-payload"})
        client.post(f"{url}/_emulator/faults", json={"answer": "reset"})
        with pytest.raises(httpx.ReadError):
            client.post(path, json={"name": "x", "payload": "secret-payload"}, headers=header)
        client.get(f"{url}/", headers={"Origin": "http://other.example"})
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=10)
    assert (process.returncode, output, "secret" in errors, errors.isascii()) == (0, "", False, True)
    lines = [json.loads(line) for line in errors.splitlines()]
    assert [line.keys() for line in lines if "message" in line] == [{"time", "level", "message"}] * 4
    assert [line["level"] for line in lines if "message" in line] == ["info", "info", "info", "warning"]
    calls = [line for line in lines if "operation" in line]
    for line in lines:
        assert datetime.fromisoformat(line["time"]).utcoffset() == timedelta(0)
    for call in calls:
        assert call.keys() == {"time", "operation", "status", "code", "channel", "delivered", "duration"}
        assert 0 < call["duration"] < 10
    assert [(call["status"], call["code"], call["channel"], call["delivered"]) for call in calls] == [
        (200, None, channel[:100], 0),
        (200, "INVALID_TOKEN", "x", None),
        (401, "UNAUTHORIZED", None, None),
        (0, "INJECTED_FAULT", "x", None),
    ]


def test_recording_is_shown(emulator: Emulator, client: httpx.Client, tmp_path: Path) -> None:
    publish(client, emulator.url, "of-yesterday")
    file = tmp_path / "recording.json"
    file.write_bytes(client.get(f"{emulator.url}/_emulator/recording").content)
    with emulate("--port", "0", "--replay", str(file)) as process:
        url = exported(process)
        assert client.get(f"{url}/_emulator/state").json()["replayed"] is True
        calls = client.get(f"{url}/_emulator/calls?channel=of-yesterday").json()["calls"]
        assert [call["channel"] for call in calls] == ["of-yesterday"]
    file.write_text("{}")
    run = _run(*COMMAND, "emulate", "--port", "0", "--replay", str(file))
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith(f"Error: {file}: cannot be read as a recording: ")


def test_recording_brings_its_settings_and_contexts() -> None:
    result = CliRunner().invoke(cli, ["emulate", "--replay", __file__, "--limit", "0", "--config", __file__])
    said = "--replay brings its own settings and contexts. Leave out --config and --limit."
    assert (result.exit_code, said in result.stderr) == (2, True)


def publish(client: httpx.Client, url: str, channel: str = "x") -> None:
    header = {"forge-proxy-authorization": "Forge id=i"}
    body = {"name": channel, "payload": "x"}
    assert client.post(f"{url}/forge/realtime/v1/publish", json=body, headers=header).status_code == 200


@pytest.mark.parametrize("closed", [["stdout"], ["stderr"], ["stdout", "stderr"]])
def test_closed_output_does_not_end_emulate(client: httpx.Client, closed: list[str]) -> None:
    with emulate("--port", "0") as process:
        url = exported(process)
        for name in closed:
            getattr(process, name).close()
        for _ in range(3):
            publish(client, url)
        for name in closed:
            setattr(process, name, None)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=10)
        assert process.returncode == 0
        assert "Traceback" not in (errors or "")


@pytest.mark.parametrize(("ending", "form"), [(signal.SIGTERM, "text"), (signal.SIGINT, "json")])
def test_unread_output_holds_up_neither_calls_nor_the_end(
    client: httpx.Client, ending: signal.Signals, form: str
) -> None:
    with emulate("--port", "0", "--limit", "0", "--log", form) as process:
        url = exported(process)
        # A pipe holds 64 KiB; each line names up to 100 characters of the channel.
        for _ in range(800):
            publish(client, url, "x" * 100)
        # A warning of another logger, into the same pipe.
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=10) as connection:
            connection.sendall(b"no HTTP\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 400 ")
        process.send_signal(ending)
        assert process.wait(timeout=10) == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="it has no /dev/full")
@pytest.mark.parametrize("full", ["stdout", "stderr"])
def test_full_disk_does_not_end_emulate(client: httpx.Client, full: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with Path("/dev/full").open("w") as disk:
        outputs: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, full: disk}
        process = subprocess.Popen([*COMMAND, "emulate", "--port", str(port)], **outputs)
    try:
        wait_for_port(port)
        for _ in range(3):
            publish(client, f"http://127.0.0.1:{port}")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0
    finally:
        process.kill()
        process.wait()


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
        else:
            return


def test_terminal_gets_what_it_can_show(client: httpx.Client) -> None:
    with emulate("--port", "0", PYTHONIOENCODING="cp1252") as process:
        publish(client, exported(process), "é 🎉 \x1b[2J \x9b \u202e")
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=10)
    assert errors.endswith(r"on 'é \U0001f389 \x1b[2J \x9b \u202e', reached 0 subscriber(s)" + "\n")


def test_emulate_raises_the_limit_of_open_files() -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    # For the child to inherit; this process gets its own limit back.
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, before[1]))
    try:
        process = subprocess.Popen(
            [*COMMAND, "emulate", "--port", "0", "--limit", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    try:
        url = exported(process)
        with ExitStack() as subscribers:
            for _ in range(80):
                socket = subscribers.enter_context(connect(f"ws{url[4:]}/_emulator/subscribe", proxy=None))
                socket.send('{"channel": "x"}')
                assert socket.recv() == '{"type": "subscribed"}'
    finally:
        process.kill()
        process.communicate()


def test_taken_port_is_a_clear_error(emulator: Emulator) -> None:
    port = emulator.url.rpartition(":")[2]
    run = _run(*COMMAND, "emulate", "--port", port)
    assert run.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {port}" in run.stderr
    assert "Traceback" not in run.stderr


def test_other_host_than_loopback_prints_a_warning() -> None:
    with emulate("--port", "0", "--host", "0.0.0.0") as process:
        assert exported(process).startswith("http://127.0.0.1:")
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=10)
    assert errors.startswith("Warning: with --host 0.0.0.0 other machines can connect")


def test_mock_routes_are_read_from_a_file(client: httpx.Client, tmp_path: Path) -> None:
    file = tmp_path / "mocks.json"
    file.write_text('[{"method": "GET", "path": "/jira/rest/api/3/myself", "json": {"a": 1}}]', encoding="utf-8")
    with emulate("--port", "0", "--mocks", str(file)) as process:
        assert client.get(f"{exported(process)}/jira/rest/api/3/myself").json() == {"a": 1}


def test_service_and_origins_are_options(client: httpx.Client) -> None:
    origins = ["http://localhost:5173", "http://127.0.0.1:5173"]
    arguments = [argument for origin in origins for argument in ("--origin", origin)]
    with emulate("--port", "0", "--service", "http://127.0.0.1:1", *arguments) as process:
        line = process.stderr.readline()
        url = line.partition('<script src="')[2].partition('/bridge.js"></script>')[0]
        assert exported(process) == url
        for origin in origins:
            response = client.post(
                f"{url}/_emulator/invoke", json={"path": "/", "method": "GET"}, headers={"Origin": origin}
            )
            assert response.headers["access-control-allow-origin"] == origin
            assert "http://127.0.0.1:1" in response.json()["error"]["error"]


def test_contexts_strict_and_limit_are_options(client: httpx.Client, tmp_path: Path) -> None:
    contexts = tmp_path / "contexts.json"
    contexts.write_text('{"invocations": {"known": {"installation": "i-1"}}}', encoding="utf-8")
    with emulate("--port", "0", "--contexts", str(contexts), "--strict", "--limit", "1") as process:
        url = exported(process)
        state = client.get(f"{url}/_emulator/state").json()
        assert state["contexts"]["invocations"]["known"]["installation"] == "i-1"
        assert state["settings"]["limit"] == 1
        response = client.get(f"{url}/invocation/context", headers={"forge-proxy-authorization": "Forge id=unknown"})
        assert response.status_code == 401
    contexts.write_text('{"invocations": {"known": {"site": "i-1"}}}', encoding="utf-8")
    run = _run(*COMMAND, "emulate", "--port", "0", "--contexts", str(contexts))
    assert run.returncode == 1
    assert "invocations.known: has an unknown key" in run.stderr
    run = _run(*COMMAND, "emulate", "--port", "0", "--contexts", str(tmp_path / "nofile.json"))
    assert (run.returncode, "nofile.json' does not exist" in run.stderr) == (2, True)


@pytest.mark.parametrize("argument", ["--origin", "--service"])
def test_bad_address_is_a_clear_error(argument: str) -> None:
    run = _run(*COMMAND, "emulate", "--port", "0", argument, "localhost:5173")
    assert run.returncode == 1
    assert "such as http://localhost:" in run.stderr
    assert "Traceback" not in run.stderr


def test_help_shows_commands_and_defaults() -> None:
    for arguments in ([], ["emulate"]):
        run = _run(*COMMAND, *arguments, "--help")
        assert "emulate" in run.stdout
    assert "7072" in run.stdout
    assert "127.0.0.1" in run.stdout


def test_port_out_of_range_is_a_usage_error() -> None:
    run = _run(*COMMAND, "emulate", "--port", "70000")
    assert run.returncode == 2
    assert "0<=x<=65535" in run.stderr


@pytest.mark.parametrize("missing", ["click", "starlette", "uvicorn", "jwt", "websockets", "openapi_schema_validator"])
def test_without_the_extra_emulate_says_what_to_install(missing: str) -> None:
    # A module that is None in sys.modules cannot be imported.
    code = f"import sys, runpy; sys.modules[{missing!r}] = None; sys.argv[1:] = ['emulate']; "
    code += "runpy.run_module('forge_realtime_emulator', run_name='__main__')"
    run = _run(sys.executable, "-c", code)
    assert run.returncode == 1
    command = "the emulator" if missing == "click" else "forge-realtime emulate"
    assert run.stderr == f"Error: {command} needs the emulator extra: pip install 'forge-realtime[emulator]'\n"


def test_without_the_extra_import_works_and_names_say_what_to_install() -> None:
    code = "import sys; sys.modules['uvicorn'] = None; import forge_realtime_emulator as e; e.Emulator"
    run = _run(sys.executable, "-c", code)
    assert "ImportError: forge_realtime_emulator needs the emulator extra: pip install" in run.stderr
