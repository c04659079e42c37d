"""Each code block of the README and the manual is run, and prints what the page shows."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from forge_realtime_emulator import Emulator
from tests.docs.pages import PAGES, ROOT, Block, blocks_of, shows
from tests.support.features import needs

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
# Arguments that not every revision of the document has.
ARGUMENTS = ("context_overrides", "permissions")
PARSERS: dict[str, Callable[[str], object]] = {
    "json": json.loads,
    "toml": tomllib.loads,
    "yaml": YAML(typ="safe").load,
}


def marked(block: Block) -> object:
    needed = [name for name in ARGUMENTS if f"{name}=" in block.code]
    return pytest.param(block, marks=needs(*needed) if needed else (), id=str(block))


def of(language: str, *, run: bool = True) -> list[object]:
    return [
        marked(block)
        for block in BLOCKS
        if block.language == language and run is not block.test.startswith(("no", "from"))
    ]


def environment(url: str) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {"FORGE_EGRESS_PROXY_URL": url, "PATH": path, "HOME": os.environ["HOME"], "LANG": "C.UTF-8"}


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Block], str]:
    """Return what a Python program of a page prints. The page runs at the first question about it."""
    pages: dict[str, dict[str, str]] = {}

    def of_block(block: Block) -> str:
        if block.page not in pages:
            with Emulator() as emulator:
                run = subprocess.run(
                    [sys.executable, "-m", "tests.docs.run_page", block.page],
                    check=False,
                    cwd=tmp_path_factory.mktemp("page"),
                    env={**environment(emulator.url), "PYTHONPATH": str(ROOT)},
                    capture_output=True,
                    text=True,
                )
            assert run.returncode == 0, run.stderr
            assert run.stderr == ""
            pages[block.page] = json.loads(run.stdout.splitlines()[-1])
        return pages[block.page][str(block.line)]

    return of_block


@pytest.mark.parametrize("block", of("python"))
def test_python_prints_what_the_page_shows(block: Block, printed: Callable[[Block], str], tmp_path: Path) -> None:
    if not block.is_pytest:
        output = printed(block)
        assert shows(block.output or "", output), output
        return
    (tmp_path / "test_example.py").write_text(block.code, encoding="utf-8")
    options = shlex.split(block.test.removeprefix("pytest"))
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-W", "error", "-p", "forge_realtime", "--strict-markers", *options],
        check=False,
        cwd=tmp_path,
        env={**environment(""), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.search(r"\d passed", run.stdout)


@pytest.mark.parametrize("block", [marked(block) for block in BLOCKS if block.test.startswith("from ")])
def test_code_is_that_of_the_file_it_is_from(block: Block) -> None:
    place = ROOT / block.test.removeprefix("from ")
    files = [place] if place.is_file() else [file for file in place.rglob("*") if file.is_file()]
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in files]
    assert any(block.code in text for text in texts)


@pytest.mark.parametrize("block", [*of("console"), *of("sh")])
def test_commands_print_what_the_page_shows(block: Block, tmp_path: Path) -> None:
    """In `console`, commands begin with `$ `, and what follows is their output."""
    sessions = re.findall(r"^\$ (.*(?:\\\n.*)*)\n((?:(?!\$ ).*\n)*)", block.code, re.MULTILINE)
    if block.language == "sh":
        sessions = [(block.code, block.output or "")]
    with Emulator() as emulator:
        for command, expected in sessions:
            run = subprocess.run(
                ["bash", "-ec", command],
                check=False,
                cwd=tmp_path,
                env=environment(emulator.url),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=60,
            )
            assert shows(expected, run.stdout), run.stdout


@pytest.mark.parametrize("block", [marked(block) for block in BLOCKS if block.language in PARSERS])
def test_data_can_be_read(block: Block) -> None:
    assert PARSERS[block.language](block.code) is not None


def test_every_block_is_tested_or_says_why_not() -> None:
    tested = {"python", "sh", "console", *PARSERS}
    untested = [block for block in BLOCKS if block.language not in tested]
    assert [str(block) for block in untested if not block.test.startswith(("from ", "no, "))] == []
    assert [str(block) for block in BLOCKS if block.test.startswith("no") and not block.test.startswith("no, ")] == []
