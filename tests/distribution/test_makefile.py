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


UNKNOWN = {"name": "one", "skip_reason": "Dependency not found on PyPI"}
CLEAN = {"name": "two", "version": "1", "vulns": []}
FOUND = {"name": "three", "version": "1", "vulns": [{"id": "PYSEC-1", "description": "It raises ConnectionError"}]}


@pytest.mark.parametrize(
    ("report", "status", "said"),
    [
        ([CLEAN], 0, "audit: requirements.lock: no known vulnerabilities in 1 packages; 0 are not on PyPI"),
        ([CLEAN, UNKNOWN], 0, "audit: requirements.lock: no known vulnerabilities in 1 packages; 1 are not on PyPI"),
        ([UNKNOWN], 0, "audit: PyPI's API is not reachable here; requirements.lock was not looked up"),
        ("pip_audit.ConnectionError: no route", 0, "audit: PyPI is not reachable here; requirements.lock was not look"),
        ([UNKNOWN, FOUND], 2, "PYSEC-1"),
        ("hashes do not match", 2, "hashes do not match"),
    ],
)
def test_audit_fails_on_a_finding_and_says_what_was_not_looked_up(
    tmp_path: Path, report: list[dict[str, object]] | str, status: int, said: str
) -> None:
    for folder in (".venv/done", ".venv/sbom/bin", "generated", "overlays/forge_realtime", "emulator"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "requirements.lock").touch()
    tool = tmp_path / ".venv/sbom/bin/pip-audit"
    text = report if isinstance(report, str) else json.dumps({"dependencies": report})
    failed = isinstance(report, str) or FOUND in report
    tool.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\nexit {int(failed)}\n", encoding="utf-8")
    tool.chmod(0o755)
    command = ["make", "-f", str(ROOT / "Makefile"), "-o", ".venv/done/setup", "-o", ".venv/done/sbom", "audit"]
    (tmp_path / ".venv/done/sbom").touch()
    run = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True, env=ENVIRONMENT)
    assert run.returncode == status, run.stderr
    assert said in run.stdout + run.stderr


def test_upgrade_ends_with_the_sbom() -> None:
    command = ["make", "--dry-run", "-o", ".venv/done/setup", "upgrade"]
    run = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, env=ENVIRONMENT)
    locked, _, after = run.stdout.rpartition("pip compile")
    assert "requirements.lock" in locked
    assert "--output-file sbom.cdx.json" in after
