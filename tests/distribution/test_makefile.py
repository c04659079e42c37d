"""Variables given to `make` reach the programs unchanged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Without the variables of the make that runs these tests, and without those that the tests set.
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("MAKE", "MFLAGS"))
    and name
    not in {"OLD", "NEW", "TAG", "PACKAGE", "DEST", "INDEX", "SOURCE", "BASE", "RESULTS", "RECORD", "ARGS", "COVERAGE"}
}
ODD = """it's "odd"; `false` && <a b>\\"""


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with a `python` that prints its arguments."""
    python = tmp_path / "python"
    python.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n", encoding="utf-8")
    python.chmod(0o755)
    return tmp_path


def given(programs: Path, target: str, *settings: str, **environment: str) -> list[str]:
    [arguments] = runs(programs, target, *settings, **environment)
    return arguments


def runs(programs: Path, target: str, *settings: str, **environment: str) -> list[list[str]]:
    command = ["make", "--silent", "-o", "wheel", "-o", ".venv/done/setup", f"BIN={programs}", target, *settings]
    run = subprocess.run(
        command, cwd=ROOT, check=False, capture_output=True, text=True, env={**ENVIRONMENT, **environment}
    )
    assert (run.returncode, run.stderr) == (0, "")
    return [json.loads(line)[2:] for line in run.stdout.splitlines()]


def test_variables_arrive_whole(programs: Path) -> None:
    assert given(programs, "pull", f"SOURCE={ODD}", "FORCE=yes") == ["pull", "--force", ODD]
    assert given(programs, "diff", f"OLD={ODD}", f"NEW={ODD}!") == ["diff", ODD, f"{ODD}!"]
    assert given(programs, "client", f"TAG={ODD}", "PACKAGE=forge_more", f"DEST={ODD}") == [
        *("client", "--tag", ODD, "--package", "forge_more", "--output", ODD, "--check-types")
    ]
    assert given(programs, "publish", f"INDEX={ODD}") == ["publish", ODD]
    assert given(programs, "publish", INDEX=ODD) == ["publish", ODD]
    assert given(programs, "vendor", f"DEST={ODD}", "FORCE=yes") == ["--force", ODD]
    assert given(programs, "bench", "ARGS=--quick sync --only 'http client'") == [
        "--quick",
        "sync",
        "--only",
        "http client",
    ]
    assert given(programs, "bench-report", f"BASE={ODD}", f"RESULTS={ODD}!") == ["--base", ODD, f"{ODD}!"]
    assert given(programs, "bench-check", "RECORD=1") == ["--record"]
    assert given(programs, "propose", f"SOURCE={ODD}") == ["propose", ODD]


def test_variables_are_optional(programs: Path) -> None:
    assert given(programs, "pull") == ["pull"]
    assert given(programs, "diff") == ["diff", "HEAD"]
    assert given(programs, "client") == ["client", "--tag", "", "--package", "", "--output", "", "--check-types"]
    assert given(programs, "publish") == ["publish", ""]
    assert given(programs, "vendor") == [""]
    assert given(programs, "bench") == []
    assert given(programs, "bench-report") == [".benchmarks/results.json"]
    assert given(programs, "bench-check") == []


def test_coverage_is_measured_only_on_request(programs: Path) -> None:
    parallel = ["--numprocesses=4", "--dist=worksteal"]
    assert given(programs, "test") == [*parallel, "tests"]
    untraced, traced = runs(programs, "test", COVERAGE="98")
    assert untraced[:2] == parallel
    ignored = [f"--ignore={path}" for path in untraced[2:]]
    assert traced == [*parallel, "--cov=forge_realtime", "--cov-fail-under=98", *ignored, "tests"]
    assert {"tests/emulator", "tests/generator"} < set(untraced)
    assert all((ROOT / path).exists() for path in untraced[2:])
    assert given(programs, "test", "ARGS=tests/client -k retry") == ["tests/client", "-k", "retry"]
    assert given(programs, "test-fast") == [*parallel, "-m", "not slow", "tests"]
