"""OpenAPI documents as files, and the error of this package."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, TypeVar

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import ScalarNode

from generator.text import escape_hidden

Document = dict[str, Any]
T = TypeVar("T")

_MOST_VALUES = 10_000_000
# The tools of the later steps recurse, several calls for each level.
_DEEPEST = 250
_LONGEST_LOCATION = 300


class GeneratorError(Exception):
    """A step failed. The message names the file, the problem and what to do. No output was changed."""


@contextmanager
def blaming(path: Path | str) -> Iterator[None]:
    """Prefix the message of every `GeneratorError` from the block with a path or address."""
    try:
        yield
    except GeneratorError as error:
        raise GeneratorError(f"{path}: {error}") from error


def read_document(path: Path) -> Document:
    """Read a file that contains an object: JSON if its suffix is `.json`, otherwise YAML 1.2.

    Returns:
        Plain JSON data: keys are strings, and no object is shared.

    Raises:
        GeneratorError: The file is missing, is neither JSON nor YAML, or contains no object.
    """
    with blaming(path):
        try:
            content = path.read_bytes()
        except OSError as error:
            raise GeneratorError(
                f"cannot be read as UTF-8 text: {error}. Check the path, or restore the file."
            ) from error
        return parse_document(content, "JSON" if path.suffix == ".json" else "YAML")


def parse_document(content: bytes, language: Literal["JSON", "YAML"] | None = None) -> Document:
    """Parse an object written in JSON or YAML 1.2.

    Args:
        content: UTF-8, with or without a byte order mark.
        language: `None` detects it: JSON begins with `{`.

    Returns:
        Plain JSON data: keys are strings, and no object is shared.

    Raises:
        GeneratorError: It is invalid, contains no object, or cannot be kept exactly: a duplicate key, or a number that
            no float represents.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise GeneratorError(f"cannot be read as UTF-8 text: {error}. Is it the right file?") from error
    if text.lstrip().startswith("<"):
        raise GeneratorError("is HTML or XML, not a document. Was the web page saved instead of the document?")
    language = language or ("JSON" if text.lstrip().startswith("{") else "YAML")
    try:
        if language == "JSON":
            root = json.loads(text, object_pairs_hook=_object, parse_float=_float)
        else:
            yaml = YAML(typ="safe", pure=True)
            yaml.Constructor = _Yaml
            root = yaml.load(text)
            _require_bounded(root)
        if not isinstance(root, dict):
            raise GeneratorError(f"has {_kind(root)} at its root, expected an object. Is it the right file?")
        document: Document = _plain(root, "")
    except RecursionError as error:
        raise GeneratorError(
            f"is not valid {language}: {error}. It nests deeper than {_DEEPEST} levels. Move schemas to components."
        ) from error
    except (ValueError, YAMLError) as error:
        raise GeneratorError(f"is not valid {language}: {error}. Is it truncated? Restore or correct it.") from error
    return document


def copied(node: T) -> T:
    """Copy a part of a document. Not deepcopy: an object that appears twice would stay shared."""
    copy: T = json.loads(json.dumps(node))
    return copy


def canonical_json(document: Mapping[str, Any]) -> str:
    """Return a document as canonical text: two spaces, the same order of keys, a final newline.

    Only what `escape_hidden` names is escaped.
    """
    return escape_hidden(json.dumps(document, indent=2, ensure_ascii=False), in_json=True) + "\n"


def write_atomically(path: Path, text: str) -> None:
    """Write a file completely or not at all. Does not touch a file that already has this text."""
    content = text.encode()
    if path.exists() and not path.is_file():
        # A device such as /dev/null or a pipe cannot be replaced.
        path.write_bytes(content)
        return
    if path.is_file() and path.read_bytes() == content:
        return
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink()
        raise


def _plain(node: Any, location: str, depth: int = 0) -> Any:
    if depth > _DEEPEST:
        shown = location if len(location) <= _LONGEST_LOCATION else f"{location[:_LONGEST_LOCATION]}…"
        raise GeneratorError(
            f"{shown}: nests deeper than {_DEEPEST} levels. Move the inner schemas to components, or shorten them."
        )
    if isinstance(node, dict):
        plain = {}
        for name, value in node.items():
            # `200:` under `responses`
            key = str(name) if isinstance(name, int) and not isinstance(name, bool) else name
            if not isinstance(key, str):
                raise GeneratorError(f"{location or '/'} has the key {key!r}, which is not a string. Put it in quotes.")
            if key in plain:
                raise GeneratorError(f"{location or '/'} has the key {key!r} twice. Remove one.")
            _require_whole_characters(key, location)
            plain[key] = _plain(value, f"{location}/{key}", depth + 1)
        return plain
    if isinstance(node, list):
        return [_plain(member, f"{location}/{index}", depth + 1) for index, member in enumerate(node)]
    if isinstance(node, float) and not math.isfinite(node):
        raise GeneratorError(f"{location}: JSON has no value for {node!s}. If it is a string, put it in quotes.")
    if not isinstance(node, str | int | float | None):
        raise GeneratorError(f"{location}: JSON has no value for YAML's {type(node).__name__}. Write it as a string.")
    if isinstance(node, str):
        _require_whole_characters(node, location)
    return node


def _require_whole_characters(text: str, location: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise GeneratorError(
            f"{location or '/'}: contains {text[error.start]!a}, half of a surrogate pair, which UTF-8 cannot encode. "
            "Remove it."
        ) from error


def _object(members: list[tuple[str, Any]]) -> Document:
    found = dict(members)
    if len(found) != len(members):
        keys = [key for key, _ in members]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise GeneratorError(
            f"the object with the keys {', '.join(list(found)[:5])} has the key {twice!r} twice. Remove one."
        )
    return found


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or Decimal(repr(value)) != Decimal(text):
        raise GeneratorError(f"the number {text} has no exact float; the nearest is {value!r}. Shorten it in a copy.")
    return value


class _Yaml(SafeConstructor):
    """Constructor for YAML 1.2. ruamel.yaml's own also accepts 1_000, 0b1 and dates, which are YAML 1.1."""

    def construct_yaml_int(self, node: ScalarNode) -> Any:
        old = "_" in node.value or node.value.lstrip("+-").startswith("0b")
        return node.value if old else super().construct_yaml_int(node)

    def construct_yaml_timestamp(self, node: ScalarNode, values: Any = None) -> Any:
        del values  # The parts of a date.
        return node.value

    def construct_yaml_float(self, node: ScalarNode) -> Any:
        if "_" in node.value:
            return node.value
        no_number = node.value.lstrip("+-").lower() in {".inf", ".nan"}
        return super().construct_yaml_float(node) if no_number else _float(node.value)


_Yaml.add_constructor("tag:yaml.org,2002:int", _Yaml.construct_yaml_int)
_Yaml.add_constructor("tag:yaml.org,2002:float", _Yaml.construct_yaml_float)
_Yaml.add_constructor("tag:yaml.org,2002:timestamp", _Yaml.construct_yaml_timestamp)


def _require_bounded(root: Any) -> None:
    # A few lines of YAML can expand through aliases to more than fits into memory.
    weights: dict[int, int] = {}

    def weigh(node: Any) -> int:
        members = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        if id(node) not in weights:
            weights[id(node)] = 1 + sum(weigh(member) for member in members)
        return weights[id(node)]

    if weigh(root) > _MOST_VALUES:
        raise GeneratorError(f"expands through aliases to more than {_MOST_VALUES} values. Is it the right file?")


def _kind(node: Any) -> str:
    return {dict: "an object", list: "a list", str: "a string", type(None): "nothing"}.get(
        type(node), "a number or boolean"
    )
