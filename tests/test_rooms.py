"""Which room imports which: downwards only, as the design draws them."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
OVERLAY = ROOT / "overlays/forge_realtime"
# The packages of this repository, by their folders.
PACKAGES = {
    "generated/forge_realtime": "forge_realtime",
    "overlays/forge_realtime": "forge_realtime",
    "emulator/forge_realtime_emulator": "forge_realtime_emulator",
    "generator": "generator",
}

# Services that `init` writes: no code of the package.
TEMPLATES = "_templates"

# The rooms of the overlay from the lowest to the highest, and what each may import besides itself.
ROOMS = {
    "_core": {"_api"},
    "_quota": {"_core"},
    "_transports": {"_core"},
    "_client": {"_core", "_transports"},
    "_streams": {"_core", "_quota", "_transports", "_client"},
    "_realtime": {"_api", "_core", "_quota", "_transports", "_client", "_streams"},
}
# Public modules and `_cli` may import every room, and the public names. No room imports them.
ON_TOP = {*ROOMS, "_api", "__init__"}
# Modules that hold values only. Everything may import them.
VALUES = {"_document", "_version"}

# certifi is httpx's.
REQUIRED = {"attrs", "certifi", "dateutil", "httpcore", "httpx"}
# The rooms and modules that may import the packages of extras.
EXTRAS = {
    "_cli": {"click"},
    "_transports/aiohttp.py": {"aiohttp", "yarl"},
    "_transports/http_client.py": {"httpx2"},
    "_transports/httpx2.py": {"httpx2"},
    "django.py": {"asgiref", "django"},
    "otel.py": {"opentelemetry"},
    "redis.py": {"redis"},
}


class Import(NamedTuple):
    where: str
    # The room or module inside the package if the import is relative, else the package.
    name: str
    relative: bool


def modules(folder: Path) -> Iterator[tuple[Path, str]]:
    """Every module of a package: its path inside the package, and its code."""
    for path in sorted(folder.rglob("*.py")):
        if TEMPLATES not in path.parts:
            yield path.relative_to(folder), path.read_text(encoding="utf-8")


def imports(path: Path, code: str) -> Iterator[Import]:
    """Every import of a module, including those in functions and those for types only."""
    for node in ast.walk(ast.parse(code)):
        where = f"{path}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(where, alias.name.partition(".")[0], relative=False)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield Import(where, str(node.module).partition(".")[0], relative=False)
        elif isinstance(node, ast.ImportFrom):
            parents = path.parts[: len(path.parts) - node.level]
            target = [*parents, *(node.module.split(".") if node.module else [])]
            for alias in node.names:
                yield Import(where, target[0] if target else module_or_package(alias.name), relative=True)


def module_or_package(name: str) -> str:
    """The module that `from . import name` imports at the top of the package. Public names are in `__init__`."""
    return name if name in ON_TOP | VALUES or (OVERLAY / f"{name}.py").is_file() else "__init__"


def all_imports() -> Iterator[tuple[Path, Import]]:
    for path, code in modules(OVERLAY):
        for each in imports(path, code):
            yield path, each


def test_every_room_is_listed() -> None:
    rooms = {path.parts[0] for path, _ in modules(OVERLAY) if len(path.parts) > 1}
    assert rooms == {*ROOMS, "_cli"}


def test_rooms_import_lower_rooms_only() -> None:
    wrong = []
    for path, each in all_imports():
        room = path.parts[0].removesuffix(".py")
        allowed = {"_cli"} if room == "__main__" else ROOMS.get(room, ON_TOP) | VALUES | {room}
        if each.relative and each.name not in allowed:
            wrong.append(f"{each.where} imports {each.name}")
    assert wrong == []


def test_imports_within_the_package_are_relative() -> None:
    wrong = [each.where for _, each in all_imports() if not each.relative and each.name == "forge_realtime"]
    assert wrong == []


def test_only_named_modules_import_packages_of_extras() -> None:
    wrong = []
    for path, each in all_imports():
        extras = EXTRAS.get(path.parts[0], set()) | EXTRAS.get(path.as_posix(), set())
        allowed = sys.stdlib_module_names | REQUIRED | extras
        if not each.relative and each.name not in allowed:
            wrong.append(f"{each.where} imports {each.name}")
    assert wrong == []


def test_core_does_not_import_httpcore() -> None:
    wrong = [each.where for path, each in all_imports() if path.parts[0] == "_core" and each.name == "httpcore"]
    assert wrong == []


def test_one_module_each_imports_httpx_and_httpcore() -> None:
    """So another library takes their place with one line each."""
    found = {(each.name, path.as_posix()) for path, each in all_imports() if each.name in {"httpx", "httpcore"}}
    assert found == {("httpx", "_core/http.py"), ("httpcore", "_transports/http.py")}


def test_client_emulator_and_generator_do_not_import_each_other() -> None:
    wrong = []
    for folder, package in PACKAGES.items():
        others = {*PACKAGES.values()} - {package}
        for path, code in modules(ROOT / folder):
            found = [each for each in imports(path, code) if not each.relative and each.name in others]
            wrong += [f"{folder}/{each.where} imports {each.name}" for each in found]
    assert wrong == []


@pytest.mark.parametrize(
    ("path", "code", "name", "relative"),
    [
        ("asgi.py", "import forge_realtime._core.errors", "forge_realtime", False),
        ("asgi.py", "from forge_realtime._core import errors", "forge_realtime", False),
        ("_core/call.py", "def late():\n    import redis.asyncio", "redis", False),
        ("_core/call.py", "if TYPE_CHECKING:\n    from ..redis import RedisQuota", "redis", True),
        ("_core/call.py", "from .retry import RetryPolicy", "_core", True),
        ("_core/call.py", "from . import retry", "_core", True),
        ("_core/call.py", "from .. import _streams", "_streams", True),
        ("_core/call.py", "from .. import Quota", "__init__", True),
        ("asgi.py", "from ._core.invocation import Invocation", "_core", True),
        ("asgi.py", "from . import Quota", "__init__", True),
    ],
)
def test_every_form_of_import_is_read(path: str, code: str, name: str, relative: bool) -> None:
    [found] = imports(Path(path), code)
    assert (found.name, found.relative) == (name, relative)
