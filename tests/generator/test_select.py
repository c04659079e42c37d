"""Selection of operations by tag, and of the components that they use."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from generator.document import GeneratorError
from generator.pipeline.select import select

Document = dict[str, Any]
Run = Callable[..., Any]

SCHEMA = "#/components/schemas/"
SECTIONS = ("schemas", "parameters", "headers", "responses", "requestBodies", "securitySchemes")


def document(*operations: Document, **components: Any) -> Document:
    """Return a document with one path per operation, tagged T by default, and one operation tagged `Other`."""
    paths: Document = {f"/p{i}": {"post": {"tags": ["T"], **operation}} for i, operation in enumerate(operations)}
    paths["/other"] = {"get": {"tags": ["Other"], "responses": {"200": {"$ref": "#/components/responses/Unused"}}}}
    return {
        "openapi": "3.0.1",
        "info": {"title": "t", "version": "1"},
        "paths": paths,
        "components": {**components, "responses": {"Unused": {"description": ""}, **components.get("responses", {})}},
    }


def kept(selected: Document) -> set[str]:
    return {f"{section}/{name}" for section, members in selected.get("components", {}).items() for name in members}


def body(schema: Any) -> Document:
    return {"requestBody": {"content": {"application/json": {"schema": schema}}}}


def names(*names: str) -> Document:
    return {name: {"type": "object"} for name in names}


def test_realtime_part_of_pinned_document(repository: Path, run: Run) -> None:
    result = run("select")
    pinned = json.loads((repository / "spec/forge-containers-api.json").read_text(encoding="utf-8"))
    selected = json.loads(result.out)
    assert result.code == 0
    assert list(selected["paths"]) == [path for path in pinned["paths"] if "realtime" in path]
    assert selected["paths"].items() <= pinned["paths"].items()
    assert selected["components"] == {"securitySchemes": pinned["components"]["securitySchemes"]}
    assert [tag["name"] for tag in selected["tags"]] == ["Forge Realtime"]


def test_several_tags_are_selected_into_file(repository: Path, tmp_path: Path, run: Run) -> None:
    pinned = repository / "spec/forge-containers-api.json"
    output = tmp_path / "selected.json"
    result = run("select", pinned, "--tag", "Forge Context", "--tag", "App Installations", "--output", output)
    selected = json.loads(output.read_text(encoding="utf-8"))
    assert result == (0, "", "")
    assert list(selected["paths"]) == ["/v1/installations", "/invocation/context"]
    assert list(selected["components"]["schemas"]) == ["InvocationContext", "App", "Context"]


@pytest.mark.parametrize(
    ("schema", "reached"),
    [
        ({"$ref": SCHEMA + "A"}, {"A"}),
        (
            {"allOf": [{"$ref": SCHEMA + "A"}], "anyOf": [{"$ref": SCHEMA + "B"}], "oneOf": [{"$ref": SCHEMA + "C"}]},
            {*"ABC"},
        ),
        ({"items": {"additionalProperties": {"not": {"$ref": SCHEMA + "A"}}}}, {"A"}),
        ({"properties": {"x": {"patternProperties": {"y": {"if": {"$ref": SCHEMA + "A"}}}}}}, {"A"}),
        ({"discriminator": {"propertyName": "k", "mapping": {"a": "A", "b": SCHEMA + "B"}}}, {*"AB"}),
        ({"$ref": SCHEMA + "A", "properties": {"b": {"$ref": SCHEMA + "B"}}}, {*"AB"}),
        # Properties can have the names of keywords …
        ({"properties": {"$ref": {"$ref": SCHEMA + "A"}, "example": {"$ref": SCHEMA + "B"}}}, {*"AB"}),
        ({"properties": {"default": {"$ref": SCHEMA + "A"}, "enum": {"$ref": SCHEMA + "B"}}}, {*"AB"}),
        ({"properties": {"mapping": {"$ref": SCHEMA + "A"}, "propertyName": {"$ref": SCHEMA + "B"}}}, {*"AB"}),
        ({"properties": {"security": {"$ref": SCHEMA + "A"}, "x-y": {"$ref": SCHEMA + "B"}}}, {*"AB"}),
        # … and not everything that looks like a reference is one.
        ({"example": {"$ref": SCHEMA + "A"}, "default": {"$ref": "nowhere"}, "enum": [{"$ref": SCHEMA + "B"}]}, set()),
        ({"const": {"$ref": SCHEMA + "A"}, "examples": [{"$ref": SCHEMA + "B"}], "x-y": {"$ref": SCHEMA + "C"}}, set()),
        ({"required": ["$ref", "mapping"], "mapping": {"a": "A"}, "security": [{"A": []}]}, set()),
        ({"$ref": 3, "items": [{"$ref": SCHEMA + "A"}]}, set()),
        (True, set()),
    ],
)
def test_referenced_schemas_are_kept(schema: Any, reached: set[str]) -> None:
    assert kept(select(document(body(schema), schemas=names(*"ABCD")), ["T"])) == {
        f"schemas/{name}" for name in reached
    }


def test_every_kind_of_reference_is_followed() -> None:
    operation = {
        "parameters": [{"$ref": "#/components/parameters/P"}],
        "requestBody": {"$ref": "#/components/requestBodies/B"},
        "responses": {"default": {"$ref": "#/components/responses/R"}},
        "callbacks": {"done": {"$ref": "#/components/callbacks/C"}},
        "security": [{"key": []}],
    }
    components = {
        "parameters": {"P": {"name": "p", "in": "query", "content": {"a/b": {"schema": {"$ref": SCHEMA + "P"}}}}},
        "requestBodies": {"B": {"content": {"a/b": {"examples": {"e": {"$ref": "#/components/examples/E"}}}}}},
        "responses": {
            "R": {
                "headers": {"h": {"$ref": "#/components/headers/H"}},
                "links": {"l": {"$ref": "#/components/links/L"}},
            }
        },
        "headers": {"H": {"schema": {"$ref": SCHEMA + "H"}}},
        "links": {"L": {"parameters": {"x": {"$ref": "not a reference"}}}},
        "callbacks": {"C": {"{$request.body#/url}": {"post": body({"$ref": SCHEMA + "C"})}}},
        "examples": {"E": {"value": {"$ref": "not a reference"}}, "Unused": {}},
        "schemas": names("P", "H", "C", "Unused"),
        "securitySchemes": names("key", "Unused"),
    }
    expected = {"parameters/P", "requestBodies/B", "responses/R", "headers/H", "links/L", "callbacks/C", "examples/E"}
    expected |= {"schemas/P", "schemas/H", "schemas/C", "securitySchemes/key"}
    assert kept(select(document(operation, **components), ["T"])) == expected


def test_pointer_into_component_keeps_whole_component() -> None:
    schemas = {"A b": {"properties": {"x/y": {"type": "string"}}}, "B": {}}
    selected = select(document(body({"$ref": "#/components/schemas/A%20b/properties/x~1y"}), schemas=schemas), ["T"])
    assert selected["components"] == {"schemas": {"A b": schemas["A b"]}}


def test_root_security_is_kept_unless_all_operations_override_it() -> None:
    plain: Document = {}
    overriding: Document = {"security": [{"own": []}]}
    open_to_all: Document = {"security": []}
    schemes = names("root", "own")

    def selected(*operations: Document) -> Document:
        return select({**document(*operations, securitySchemes=schemes), "security": [{"root": []}]}, ["T"])

    assert kept(selected(plain, overriding)) == {"securitySchemes/root", "securitySchemes/own"}
    assert kept(selected(overriding)) == {"securitySchemes/own"}
    assert "security" not in selected(overriding, open_to_all)
    assert kept(selected(open_to_all)) == set()


def test_path_fields_are_kept_without_other_methods() -> None:
    given = document({})
    given["paths"]["/p0"] = {
        "summary": "s",
        "get": {"tags": ["Other"]},
        "parameters": [{"$ref": "#/components/parameters/P"}],
        "post": {"tags": ["Other", "T"]},
        "servers": [{"url": "/"}],
    }
    given["components"]["parameters"] = names("P", "Unused")
    given["webhooks"] = {"w": {"post": body({"$ref": SCHEMA + "Missing"})}}
    selected = select(given, ["T"])
    assert list(selected["paths"]) == ["/p0"]
    assert list(selected["paths"]["/p0"]) == ["summary", "parameters", "post", "servers"]
    assert kept(selected) == {"parameters/P"}
    assert "webhooks" not in selected


def test_recursive_schemas_are_kept() -> None:
    schemas = {
        "A": {"properties": {"b": {"$ref": SCHEMA + "B"}, "a": {"$ref": SCHEMA + "A"}}},
        "B": {"allOf": [{"$ref": SCHEMA + "A"}]},
        "C": {"$ref": SCHEMA + "C"},
    }
    given = document(body({"anyOf": [{"$ref": SCHEMA + "A"}, {"$ref": SCHEMA + "C"}]}), schemas=schemas)
    assert kept(select(given, ["T"])) == {"schemas/A", "schemas/B", "schemas/C"}


def _with(**changes: Any) -> Document:
    return {**document({}), **changes}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "is not an OpenAPI 3.0 or 3.1 document: found openapi None"),
        ({"swagger": "2.0", "paths": {}}, "found swagger 2.0"),
        (_with(openapi="3.2.0"), "found openapi '3.2.0'"),
        (_with(openapi=3.0), "found openapi 3.0"),
        ({"openapi": "3.0.1"}, "has no `paths` object"),
        (_with(paths=[]), "has no `paths` object"),
        (_with(paths={}), "no operation is tagged 'T'. Tags of this document: none"),
        (
            _with(paths={"/p": {"get": {"tags": ["t", "Two"]}}}),
            "no operation is tagged 'T'. Tags of this document: 't', 'Two'",
        ),
        (_with(paths={"/p": "x"}), "the path /p is not an object"),
        (_with(paths={"/p": {"$ref": "#/components/pathItems/P"}}), r"the path /p is a \$ref"),
        (_with(paths={"/p": {"post": ["x"]}}), "POST /p is not an object"),
        (_with(paths={"/p": {"post": {"tags": "T"}}}), "the `tags` of POST /p are not a list of strings"),
        (document(body({"$ref": SCHEMA + "No"})), "'#/components/schemas/No' has no target"),
        (document(body({"$ref": SCHEMA + "A/properties/x"}), schemas=names("A")), "has no target"),
        (document({"security": [{"no": []}]}), "'#/components/securitySchemes/no' has no target"),
        (document(body({"discriminator": {"mapping": {"a": "No"}}})), "'#/components/schemas/No' has no target"),
        (document(body({"$ref": "other.json#/components/schemas/A"})), "points outside of #/components"),
        (document(body({"$ref": "https://example.com/a.json"})), "points outside of #/components"),
        (document(body({"$ref": "#/paths/~1other/get"})), "points outside of #/components"),
        (
            _with(components=None, paths={"/p": {"get": {"tags": ["T"], **body({"$ref": SCHEMA + "A"})}}}),
            "has no target",
        ),
    ],
)
def test_invalid_document_is_refused(given: Document, message: str) -> None:
    with pytest.raises(GeneratorError, match=message):
        select(given, ["T"])


def test_error_names_file_and_keeps_output(tmp_path: Path, run: Run) -> None:
    path, output = tmp_path / "given.json", tmp_path / "out.json"
    path.write_text(json.dumps(document({})), encoding="utf-8")
    output.write_text("before", encoding="utf-8")
    result = run("select", path, "--output", output)
    assert result.code == 1
    assert result.err.startswith(
        f"error: {path}: no operation is tagged 'Forge Realtime'. Tags of this document: 'T', 'Other'."
    )
    assert output.read_text(encoding="utf-8") == "before"


@st.composite
def documents(draw: st.DrawFn) -> Document:
    """Generate documents in which every `$ref` is a reference, so that a naive search is an oracle."""
    schema_names = [f"S{i}" for i in range(draw(st.integers(1, 6)))]
    reference = st.sampled_from(schema_names).map(lambda name: {"$ref": SCHEMA + name})
    schemas = st.recursive(
        reference | st.just({"type": "string"}),
        lambda inner: st.one_of(
            st.dictionaries(st.sampled_from(["a", "$ref", "default", "items"]), inner, max_size=3).map(
                lambda properties: {"type": "object", "properties": properties}
            ),
            inner.map(lambda items: {"type": "array", "items": items}),
            st.lists(inner, min_size=1, max_size=2).map(lambda members: {"allOf": members}),
        ),
        max_leaves=4,
    )
    media = schemas.map(lambda schema: {"application/json": {"schema": schema}})
    components: Document = {
        "schemas": {name: draw(schemas) for name in schema_names},
        "headers": {f"H{i}": {"schema": draw(schemas)} for i in range(2)},
        "parameters": {f"P{i}": {"name": "p", "in": "query", "schema": draw(schemas)} for i in range(2)},
        "requestBodies": {"B0": {"content": draw(media)}},
    }
    header = st.sampled_from(["H0", "H1"]).map(lambda name: {"h": {"$ref": f"#/components/headers/{name}"}})
    response = st.fixed_dictionaries({"description": st.just(""), "headers": header, "content": media})
    components["responses"] = {f"R{i}": draw(response) for i in range(2)}
    operation = st.fixed_dictionaries(
        {
            "tags": st.lists(st.sampled_from(["T", "U"]), min_size=1, max_size=2),
            "responses": st.dictionaries(
                st.sampled_from(["200", "default"]),
                response | st.sampled_from(["R0", "R1"]).map(lambda name: {"$ref": f"#/components/responses/{name}"}),
            ),
        },
        optional={
            "parameters": st.just([{"$ref": "#/components/parameters/P0"}]),
            "requestBody": st.just({"$ref": "#/components/requestBodies/B0"}),
        },
    )
    item = st.dictionaries(st.sampled_from(["get", "post"]), operation, min_size=1)
    path_level = st.sampled_from([{}, {"parameters": [{"$ref": "#/components/parameters/P1"}]}])
    paths = {f"/{i}": {**draw(path_level), **draw(item)} for i in range(draw(st.integers(1, 4)))}
    paths["/t"] = {"get": {"tags": ["T"], "responses": {}}}
    order = draw(st.permutations(["openapi", "info", "paths", "components"]))
    whole: Document = {"openapi": "3.0.1", "info": {}, "paths": paths, "components": components}
    return {key: whole[key] for key in order}


def _pointers(node: Any) -> Iterator[str]:
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        if key == "$ref" and isinstance(value, str):
            yield value
        else:
            yield from _pointers(value)


def _closure(given: Document, node: Any) -> set[str]:
    found: set[str] = set()
    waiting = list(_pointers(node))
    while waiting:
        pointer = waiting.pop()
        if pointer not in found:
            found.add(pointer)
            _, _, section, name = pointer.split("/")
            waiting.extend(_pointers(given["components"][section][name]))
    return found


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(documents())
def test_selection_is_closed_minimal_and_ordered(given: Document) -> None:
    before = copy.deepcopy(given)
    selected = select(given, ["T"])
    assert given == before

    wanted = [
        (path, method)
        for path, item in given["paths"].items()
        for method, operation in item.items()
        if method in ("get", "post") and "T" in operation["tags"]
    ]
    assert [
        (path, method) for path, item in selected["paths"].items() for method in item if method in ("get", "post")
    ] == wanted
    assert {f"#/components/{name}" for name in kept(selected)} == _closure(given, selected["paths"])
    assert _closure(selected, selected) == _closure(given, selected["paths"])

    for section, members in selected.get("components", {}).items():
        assert members.items() <= given["components"][section].items()
        assert list(members) == [name for name in given["components"][section] if name in members]
    assert list(selected) == [key for key in given if key in selected]
    assert select(selected, ["T"]) == selected
