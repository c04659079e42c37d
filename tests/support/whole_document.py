"""A document as large as the published one: the pinned groups, and more groups with hundreds of operations."""

from __future__ import annotations

import copy
import random
from typing import Any

Document = dict[str, Any]

GROUPS = tuple(f"Group {letter}" for letter in "ABCDEFGHIJKL")
OPERATIONS = 50
"""Of each group."""

HEADER = {
    "name": "forge-proxy-authorization",
    "in": "header",
    "required": True,
    "schema": {"type": "string"},
}


def whole_document(pinned: Document) -> Document:
    """The pinned document with twelve more groups of fifty operations, in between and all around."""
    whole = copy.deepcopy(pinned)
    paths: list[tuple[str, Any]] = list(whole["paths"].items())
    components = whole.setdefault("components", {})
    for section, members in _SHARED.items():
        components.setdefault(section, {}).update(copy.deepcopy(members))
    for group in GROUPS:
        whole["tags"].append({"name": group, "description": f"Operations of {group}"})
        paths += _paths(group).items()
        components["schemas"].update(_schemas(group))
    random.Random(1).shuffle(paths)
    whole["paths"] = dict(paths)
    return whole


def schemas_of(group: str) -> set[str]:
    """The names of the schemas that the group's operations reach."""
    return set(_schemas(group)) | {"Failure", "Page"}


_SHARED: Document = {
    "schemas": {
        "Failure": {"type": "object", "properties": {"code": {"type": "string"}, "message": {"type": "string"}}},
        "Page": {"type": "object", "properties": {"cursor": {"type": "string", "nullable": True}}},
        "NeverReached": {"type": "object"},
    },
    "parameters": {
        "Limit": {"name": "limit", "in": "query", "schema": {"type": "integer", "default": 25}},
        "NeverReached": {"name": "never", "in": "query", "schema": {"type": "string"}},
    },
    "headers": {"RateLimit": {"schema": {"type": "integer"}}},
    "responses": {
        "Failed": {
            "description": "It failed",
            "headers": {"x-ratelimit-remaining": {"$ref": "#/components/headers/RateLimit"}},
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Failure"}}},
        }
    },
}


def _ref(name: str) -> Document:
    return {"$ref": f"#/components/schemas/{name}"}


def _prefix(group: str) -> str:
    return group.replace(" ", "")


def _paths(group: str) -> Document:
    paths: Document = {}
    prefix = _prefix(group)
    for number in range(OPERATIONS // 2):
        common = {
            "tags": [group],
            "parameters": [HEADER, {"$ref": "#/components/parameters/Limit"}],
            "responses": {
                "200": {
                    "description": "Done",
                    "content": {"application/json": {"schema": _ref(f"{prefix}List{number}")}},
                },
                "404": {"$ref": "#/components/responses/Failed"},
                "500": {"$ref": "#/components/responses/Failed"},
            },
        }
        paths[f"/{prefix.lower()}/v1/things{number}/{{thingId}}"] = {
            "parameters": [{"name": "thingId", "in": "path", "required": True, "schema": {"type": "string"}}],
            "get": {**common, "operationId": f"get{prefix}Thing{number}"},
            "put": {
                **common,
                "operationId": f"put{prefix}Thing{number}",
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": _ref(f"{prefix}Thing{number}")}},
                },
            },
        }
    return paths


def _schemas(group: str) -> Document:
    prefix = _prefix(group)
    schemas: Document = {
        f"{prefix}Base": {"type": "object", "required": ["kind"], "properties": {"kind": {"type": "string"}}},
        f"{prefix}Cat": {
            "allOf": [
                _ref(f"{prefix}Base"),
                {"type": "object", "required": ["lives"], "properties": {"lives": {"type": "integer"}}},
            ]
        },
        f"{prefix}Dog": {
            "allOf": [
                _ref(f"{prefix}Base"),
                {"type": "object", "required": ["barks"], "properties": {"barks": {"type": "boolean"}}},
            ]
        },
        f"{prefix}Pet": {
            "oneOf": [_ref(f"{prefix}Cat"), _ref(f"{prefix}Dog")],
            "discriminator": {
                "propertyName": "kind",
                "mapping": {"cat": f"#/components/schemas/{prefix}Cat", "dog": f"#/components/schemas/{prefix}Dog"},
            },
        },
    }
    for number in range(OPERATIONS // 2):
        schemas[f"{prefix}Thing{number}"] = {
            "type": "object",
            "required": ["name"],
            "properties": {
                "name": {"type": "string"},
                "size": {"type": "number"},
                "mood": {"type": "string", "enum": ["calm", "wild"]},
                "pet": _ref(f"{prefix}Pet"),
                # The chain makes the last one reach them all.
                **({"before": _ref(f"{prefix}Thing{number - 1}")} if number else {}),
            },
        }
        schemas[f"{prefix}List{number}"] = {
            "allOf": [
                _ref("Page"),
                {
                    "type": "object",
                    "properties": {"things": {"type": "array", "items": _ref(f"{prefix}Thing{number}")}},
                },
            ]
        }
    return schemas
