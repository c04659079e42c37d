"""Step 4: check that the hand-written package still fits what was rendered, before anything is replaced."""

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
from generator.paths import HAND_WRITTEN

_PACKAGE = HAND_WRITTEN.name
_SMOKE_CALLS = Path(__file__).with_name("smoke_calls.py")


def check_overlay_fit(document: Document, generated: Path, hand_written: Path) -> Sequence[str]:
    """Combine the generated and the hand-written package, and make every named call in all its forms.

    Args:
        document: The derived document. Every request is validated against it.
        generated: The generated half of the package.
        hand_written: The hand-written half.

    Returns:
        The arguments of named calls for which the document has no property.

    Raises:
        GeneratorError: The package cannot be imported, a call fails, or a request is invalid. Names the line of the
            hand-written package to look at.
    """
    with tempfile.TemporaryDirectory(prefix="fit-") as folder:
        for half in (generated, hand_written):
            shutil.copytree(
                half, Path(folder) / _PACKAGE, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
            )
        result = _make_smoke_calls(Path(folder).resolve())
    if "error" in result:
        raise _misfit(hand_written, result["line"], result["error"])
    for request in result["sent"]:
        if problem := _find_problem(document, request):
            raise _misfit(hand_written, request["line"], problem)
    unsupported: Sequence[str] = result["unsupported"]
    return unsupported


def unsupported_arguments(folder: Path) -> set[str] | None:
    """Return the arguments of named calls for which the document has no property.

    Args:
        folder: The folder that holds the combined package.

    Returns:
        For example `publish(context_overrides=...)`. `None` if a call fails.
    """
    result = _make_smoke_calls(folder.resolve())
    return None if "error" in result else set(result["unsupported"])


def _make_smoke_calls(folder: Path) -> Any:
    # -I: ignore the working directory, the home directory and PYTHON* variables.
    process = subprocess.run(
        [sys.executable, "-I", "-B", "-X", "utf8", str(_SMOKE_CALLS), str(folder), _PACKAGE],
        check=False,
        capture_output=True,
        encoding="utf-8",
    )
    if process.returncode != 0:
        raise GeneratorError(f"{_SMOKE_CALLS.name} failed:\n{process.stderr.strip()}\nRun `make setup`.")
    return json.loads(process.stdout)


def _misfit(hand_written: Path, line: Any, problem: str) -> GeneratorError:
    where = str(hand_written) if line is None else f"{hand_written.parent / line[0]}, line {line[1]}"
    return GeneratorError(
        f"{where}: the hand-written package no longer fits the document: {problem}\n"
        "Change that line, or describe the document as it was with an overlay in overlays/openapi."
    )


def _find_problem(document: Document, request: dict[str, Any]) -> str | None:
    operation = document["paths"][request["path"]][request["method"].lower()]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    validator: Any = OAS30Validator if document["openapi"].startswith("3.0.") else OAS31Validator
    # References resolve against the whole document; evolve() keeps it and validates only the schema.
    errors = validator(document).evolve(schema=schema).iter_errors(request["body"])
    problems = "; ".join(f"{error.json_path.replace('$', 'body', 1)}: {error.message}" for error in errors)
    return f"{operation['operationId']} sends an invalid request: {problems}" if problems else None
