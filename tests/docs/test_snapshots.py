"""The snapshots in `docs/testing.md` are those that the snapshot libraries write."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from tests.docs.pages import blocks_of

TESTS = [block.code for block in blocks_of("docs/testing.md") if block.is_pytest]


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-W", "error", "-p", "forge_realtime", *options]
    environment = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(command, check=False, cwd=folder, env=environment, capture_output=True, text=True)


def snapshot_in(code: str) -> object:
    """Return the argument of `snapshot`."""
    calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    [call] = [call for call in calls if ast.unparse(call.func) == "snapshot"]
    return [ast.literal_eval(argument) for argument in call.args]


def test_inline_snapshot_writes_what_the_page_shows(tmp_path: Path) -> None:
    [example] = [code for code in TESTS if "inline_snapshot" in code]
    test = tmp_path / "test_example.py"
    test.write_text(f"{example.partition('snapshot(')[0]}snapshot()\n", encoding="utf-8")
    written = run(tmp_path, "-p", "inline_snapshot", "--inline-snapshot=create")
    assert "1 passed" in written.stdout, written.stdout
    assert snapshot_in(test.read_text(encoding="utf-8")) == snapshot_in(example)


def test_syrupy_compares_with_what_it_wrote(tmp_path: Path) -> None:
    [example] = [code for code in TESTS if "== snapshot\n" in code]
    (tmp_path / "test_example.py").write_text(example, encoding="utf-8")
    for options, outcome in (((), "1 failed"), (("--snapshot-update",), "1 snapshot generated"), ((), "1 passed")):
        done = run(tmp_path, "-p", "syrupy", *options)
        assert outcome in done.stdout, done.stdout
    assert "'value': 'Hello, world'" in next(tmp_path.rglob("*.ambr")).read_text(encoding="utf-8")
