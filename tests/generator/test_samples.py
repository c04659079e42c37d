"""Sample values of schemas."""

from __future__ import annotations

import re
from typing import Any

import pytest

from generator.pipeline.samples import samples

DOCUMENT: dict[str, Any] = {
    "openapi": "3.0.1",
    "components": {
        "schemas": {
            "Node": {"type": "object", "properties": {"next": {"$ref": "#/components/schemas/Node"}}},
            "Loop": {"allOf": [{"$ref": "#/components/schemas/Loop"}]},
            "Text": {"type": "string", "nullable": True},
        }
    },
}


@pytest.mark.parametrize(
    ("schema", "values"),
    [
        ({"type": "string"}, ["text"]),
        ({"type": "string", "minLength": 6}, ["textxx"]),
        ({"type": "string", "maxLength": 2}, ["te"]),
        ({"type": "string", "format": "date"}, ["2026-08-01"]),
        ({"type": "string", "enum": ["a", "b", None], "nullable": True}, ["a", "b", None, None]),
        ({"type": "integer", "minimum": 5}, [5]),
        ({"type": "number", "maximum": -3}, [-3]),
        ({"type": "boolean", "nullable": True}, [True, False, None]),
        ({"anyOf": [{"type": "string"}, {"type": "number"}], "nullable": True}, ["text", 1, None]),
        ({"type": "integer", "anyOf": [{"type": "string"}, {"type": "number"}]}, [1]),
        ({"type": "array", "items": {"type": "string", "enum": ["a", "b"]}}, [["a"], ["b"]]),
        ({"type": "array", "minItems": 2, "items": {"type": "string"}}, [["text", "text"]]),
        ({"$ref": "#/components/schemas/Text"}, ["text", None]),
        ({"allOf": [{"properties": {"a": {"type": "string"}}}, {"properties": {"b": {"type": "integer"}}}]},
         [{"a": "text", "b": 1}]),
        ({"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"type": "string", "nullable": True}}},
         [{"a": True, "b": "text"}, {"a": False, "b": "text"}, {"a": True, "b": None}]),
        ({"$ref": "#/components/schemas/Loop"}, []),
        ({}, ["text"]),
    ],
)  # fmt: skip
def test_samples_of_schema(schema: dict[str, Any], values: list[Any]) -> None:
    assert samples(DOCUMENT, schema) == values


def test_schema_in_itself_ends() -> None:
    [sample] = samples(DOCUMENT, {"$ref": "#/components/schemas/Node"})
    assert sample["next"]["next"]["next"] == {}


@pytest.mark.parametrize(
    "pattern",
    [
        "^[a-z]+$",
        "^evt_[A-F0-9]{8}$",
        r"^\d{4}-\d{2}$",
        r"^(board|project):\w+$",
        "^[^a-z]$",
        r"^[\W]$",
        "^a?b*c{2,}$",
        "^.+$",
        r"^(?:ari:cloud:[a-z]+::[a-z]+/)?[0-9a-f-]{36}$",
    ],
)
def test_sample_matches_pattern(pattern: str) -> None:
    [sample] = samples(DOCUMENT, {"type": "string", "pattern": pattern})
    assert re.search(pattern, sample)


@pytest.mark.parametrize("pattern", ["(", "(?<=x)$", "^(?=b)a$"])
def test_pattern_without_sample_gives_none(pattern: str) -> None:
    assert samples(DOCUMENT, {"type": "string", "pattern": pattern}) == []
