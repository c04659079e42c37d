"""`make test` on a machine that has Python and make, but no Redis, browser or Node."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HIDDEN = {"chromium", "node", "npm", "npx", "redis-server"}
# The settings of the run that this test is part of.
OURS = ("MAKE", "MFLAGS", "PYTEST", "COV", "FORGE_REALTIME_", "ARGS")
# The whole suite would take minutes: one module of each kind that is skipped, and one that passes.
SOME = (
    "tests/client/core/test_retry_policy.py",
    "tests/client/quota/test_redis_quota.py",
    "tests/emulator/test_answer_page.py",
    "tests/emulator/test_console.py",
)


@pytest.fixture
def bare_path(tmp_path: Path) -> Path:
    """A folder with links to all programs of this machine but the hidden ones."""
    for folder in os.environ["PATH"].split(os.pathsep):
        for program in Path(folder).glob("*"):
            link = tmp_path / program.name
            if program.name not in HIDDEN and not link.is_symlink():
                link.symlink_to(program)
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_make_test_passes_and_says_what_it_skipped(bare_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    tests = {str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py")}
    # One worker: each collects all tests, which takes longer than running these. syrupy waits for the other workers.
    options = [
        "-p no:cacheprovider",
        "-p no:syrupy",
        "--maxprocesses=1",
        *(f"--ignore={path}" for path in sorted(tests.difference(SOME))),
    ]
    run = subprocess.run(
        ["make", "--old-file=wheel", "test"],
        cwd=ROOT,
        env={**environment, "PATH": str(bare_path), "PYTEST_ADDOPTS": " ".join(options)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    _, _, last = run.stdout.partition("skipped tests, and how to run them")
    *reasons, result = last.splitlines()[1:]
    for reason in (
        "not installed: redis-server. To run these tests: apt-get install redis-server",
        "not installed: chromium. To run these tests: apt-get install chromium",
        "not installed: node, npm, chromium. To run these tests: apt-get install nodejs npm chromium",
    ):
        assert any(re.fullmatch(rf" +\d+ {re.escape(reason)}", line) for line in reasons), run.stdout
    assert re.fullmatch(r"=+ \d+ passed, \d+ skipped in .* =+", result)
    assert not re.search("error|fail|coverage", run.stdout, re.IGNORECASE)
