"""Typing tests of a release, checked with mypy against another client."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from generator.document import GeneratorError
from generator.paths import API, GENERATED

_TESTS, _PACKAGE = "tests", "package"


@dataclass(frozen=True)
class TypingError:
    """One error of mypy.

    Attributes:
        file: The path of the file, relative to the folder of the tests or the package.
        line: The line.
        message: mypy's message.
        in_tests: Whether it is in the tests, and so possibly in code of users, or in the hand-written package.
    """

    file: str
    line: int
    message: str
    in_tests: bool

    @property
    def in_generated(self) -> bool:
        """Whether it is in generated code, which nobody edits."""
        return not self.in_tests and Path(self.file).is_relative_to(API.relative_to(GENERATED))


def check_types(tests: Path, package: Path, libraries: Path) -> list[TypingError]:
    """Run `mypy --strict` on typing tests against a client, ignoring any installed client.

    An unused `type: ignore` is not an error: the new client accepts more than the old one. Only what mypy knows of
    libraries outlives a run, so that no check depends on an earlier one.

    Args:
        tests: A folder of Python files.
        package: The folder with the package `forge_realtime`.
        libraries: A folder for mypy's caches of libraries. It is created if need be.

    Raises:
        GeneratorError: There are no tests, or mypy cannot run.
    """
    if not any(tests.rglob("*.py")):
        raise GeneratorError(f"{tests}: contains no typing tests (*.py). Restore tests/typing.")
    with tempfile.TemporaryDirectory(prefix="typing-") as folder:
        scratch = Path(folder)
        for source, name in ((tests, _TESTS), (package, _PACKAGE)):
            shutil.copytree(source, scratch / name, ignore=shutil.ignore_patterns("__pycache__"))
        python = _environment(scratch / "environment")
        shutil.copytree(_library_cache(scratch / _PACKAGE, python, libraries), scratch / "cache")
        files = sorted(str(path.relative_to(scratch)) for path in (scratch / _TESTS).rglob("*.py"))
        process = _run_mypy(scratch, python, files)
    if process.returncode not in (0, 1):
        raise GeneratorError(
            f"mypy failed with exit code {process.returncode}:\n{process.stdout}{process.stderr}\n"
            "If it names a file, correct the file; if mypy is missing, run `make setup`."
        )
    return [_error(json.loads(line)) for line in process.stdout.splitlines() if '"error"' in line]


def _run_mypy(folder: Path, python: Path, files: list[str]) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "mypy", "--strict", "--no-warn-unused-ignores", "--config-file="]
    options = ["--output=json", "--python-executable", str(python), "--cache-dir=cache", "--sqlite-cache"]
    return subprocess.run(
        [*program, *options, *files],
        check=False,
        cwd=folder,
        env={**os.environ, "MYPYPATH": _PACKAGE},
        capture_output=True,
        encoding="utf-8",
    )


def _library_cache(package: Path, python: Path, libraries: Path) -> Path:
    """Return a cache of mypy that holds the libraries of a client, and nothing of the client.

    Its name is a hash of all that goes into it: the imports, mypy and the installed packages.
    """
    imports: set[str] = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                imports.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imports.add(node.module)
    program = "".join(f"import {name}\n" for name in sorted(imports) if not name.startswith("forge_realtime"))
    installed = sorted(f"{found.name} {found.version}\n" for found in metadata.distributions())
    cache = libraries / hashlib.sha256("".join([sys.version, *installed, program]).encode()).hexdigest()[:32]
    if not cache.is_dir():
        libraries.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=libraries) as folder:
            (Path(folder) / "libraries.py").write_text(program, encoding="utf-8")
            _run_mypy(Path(folder), python, ["libraries.py"])
            with suppress(OSError):  # Another run was faster.
                (Path(folder) / "cache").rename(cache)
    return cache


def _environment(folder: Path) -> Path:
    """Make an environment with all installed packages except the client, and return its Python.

    Otherwise mypy would find the modules that a client lacks in the installed client.
    """
    venv.create(folder, symlinks=True)
    python, site = (
        Path(sysconfig.get_path(kind, "venv", {"base": str(folder), "platbase": str(folder)}))
        for kind in ("scripts", "purelib")
    )
    for kind in ("purelib", "platlib"):
        for entry in Path(sysconfig.get_path(kind)).iterdir():
            if not (entry.name.startswith("forge_realtime") or entry.suffix == ".pth" or (site / entry.name).exists()):
                (site / entry.name).symlink_to(entry)
    return python / "python"


def _error(found: dict[str, str | int]) -> TypingError:
    path = Path(str(found["file"]))
    in_tests = path.is_relative_to(_TESTS)
    base = _TESTS if in_tests else _PACKAGE
    return TypingError(path.relative_to(base).as_posix(), int(found["line"]), str(found["message"]), in_tests)


def added_errors(old: list[TypingError], new: list[TypingError]) -> list[TypingError]:
    """Return the errors of `new` that `old` does not have, ignoring line numbers."""
    known = {(error.file, error.message) for error in old}
    return [error for error in new if (error.file, error.message) not in known]
