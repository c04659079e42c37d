"""References of an OpenAPI 3.0 or 3.1 document.

The walk knows the fields of each object of the specification. So it does not mistake a property named `$ref`, or an
example with such a member, for a reference.
https://spec.openapis.org/oas/v3.1.1.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from generator.document import Document, GeneratorError

METHODS = frozenset({"get", "put", "post", "delete", "options", "head", "patch", "trace"})

COMPONENTS = {
    "schemas": "schema",
    "responses": "response",
    "parameters": "parameter",
    "examples": "example",
    "requestBodies": "request body",
    "headers": "parameter",
    "securitySchemes": "security scheme",
    "links": "link",
    "callbacks": "callback",
    "pathItems": "path item",
}

# The fields of each object that can contain a reference. `{x}` is a map from names to x, `[x]` is a list of x.
_FIELDS = {
    "document": {"paths": "{path item}", "components": "components", "security": "[security requirement]"},
    "components": {section: f"{{{kind}}}" for section, kind in COMPONENTS.items()},
    "path item": {"parameters": "[parameter]", **dict.fromkeys(sorted(METHODS), "operation")},
    "operation": {
        "parameters": "[parameter]",
        "requestBody": "request body",
        "responses": "{response}",
        "callbacks": "{callback}",
        "security": "[security requirement]",
    },
    "parameter": {"schema": "schema", "content": "{media type}", "examples": "{example}"},
    "request body": {"content": "{media type}"},
    "response": {"headers": "{parameter}", "content": "{media type}", "links": "{link}"},
    "media type": {"schema": "schema", "examples": "{example}", "encoding": "{encoding}"},
    "encoding": {"headers": "{parameter}"},
    "schema": {
        **dict.fromkeys(("properties", "patternProperties", "dependentSchemas", "$defs", "definitions"), "{schema}"),
        **dict.fromkeys(("allOf", "anyOf", "oneOf", "prefixItems"), "[schema]"),
        **dict.fromkeys(("items", "additionalProperties", "not", "if", "then", "else", "contains"), "schema"),
        **dict.fromkeys(("propertyNames", "unevaluatedItems", "unevaluatedProperties", "contentSchema"), "schema"),
        "discriminator": "discriminator",
    },
}


def reached_components(document: Document, start: Document) -> set[tuple[str, str]]:
    """Return the components that a part of a document refers to, directly or not.

    Args:
        document: The document with the components.
        start: The part to start from, or the document itself.

    Returns:
        Sections and names of components.

    Raises:
        GeneratorError: A reference has no target in the document.
    """
    reached: set[tuple[str, str]] = set()
    waiting = list(_references(start, "document"))
    while waiting:
        section, name = component_of(document, waiting.pop())
        if (section, name) not in reached:
            reached.add((section, name))
            waiting.extend(_references(document["components"][section][name], COMPONENTS[section]))
    return reached


def walk(node: Any, kind: str) -> Iterator[tuple[str, Document]]:
    """Yield each object of the specification in a node with its kind, outer objects first. Follows no references.

    Args:
        node: A document or a part of one.
        kind: The kind of the node: a key of `_FIELDS`, or `{x}` or `[x]`.
    """
    if kind.startswith("{"):
        for member in node.values() if isinstance(node, dict) else ():
            yield from walk(member, kind[1:-1])
    elif kind.startswith("["):
        for member in node if isinstance(node, list) else ():
            yield from walk(member, kind[1:-1])
    elif isinstance(node, dict):  # Otherwise a boolean schema, or an error that the validator reports.
        yield kind, node
        if kind == "callback" and "$ref" not in node:
            yield from walk(node, "{path item}")
        # OpenAPI 3.1 allows keywords beside the $ref of a schema.
        for field, member_kind in _FIELDS.get(kind, {}).items():
            if field in node:
                yield from walk(node[field], member_kind)


def _references(node: Any, kind: str) -> Iterator[str]:
    for found, member in walk(node, kind):
        if isinstance(member.get("$ref"), str):
            yield member["$ref"]
        elif found == "security requirement":
            yield from (f"#/components/securitySchemes/{scheme}" for scheme in member)
        elif found == "discriminator":
            mapping = member.get("mapping")
            for target in mapping.values() if isinstance(mapping, dict) else ():
                yield target if "/" in str(target) else f"#/components/schemas/{target}"


def component_of(document: Document, pointer: str) -> tuple[str, str]:
    """Return the section and name of the component that a reference points to, or into.

    Raises:
        GeneratorError: It has no target in the document.
    """
    parts = [part.replace("~1", "/").replace("~0", "~") for part in unquote(pointer).split("/")]
    if len(parts) < 4 or parts[:2] != ["#", "components"] or parts[2] not in COMPONENTS:
        raise GeneratorError(f"the reference {pointer!r} points outside of #/components. Move its target there.")
    node: Any = document
    for part in parts[1:]:
        if isinstance(node, list) and part.isdecimal() and int(part) < len(node):
            node = node[int(part)]
        elif isinstance(node, dict) and part in node:
            node = node[part]
        else:
            raise GeneratorError(f"the reference {pointer!r} has no target. Was it removed, or is the file truncated?")
    return parts[2], parts[3]


def resolve(document: Document, node: Any) -> Document:
    """Follow the references of a part of the document. Returns an empty object if it is not an object.

    Raises:
        GeneratorError: A reference has no target in the document.
    """
    seen: set[str] = set()
    while isinstance(node, dict) and isinstance(pointer := node.get("$ref"), str) and pointer not in seen:
        seen.add(pointer)
        section, name = component_of(document, pointer)
        node = document["components"][section][name]
    return node if isinstance(node, dict) else {}
