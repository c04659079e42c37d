"""The command `forge-realtime emulate`, run as a process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from forge_realtime_emulator import Emulator

COMMAND = [sys.executable, "-m", "forge_realtime_emulator"]


@contextmanager
def emulate(*arguments: str) -> Any:
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}
    process = subprocess.Popen(
        [*COMMAND, "emulate", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
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
        assert errors == ""
        first, second = output.splitlines()
        assert re.fullmatch(r"\d\d:\d\d:\d\d  publish +200  on 'x', reached 0 subscriber\(s\)", first)
        assert re.fullmatch(
            r"\d\d:\d\d:\d\d  publish +401  UNAUTHORIZED: the header forge-proxy-authorization is missing\..*", second
        )
        assert "secret" not in output


def test_closed_stdout_does_not_end_emulate(client: httpx.Client) -> None:
    with emulate("--port", "0") as process:
        url = exported(process)
        process.stdout.close()
        header = {"forge-proxy-authorization": "Forge id=i"}
        body = {"name": "x", "payload": "x"}
        for _ in range(3):
            assert client.post(f"{url}/forge/realtime/v1/publish", json=body, headers=header).status_code == 200
        process.stdout = None
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=10)
        assert "Traceback" not in errors


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
        line = process.stdout.readline()
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
        assert state["limit"] == 1
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
