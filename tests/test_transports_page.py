"""`docs/transports.md`: its examples run against the emulator, and its files are those of the package."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from forge_realtime_emulator import Emulator

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/transports.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
# The output of each example, or a part of it.
PRINTS = ["200\n", "200\n", "ACCEPTED\n", "1 passed", "1 passed"]


def test_every_example_is_run() -> None:
    assert len(EXAMPLES) == len(PRINTS) == PAGE.count("```python")


@pytest.mark.parametrize(("example", "prints"), [*zip(EXAMPLES, PRINTS, strict=True)])
def test_example(example: str, prints: str, tmp_path: Path) -> None:
    program = tmp_path / "test_example.py"
    program.write_text(example, encoding="utf-8")
    way = (
        ["-m", "pytest", "-W", "error", "-p", "no:asyncio", str(program)] if "def test_" in example else [str(program)]
    )
    with Emulator() as emulator:
        environment = {"FORGE_EGRESS_PROXY_URL": emulator.url}
        run = subprocess.run([sys.executable, *way], check=False, env=environment, capture_output=True, text=True)
    assert run.stderr == ""
    assert run.returncode == 0
    assert prints in run.stdout


def test_files_exist() -> None:
    files = set(re.findall(r"`(_\w+/[\w.]+)`", PAGE))
    assert files
    assert {file for file in files if not (ROOT / "overlays/forge_realtime" / file).is_file()} == set()
