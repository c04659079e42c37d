"""Rendering with the real openapi-python-client."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from generator.document import GeneratorError
from generator.pipeline import render as render_module
from generator.pipeline.render import render

pytestmark = pytest.mark.slow

Document = dict[str, Any]
Run = Callable[..., Any]
SCHEMA = "#/components/schemas/"


@pytest.fixture
def config(repository: Path) -> Path:
    return repository / "generator/openapi-python-client.yaml"


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Run the subprocess with additional options for Python, from a folder without ruff."""

    def python(options: str) -> None:
        script = tmp_path / "bin" / "python"
        script.parent.mkdir()
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {options} "$@"\n', encoding="utf-8")
        script.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(script))

    return python


def test_output_does_not_depend_on_machine(repository: Path, tmp_path: Path) -> None:
    """Rendering gives the committed bytes even in a hostile environment."""
    home, work = tmp_path / "höme", tmp_path / "wörk"
    hostile = 'line-length = 40\nindent-width = 2\nexclude = ["*.py"]\n[format]\nquote-style = "single"\n'
    for path, content in {
        home / ".config/ruff/ruff.toml": hostile,
        home / ".config/git/ignore": "*\n",
        work / "ruff.toml": hostile,
        work / ".gitignore": "*\n",
        work / ".ignore": "*\n",
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    (work / ".git").mkdir()
    (work / "bin").mkdir()
    (work / "bin/ruff").write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    (work / "bin/ruff").chmod(0o755)
    environment = {
        "PATH": f"{work / 'bin'}:{os.environ['PATH']}",
        "HOME": str(home),
        "LANG": "C",
        "LC_ALL": "C",
        "PYTHONHASHSEED": "4242",
        "PYTHONPATH": str(repository),
        "RUFF_CONFIG": str(work / "ruff.toml"),
        "FORCE_COLOR": "1",
        "COLUMNS": "10",
    }
    document = repository / "spec/realtime.json"
    process = subprocess.run(
        [sys.executable, "-m", "generator", "render", document, "--output", "rendered"],
        check=False,
        cwd=work,
        env=environment,
        umask=0o077,
        capture_output=True,
        text=True,
    )
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")

    def tree(folder: Path) -> dict[str, bytes]:
        files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}

    assert tree(work / "rendered") == tree(repository / "generated/forge_realtime/_api")
    modes = {path.is_dir(): path.stat().st_mode & 0o777 for path in (work / "rendered").rglob("*")}
    assert modes == {True: 0o755, False: 0o644}
    assert sorted(path.name for path in work.iterdir()) == [
        ".git",
        ".gitignore",
        ".ignore",
        "bin",
        "rendered",
        "ruff.toml",
    ]


def test_rendering_again_touches_nothing(
    repository: Path, repo: Path, run: Run, snapshot: Callable[[Path], Any]
) -> None:
    output = repo / "generated/forge_realtime/_api"
    before = snapshot(repo)
    assert run("render", repository / "spec/realtime.json", "--output", output) == (0, "", "")
    assert snapshot(repo) == before


def _duplicate_titles(document: Document) -> None:
    document["components"]["schemas"] = {
        "A": {"title": "Same", "type": "object", "properties": {"a": {"type": "string"}}},
        "B": {"title": "Same", "type": "object", "properties": {"b": {"type": "string"}}},
    }


def _titles_alike(document: Document) -> None:
    document["components"]["schemas"] = {"ABTest": {"type": "object"}, "AbTest": {"type": "object"}}


def _operations_alike(document: Document) -> None:
    document["paths"]["/forge/realtime/v1/token"]["post"]["operationId"] = "Publish"


def _no_description(document: Document) -> None:
    del document["paths"]["/forge/realtime/v1/token"]["post"]["responses"]["200"]["description"]


def _bad_type(document: Document) -> None:
    request = document["paths"]["/forge/realtime/v1/token"]["post"]["requestBody"]["content"]["application/json"]
    request["schema"]["properties"]["claims"]["type"] = "objekt"


def _malformed(document: Document) -> None:
    document["paths"]["/a"] = {"get": {"responses": 3}}


def _bad_reference(document: Document) -> None:
    document["components"]["schemas"] = {"A": {"type": "object", "properties": {"b": {"$ref": SCHEMA + "Missing"}}}}


def _external_reference(document: Document) -> None:
    document["components"]["schemas"] = {"A": {"$ref": "file:///etc/hostname"}}


def _not_3(document: Document) -> None:
    document["openapi"] = "2.0"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_duplicate_titles, 'Attempted to generate duplicate models with name "Same"'),
        (_titles_alike, " schemas: some names are too similar"),
        (_operations_alike, " operations: some names are too similar"),
        (
            _no_description,
            "$.paths['/forge/realtime/v1/token'].post.responses['200']: 'description' is a required property",
        ),
        (_bad_type, ".properties.claims.type: 'objekt' is not one of"),
        (_malformed, "$.paths['/a'].get.responses: 3 is not of type 'object'"),
        (_bad_reference, f"the reference '{SCHEMA}Missing' has no target"),
        (_external_reference, "the reference 'file:///etc/hostname' points outside of #/components"),
        (_not_3, "is not an OpenAPI 3.0 or 3.1 document: found openapi '2.0'"),
    ],
)
def test_incomplete_rendering_is_error_and_changes_nothing(
    derived: Document,
    repo: Path,
    run: Run,
    snapshot: Callable[[Path], Any],
    change: Callable[[Document], None],
    message: str,
) -> None:
    change(derived)
    document = repo / "document.json"
    document.write_text(json.dumps(derived), encoding="utf-8")
    before = snapshot(repo)
    result = run("render", document, "--output", repo / "generated/forge_realtime/_api")
    assert result.code == 1
    assert result.out == ""
    assert result.err.startswith(f"error: {document}: ")
    assert message in result.err
    assert snapshot(repo) == before


def test_warning_about_dropped_schema_is_error(
    derived: Document, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default, openapi-python-client drops a schema with an invalid $ref and succeeds."""
    monkeypatch.setattr(render_module, "_require_valid", lambda document: None)
    _bad_reference(derived)
    with pytest.raises(GeneratorError, match=r"(?s)exit code 1:.*Could not find reference.*schemas/A"):
        render(derived, config, tmp_path / "out")


def test_missing_formatter_is_error(
    derived: Document, config: Path, tmp_path: Path, python: Callable[[str], None]
) -> None:
    python("")
    with pytest.raises(GeneratorError, match=r"(?s)exit code 1:.*ruff is not in PATH.*make setup"):
        render(derived, config, tmp_path / "out")


def test_missing_openapi_python_client_is_error(
    repo: Path, run: Run, python: Callable[[str], None], snapshot: Callable[[Path], Any]
) -> None:
    python("-S")
    before = snapshot(repo)
    result = run("render", repo / "spec/realtime.json", "--output", repo / "generated/forge_realtime/_api")
    assert result.code == 1
    assert "No module named openapi_python_client" in result.err
    assert "make setup" in result.err
    assert snapshot(repo) == before


def test_missing_configuration_is_error(derived: Document, tmp_path: Path) -> None:
    with pytest.raises(GeneratorError, match="exit code 2:"):
        render(derived, tmp_path / "missing.yaml", tmp_path / "out")


def test_folder_with_other_content_is_not_replaced(repository: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "notes.txt").write_text("precious", encoding="utf-8")
    for output in (tmp_path, tmp_path / "notes.txt"):
        result = run("render", repository / "spec/realtime.json", "--output", output)
        assert result.code == 1
        assert "is not a rendered client" in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
