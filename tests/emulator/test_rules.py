"""RULES.md names existing tests, and all settings with their defaults."""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from pathlib import Path

from forge_realtime_emulator import Settings
from forge_realtime_emulator._platform.settings import READINGS

HERE = Path(__file__).parent
RULES = (HERE.parents[1] / "emulator/RULES.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    section = RULES.partition(f"\n## {heading}")[2].partition("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table[2:]]


def test_every_rule_names_a_test_and_every_test_exists() -> None:
    tables = [rows(heading) for heading in ("Known:", "Unknown: question", "Unknown, with")]
    assert [len(table) > 5 for table in tables] == [True, True, True]
    assert all("::test_" in row[-1] for table in tables for row in table)
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", RULES)
    assert len(named) == RULES.count("::test_")
    for module, name in named:
        path = HERE.parents[1] / module if "/" in module else HERE / module
        functions = {node.name for node in ast.parse(path.read_bytes()).body if hasattr(node, "name")}
        assert name in functions, f"{module}::{name}"


def test_every_setting_is_there_with_its_default() -> None:
    stated = {row[1].split("`")[1]: row[2].strip("`") for row in rows("Unknown: question")}
    stated |= dict(re.findall(r"`(\w+)` \(default `(\w+)`", RULES))
    assert stated == {setting.name: repr(setting.default) for setting in fields(Settings)}


def test_every_reading_differs_in_settings_that_are_unknown() -> None:
    unknown = [row[1].split("`")[1] for row in rows("Unknown: question")]
    changed = [name for reading in READINGS for name in reading]
    assert sorted(changed) == sorted(unknown)
    assert READINGS[0] == {}
    for reading in READINGS[1:]:
        assert all(getattr(Settings(**reading), name) != getattr(Settings(), name) for name in reading)
