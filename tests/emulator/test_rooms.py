"""The rooms of the emulator import in one direction: `_server` imports `_http`, which imports `_platform`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path

import pytest

import forge_realtime_emulator

PACKAGE = "forge_realtime_emulator"
ROOT = Path(forge_realtime_emulator.__file__ or "").parent
HTTP_PACKAGES = ["starlette", "uvicorn", "websockets", "httpx", "httptools"]


def imports_of(room: str) -> Iterator[tuple[str, str]]:
    """Yields each file of a room with each module that it imports, also within functions and for types only."""
    for path in sorted((ROOT / room).rglob("*.py")):
        if "_templates" in path.parts:
            continue  # services that `init` writes
        name = path.relative_to(ROOT).as_posix()
        package = ".".join([PACKAGE, *path.relative_to(ROOT).parent.parts])
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                yield from ((name, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                module = resolve_name("." * node.level + (node.module or ""), package)
                yield from ((name, f"{module}.{alias.name}") for alias in node.names)


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [
        ("_platform", [f"{PACKAGE}._http", f"{PACKAGE}._server", *HTTP_PACKAGES]),
        ("_http", [f"{PACKAGE}._server"]),
        ("", ["forge_realtime"]),
    ],
)
def test_room_imports_nothing_above_it(room: str, forbidden: list[str]) -> None:
    imports = list(imports_of(room))
    assert len(imports) > 20
    assert [
        (name, module)
        for name, module in imports
        for above in forbidden
        if module == above or module.startswith(f"{above}.")
    ] == []


def test_platform_has_no_import_cycle() -> None:
    files = {f"{PACKAGE}._platform.{path.stem}": path.name for path in (ROOT / "_platform").glob("*.py")}
    needs: dict[str, set[str]] = {name: set() for name in files}
    for name, module in imports_of("_platform"):
        importer = f"{PACKAGE}._platform.{Path(name).stem}"
        needs[importer] |= {module.rpartition(".")[0], module} & files.keys()
    while free := {name for name, others in needs.items() if not others & needs.keys()}:
        for name in free:
            del needs[name]
    assert needs == {}
