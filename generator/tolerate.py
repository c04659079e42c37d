"""Step 2, its end: answers may say more than the document knows.

What is deployed has to live with the next revision. Properties that a model does not know are kept by the generated code; a value
that an enumeration does not know would be an error. So in what answers reach, an enumeration is one of the known values *or*
anything else of its type. Where a request shares the schema, it takes anything else there, too.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

from generator.document import Document
from generator.references import COMPONENTS, METHODS, reached_components, walk


def tolerate(document: Document) -> Document:
    """Lets every enumeration in an answer take values that it does not list.

    Enumerations of one value are left alone: they tell the members of a union apart.

    Args:
        document: A patched document. It is not changed.

    Returns:
        A new document.
    """
    tolerant = copy.deepcopy(document)
    for schema in list(_schemas_of_answers(tolerant)):
        if len(schema.get("enum", ())) > 1 and not {"anyOf", "oneOf", "allOf"} & schema.keys():
            known = {key: schema.pop(key) for key in ("type", "enum", "format", "title") if key in schema}
            # In OpenAPI 3.0 only the outer `nullable` counts, and the list may name null.
            known["enum"] = [value for value in known["enum"] if value is not None]
            schema["anyOf"] = [known, {key: known[key] for key in ("type", "format") if key in known}]
    return tolerant


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
