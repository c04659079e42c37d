"""Schemas that are hard to compare: recursion, unions, `allOf`, and equivalent schemas."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generator.compare.documents import compare
from generator.compare.schema_types import Reader
from generator.pipeline.open_enums import open_response_enums
from tests.generator.changes import in_request, in_response, operation, request, response
from tests.generator.conftest import REPOSITORY

Document = dict[str, Any]

NODE = {
    "type": "object",
    "properties": {
        "value": {"type": "string"},
        "next": {"$ref": "#/components/schemas/Node"},
        "children": {"type": "array", "items": {"$ref": "#/components/schemas/Node"}},
        "either": {"anyOf": [{"$ref": "#/components/schemas/Node"}, {"type": "string"}]},
    },
}


def _found(old: Document, new: Document) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(change.kind, change.direction, change.python) for change in compare(old, new).changes]


def test_recursive_schema_is_compared_once_per_direction(derived: Document) -> None:
    derived["components"]["schemas"] = {"Node": copy.deepcopy(NODE)}
    for schema in (request(derived), response(derived)):
        schema["properties"]["tree"] = {"$ref": "#/components/schemas/Node"}
    new = copy.deepcopy(derived)
    new["components"]["schemas"]["Node"]["properties"]["value"] = {"type": "integer"}
    assert _found(derived, derived) == []
    assert _found(derived, new) == [
        ("type changed", "request", ("Node.value",)),
        ("type changed", "response", ("Node.value",)),
    ]


def test_list_of_itself_is_compared(derived: Document) -> None:
    schemas = {"Tree": {"anyOf": [STRING, {"type": "array", "items": {"$ref": "#/components/schemas/Tree"}}]}}
    derived["components"]["schemas"] = copy.deepcopy(schemas)
    in_request("tree", {"$ref": "#/components/schemas/Tree"})(derived)
    new = copy.deepcopy(derived)
    new["components"]["schemas"]["Tree"]["anyOf"][0] = {"type": "integer"}
    assert _found(derived, derived) == []
    assert _found(derived, new) == [("type changed", "request", ("PublishRequest.tree",))]
    request(new)["properties"]["tree"] = {}
    assert _found(derived, new) == [("type widened", "request", ("PublishRequest.tree",))]


def test_equivalent_content_type_is_rename(derived: Document) -> None:
    new = copy.deepcopy(derived)
    for part in (operation(new)["requestBody"], operation(new)["responses"]["200"]):
        part["content"] = {"application/json;charset=utf-8": part["content"]["application/json"]}
    assert {kind for kind, *_ in _found(derived, new)} == {"content type renamed"}


def test_component_in_place_of_equal_schema_changes_only_the_name(derived: Document) -> None:
    in_request("extra", {"type": "object", "title": "Extra", "properties": {"a": {"type": "string"}}})(derived)
    new = copy.deepcopy(derived)
    new["components"]["schemas"] = {"Extra": request(new)["properties"]["extra"]}
    request(new)["properties"]["extra"] = {"allOf": [{"$ref": "#/components/schemas/Extra"}]}
    assert _found(derived, new) == []
    new["components"]["schemas"]["Other"] = new["components"]["schemas"].pop("Extra")
    new["components"]["schemas"]["Other"]["title"] = "Other"
    request(new)["properties"]["extra"] = {"$ref": "#/components/schemas/Other"}
    assert _found(derived, new) == [("model renamed", "request", ("Extra", "Other"))]


def test_all_of_is_compared_as_one_object(derived: Document) -> None:
    in_request(
        "extra", {"title": "Extra", "type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}}
    )(derived)
    new = copy.deepcopy(derived)
    request(new)["properties"]["extra"] = {
        "title": "Extra",
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "string"}}},
            {"type": "object", "required": ["a", "b"], "properties": {"b": {"type": "integer"}}},
        ],
    }
    assert _found(derived, new) == [("property added, required", "request", ("Extra.b",))]


STRING = {"type": "string"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"type": "string", "nullable": True}, {"type": ["string", "null"]}),
        ({"type": ["string", "null"]}, {"anyOf": [STRING, {"type": "null"}]}),
        ({"oneOf": [STRING, {"type": "number"}]}, {"anyOf": [{"type": "number"}, STRING]}),
        ({"enum": ["a", "b"]}, {"type": "string", "enum": ["b", "a"]}),
        ({"const": "a"}, {"type": "string", "enum": ["a"]}),
        ({}, {"x-more": 1}),
    ],
)
def test_equivalent_schemas_change_at_most_description(derived: Document, old: Document, new: Document) -> None:
    documents = copy.deepcopy(derived), copy.deepcopy(derived)
    for document, schema in zip(documents, (old, new), strict=True):
        in_request("extra", schema)(document)
    kinds = {kind for kind, *_ in _found(*documents)}
    assert kinds <= {"model renamed", "description changed"}


@pytest.mark.parametrize(
    ("old", "new", "in_a_request", "in_a_response"),
    [
        (STRING, {"anyOf": [STRING, {"type": "integer"}]}, "additive", "breaking"),
        ({"anyOf": [STRING, {"type": "integer"}]}, STRING, "breaking", "additive"),
        ({"type": "integer"}, {"type": "number"}, "additive", "breaking"),
        (STRING, {}, "additive", "breaking"),
        ({}, STRING, "breaking", "additive"),
        (STRING, {"type": "string", "enum": ["a"]}, "breaking", "additive"),
        ({"type": "array", "items": STRING}, {"type": "array", "items": {"type": "integer"}}, "breaking", "breaking"),
        (STRING, {"type": "string", "format": "uuid"}, "breaking", "breaking"),
        # From plain JSON to a model or a date, and back.
        ({}, {"type": "object"}, "breaking", "breaking"),
        ({"type": "array", "items": {"type": "object"}}, {}, "breaking", "breaking"),
        ({}, {"type": "array", "items": STRING}, "breaking", "additive"),
        ({}, {"type": "string", "format": "date-time"}, "breaking", "breaking"),
        ({"type": "integer", "format": "int32"}, {"type": "integer", "format": "int64"}, "additive", "cosmetic"),
        ({"type": "integer", "format": "int64"}, {"type": "integer", "format": "int32"}, "breaking", "cosmetic"),
        (STRING, {"type": "string", "format": "email"}, "breaking", "cosmetic"),
        (STRING, {"type": "string", "minLength": 1}, "breaking", "cosmetic"),
        ({"type": "string", "minLength": 2}, {"type": "string", "minLength": 1}, "additive", "cosmetic"),
    ],
)
def test_effect_depends_on_direction(
    derived: Document, old: Document, new: Document, in_a_request: str, in_a_response: str
) -> None:
    for put, expected in ((in_request, in_a_request), (in_response, in_a_response)):
        documents = copy.deepcopy(derived), copy.deepcopy(derived)
        for document, schema in zip(documents, (old, new), strict=True):
            put("extra", schema)(document)
        assert {str(change.rule.effect) for change in compare(*documents).changes} == {expected}


_COMPONENTS = ("A", "B")
_NAMES = st.sampled_from(["kind", "next", "x"])
_LEAVES = st.sampled_from(
    [
        {},
        *({"type": kind} for kind in ("string", "integer", "number", "object", "array", "null")),
        {"type": "string", "format": "date-time"},
        {"type": ["string", "null"]},
        {"type": "string", "enum": ["a", "b", None]},
        {"enum": [1, None]},
        {"const": "a"},
        *({"$ref": f"#/components/schemas/{name}"} for name in _COMPONENTS),
    ]
)


def _composed(schemas: st.SearchStrategy[Document]) -> st.SearchStrategy[Document]:
    members = st.lists(schemas, min_size=1, max_size=3)
    return st.one_of(
        st.fixed_dictionaries({"type": st.just("array"), "items": schemas}),
        st.fixed_dictionaries(
            {"type": st.just("object"), "properties": st.dictionaries(_NAMES, schemas, max_size=3)},
            optional={
                "required": st.lists(_NAMES, unique=True),
                "additionalProperties": st.just(False) | schemas,
            },
        ),
        *(
            st.fixed_dictionaries({key: members}, optional={"nullable": st.just(True), "title": st.just("T")})
            for key in ("anyOf", "oneOf", "allOf")
        ),
    )


_SCHEMAS = st.recursive(_LEAVES, _composed, max_leaves=6)
_PARTS = st.fixed_dictionaries(dict.fromkeys((*_COMPONENTS, "request", "response"), _SCHEMAS))
_DERIVED = json.loads((REPOSITORY / "spec/realtime.json").read_text(encoding="utf-8"))


def _document(parts: Document) -> Document:
    document: Document = copy.deepcopy(_DERIVED)
    document["components"]["schemas"] = {name: parts[name] for name in _COMPONENTS}
    in_request("extra", parts["request"])(document)
    in_response("extra", parts["response"])(document)
    return open_response_enums(document)


@settings(deadline=None)
@given(_PARTS, _PARTS)
def test_any_two_schemas_can_be_compared(old: Document, new: Document) -> None:
    before, after = _document(old), _document(new)
    assert compare(before, before).changes == []
    for change in compare(before, after).changes:
        assert change.where
        assert str(change)


def test_ambiguous_rename_is_removal_and_addition(derived: Document) -> None:
    in_request("one", STRING)(derived)
    new = copy.deepcopy(derived)
    del request(new)["properties"]["one"]
    for name in ("two", "three"):
        in_request(name, STRING)(new)
    assert [kind for kind, *_ in _found(derived, new)] == ["property removed", *["property added, optional"] * 2]


def test_types_are_written_as_annotations() -> None:
    reader = Reader({"components": {"schemas": {"Node": NODE}}})
    assert reader.text({"$ref": "#/components/schemas/Node"}, "", "x") == "Node"
    assert reader.text({"type": ["integer", "null"]}, "", "x") == "int | None"
    assert reader.text({"type": "array", "items": {"enum": ["a"]}}, "", "x") == "list[Literal['a']]"
    assert reader.text({"type": "object"}, "Board", "cards") == "BoardCards"
    assert reader.text({}, "", "x") == "Any"
