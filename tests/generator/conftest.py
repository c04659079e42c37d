"""Fixtures of the generator's tests."""

from __future__ import annotations

import copy
import hashlib
import json
import pickle
import shutil
import subprocess
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple
from unittest.mock import patch as replaced

import jinja2
import pytest
from openapi_python_client import generate
from openapi_python_client.config import Config, ConfigFile, MetaType

from generator.__main__ import main
from generator.compare.python_api import compare_apis
from generator.compare.typing_tests import check_types
from generator.document import canonical_json
from generator.pipeline.overlay_fit import check_overlay_fit, unsupported_arguments
from generator.pipeline.patch import overlay_files, patch
from generator.pipeline.render import render
from generator.pipeline.select import select
from tests.support.revisions import REVISIONS, revision
from tests.support.shared import make_once, shared_folder

REPOSITORY = Path(__file__).resolve().parents[2]


class Result(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Result]
Snapshot = dict[str, tuple[bytes, int]]
Render = Callable[[dict[str, Any], Path, Path], None]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The real repository, which tests only read."""
    return REPOSITORY


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A copy of the files that the generator reads and writes."""
    return copy_repository(tmp_path)


def copy_repository(folder: Path) -> Path:
    """Copy the files that the generator reads and writes into a new folder `repo`."""
    root = folder / "repo"
    leave_out = shutil.ignore_patterns("__pycache__")
    for room in ("spec", "overlays", "generated", "generator"):
        shutil.copytree(REPOSITORY / room, root / room, ignore=leave_out)
    shutil.copy2(REPOSITORY / "generated.lock", root / "generated.lock")
    return root


def git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="session")
def mypy_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of mypy, mostly for libraries, that the workers of a run share."""
    return shared_folder(tmp_path_factory, "mypy")


@pytest.fixture(scope="session")
def history(repository: Path, mypy_cache: Path, render_once: Render, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository with one commit: the last known revision, version 0.1.0, and the shared cache of mypy."""

    def make(root: Path) -> None:
        leave_out = shutil.ignore_patterns("__pycache__")
        for folder in ("spec", "overlays", "generated", "emulator", "generator", "tests/typing"):
            shutil.copytree(repository / folder, root / folder, ignore=leave_out)
        for file in ("generated.lock", "pyproject.toml", "CHANGELOG.md", "sbom.cdx.json"):
            shutil.copy2(repository / file, root / file)
        repin(root, last_revision())
        with replaced("generator.pipeline.regenerate.render", render_once):
            assert main(["--root", str(root), "generate"]) == 0
        (root / "overlays/forge_realtime/_version.py").write_text('__version__ = "0.1.0"\n', encoding="utf-8")
        (root / ".gitignore").write_text(".mypy_cache\n__pycache__\n", encoding="utf-8")
        (root / ".mypy_cache").symlink_to(mypy_cache)
        git(root, "init", "--quiet", "--initial-branch", "main")
        for key, value in (("user.name", "x"), ("user.email", "x@example.com"), ("commit.gpgsign", "false")):
            git(root, "config", key, value)
        git(root, "add", "--all")
        git(root, "commit", "--quiet", "--message", "one")

    return make_once(tmp_path_factory, "history", make)


@pytest.fixture
def git_repo(history: Path, tmp_path: Path) -> Path:
    """A writable copy of `history`."""
    return Path(shutil.copytree(history, tmp_path / "repo", symlinks=True))


def repin(repo: Path, document: dict[str, Any]) -> None:
    """Pin another document."""
    path, source = repo / "spec/forge-containers-api.json", repo / "spec/source.toml"
    old = hashlib.sha256(path.read_bytes()).hexdigest()
    path.write_text(canonical_json(document), encoding="utf-8")
    new = hashlib.sha256(path.read_bytes()).hexdigest()
    source.write_text(source.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


_compile = jinja2.Environment.compile
_compiled: dict[tuple[str, str], CodeType] = {}


def _compile_once(environment: jinja2.Environment, source: str, name: str, filename: str) -> CodeType:
    """Compile each template of the generator once: that is most of its time."""
    if (name, source) not in _compiled:
        _compiled[name, source] = _compile(environment, source, name, filename)
    return _compiled[name, source]


@replaced.object(jinja2.Environment, "compile", _compile_once)
def render_unformatted(document: dict[str, Any], config: Path, output: Path) -> None:
    """Render in this process and without ruff, which is much faster than `render`."""
    output.parent.mkdir(parents=True, exist_ok=True)
    source = output.with_name("document.json")
    source.write_text(canonical_json(document), encoding="utf-8")
    settings = ConfigFile.load_from_path(config)
    settings.post_hooks = []
    errors = generate(
        config=Config.from_sources(
            settings,
            MetaType.NONE,
            document_source=source,
            file_encoding="utf-8",
            overwrite=False,
            output_path=output,
        )
    )
    source.unlink()
    assert list(errors) == []


@pytest.fixture(scope="session")
def render_once(tmp_path_factory: pytest.TempPathFactory) -> Render:
    """`render` with a cache by document that the workers of a run share."""

    def render_once(document: dict[str, Any], config: Path, output: Path) -> None:
        key = _hash_of(canonical_json(document), config)
        made = make_once(
            tmp_path_factory, f"rendered-{key}", lambda folder: render(document, config, folder / "client")
        )
        shutil.copytree(made / "client", output)

    return render_once


@pytest.fixture
def cached_results(
    monkeypatch: pytest.MonkeyPatch, render_once: Render, mypy_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Run each expensive step of the generator once for equal inputs, for the workers of a run together."""

    def cached(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            def make(folder: Path) -> None:
                (folder / "result").write_bytes(pickle.dumps(function(*arguments)))

            made = make_once(tmp_path_factory, f"{name}-{_hash_of(*arguments)}", make)
            return pickle.loads((made / "result").read_bytes())

        return run

    typed = cached("typed", partial(check_types, libraries=mypy_cache / "libraries"))
    monkeypatch.setattr("generator.compare.diff.check_types", lambda tests, package, _: typed(tests, package))
    monkeypatch.setattr("generator.compare.diff.compare_apis", cached("apis", compare_apis))
    monkeypatch.setattr("generator.compare.diff.unsupported_arguments", cached("arguments", unsupported_arguments))
    monkeypatch.setattr("generator.pipeline.regenerate.check_overlay_fit", cached("fit", check_overlay_fit))
    for module in ("generator.compare.client_side", "generator.pipeline.regenerate"):
        monkeypatch.setattr(f"{module}.render", render_once)


def _hash_of(*values: Any) -> str:
    """Hash values and, of paths, the names and contents of the files."""
    found = hashlib.sha256()
    for value in values:
        if not isinstance(value, Path):
            found.update(json.dumps(value, default=sorted).encode())
            continue
        for path in sorted(value.rglob("*")) if value.is_dir() else [value]:
            if path.is_file() and "__pycache__" not in path.parts:
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                found.update(f"{path.relative_to(value)} {content}\n".encode())
        found.update(b"\0")
    return found.hexdigest()[:32]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `python -m generator …` in this process."""

    def run(*arguments: str | Path) -> Result:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def snapshot() -> Callable[[Path], Snapshot]:
    """Return the content and time of every file in a folder."""

    def snapshot(folder: Path) -> Snapshot:
        return {
            path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
            for path in folder.rglob("*")
            if path.is_file()
        }

    return snapshot


@pytest.fixture
def derived() -> dict[str, Any]:
    """A writable copy of the derived document of the last known revision."""
    return copy.deepcopy(_last_derived())


@lru_cache
def _last_derived() -> dict[str, Any]:
    return patch(select(last_revision()), overlay_files(REPOSITORY / "overlays/openapi"))


def last_revision() -> dict[str, Any]:
    """Return the pinned document with the Realtime part of the last known revision."""
    document = json.loads((REPOSITORY / "spec/forge-containers-api.json").read_text(encoding="utf-8"))
    return revision(document, REVISIONS[-1])
