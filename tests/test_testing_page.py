"""`docs/testing.md`: each of its examples is a test that passes with the plugin, and what it says about them holds."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import forge_realtime_emulator

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/testing.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
# Of each example: its plugins and options, and how many tests pass.
RUNS = [
    ([], 1),
    ([], 1),
    ([], 11),
    (["-p", "inline_snapshot", "--inline-snapshot=disable"], 1),
    (["-p", "syrupy"], 1),
    (["-p", "pytest_asyncio.plugin", "-o", "asyncio_default_fixture_loop_scope=function"], 1),
]


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-W", "error", "-p", "forge_realtime", "--strict-markers", *options]
    environment = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(command, check=False, cwd=folder, env=environment, capture_output=True, text=True)


def test_every_example_is_run() -> None:
    assert len(EXAMPLES) == len(RUNS) == PAGE.count("```python")


@pytest.mark.parametrize(("example", "options", "passed"), [(e, *run) for e, run in zip(EXAMPLES, RUNS, strict=True)])
def test_example(example: str, options: list[str], passed: int, tmp_path: Path) -> None:
    (tmp_path / "test_example.py").write_text(example, encoding="utf-8")
    if "syrupy" in options:
        missing = run(tmp_path, *options)
        assert "1 failed" in missing.stdout, missing.stdout
        written = run(tmp_path, *options, "--snapshot-update")
        assert "1 snapshot generated" in written.stdout, written.stdout
        assert "'value': 'Hello, world'" in next(tmp_path.rglob("*.ambr")).read_text(encoding="utf-8")
    done = run(tmp_path, *options)
    assert f"{passed} passed" in done.stdout, done.stdout
    assert done.returncode == 0
    assert done.stderr == ""


def snapshot_in(code: str) -> object:
    """Return the argument of `snapshot`."""
    [call] = [
        node
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "snapshot"
    ]
    return [ast.literal_eval(argument) for argument in call.args]


def test_inline_snapshot_writes_what_the_page_shows(tmp_path: Path) -> None:
    [example] = [example for example in EXAMPLES if "inline_snapshot" in example]
    test = tmp_path / "test_example.py"
    test.write_text(f"{example.partition('snapshot(')[0]}snapshot()\n", encoding="utf-8")
    written = run(tmp_path, "-p", "inline_snapshot", "--inline-snapshot=create")
    assert "1 passed" in written.stdout, written.stdout
    assert snapshot_in(test.read_text(encoding="utf-8")) == snapshot_in(example)


def test_names_exist() -> None:
    assert "class ReceivedEvent" in (ROOT / "emulator/forge_realtime_emulator/_server/subscription.py").read_text()
    for name in re.findall(r"realtime_emulator\.(\w+)\(", PAGE):
        assert hasattr(forge_realtime_emulator.Emulator, name)
