"""The derived OpenAPI document, reduced to operations and the authorization header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from .errors import EmulatorError
from .schema import Schema

_METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of the document.

    Attributes:
        operation_id: The `operationId`, or else method and path.
        method: The HTTP method, in capitals.
        path: The path, with the document's `{parameters}`.
        body: The schema of the JSON request body, or `None` if the operation takes no JSON.
        body_required: Whether a call without a body is refused.
    """

    operation_id: str
    method: str
    path: str
    body: Schema | None = field(repr=False)
    body_required: bool


@dataclass(frozen=True, slots=True)
class Document:
    """Operations and authorization header of an OpenAPI document.

    Attributes:
        header: The name of the authorization header.
        operations: The operations by `operationId`, in the order of the document.
    """

    header: str
    operations: Mapping[str, Operation]


def load_document() -> dict[str, Any]:
    """Load the derived document shipped with the package.

    Raises:
        EmulatorError: The package has no document.
    """
    try:
        text = files("forge_realtime_emulator").joinpath("realtime.json").read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise EmulatorError(
            "realtime.json is not in the package forge_realtime_emulator: it is put there when the wheel is built."
            " Install the wheel (make wheel), or pass document=."
        ) from error
    document: dict[str, Any] = json.loads(text)
    return document


def read_document(document: Mapping[str, Any]) -> Document:
    """Read an OpenAPI 3 document.

    Raises:
        EmulatorError: The document is not OpenAPI 3, or has no authorization header.
    """
    version = str(document.get("openapi", ""))
    if not version.startswith("3."):
        raise EmulatorError("The document is not OpenAPI 3: its field 'openapi' must start with '3.'.")
    operations: dict[str, Operation] = {}
    for path, item in document.get("paths", {}).items():
        for method in _METHODS:
            if method in item:
                operation = _read_operation(document, version, method, path, item[method])
                operations[operation.operation_id] = operation
    return Document(header=_authorization_header(document), operations=operations)


def _authorization_header(document: Mapping[str, Any]) -> str:
    for scheme in document.get("components", {}).get("securitySchemes", {}).values():
        if scheme.get("type") == "apiKey" and scheme.get("in") == "header":
            return str(scheme["name"]).lower()
    raise EmulatorError(
        "The document has no security scheme of type apiKey in a header, so it does not say how a call is authorized."
        " Give it the derived document (spec/realtime.json), not the published one."
    )


def _read_operation(
    document: Mapping[str, Any], version: str, method: str, path: str, item: Mapping[str, Any]
) -> Operation:
    body = _resolve(document, item.get("requestBody", {}))
    media = body.get("content", {}).get("application/json")
    return Operation(
        operation_id=item.get("operationId", f"{method.upper()} {path}"),
        method=method.upper(),
        path=path,
        body=None if media is None else Schema(media.get("schema", {}), document=document, openapi=version),
        body_required=bool(body.get("required", False)),
    )


def _resolve(document: Mapping[str, Any], item: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" not in item:
        return item
    target: Any = document
    try:
        for part in item["$ref"].removeprefix("#/").split("/"):
            target = target[part.replace("~1", "/").replace("~0", "~")]
    except (KeyError, TypeError) as error:
        raise EmulatorError(f"The document has a $ref to {item['$ref']}, which is not in it.") from error
    return _resolve(document, target)
