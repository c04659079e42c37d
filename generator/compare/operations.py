"""Operations of a document, in a form that can be compared."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from generator.compare.schema_types import Reader
from generator.document import Document, GeneratorError
from generator.names import operation_module, operation_name
from generator.pipeline.select import REALTIME_TAG
from generator.references import METHODS, reached_components


@dataclass(frozen=True)
class Operation:
    """One operation of a document, with references resolved.

    Attributes:
        path: The path.
        method: The method, in lower case.
        content: The operation object of the document.
        parameters: Parameters of the path and the operation by location and name. Header names are in lower case.
        body: The request body; empty if there is none.
        responses: Responses by status.
        security: The security requirements as text, for comparison.
    """

    path: str
    method: str
    content: Document
    parameters: dict[tuple[str, str], Document]
    body: Document
    responses: dict[str, Document]
    security: str

    @property
    def title(self) -> str:
        """Method and path, for people."""
        return f"{self.method.upper()} {self.path}"

    @property
    def name(self) -> str:
        """The name of the Python module."""
        return operation_name(self.path, self.method, self.content)

    @property
    def module(self) -> str:
        """The full dotted name of the Python module."""
        return operation_module(self.path, self.method, self.content)


def read_operations(reader: Reader) -> list[Operation]:
    """Return all operations of a document, in its order."""
    return [
        Operation(
            path=path,
            method=method,
            content=item[method],
            parameters={
                (
                    parameter["in"],
                    parameter["name"].lower() if parameter["in"] == "header" else parameter["name"],
                ): parameter
                for parameter in map(reader.resolve, [*item.get("parameters", ()), *item[method].get("parameters", ())])
            },
            body=reader.resolve(item[method].get("requestBody", {})),
            responses={
                status: reader.resolve(response) for status, response in item[method].get("responses", {}).items()
            },
            security=_security(reader, item[method]),
        )
        for path, item in reader.document["paths"].items()
        for method in item
        if method in METHODS
    ]


def _security(reader: Reader, operation: Document) -> str:
    schemes = reader.document.get("components", {}).get("securitySchemes", {})
    ways = []
    for requirement in operation.get("security", reader.document.get("security")) or ():
        way: list[str] = []
        for name, scopes in requirement.items():
            scheme = reader.resolve(schemes.get(name, {}))
            way.append(" ".join([*(str(value) for key, value in scheme.items() if key != "description"), *scopes]))
        ways.append(" and ".join(sorted(way)) or "nothing")
    return " or ".join(ways) or "nothing"


def content_of(part: Document) -> Document:
    """Return the media types of a request body or a response."""
    content = part.get("content", {})
    return content if isinstance(content, dict) else {}


def reading(media_type: str) -> str:
    """Return how the generated client reads a media type: "json", "text" or "bytes", or its name if unsupported."""
    name = media_type.partition(";")[0].strip().lower()
    if name == "application/json" or name.endswith("+json"):
        return "json"
    if name.startswith("text/"):
        return "text"
    return "bytes" if name == "application/octet-stream" else name


def response_content(response: Document) -> tuple[str, Any]:
    """Return how the generated client reads a response: by the first media type that it supports.

    Returns:
        The result of `reading`, and the schema. "nothing" and `None` if there is no schema.
    """
    for name, media in content_of(response).items():
        if (kind := reading(name)) in {"json", "text", "bytes"}:
            return (kind, media["schema"]) if "schema" in media else ("nothing", None)
    return "nothing", None


def operations_outside(document: Document) -> dict[str, tuple[str, str]]:
    """Return the operations outside of the Realtime part, with the components that they use.

    Returns:
        The first tag and the content as text, by method and path.
    """
    found = {}
    for path, item in document["paths"].items():
        for method, operation in item.items() if isinstance(item, dict) else ():
            if method not in METHODS or REALTIME_TAG in operation.get("tags", ()):
                continue
            alone = {"paths": {path: {"parameters": item.get("parameters", []), method: operation}}}
            try:
                reached = sorted(reached_components(document, alone))
            except GeneratorError:
                reached = []  # `pull` accepts invalid references outside of the Realtime part.
            content = [alone, [[*location, document["components"][location[0]][location[1]]] for location in reached]]
            tag = (operation.get("tags") or ["untagged"])[0]
            found[f"{method} {path}"] = (tag, json.dumps(content, sort_keys=True))
    return found
