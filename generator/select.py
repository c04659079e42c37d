"""Step 1: keep the operations of some tags and exactly what they reach."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from generator.document import Document, GeneratorError

REALTIME_TAG = "Forge Realtime"

# https://spec.openapis.org/oas/v3.0.4.html#path-item-object
_METHODS = frozenset({"get", "put", "post", "delete", "options", "head", "patch", "trace"})


def select(document: Document, tags: Sequence[str] = (REALTIME_TAG,)) -> Document:
    """Keeps the operations that carry one of `tags`, and the components that they reach.

    Args:
        document: An OpenAPI 3 document. It is not changed.
        tags: Tags of operations, as the document writes them.

    Returns:
        A new document, its keys in the order of the given one.

    Raises:
        GeneratorError: It is no OpenAPI 3 document, a tag has no operation, or a reference leads nowhere.
    """
    _require_openapi_3(document)
    paths = {path: _select_methods(item, tags) for path, item in document["paths"].items()}
    paths = {path: item for path, item in paths.items() if _METHODS & item.keys()}
    found = {tag for item in paths.values() for method in _METHODS & item.keys() for tag in item[method]["tags"]}
    if missing := [tag for tag in tags if tag not in found]:
        known = sorted({tag for item in document["paths"].values() for m in _METHODS & item.keys() for tag in item[m].get("tags", [])})
        raise GeneratorError(
            f"No operation is tagged {missing[0]!r}; the document's tags are {', '.join(map(repr, known)) or 'none'}. "
            "Is this the whole Forge Containers document? If the tag was renamed, give the new name with --tag."
        )

    selected = {key: value for key, value in document.items() if key not in {"paths", "components", "tags"}}
    selected["paths"] = paths
    components = _reached_components(document, selected)
    if components:
        selected["components"] = components
    selected["tags"] = [tag for tag in document.get("tags", []) if tag.get("name") in tags]
    return {key: selected[key] for key in document if key in selected and (selected[key] or key != "tags")}


def _require_openapi_3(document: Document) -> None:
    version = document.get("openapi")
    if not isinstance(version, str) or not version.startswith(("3.0.", "3.1.")):
        found = f"openapi: {version!r}" if "openapi" in document else f"swagger: {document.get('swagger')!r}"
        raise GeneratorError(f"Expected an OpenAPI 3.0 or 3.1 document, found {found}. Is this the right file?")
    if not isinstance(document.get("paths"), dict):
        raise GeneratorError("The document has no `paths` object. Is it truncated?")


def _select_methods(item: Document, tags: Sequence[str]) -> Document:
    return {
        key: value
        for key, value in item.items()
        if key not in _METHODS or any(tag in tags for tag in value.get("tags", []))
    }


def _reached_components(document: Document, selected: Document) -> Document:
    reached: set[tuple[str, str]] = set()
    waiting = list(_references(selected))
    while waiting:
        pointer = waiting.pop()
        section, name = _split_pointer(pointer)
        if (section, name) in reached:
            continue
        component = document.get("components", {}).get(section, {}).get(name)
        if component is None:
            raise GeneratorError(f"The document refers to {pointer}, which it does not define. Is it truncated?")
        reached.add((section, name))
        waiting.extend(_references(component))
    kept = {
        section: {name: value for name, value in members.items() if (section, name) in reached}
        for section, members in document.get("components", {}).items()
    }
    return {section: members for section, members in kept.items() if members}


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for member in node:
            yield from _references(member)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref" and isinstance(value, str):
                yield value
            elif key == "mapping" and "propertyName" in node and isinstance(value, dict):
                for target in value.values():
                    yield target if "/" in target else f"#/components/schemas/{target}"
            elif key == "security" and isinstance(value, list):
                for requirement in value:
                    for scheme in requirement:
                        yield f"#/components/securitySchemes/{scheme}"
            elif key not in {"example", "examples", "default", "enum", "const"}:
                yield from _references(value)


def _split_pointer(pointer: str) -> tuple[str, str]:
    parts = pointer.split("/")
    if len(parts) < 4 or parts[:2] != ["#", "components"]:
        raise GeneratorError(f"Cannot follow the reference {pointer!r}: only #/components/… references are supported.")
    return parts[2], parts[3].replace("~1", "/").replace("~0", "~")
