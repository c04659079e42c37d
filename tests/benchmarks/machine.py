"""The machine and the commit of a benchmark."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def machine(*packages: str) -> dict[str, Any]:
    """Describe the machine, with the versions of some packages of this environment."""
    info = Path("/proc/cpuinfo")
    model = (
        next(
            (line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")),
            None,
        )
        if info.exists()
        else None
    )
    return {
        "processor": model or platform.processor() or platform.machine(),
        "processors": os.cpu_count(),
        "load average": os.getloadavg()[0],
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def commit() -> dict[str, Any]:
    """Describe the measured commit, with uncommitted changes and the time."""

    def git(*arguments: str) -> str:
        run = subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True)
        return run.stdout.strip()

    return {
        "commit": git("rev-parse", "HEAD"),
        "subject": git("log", "-1", "--format=%s"),
        "changed": bool(git("status", "--porcelain", "--", "overlays", "generated", "tests/benchmarks")),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
