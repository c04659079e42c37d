"""Services that `forge-realtime init` writes, and how their image starts them."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from click.testing import CliRunner

from forge_realtime._cli.commands import cli

FRAMEWORKS = ("fastapi", "django")
INVOCATION = {"x-forge-invocation-id": "invocation-123", "x-forge-invocation-log-attributes": "attributes"}

_USER = "1000"
_START_SECONDS = 50.0
"""Seconds in which the platform wants a container to start."""
_END_SECONDS = 30.0
"""Seconds in which a service ends after SIGTERM, of the 300 that the platform gives it."""


def make_service(folder: Path, framework: str) -> Path:
    """Run `init` in a folder, and return the folder of the service."""
    service = folder / f"my-{framework}"
    options = ["--django"] if framework == "django" else []
    run = CliRunner(catch_exceptions=False).invoke(cli, ["init", *options, str(service)])
    assert run.exit_code == 0, run.output
    return service


class Instruction(NamedTuple):
    """Instruction of a Dockerfile. `stage` is the number of its image, from 0."""

    stage: int
    name: str
    argument: str

    @property
    def exec_form(self) -> list[str] | None:
        """The argument as a list, or `None` if it is for a shell."""
        if not self.argument.startswith("["):
            return None
        words: list[str] = json.loads(self.argument)
        return words


def read_dockerfile(text: str) -> list[Instruction]:
    """Return the instructions of a Dockerfile."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    instructions: list[Instruction] = []
    stage = -1
    for line in filter(str.strip, "\n".join(lines).replace("\\\n", " ").splitlines()):
        name, _, argument = line.strip().partition(" ")
        stage += name.upper() == "FROM"
        instructions.append(Instruction(stage, name.upper(), argument.strip()))
    return instructions


def variables(instructions: list[Instruction]) -> dict[str, str]:
    """Return the environment variables of an image."""
    words = [word for one in instructions if one.name == "ENV" for word in shlex.split(one.argument)]
    return dict(word.split("=", 1) for word in words)


class Running(NamedTuple):
    """A service that was started."""

    url: str
    process: subprocess.Popen[str]
    folder: Path

    def post(self, path: str, body: Any = None) -> httpx.Response:
        """Call the service as the platform does for a page."""
        return httpx.post(f"{self.url}{path}", json=body, headers=INVOCATION, trust_env=False)

    def wait_until_healthy(self) -> None:
        """Wait for the health check to succeed."""
        until = time.monotonic() + _START_SECONDS
        while time.monotonic() < until:
            assert self.process.poll() is None
            try:
                assert httpx.get(f"{self.url}/health", trust_env=False).status_code == 200
            except httpx.ConnectError:
                time.sleep(0.05)
            else:
                return
        raise TimeoutError

    def stop(self) -> list[dict[str, Any]]:
        """End the service as the platform does, and return its log."""
        self.process.send_signal(signal.SIGTERM)
        log, _ = self.process.communicate(timeout=_END_SECONDS)
        # A process that is not the first of a container ends by the signal, after its shutdown.
        assert self.process.returncode in {0, -signal.SIGTERM}
        return [json.loads(line) for line in log.splitlines()]


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


@contextmanager
def started(service: Path, emulator_url: str, port: int) -> Iterator[Running]:
    """Run the start command of a service's image as UID and GID 1000, in a copy of its folder that is read-only."""
    instructions = read_dockerfile((service / "Dockerfile").read_text(encoding="utf-8"))
    [*_, command] = [one.exec_form for one in instructions if one.name == "CMD"]
    assert command is not None
    assert command[0] == "python"
    # Only its owner can open the folder of pytest.
    folder = Path(tempfile.mkdtemp())
    try:
        app = shutil.copytree(service / "service", folder / "app")
        _allow_writing(folder, allowed=False)
        with subprocess.Popen(
            [*_as_user(), sys.executable, *command[1:]],
            cwd=app,
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith(("FORGE_", "PYTHON"))},
                **variables(instructions),
                "SERVER_PORT": str(port),
                "FORGE_EGRESS_PROXY_URL": emulator_url,
            },
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                running = Running(f"http://127.0.0.1:{port}", process, app)
                running.wait_until_healthy()
                yield running
            finally:
                process.kill()
    finally:
        _allow_writing(folder, allowed=True)
        shutil.rmtree(folder)


def _allow_writing(folder: Path, *, allowed: bool) -> None:
    for path in [folder, *folder.rglob("*")]:
        path.chmod((0o755 if path.is_dir() else 0o644) if allowed else (0o555 if path.is_dir() else 0o444))


def _as_user() -> list[str]:
    """Return the beginning of a command that runs it as UID and GID 1000, if this process may do that."""
    if os.getuid() != 0:
        return []
    command = ["setpriv", "--reuid", _USER, "--regid", _USER, "--clear-groups"]
    python = [*Path(sys.executable).parents, *Path(sys.executable).resolve().parents]
    if any(not path.stat().st_mode & 0o001 for path in python):
        # Python itself is in a folder of root's. The capability lets the user read it, and write nothing.
        command += [f"--{kind}-caps=-all,+dac_read_search" for kind in ("inh", "ambient")]
    return command
