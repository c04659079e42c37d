"""The glossary is in order, and the names in it are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
GLOSSARY = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")


def test_entries_are_sorted_and_unique() -> None:
    words = re.findall(r"^\*\*(.+?)\*\* ", GLOSSARY, re.MULTILINE)
    assert len(words) == GLOSSARY.count("\n**")
    assert words == sorted(set(words))


def test_classes_exist() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "overlays/forge_realtime").rglob("*.py"))
    classes = set(re.findall(r"`([A-Z][a-z]\w+)`", GLOSSARY))
    assert classes
    assert {name for name in classes if f"class {name}" not in code} == set()


def test_files_exist() -> None:
    files = set(re.findall(r"`([a-z_]+/[\w/.-]*)`", GLOSSARY))
    assert files
    assert {name for name in files if not (ROOT / name).exists()} == set()
