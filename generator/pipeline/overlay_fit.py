"""Step 4: prove that the hand-written package still fits what was rendered, before anything is put in place."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from openapi_schema_validator import OAS30Validator, OAS31Validator

from generator.document import Document, GeneratorError

_PROBE = Path(__file__).with_name("smoke_calls.py")


def require_fit(document: Document, generated: Path, overlay: Path, package: str) -> Sequence[str]:
    """Lays the hand-written package on the generated one, and has each named operation called in all its forms.

    Args:
        document: The derived document, which every request is checked against.
        generated: The folder that holds the generated package.
        overlay: The folder that holds the hand-written one.
        package: The name of both.

    Returns:
        The arguments that the document has no property for.

    Raises:
        GeneratorError: The package cannot be imported, an operation cannot be called, or a request is against the document;
            names the line of the hand-written package to look at.
    """
    with tempfile.TemporaryDirectory(prefix="fit-") as folder:
        leave_out = shutil.ignore_patterns("__pycache__")
        for room in (generated, overlay):
            shutil.copytree(room / package, Path(folder) / package, dirs_exist_ok=True, ignore=leave_out)
        found = _probe(Path(folder).resolve(), package)
    if "error" in found:
        raise _misfit(overlay, found["line"], found["error"])
    for request in found["sent"]:
        if problem := _problem(document, request):
            raise _misfit(overlay, request["line"], problem)
    lacking: Sequence[str] = found["lacking"]
    return lacking


def lacking_arguments(folder: Path, package: str) -> set[str] | None:
    """The arguments of a laid package that its document has no property for; None where it cannot be called at all."""
    found = _probe(folder.resolve(), package)
    return None if "error" in found else set(found["lacking"])


def _probe(folder: Path, package: str) -> Any:
    # -I: nothing from the working directory, the home or PYTHON* is imported or obeyed.
    process = subprocess.run(
        [sys.executable, "-I", "-B", "-X", "utf8", str(_PROBE), str(folder), package],
        check=False,
        capture_output=True,
        encoding="utf-8",
    )
    if process.returncode != 0:
        raise GeneratorError(f"{_PROBE.name} could not be run; it said:\n{process.stderr.strip()}\nRun `make setup`.")
    return json.loads(process.stdout)


def _misfit(overlay: Path, line: Any, problem: str) -> GeneratorError:
    where = str(overlay) if line is None else f"{overlay / line[0]}, line {line[1]}"
    return GeneratorError(
        f"{where}: the hand-written package does not fit the document any more: {problem}\n"
        "Change that line, or have the document described as it was with an overlay in overlays/openapi."
    )


def _problem(document: Document, request: dict[str, Any]) -> str | None:
    operation = document["paths"][request["path"]][request["method"].lower()]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    validator: Any = OAS30Validator if document["openapi"].startswith("3.0.") else OAS31Validator
    # The root holds what references point to; evolve() keeps it and checks only the schema.
    errors = validator(document).evolve(schema=schema).iter_errors(request["body"])
    listed = "; ".join(f"{error.json_path.replace('$', 'the body', 1)}: {error.message}" for error in errors)
    return f"{operation['operationId']} sends what the document refuses: {listed}" if listed else None
