"""Errors about a document name the place in it and what to do."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from generator.compare.typing_tests import TypingError
from generator.document import GeneratorError, parse_document
from generator.pipeline.atomic_replace import scratch_folder
from generator.pipeline.render import invalid_parts, render
from tests.generator.changes import PUBLISH, operation, request
from tests.generator.conftest import last_revision, repin

Document = dict[str, Any]
Run = Callable[..., Any]
PROPERTIES = f"/paths/{PUBLISH}/post/requestBody/content/application/json/schema/properties"
FORM = "application/x-www-form-urlencoded"


def _nested(depth: int, name: str) -> Document:
    schema: Document = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {name: schema}}
    return schema


@pytest.mark.parametrize("text", ["2026-08-01", "2026-08-01T12:00:00Z", "2026-08-01 12:00:00 +1", "1_000", "yes"])
def test_yaml_has_no_dates(text: str) -> None:
    assert parse_document(f"payload: {text}\n{text}: x\nlist: [{text}]\n".encode()) == {
        "payload": text,
        text: "x",
        "list": [text],
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "integer", "default": "soon"}, "'soon' is not of type 'integer'"),
        ({"type": "boolean", "default": "yes"}, "'yes' is not of type 'boolean'"),
        ({"type": "string", "enum": ["a", "b"], "default": "c"}, "'c' is not one of ['a', 'b']"),
        ({"type": "string", "format": "date", "default": "soon"}, "'soon' is not a 'date'"),
    ],
)
def test_default_of_wrong_type_is_named(
    repository: Path, derived: Document, tmp_path: Path, schema: Document, message: str
) -> None:
    request(derived)["properties"]["ttl"] = schema
    with pytest.raises(GeneratorError) as failure:
        render(derived, repository / "generator/openapi-python-client.yaml", tmp_path / "made")
    assert f"\n{PROPERTIES}/ttl/default: {message}\nCorrect the document with an overlay" in str(failure.value)


def test_circular_all_of_is_named() -> None:
    def part(*names: str) -> Document:
        return {"allOf": [{"$ref": f"#/components/schemas/{name}"} for name in names]}

    schemas: Document = {
        "A": part("Plain", "B"),
        "B": part("C"),
        "C": part("A"),
        "Self": part("Self"),
        "Into": part("A"),
        "Plain": {"type": "object"},
    }
    document = {"openapi": "3.0.1", "info": {}, "paths": {}, "components": {"schemas": schemas}}
    assert invalid_parts(document) == [
        "/components/schemas/A: `allOf` contains the schema itself (A → B → C → A). Remove one of these references.",
        "/components/schemas/Self: `allOf` contains the schema itself (Self → Self). Remove one of these references.",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("depth", [46, 80])
def test_deep_objects_are_generated(repo: Path, run: Run, depth: int) -> None:
    document = last_revision()
    request(document)["properties"]["deep"] = _nested(depth, "a")
    repin(repo, document)
    result = run("--root", repo, "generate")
    assert (result.code, result.err) == (0, "")


def test_objects_that_nest_too_deeply_are_named() -> None:
    document = {"a": _nested(200, "b")}
    for content in (json.dumps(document), json.dumps(document, indent=1).replace("{", "{ ")):
        with pytest.raises(GeneratorError, match=r"^/a/properties/b/(.*)…: nests deeper than 250 levels\. Move"):
            parse_document(content.encode())
    with pytest.raises(GeneratorError, match=r"It nests deeper than 250 levels\. Move schemas to components\."):
        parse_document(b'{"a":' + b"[" * 100_000)


@pytest.mark.slow
def test_too_long_name_is_named(repository: Path, derived: Document, tmp_path: Path) -> None:
    request(derived)["properties"]["deep"] = _nested(46, "children")
    with pytest.raises(GeneratorError) as failure:
        render(derived, repository / "generator/openapi-python-client.yaml", tmp_path / "made")
    assert str(failure.value).startswith(f"{PROPERTIES}/deep/properties/children/properties/children/")
    assert "nests so deeply that the name of its class" in str(failure.value)
    assert "a `title` with an overlay" in str(failure.value)


@pytest.mark.slow
@pytest.mark.parametrize("others", [[FORM], ["multipart/form-data"], [FORM, "multipart/form-data"]])
def test_body_beside_json_is_named(repository: Path, derived: Document, tmp_path: Path, others: list[str]) -> None:
    for other in others:
        schema: dict[str, Any] = {
            "type": "object",
            "title": f"Other{len(other)}",
            "properties": {"name": {"type": "string"}},
        }
        schema["properties"]["options"] = {"type": "object", "properties": {"token": {"type": "string"}}}
        operation(derived)["requestBody"]["content"][other] = {"schema": schema}
    with pytest.raises(GeneratorError) as failure:
        render(derived, repository / "generator/openapi-python-client.yaml", tmp_path / "made")
    assert str(failure.value).startswith(f"POST {PUBLISH}: openapi-python-client ")
    assert f"Keep one type of body: remove {', '.join(others)} with an overlay" in str(failure.value)


@pytest.mark.parametrize(
    ("file", "in_tests", "in_generated"),
    [
        ("forge_realtime/_api/api/forge_realtime/publish.py", False, True),
        ("forge_realtime/_realtime/operations.py", False, False),
        ("released.py", True, False),
    ],
)
def test_generated_files_are_not_to_be_fixed(file: str, in_tests: bool, in_generated: bool) -> None:
    assert TypingError(file, 1, "message", in_tests).in_generated is in_generated


def test_scratch_folder_of_killed_run_is_removed_by_the_next(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys, time\n"
        "from generator.pipeline.atomic_replace import scratch_folder\n"
        "with scratch_folder(pathlib.Path(sys.argv[1])) as folder:\n"
        "    (folder / 'file').touch()\n"
        "    print(folder, flush=True)\n"
        "    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    (tmp_path / ".generate-file").touch()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        # Not that of a run that is alive.
        with scratch_folder(tmp_path) as own:
            assert {path.name for path in tmp_path.glob(".generate-*")} == {left.name, own.name, ".generate-file"}
        process.send_signal(signal.SIGKILL)
    assert (left / "file").exists()
    with scratch_folder(tmp_path) as own:
        assert {path.name for path in tmp_path.glob(".generate-*")} == {own.name, ".generate-file"}
        descriptor = os.open(own, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(descriptor)
    assert [path.name for path in tmp_path.iterdir()] == [".generate-file"]
