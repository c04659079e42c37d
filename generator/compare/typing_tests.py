"""The shipped typing tests of a release, checked by mypy against another client."""

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
        file: The name of the file, from the folder of the tests or of the package.
        line: The line.
        message: What mypy says.
        in_tests: Whether it is in the tests, as it would be in the code of a user; otherwise in the hand-written package.
    """

    file: str
    line: int
    message: str
    in_tests: bool


def check_types(tests: Path, package: Path, cache: Path) -> list[TypingError]:
    """Runs `mypy --strict` on typing tests against a client, and against no other that may be installed.

    A `type: ignore` without an error is none of the errors: something is allowed that was not.

    Args:
        tests: A folder of Python files.
        package: The folder that holds the package `forge_realtime`.
        cache: A folder for what mypy remembers of this side of a comparison.

    Raises:
        GeneratorError: There are no tests, or mypy cannot run.
    """
    if not any(tests.rglob("*.py")):
        raise GeneratorError(f"{tests}: holds no typing test (*.py). Restore tests/typing.")
    with tempfile.TemporaryDirectory(prefix="typing-") as folder:
        room = Path(folder)
        for source, name in ((tests, _TESTS), (package, _PACKAGE)):
            shutil.copytree(source, room / name, ignore=shutil.ignore_patterns("__pycache__"), copy_function=_copy)
        program = [sys.executable, "-m", "mypy", "--strict", "--no-warn-unused-ignores", "--config-file="]
        program += ["--output=json", "--python-executable", str(_environment(room / "environment"))]
        # All by relative names: what mypy remembers of a file holds in the next folder too.
        files = sorted(path.relative_to(room) for path in (room / _TESTS).rglob("*.py"))
        process = subprocess.run(
            [*program, "--cache-dir", str(cache.resolve()), *map(str, files)],
            check=False,
            cwd=room,
            env={**os.environ, "MYPYPATH": _PACKAGE},
            capture_output=True,
            encoding="utf-8",
        )
    if process.returncode not in (0, 1):
        raise GeneratorError(
            f"mypy ended with exit code {process.returncode} and said:\n{process.stdout}{process.stderr}\n"
            "If it names a file, correct that; if mypy is missing, run `make setup`."
        )
    return [_error(json.loads(line)) for line in process.stdout.splitlines() if '"error"' in line]


def _copy(source: str, target: str) -> None:
    # mypy takes a file of the same time and size for the same: the time stands for the content.
    content = Path(source).read_bytes()
    Path(target).write_bytes(content)
    time = zlib.crc32(content)
    os.utime(target, (time, time))


def _environment(folder: Path) -> Path:
    """Makes an environment of all that is installed but the client; returns its Python.

    mypy looks for each module by itself: those that a client lacks it would find in the one that is installed.
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
    """The errors of `new` that `old` has not, wherever their line went."""
    known = {(error.file, error.message) for error in old}
    return [error for error in new if (error.file, error.message) not in known]
