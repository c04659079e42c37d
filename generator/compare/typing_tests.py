"""Typing tests of a release, checked with mypy against another client."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zlib
from dataclasses import dataclass
from pathlib import Path

from generator.document import GeneratorError

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


def check_types(tests: Path, package: Path, cache: Path) -> list[TypingError]:
    """Run `mypy --strict` on typing tests against a client, ignoring any installed client.

    An unused `type: ignore` is not an error: the new client accepts more than the old one.

    Args:
        tests: A folder of Python files.
        package: The folder with the package `forge_realtime`.
        cache: A cache folder of mypy, one for each side of a comparison.

    Raises:
        GeneratorError: There are no tests, or mypy cannot run.
    """
    if not any(tests.rglob("*.py")):
        raise GeneratorError(f"{tests}: contains no typing tests (*.py). Restore tests/typing.")
    with tempfile.TemporaryDirectory(prefix="typing-") as folder:
        scratch = Path(folder)
        for source, name in ((tests, _TESTS), (package, _PACKAGE)):
            shutil.copytree(source, scratch / name, ignore=shutil.ignore_patterns("__pycache__"), copy_function=_copy)
        program = [sys.executable, "-m", "mypy", "--strict", "--no-warn-unused-ignores", "--config-file="]
        program += ["--output=json", "--python-executable", str(_environment(scratch / "environment"))]
        # Relative paths keep the cache valid in the next scratch folder.
        files = sorted(path.relative_to(scratch) for path in (scratch / _TESTS).rglob("*.py"))
        process = subprocess.run(
            [*program, "--cache-dir", str(cache.resolve()), *map(str, files)],
            check=False,
            cwd=scratch,
            env={**os.environ, "MYPYPATH": _PACKAGE},
            capture_output=True,
            encoding="utf-8",
        )
    if process.returncode not in (0, 1):
        raise GeneratorError(
            f"mypy failed with exit code {process.returncode}:\n{process.stdout}{process.stderr}\n"
            "If it names a file, correct the file; if mypy is missing, run `make setup`."
        )
    return [_error(json.loads(line)) for line in process.stdout.splitlines() if '"error"' in line]


def _copy(source: str, target: str) -> None:
    # mypy treats files with the same time and size as unchanged, so derive the time from the content.
    content = Path(source).read_bytes()
    Path(target).write_bytes(content)
    time = zlib.crc32(content)
    os.utime(target, (time, time))


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
