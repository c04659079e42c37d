"""Virtual environments with the client and its core dependencies only."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib.metadata import distribution, requires
from pathlib import Path

from packaging.requirements import Requirement

from forge_realtime_emulator import Emulator

# Publishes an event and signs a token with each client, without the emulator. Prints the installed versions.
PUBLISH = """
import asyncio, sys
from importlib.metadata import version
import forge_realtime
from forge_realtime import AsyncRealtimeClient, RealtimeClient, RetryPolicy

headers = {"x-forge-invocation-id": "invocation-123"}
patient = RetryPolicy(deadline=30, attempt_timeout=20)  # Generous, because the machine may be busy.
with RealtimeClient(sys.argv[1], retry=patient) as realtime:
    live = realtime.for_invocation(headers)
    signed = live.sign_realtime_token("board-42", {"team": "red"})
    assert signed.token.count(".") == 2
    assert live.publish("board-42", {"by": "sync"}).event_id is not None

async def main():
    async with AsyncRealtimeClient(sys.argv[1], retry=patient) as realtime:
        live = realtime.for_invocation(headers)
        assert await live.sign_realtime_token("board-42", {"team": "red"}) != signed
        assert (await live.publish("board-42", {"by": "async"})).event_id is not None

asyncio.run(main())
print(forge_realtime.__file__)
print(*(f"{name}=={version(name)}" for name in ("forge-realtime", "attrs", "httpcore", "httpx", "python-dateutil")))
"""


def make_environment(folder: Path) -> Path:
    """Make a virtual environment with the core's dependencies, copied from the running one. It needs no package index.

    Returns:
        The path of its Python.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    [packages] = folder.glob("lib/python*/site-packages")
    for name in core_dependencies():
        found = distribution(name)
        for file in found.files or []:
            if ".." not in file.parts and "__pycache__" not in file.parts:
                target = packages / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(Path(str(found.locate_file(file))), target)
    return folder / "bin/python"


def core_dependencies() -> set[str]:
    """Return the names of all direct and indirect dependencies of the client without extras."""
    needed: set[str] = set()
    left = {"forge-realtime"}
    while left:
        requirements = [Requirement(text) for name in left for text in requires(name) or []]
        here = {found.name for found in requirements if not found.marker or found.marker.evaluate({"extra": ""})}
        left = here - needed
        needed |= left
    return needed


def publish_from(python: Path) -> list[str]:
    """Publish from another environment to an emulator in this process.

    Returns:
        Two lines: the path of its client, and the versions of the client and its dependencies.
    """
    with Emulator() as emulator, emulator.subscribe("board-42") as subscription:
        command = [str(python), "-I", "-W", "error", "-c", PUBLISH, emulator.url]
        run = subprocess.run(command, check=False, capture_output=True, text=True, cwd=python.parent)
        assert run.returncode == 0, run.stderr
        assert [subscription.receive(timeout=5).payload for _ in range(2)] == ['{"by":"sync"}', '{"by":"async"}']
        assert [request.operation for request in emulator.requests] == ["sign_realtime_token", "publish"] * 2
    return run.stdout.splitlines()


def names_of(python: Path) -> set[str]:
    """Return the normalized names of the distributions in an environment."""
    program = "from importlib.metadata import distributions; print(*{d.name for d in distributions()}, sep='\\n')"
    run = subprocess.run([python, "-I", "-c", program], check=True, capture_output=True, text=True)
    return {re.sub("[-_.]+", "-", name).lower() for name in run.stdout.split()}
