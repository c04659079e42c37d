"""Examples of the documentation, run as programs of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def run_example(example: str, folder: Path, url: str) -> str:
    """Run an example against an emulator, with pytest if it has tests. Return what it prints."""
    program = folder / "test_example.py"
    program.write_text(example, encoding="utf-8")
    # pytest-asyncio warns that it is not configured, as an app would have it.
    way = ["-m", "pytest", "-p", "no:asyncio", "-W", "error"] if "def test_" in example else []
    command = [sys.executable, *way, str(program)]
    environment = {"FORGE_EGRESS_PROXY_URL": url}
    run = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    assert run.stderr == ""
    assert run.returncode == 0
    return run.stdout
