"""The shipped typing tests of a release, checked by mypy against another client."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from generator.document import GeneratorError


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
    """Runs `mypy --strict` on typing tests against a client.

    A `type: ignore` without an error is none of the errors: something is allowed that was not.

    Args:
        tests: A folder of Python files.
        package: The folder that holds the package `forge_realtime`.
        cache: A folder for what mypy remembers.

    Raises:
        GeneratorError: There are no tests, or mypy cannot run.
    """
    files = sorted(tests.rglob("*.py"))
    if not files:
        raise GeneratorError(f"{tests}: holds no typing test (*.py). Restore tests/typing.")
    program = [sys.executable, "-m", "mypy", "--strict", "--no-warn-unused-ignores", "--config-file=", "--output=json"]
    process = subprocess.run(
        [*program, "--cache-dir", str(cache), *(str(path.relative_to(tests)) for path in files)],
        check=False,
        cwd=tests,
        env={**os.environ, "MYPYPATH": str(package.resolve())},
        capture_output=True,
        encoding="utf-8",
    )
    if process.returncode not in (0, 1):
        raise GeneratorError(
            f"mypy ended with exit code {process.returncode} and said:\n{process.stdout}{process.stderr}\n"
            "If it names a file, correct that; if mypy is missing, run `make setup`."
        )
    return [_error(json.loads(line), tests, package) for line in process.stdout.splitlines() if '"error"' in line]


def _error(found: dict[str, str | int], tests: Path, package: Path) -> TypingError:
    path = (tests / str(found["file"])).resolve()
    in_tests = path.is_relative_to(tests.resolve())
    base = tests.resolve() if in_tests else package.resolve()
    return TypingError(path.relative_to(base).as_posix(), int(found["line"]), str(found["message"]), in_tests)


def added_errors(old: list[TypingError], new: list[TypingError]) -> list[TypingError]:
    """The errors of `new` that `old` has not, wherever their line went."""
    known = {(error.file, error.message) for error in old}
    return [error for error in new if (error.file, error.message) not in known]
