"""Reading and writing OpenAPI documents, and the one error of this package."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

Document = dict[str, Any]


class GeneratorError(Exception):
    """A step cannot go on. The message says which input is at fault and what to do; nothing was written."""


def read_document(path: Path) -> Document:
    """Reads a JSON or YAML file whose root is an object.

    Raises:
        GeneratorError: The file is missing, is neither JSON nor YAML, or has another root.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise GeneratorError(f"{path}: cannot be read: {error}") from error
    try:
        document = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (json.JSONDecodeError, yaml.YAMLError) as error:
        raise GeneratorError(f"{path}: is not valid {path.suffix.lstrip('.').upper() or 'YAML'}: {error}") from error
    if not isinstance(document, dict):
        raise GeneratorError(f"{path}: expected an object at the root, found {type(document).__name__}.")
    return document


def canonical_json(document: Mapping[str, Any]) -> str:
    """The one text of a document: two spaces, UTF-8, the order of keys kept, a newline at the end."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def write_atomically(path: Path, text: str) -> None:
    """Writes `text` to `path`, whole or not at all; leaves a file that already holds it untouched."""
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
