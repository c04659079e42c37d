"""Step 2, last part: open enumerations in responses.

A deployed client has to work with the next revision of the document. Generated models keep unknown properties, but an
unknown value of an enumeration would be an error. So an enumeration in a response becomes "one of the known values, or
any other value of the same type". A request that shares its schema accepts other values too.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from generator.document import Document
from generator.references import COMPONENTS, METHODS, reached_components, resolve, walk


def open_response_enums(document: Document) -> Document:
    """Allow unlisted values in every enumeration of a response.

    Enumerations that select a member of a union stay closed: the discriminator property, and properties with one value.

    Args:
        document: A patched document. It is not changed.

    Returns:
        A new document.
    """
    opened = copy.deepcopy(document)
    schemas = list(_response_schemas(opened))
    selectors = {id(selector) for schema in schemas for selector in _union_selectors(opened, schema)}
    for schema in schemas:
        values = [value for value in _values(schema) if value is not None]
        if values and id(schema) not in selectors and not {"anyOf", "oneOf", "allOf"} & schema.keys():
            known = {key: schema.pop(key) for key in ("type", "enum", "const", "format", "title") if key in schema}
            # In OpenAPI 3.0 only the outer `nullable` counts, although the list may contain null.
            if "enum" in known:
                known["enum"] = values
            schema["anyOf"] = [known, {key: known[key] for key in ("type", "format") if key in known}]
    return opened


def _union_selectors(document: Document, schema: Document) -> Iterator[Document]:
    """Yield the enumerations by which generated code tells the members of a union apart."""
    discriminator = schema.get("discriminator", {}).get("propertyName")
    waiting = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    seen: set[int] = set()
    while waiting:
        member = resolve(document, waiting.pop())
        if id(member) in seen:
            continue
        seen.add(id(member))
        waiting += member.get("allOf", ())
        for name, value in member.get("properties", {}).items():
            found = resolve(document, value)
            if name == discriminator or len(_values(found)) == 1:
                yield found


def _values(schema: Document) -> list[Any]:
    return [schema["const"]] if "const" in schema else list(schema.get("enum", ()))


def _response_schemas(document: Document) -> Iterator[Document]:
    responses = [
        operation["responses"]
        for item in document.get("paths", {}).values()
        for method, operation in item.items()
        if method in METHODS and isinstance(operation, dict) and "responses" in operation
    ]
    start = {"paths": {str(number): {"get": {"responses": part}} for number, part in enumerate(responses)}}
    yield from (schema for kind, schema in walk(start, "document") if kind == "schema")
    for section, name in reached_components(document, start):
        component = document["components"][section][name]
        yield from (schema for kind, schema in walk(component, COMPONENTS[section]) if kind == "schema")
