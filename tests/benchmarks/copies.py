"""Copies of the repository, to measure the time from a changed document to the installed wheel."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks.environments import ROOT
from tests.generator.conftest import repin
from tests.support.repository import copy_repository
from tests.support.revisions import revision

UNCHANGED, CHANGED = "make generate, nothing changed", "changed document to installed wheel"


def making_the_wheel(count: int) -> Iterator[dict[str, Any]]:
    """Measure `make generate` without a change, and the way from a changed document to the installed wheel."""
    folder = ROOT / ".benchmarks/copy"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        copy = Copy(folder)
        copy.make("wheel")
        runs: dict[str, Callable[[], float]] = {UNCHANGED: lambda: copy.make("generate"), CHANGED: copy.remake}
        for name, run in runs.items():
            yield {"group": "generator", "name": name, "unit": "s", "values": [run() for _ in range(count)]}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Copy:
    """A copy of the repository that uses this environment and installs into a folder of its own.

    Args:
        folder: An empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.root = copy_repository(folder / "repository")
        (self.root / ".venv/done").mkdir(parents=True)
        (self.root / ".venv/done/setup").touch()
        self.installed = folder / "installed"
        self._revision = 3

    def make(self, target: str) -> float:
        """Run make. Return its seconds."""
        shutil.rmtree(self.installed, ignore_errors=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
        command = ["make", "--silent", f"BIN={Path(sys.executable).parent}", target]
        began = time.monotonic()
        run = subprocess.run(
            command,
            cwd=self.root,
            check=False,
            capture_output=True,
            text=True,
            env={**environment, "PIP_TARGET": str(self.installed)},
        )
        seconds = time.monotonic() - began
        if run.returncode:
            raise RuntimeError(f"make {target} failed in a copy:\n{run.stdout}{run.stderr}")
        return seconds

    def pin(self, document: dict[str, Any]) -> None:
        """Pin another document."""
        repin(self.root, document)

    def pinned(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.root / "spec/forge-containers-api.json").read_text(encoding="utf-8"))
        return found

    def remake(self) -> float:
        """Make and install the wheel of another revision than the last time. Return the seconds."""
        self._revision = 5 - self._revision
        self.pin(revision(self.pinned(), self._revision))
        return self.make("wheel")
