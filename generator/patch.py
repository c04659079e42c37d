"""Step 2: lay OpenAPI Overlay documents on the selected one.

The kept libraries that apply overlays (oas-patch 0.6) pass over an action that matches nothing, read `remove: false`
as a removal and understand another JSONPath dialect than RFC 9535, which the Overlay Specification prescribes. So the
paths are a library's (python-jsonpath, in its strict mode), and the two actions are applied here.
https://spec.openapis.org/overlay/v1.0.0.html
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonpath

from generator.document import Document, GeneratorError, read_document

_RFC_9535 = jsonpath.JSONPathEnvironment(strict=True)


def overlay_files(folder: Path) -> list[Path]:
    """The overlay documents of a folder, in the order in which they are laid: by name."""
    return sorted(folder.glob("*.yaml"))


def patch(document: Document, overlays: Sequence[Path]) -> Document:
    """Applies overlay documents, one after the other.

    Args:
        document: An OpenAPI document. It is not changed.
        overlays: Overlay 1.0 documents, in order.

    Returns:
        A new document.

    Raises:
        GeneratorError: An overlay is malformed, or one of its actions matches nothing; names file and action.
    """
    patched = copy.deepcopy(document)
    for path in overlays:
        for number, action in enumerate(_actions(path), start=1):
            try:
                patched = _apply(patched, action)
            except GeneratorError as error:
                raise GeneratorError(f"{path.name}, action {number}, target {action.get('target')}: {error}") from error
    return patched


def _actions(path: Path) -> list[Document]:
    overlay = read_document(path)
    version = overlay.get("overlay")
    if not isinstance(version, str) or not version.startswith("1.0."):
        raise GeneratorError(f"{path.name}: expected `overlay: 1.0.x`, found {version!r}.")
    actions = overlay.get("actions")
    if not isinstance(actions, list) or not actions or not all(isinstance(action, dict) for action in actions):
        raise GeneratorError(f"{path.name}: `actions` must be a list with at least one action object.")
    return actions


def _apply(document: Document, action: Document) -> Document:
    if unknown := action.keys() - {"target", "description", "update", "remove"}:
        raise GeneratorError(f"unknown field {sorted(unknown)[0]!r}; an action has target, description, update and remove.")
    remove = action.get("remove", False)
    if not isinstance(action.get("target"), str) or not isinstance(remove, bool) or remove == ("update" in action):
        raise GeneratorError("an action needs a `target` and either `update` or `remove: true`.")
    try:
        nodes = list(_RFC_9535.finditer(action["target"], document))
    except jsonpath.exceptions.JSONPathError as error:
        raise GeneratorError(f"not an RFC 9535 JSONPath: {error}") from error
    if not nodes:
        raise GeneratorError("matches nothing in the document. Did the document change, or is the target misspelt?")
    # The last match first, so that removing a list's member does not move those still to come.
    for node in reversed(nodes):
        if remove:
            document = _without(document, node.parts)
        else:
            document = _replaced(document, node.parts, _merged(node.value, action["update"]))
    return document


def _merged(value: Any, update: Any) -> Any:
    if isinstance(value, dict) and isinstance(update, dict):
        return {**value, **{key: _merged(value[key], new) if key in value else copy.deepcopy(new) for key, new in update.items()}}
    if isinstance(value, list):
        return [*value, *copy.deepcopy(update if isinstance(update, list) else [update])]
    return copy.deepcopy(update)


def _replaced(document: Document, location: tuple[int | str, ...], value: Any) -> Document:
    if not location:
        if not isinstance(value, dict):
            raise GeneratorError("the root of a document must stay an object.")
        return value
    _parent(document, location)[location[-1]] = value
    return document


def _without(document: Document, location: tuple[int | str, ...]) -> Document:
    if not location:
        raise GeneratorError("the root of a document cannot be removed.")
    del _parent(document, location)[location[-1]]
    return document


def _parent(document: Document, location: tuple[int | str, ...]) -> Any:
    parent: Any = document
    for step in location[:-1]:
        parent = parent[step]
    return parent
