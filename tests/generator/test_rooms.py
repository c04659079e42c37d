"""Which room of the generator may import which."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

# The modules beside the rooms, such as `generator.document`, are the room "". `generator.__main__` imports every room.
ALLOWED = {
    "": set(),
    "pipeline": {""},
    "spec": {"", "pipeline"},
    "compare": {"", "pipeline"},
    "release": {"", "pipeline", "spec", "compare"},
}


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ALLOWED else ""


@pytest.mark.parametrize("room", ALLOWED)
def test_rooms_import_only_those_below(repository: Path, room: str) -> None:
    modules = [path for path in (repository / "generator" / room).glob("*.py") if path.name != "__main__.py"]
    assert len(modules) > 1
    for path in modules:
        for statement in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(statement, ast.Import):
                imported = [alias.name for alias in statement.names]
            elif isinstance(statement, ast.ImportFrom):
                assert statement.level == 0, f"{path}: relative import"
                imported = [f"{statement.module}.{alias.name}" for alias in statement.names]
            else:
                continue
            rooms = {room_of(name) for name in imported if name.split(".")[0] == "generator"}
            assert rooms <= ALLOWED[room] | {room}, f"{path}, line {statement.lineno}"
