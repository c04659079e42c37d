"""Step 2: apply OpenAPI Overlay documents to the selected document.

No maintained library applies overlays strictly: oas-patch 0.6 ignores an action that matches nothing, treats
`remove: false` as a removal, and does not use RFC 9535 JSONPath, which the Overlay Specification requires. So
python-jsonpath evaluates the paths in strict mode, and this module applies the two actions.
https://spec.openapis.org/overlay/v1.0.0.html
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonpath
from ruamel.yaml import YAML

from generator.document import Document, GeneratorError, blaming, copied, read_document
from generator.pipeline.header_parameters import bring_in_headers
from generator.pipeline.open_enums import open_response_enums

# Fields that say what the platform sends and accepts. An overlay may replace a name or a description, but not these.
_FACTS = frozenset(
    {"$ref", "type", "format", "nullable", "const", "default", "pattern", "additionalProperties", "required"}
    | {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength"}
    | {"minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties", "readOnly", "writeOnly", "deprecated"}
    | {"in", "name", "style", "explode", "allowReserved", "allowEmptyValue", "propertyName", "scheme", "bearerFormat"}
    | {"contentEncoding", "contentMediaType"}
)
_RFC_9535 = jsonpath.JSONPathEnvironment(strict=True)
# The default of 100 levels is 46 objects in each other.
_RFC_9535.max_recursion_depth = 500


def overlay_files(folder: Path) -> list[Path]:
    """Return the overlay documents of a folder in the order in which they apply: by name.

    Raises:
        GeneratorError: The folder contains none.
    """
    files = sorted(path for path in folder.glob("[!.]*") if path.suffix in {".yaml", ".yml", ".json"})
    if not files:
        raise GeneratorError(f"{folder}: contains no overlay document (*.yaml, *.yml, *.json). Is it the right folder?")
    return files


def overlays_for(tags: Sequence[str], folder: Path) -> list[Path]:
    """Return the overlay documents of a folder that apply to these tags. `x-tags` limits an overlay to some tags."""
    return [path for path in overlay_files(folder) if set(read_document(path).get("x-tags", tags)) & set(tags)]


def patch(document: Document, overlays: Sequence[Path]) -> Document:
    """Apply overlay documents in order.

    Before, each operation gets its header parameters (`bring_in_headers`). After, enumerations in responses are opened
    (`open_response_enums`).

    Args:
        document: An OpenAPI document. It is not changed.
        overlays: Overlay 1.0 documents, in order.

    Returns:
        A new document.

    Raises:
        GeneratorError: An overlay is malformed, an action matches nothing and is not marked `x-optional: true`, or an
            update would hide a published value of another meaning. Names the file, line, action and target.
    """
    patched = copied(document)
    bring_in_headers(patched)
    # Loses what an overlay removes.
    published = copied(patched)
    for path in overlays:
        overlay = read_document(path)
        with blaming(path):
            for number, action in enumerate(_actions(overlay), start=1):
                try:
                    _apply(patched, published, action)
                except GeneratorError as error:
                    where = f"line {_line(path, number)}: action {number}, target {action.get('target')}"
                    raise GeneratorError(f"{where}: {error}") from error
    return open_response_enums(patched)


def _line(path: Path, number: int) -> int:
    """Return the line on which an action begins. JSON is valid YAML."""
    root = YAML().compose(path)
    [actions] = [value for key, value in root.value if key.value == "actions"]
    line: int = actions.value[number - 1].start_mark.line
    return line + 1


def _actions(overlay: Document) -> list[Document]:
    version = overlay.get("overlay")
    if not isinstance(version, str) or not version.startswith("1.0."):
        raise GeneratorError(f"is not an Overlay 1.0 document: expected `overlay: 1.0.0`, found {version!r}.")
    _refuse_unknown(overlay, {"overlay", "info", "extends", "actions"})
    actions = overlay.get("actions")
    if not isinstance(actions, list) or not actions or not all(isinstance(action, dict) for action in actions):
        raise GeneratorError("`actions` must be a list with at least one action object.")
    return actions


def _apply(document: Document, published: Document, action: Document) -> None:
    _refuse_unknown(action, {"target", "description", "update", "remove"})
    remove = action.get("remove", False)
    if not isinstance(action.get("target"), str) or not isinstance(remove, bool) or remove == ("update" in action):
        raise GeneratorError("an action needs a `target` and either `update` or `remove: true`.")
    try:
        found = {node.parts: node.value for node in _RFC_9535.finditer(action["target"], document)}
    except jsonpath.JSONPathError as error:
        raise GeneratorError(f"is not an RFC 9535 JSONPath: {error}. Correct it.") from error
    if not found and action.get("x-optional") is not True:
        raise GeneratorError("matches nothing. Did the document change, or is the target misspelt?")
    # Last and deepest first, so that a removal does not move the remaining matches.
    for location in sorted(found, reverse=True):
        if not isinstance(found[location], dict | list):
            raise GeneratorError(
                "selects a single value. A target must be an object or a list: select the one that contains the value."
            )
        if remove:
            _remove(document, location)
            if _find(published, location) is not None:
                _remove(published, location)
        else:
            _update(found[location], action["update"], _find(published, location))


def _remove(document: Document, location: tuple[int | str, ...]) -> None:
    if not location:
        raise GeneratorError("the root of the document cannot be removed. Select a part of it.")
    parent: Any = document
    for step in location[:-1]:
        parent = parent[step]
    del parent[location[-1]]


def _find(document: Any, location: tuple[int | str, ...]) -> Any:
    """Return the object or list at a location, or `None`."""
    for step in location:
        try:
            document = document[step]
        except (KeyError, IndexError, TypeError):
            return None
    return document


def _update(node: Any, update: Any, published: Any, inside: str = "") -> None:
    if isinstance(node, list):
        node.extend(copy.deepcopy(update if isinstance(update, list) else [update]))
        return
    if not isinstance(update, dict):
        raise GeneratorError("selects an object, so `update` must be an object.")
    for key, new in update.items():
        old = node.get(key)
        stated = published.get(key) if isinstance(published, dict) else None
        if isinstance(old, dict | list):
            if type(new) is not type(old):
                raise GeneratorError(
                    f"`update` has another type for {key!r} than the document. Remove the old value first."
                )
            _update(old, new, stated, f"{inside}{key}.")
        else:
            if stated is not None and key in _FACTS and json.dumps(stated) != json.dumps(new):
                raise _hidden(inside, f"{key}: {json.dumps(stated)}", f"{key}: {json.dumps(new)}")
            _require_type_allowed(published, key, new, inside)
            node[key] = copy.deepcopy(new)


def _require_type_allowed(published: Any, key: str, new: Any, inside: str) -> None:
    """Check that a union that an overlay adds to a published type contains this type."""
    stated = published.get("type") if isinstance(published, dict) and key in {"anyOf", "oneOf"} else None
    types = {member.get("type") for member in new if isinstance(member, dict)} if isinstance(new, list) else set()
    if "number" in types:
        types.add("integer")
    if isinstance(stated, str) and None not in types and stated not in types:
        raise _hidden(inside, f"type: {json.dumps(stated)}", f"{key}: {json.dumps(new)}")


def _hidden(inside: str, stated: str, new: str) -> GeneratorError:
    where = f" at {inside.removesuffix('.')}" if inside else ""
    return GeneratorError(
        f"`update` would hide a published value{where}: the document says {stated}, the overlay {new}. Adapt the "
        "overlay and the hand-written package to the document; or, to keep the overlay's value, remove that object "
        "with an action before this one."
    )


def _refuse_unknown(fields: Document, known: set[str]) -> None:
    for field in fields:
        if field not in known and not field.startswith("x-"):
            raise GeneratorError(
                f"has the unknown field {field!r}. Correct or remove it. Known fields: {', '.join(sorted(known))}."
            )
