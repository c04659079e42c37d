"""`docs/transports.md`: its examples run against the emulator, and its files are those of the package."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from forge_realtime_emulator import Emulator
from tests.support.pages import run_example

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/transports.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
# The output of each example, or a part of it.
PRINTS = ["200\n", "200\n", "ACCEPTED\n", "1 passed", "1 passed"]


def test_every_example_is_run() -> None:
    assert len(EXAMPLES) == len(PRINTS) == PAGE.count("```python")


@pytest.mark.parametrize(("example", "prints"), [*zip(EXAMPLES, PRINTS, strict=True)])
def test_example(example: str, prints: str, tmp_path: Path) -> None:
    with Emulator() as emulator:
        assert prints in run_example(example, tmp_path, emulator.url)


def test_files_exist() -> None:
    files = set(re.findall(r"`(_\w+/[\w.]+)`", PAGE))
    assert files
    assert {file for file in files if not (ROOT / "overlays/forge_realtime" / file).is_file()} == set()
