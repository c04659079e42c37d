"""Reading and writing OpenAPI documents, and the one error of this package."""

from __future__ import annotations

import datetime
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

Document = dict[str, Any]


class GeneratorError(Exception):
    """A step cannot go on. The message says what is wrong, in which file, and what to do; no output was changed."""


@contextmanager
def blaming(path: Path) -> Iterator[None]:
    """Puts `path` in front of the message of every `GeneratorError` that leaves the block."""
    try:
        yield
    except GeneratorError as error:
        raise GeneratorError(f"{path}: {error}") from error


def read_document(path: Path) -> Document:
    """Reads a JSON file, or a YAML 1.2 file of any other suffix, whose root is an object.

    Returns:
        Only what JSON can say: keys are strings, and no two places share one object.

    Raises:
        GeneratorError: The file is missing, is neither JSON nor YAML, or has another root.
    """
    with blaming(path):
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise GeneratorError(
                f"cannot be read as UTF-8 text: {error}. Check the path, or restore the file."
            ) from error
        if text.lstrip("\ufeff \t\r\n").startswith("<"):
            raise GeneratorError(
                "is HTML or XML, not a document. Was a web page saved instead of the document behind it?"
            )
        try:
            root = json.loads(text) if path.suffix == ".json" else YAML(typ="safe").load(text)
        except (ValueError, YAMLError, RecursionError) as error:
            language = "JSON" if path.suffix == ".json" else "YAML"
            raise GeneratorError(
                f"is not valid {language}: {error}. Is it truncated? Restore or correct it."
            ) from error
        if not isinstance(root, dict):
            raise GeneratorError(f"has {_kind(root)} at its root, expected an object. Is it the right file?")
        document: Document = _plain(root, "")
        return document


def canonical_json(document: Mapping[str, Any]) -> str:
    """The one text of a document: two spaces, UTF-8, the order of keys kept, a newline at the end."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def write_atomically(path: Path, text: str) -> None:
    """Writes `text` to `path`, whole or not at all; leaves a file that already holds it untouched."""
    content = text.encode()
    if path.is_file() and path.read_bytes() == content:
        return
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _plain(node: Any, location: str) -> Any:
    if isinstance(node, dict):
        plain = {}
        for key, value in node.items():
            if isinstance(key, int) and not isinstance(key, bool):
                key = str(key)  # `200:` under `responses`
            if not isinstance(key, str):
                raise GeneratorError(f"the key {key!r} of {location or '/'} is not a string. Put it in quotes.")
            if key in plain:
                raise GeneratorError(f"the key {key!r} of {location or '/'} is there twice. Remove one.")
            plain[key] = _plain(value, f"{location}/{key}")
        return plain
    if isinstance(node, list):
        return [_plain(member, f"{location}/{index}") for index, member in enumerate(node)]
    if isinstance(node, datetime.date) or (isinstance(node, float) and not math.isfinite(node)):
        raise GeneratorError(
            f"{location}: JSON has no value for {node!s}. Put it in quotes if it is meant as a string."
        )
    return node


def _kind(node: Any) -> str:
    return {dict: "an object", list: "a list", str: "a string", type(None): "nothing"}.get(
        type(node), "a number or boolean"
    )
