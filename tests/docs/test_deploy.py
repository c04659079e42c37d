"""`docs/deploy.md`: its blocks are from the services that `forge-realtime init` writes."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest
from click.testing import CliRunner

from forge_realtime._cli.commands import cli
from forge_realtime_emulator import Settings

PAGE = (Path(__file__).parent.parent.parent / "docs/deploy.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
FILES = {"dockerfile": "Dockerfile", "yaml": "*.yml", "python": "service/*.py"}


def test_blocks_are_from_the_service_that_the_command_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(BLOCKS) == PAGE.count("```") / 2
    monkeypatch.chdir(tmp_path)
    [command] = [code for language, code in BLOCKS if language == "sh"]
    name, *arguments = shlex.split(command)
    assert name == "forge-realtime"
    assert CliRunner(catch_exceptions=False).invoke(cli, arguments).exit_code == 0
    [service] = tmp_path.iterdir()
    for language, code in BLOCKS:
        if language != "sh":
            assert any(code in file.read_text(encoding="utf-8") for file in service.glob(FILES[language])), code
    answers = (service / "service/answers.py").read_text(encoding="utf-8")
    [grace] = re.findall(r"`GRACE` is (\d+) seconds", PAGE)
    assert f"GRACE = {grace}.0\n" in answers


def test_settings_of_the_page_exist() -> None:
    [settings] = re.findall(r"`@pytest\.mark\.realtime_emulator\((.*?)\)`", PAGE)
    names = {name for name, _ in re.findall(r"(\w+)=(\d+)", settings)}
    assert names == {"cold_start_after", "cold_start_duration"} & {field.name for field in fields(Settings)}
