"""Typing tests are checked against the given client, whatever is installed or cached."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from generator.compare.typing_tests import TypingError, check_types

pytestmark = pytest.mark.slow

Check = Callable[..., list[TypingError]]


@pytest.fixture(scope="module")
def client(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the client."""
    folder = tmp_path_factory.mktemp("client")
    for room in ("generated", "overlays"):
        shutil.copytree(repository / room / "forge_realtime", folder / "forge_realtime", dirs_exist_ok=True)
    return folder


@pytest.fixture
def check(repository: Path, mypy_cache: Path) -> Check:
    def check(package: Path) -> list[TypingError]:
        return check_types(repository / "tests/typing", package, mypy_cache / "typing-tests/new")

    return check


def test_missing_modules_are_not_taken_from_installed_client(client: Path, check: Check, tmp_path: Path) -> None:
    assert check(client) == []
    package = shutil.copytree(client, tmp_path / "package")
    api = package / "forge_realtime/_api/api"
    api.rename(api.with_name("calls"))
    errors = check(package)
    assert {error.in_tests for error in errors} == {True, False}
    assert any('"forge_realtime._api.api' in error.message for error in errors)
    assert check(client) == []


def test_cached_errors_do_not_leak_into_another_client(client: Path, check: Check, tmp_path: Path) -> None:
    package = shutil.copytree(client, tmp_path / "first")
    version = package / "forge_realtime/_version.py"
    right = version.read_text(encoding="utf-8")
    wrong = f'{right}\nWRONG: int = "x"\n'
    version.write_text(wrong, encoding="utf-8")
    expected = [("forge_realtime/_version.py", wrong.count("\n"))]
    assert [(error.file, error.line) for error in check(package)] == expected
    # Found again in another folder, from mypy's cache.
    moved = package.rename(tmp_path / "second")
    assert [(error.file, error.line) for error in check(moved)] == expected
    # Another file with the same size and time.
    (moved / "forge_realtime/_version.py").write_text(f'{right}\nWRONG: str = "x"\n', encoding="utf-8")
    assert check(moved) == []
