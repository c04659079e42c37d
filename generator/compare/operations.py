"""The operations of a document, read as far as two documents are compared."""

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
    """One operation of a document, `$ref`s followed.

    Attributes:
        path: Its path, and
        method: its method, in small letters.
        content: Itself, as the document has it.
        parameters: The path's and its own, by place and name; names of headers in small letters.
        body: Its request body; empty where there is none.
        responses: Its responses by status.
        security: What authorizes it, as a text that two documents can be compared by.
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
        """Its method and path, for people."""
        return f"{self.method.upper()} {self.path}"

    @property
    def name(self) -> str:
        """The Python name of its module."""
        return operation_name(self.path, self.method, self.content)

    @property
    def module(self) -> str:
        """The same with all packages."""
        return operation_module(self.path, self.method, self.content)


def read_operations(reader: Reader) -> list[Operation]:
    """All operations of a document, in its order."""
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
            responses={status: reader.resolve(answer) for status, answer in item[method].get("responses", {}).items()},
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
    """The media types of a request body or a response."""
    content = part.get("content", {})
    return content if isinstance(content, dict) else {}


def reading(media_type: str) -> str:
    """How the generated client reads a media type: "json", "text" or "bytes"; for what it does not read, its name."""
    name = media_type.partition(";")[0].strip().lower()
    if name == "application/json" or name.endswith("+json"):
        return "json"
    if name.startswith("text/"):
        return "text"
    return "bytes" if name == "application/octet-stream" else name


def answer_of(response: Document) -> tuple[str, Any]:
    """How the generated client reads a response, and by which schema: the first media type that it knows.

    Returns:
        As `reading` says it, and the schema; "nothing" and None where no body is described.
    """
    for name, media in content_of(response).items():
        if (kind := reading(name)) in {"json", "text", "bytes"}:
            return (kind, media["schema"]) if "schema" in media else ("nothing", None)
    return "nothing", None


def operations_outside(document: Document) -> dict[str, tuple[str, str]]:
    """The operations that are not in the Realtime part, and what they reach.

    Returns:
        By method and path, the first tag and a text of the whole content.
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
                reached = []  # A reference that leads nowhere is pinned with the rest: generator/pull.py.
            content = [alone, [[*place, document["components"][place[0]][place[1]]] for place in reached]]
            tag = (operation.get("tags") or ["untagged"])[0]
            found[f"{method} {path}"] = (tag, json.dumps(content, sort_keys=True))
    return found
