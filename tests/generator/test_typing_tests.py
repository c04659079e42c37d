"""Typing tests are checked against the given client, whatever is installed or cached."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from generator.compare.typing_tests import TypingError, check_types
from tests.generator.changes import CASES, operation
from tests.generator.conftest import render_unformatted

pytestmark = pytest.mark.slow

Check = Callable[..., list[TypingError]]
Document = dict[str, Any]


@pytest.fixture(scope="module")
def client(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what is in the wheel, as in a comparison, which therefore needs the same cache of libraries."""
    folder = tmp_path_factory.mktemp("client")
    for path in ("generated/forge_realtime", "overlays/forge_realtime", "emulator/forge_realtime_emulator"):
        shutil.copytree(repository / path, folder / Path(path).name, dirs_exist_ok=True)
    return folder


@pytest.fixture
def check(repository: Path, mypy_cache: Path) -> Check:
    def check(package: Path) -> list[TypingError]:
        return check_types(repository / "tests/typing", package, mypy_cache / "libraries")

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
    # Found again in another folder.
    moved = package.rename(tmp_path / "second")
    assert [(error.file, error.line) for error in check(moved)] == expected
    # Another file with the same size and time.
    (moved / "forge_realtime/_version.py").write_text(f'{right}\nWRONG: str = "x"\n', encoding="utf-8")
    assert check(moved) == []


def _documents(derived: Document) -> list[Document]:
    # An operation that moved to the module of another tag.
    moved = copy.deepcopy(derived)
    operation(moved)["tags"].insert(0, "Preview")
    return [derived, moved, *(CASES[name].documents(derived)[1] for name in _CASES)]


_CASES = ("operation renamed", "model renamed", "property type changed")


def test_no_check_depends_on_an_earlier_one(
    repository: Path, client: Path, derived: Document, mypy_cache: Path, tmp_path: Path
) -> None:
    documents = _documents(derived)
    # Of its own: other workers add to the shared one.
    libraries = tmp_path / "libraries"
    shutil.copytree(mypy_cache / "libraries", libraries, ignore=shutil.ignore_patterns("tmp*"))
    clients = []
    for number, document in enumerate(documents):
        changed = shutil.copytree(client, tmp_path / str(number))
        shutil.rmtree(changed / "forge_realtime/_api")
        config = repository / "generator/openapi-python-client.yaml"
        render_unformatted(document, config, changed / "forge_realtime/_api")
        clients.append(changed)

    def check(client: Path) -> list[TypingError]:
        return check_types(repository / "tests/typing", client, libraries)

    # Forwards and backwards, so that each is checked once before and once after each other one.
    forwards = [check(client) for client in clients]
    kept = {path.name: path.read_bytes() for path in libraries.rglob("*") if path.is_file()}
    backwards = [check(client) for client in reversed(clients)]
    assert forwards == backwards[::-1]
    assert len({tuple(errors) for errors in forwards}) >= 4
    assert not any(b"forge_realtime" in content for content in kept.values())
    assert kept == {path.name: path.read_bytes() for path in libraries.rglob("*") if path.is_file()}
