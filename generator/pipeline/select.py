"""Step 1: keep the operations of some tags, and exactly the components that they use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from generator.document import Document, GeneratorError
from generator.references import METHODS, reached_components

REALTIME_TAG = "Forge Realtime"


def select(document: Document, tags: Sequence[str] = (REALTIME_TAG,)) -> Document:
    """Keep the operations with one of the tags, and the components that they use.

    Args:
        document: An OpenAPI 3.0 or 3.1 document. It is not changed.
        tags: Tags of operations, spelled as in the document.

    Returns:
        A new document in the same order, without webhooks.

    Raises:
        GeneratorError: It is not an OpenAPI 3 document, a tag has no operation, or a reference has no target.
    """
    require_openapi_3(document)
    paths: Document = {}
    known: dict[str, None] = {}
    for path, item in document["paths"].items():
        operations = _operations(path, item)
        known.update(dict.fromkeys(tag for operation in operations.values() for tag in operation.get("tags", ())))
        kept = {method for method, operation in operations.items() if set(tags) & set(operation.get("tags", ()))}
        if kept:
            paths[path] = {key: value for key, value in item.items() if key in kept or key not in METHODS}
    if missing := [tag for tag in tags if tag not in known]:
        cure = "Give one of these as TAG."
        if missing[0] == REALTIME_TAG:
            cure = "Is it the whole document? If the tag was renamed, change REALTIME_TAG in select.py."
        tagged = ", ".join(map(repr, known)) or "none"
        raise GeneratorError(f"no operation is tagged {missing[0]!r}. Tags of this document: {tagged}. {cure}")

    selected = {key: value for key, value in document.items() if key not in {"webhooks", "components"}}
    selected["paths"] = paths
    if all("security" in item[method] for item in paths.values() for method in METHODS & item.keys()):
        selected.pop("security", None)
    if isinstance(document.get("tags"), list):
        selected["tags"] = [tag for tag in document["tags"] if isinstance(tag, dict) and tag.get("name") in tags]
    if reached := reached_components(document, selected):
        selected["components"] = {
            section: {name: member for name, member in members.items() if (section, name) in reached}
            for section, members in document["components"].items()
            if any(section == reached_section for reached_section, _ in reached)
        }
    return {key: selected[key] for key in document if key in selected}


def require_openapi_3(document: Document) -> None:
    """Check that a document is OpenAPI 3.0 or 3.1 and has paths.

    Raises:
        GeneratorError: It is not.
    """
    version = document.get("openapi")
    if not isinstance(version, str) or not version.startswith(("3.0.", "3.1.")):
        found = f"swagger {document['swagger']}" if "swagger" in document else f"openapi {version!r}"
        raise GeneratorError(f"is not an OpenAPI 3.0 or 3.1 document: found {found}. Is it the right file?")
    if not isinstance(document.get("paths"), dict):
        raise GeneratorError("has no `paths` object. Is it truncated, or another kind of document?")


def _operations(path: str, item: Any) -> dict[str, Document]:
    if path.startswith("x-"):
        return {}
    if not isinstance(item, dict):
        raise GeneratorError(f"the path {path} is not an object. Restore the document, or correct the path.")
    if "$ref" in item:
        raise GeneratorError(f"the path {path} is a $ref, which is not supported. Write the path item in place.")
    operations = {method: item[method] for method in item if method in METHODS}
    for method, operation in operations.items():
        if not isinstance(operation, dict):
            raise GeneratorError(
                f"{method.upper()} {path} is not an object. Restore the document, or correct the operation."
            )
        tags = operation.get("tags", [])
        if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
            raise GeneratorError(
                f"the `tags` of {method.upper()} {path} are not a list of strings. Correct the document."
            )
    return operations
