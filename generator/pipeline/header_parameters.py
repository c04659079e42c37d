"""Step 2, first part: header parameters stand in each operation.

A document can also define them in its components or once for a path. Overlays would have to follow both.
"""

from __future__ import annotations

from typing import Any

from generator.document import Document, copied
from generator.references import METHODS, resolve


def bring_in_headers(document: Document) -> None:
    """Copy header parameters of paths and components into the operations that take them. Changes the document."""
    for item in document.get("paths", {}).values():
        operations = [item[method] for method in METHODS if isinstance(item.get(method), dict)]
        shared = _headers_in_place(document, item.get("parameters"))
        for operation in operations:
            own = _names(_headers_in_place(document, operation.get("parameters")))
            if added := [parameter for parameter in shared if not own & _names([parameter])]:
                operation["parameters"] = [*operation.get("parameters", ()), *copied(added)]
        if operations and shared:
            item["parameters"] = [parameter for parameter in item["parameters"] if parameter not in shared]


def _headers_in_place(document: Document, parameters: Any) -> list[Document]:
    """Replace references to header parameters in a list, and return its header parameters."""
    headers = []
    for index, parameter in enumerate(parameters if isinstance(parameters, list) else ()):
        found = resolve(document, parameter)
        if found.get("in") == "header":
            parameters[index] = copied(found)
            headers.append(parameters[index])
    return headers


def _names(parameters: list[Document]) -> set[str]:
    return {str(parameter.get("name")).lower() for parameter in parameters}
