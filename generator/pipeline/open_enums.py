"""Step 2, its end: answers may say more than the document knows.

What is deployed has to live with the next revision. Properties that a model does not know are kept by the generated code; a value
that an enumeration does not know would be an error. So in what answers reach, an enumeration is one of the known values *or*
anything else of its type. Where a request shares the schema, it takes anything else there, too.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from generator.document import Document
from generator.references import COMPONENTS, METHODS, component_of, reached_components, walk


def tolerate(document: Document) -> Document:
    """Lets every enumeration in an answer take values that it does not list.

    What tells the members of a union apart is left alone: the property of its discriminator, and properties of one value.

    Args:
        document: A patched document. It is not changed.

    Returns:
        A new document.
    """
    tolerant = copy.deepcopy(document)
    schemas = list(_schemas_of_answers(tolerant))
    apart = {id(value) for schema in schemas for value in _telling_apart(tolerant, schema)}
    for schema in schemas:
        values = [value for value in _values(schema) if value is not None]
        if values and id(schema) not in apart and not {"anyOf", "oneOf", "allOf"} & schema.keys():
            known = {key: schema.pop(key) for key in ("type", "enum", "const", "format", "title") if key in schema}
            # In OpenAPI 3.0 only the outer `nullable` counts, and the list may name null.
            if "enum" in known:
                known["enum"] = values
            schema["anyOf"] = [known, {key: known[key] for key in ("type", "format") if key in known}]
    return tolerant


def _telling_apart(document: Document, schema: Document) -> Iterator[Document]:
    """The enumerations in the members of a union by which the generated code knows which one it has."""
    discriminator = schema.get("discriminator", {}).get("propertyName")
    waiting = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    seen: set[int] = set()
    while waiting:
        member = _resolved(document, waiting.pop())
        if id(member) in seen:
            continue
        seen.add(id(member))
        waiting += member.get("allOf", ())
        for name, value in member.get("properties", {}).items():
            found = _resolved(document, value)
            if name == discriminator or len(_values(found)) == 1:
                yield found


def _values(schema: Document) -> list[Any]:
    return [schema["const"]] if "const" in schema else list(schema.get("enum", ()))


def _resolved(document: Document, schema: Any) -> Document:
    seen: set[str] = set()
    while isinstance(schema, dict) and isinstance(schema.get("$ref"), str) and schema["$ref"] not in seen:
        seen.add(schema["$ref"])
        section, name = component_of(document, schema["$ref"])
        schema = document["components"][section][name]
    return schema if isinstance(schema, dict) else {}


def _schemas_of_answers(document: Document) -> Iterator[Document]:
    answers = [
        operation["responses"]
        for item in document.get("paths", {}).values()
        for method, operation in item.items()
        if method in METHODS and isinstance(operation, dict) and "responses" in operation
    ]
    start = {"paths": {str(number): {"get": {"responses": responses}} for number, responses in enumerate(answers)}}
    yield from (schema for kind, schema in walk(start, "document") if kind == "schema")
    for section, name in reached_components(document, start):
        component = document["components"][section][name]
        yield from (schema for kind, schema in walk(component, COMPONENTS[section]) if kind == "schema")
