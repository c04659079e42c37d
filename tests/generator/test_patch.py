"""Overlays, as https://spec.openapis.org/overlay/v1.0.0.html specifies them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from generator.document import GeneratorError
from generator.pipeline.patch import overlay_files, patch

Document = dict[str, Any]
Run = Callable[..., Any]


def overlay(folder: Path, *actions: Any, name: str = "overlay.json", **fields: Any) -> Path:
    path = folder / name
    info = {"title": "t", "version": "1"}
    path.write_text(json.dumps({"overlay": "1.0.0", "info": info, "actions": actions, **fields}), encoding="utf-8")
    return path


def test_pinned_document_becomes_derived_document(repository: Path, tmp_path: Path, run: Run) -> None:
    selected, patched = tmp_path / "selected.json", tmp_path / "patched.json"
    assert run("select", "--output", selected).code == 0
    assert run("patch", selected, "--output", patched).code == 0
    assert patched.read_bytes() == (repository / "spec/realtime.json").read_bytes()
    assert run("patch", selected, "--overlays", repository / "overlays/openapi").out.encode() == patched.read_bytes()


def test_objects_merge_arrays_append_primitives_replace(tmp_path: Path) -> None:
    document = {"a": {"keep": 1, "list": [1], "inner": {"x": 1, "y": 2}, "value": "old", "null": None}}
    update = {"list": [2, 3], "inner": {"y": 3, "z": {}}, "value": "new", "null": {}, "added": [4]}
    assert patch(document, [overlay(tmp_path, {"target": "$.a", "update": update})]) == {
        "a": {
            "keep": 1,
            "list": [1, 2, 3],
            "inner": {"x": 1, "y": 3, "z": {}},
            "value": "new",
            "null": {},
            "added": [4],
        }
    }


def test_array_target_accepts_entry_or_list(tmp_path: Path) -> None:
    append = overlay(tmp_path, {"target": "$.a", "update": {"x": 1}}, {"target": "$.a", "update": ["y", "z"]})
    assert patch({"a": [0]}, [append]) == {"a": [0, {"x": 1}, "y", "z"]}


def test_actions_apply_in_order(tmp_path: Path) -> None:
    actions = [
        {"target": "$.a", "remove": True},
        {"target": "$", "update": {"a": {"fresh": True}}},
        {"target": "$.a", "update": {"more": True}, "remove": False, "description": "d", "x-why": "w"},
    ]
    assert patch({"a": {"stale": True}}, [overlay(tmp_path, *actions)]) == {"a": {"fresh": True, "more": True}}


def test_overlays_apply_in_order_of_names(tmp_path: Path) -> None:
    for name in ("20.yaml", "10.json", "30.yml"):
        overlay(tmp_path, {"target": "$", "update": {"by": [name], "last": name}}, name=name)
    (tmp_path / "README.md").write_text("not an overlay", encoding="utf-8")
    (tmp_path / ".hidden.yaml").write_text("not an overlay", encoding="utf-8")
    assert patch({}, overlay_files(tmp_path)) == {"by": ["10.json", "20.yaml", "30.yml"], "last": "30.yml"}


@pytest.mark.parametrize(
    ("target", "left"),
    [
        ("$.a[?@.n > 1]", [{"n": 0}, {"n": 1}]),
        ("$.a[1, 0]", [{"n": 2}, {"n": 3}]),
        ("$.a[0, 0]", [{"n": 1}, {"n": 2}, {"n": 3}]),
        ("$.a[::-2]", [{"n": 0}, {"n": 2}]),
        ("$.a[*]", []),
    ],
)
def test_several_members_of_list_are_removed(tmp_path: Path, target: str, left: list[Any]) -> None:
    document = {"a": [{"n": n} for n in range(4)]}
    assert patch(document, [overlay(tmp_path, {"target": target, "remove": True})]) == {"a": left}


def test_nested_matches_are_all_changed(tmp_path: Path) -> None:
    document: Document = {"a": {"hit": {"hit": {"x": []}}}}
    update = overlay(tmp_path, {"target": "$..hit", "update": {"x": [1]}})
    assert patch(document, [update]) == {"a": {"hit": {"hit": {"x": [1]}, "x": [1]}}}
    assert patch(document, [overlay(tmp_path, {"target": "$..hit", "remove": True})]) == {"a": {}}


def test_target_selected_twice_is_updated_once(tmp_path: Path) -> None:
    assert patch({"a": []}, [overlay(tmp_path, {"target": "$['a', 'a']", "update": 1})]) == {"a": [1]}


def test_optional_action_may_match_nothing(tmp_path: Path) -> None:
    actions = [{"target": "$.no", "x-optional": True, **rest} for rest in ({"remove": True}, {"update": {"x": 1}})]
    assert patch({"a": []}, [overlay(tmp_path, *actions)]) == {"a": []}


def test_matches_do_not_share_added_values(tmp_path: Path) -> None:
    objects = {"target": "$['a', 'b']", "update": {"new": {"list": []}}}
    lists = {"target": "$['c', 'd']", "update": {"list": []}}
    one = {"target": "$.a.new.list", "update": 1}
    other = {"target": "$.c[0].list", "update": 1}
    assert patch({"a": {}, "b": {}, "c": [], "d": []}, [overlay(tmp_path, objects, lists, one, other)]) == {
        "a": {"new": {"list": [1]}},
        "b": {"new": {"list": []}},
        "c": [{"list": [1]}],
        "d": [{"list": []}],
    }


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ({"target": "$.no", "remove": True}, "matches nothing"),
        ({"target": "$.no", "remove": True, "x-optional": "yes"}, "matches nothing"),
        ({"target": "$.a[?@.n == 9]", "update": {}}, "matches nothing"),
        ({"target": "$", "remove": True}, "the root of the document cannot be removed"),
        ({"target": "$.a[", "remove": True}, "is not an RFC 9535 JSONPath"),
        ({"target": "a", "remove": True}, "is not an RFC 9535 JSONPath"),
        ({"target": "$.a | $.b", "remove": True}, "is not an RFC 9535 JSONPath"),
        ({"target": "$.a", "update": {}, "remove": True}, "either `update` or `remove: true`"),
        ({"target": "$.a"}, "either `update` or `remove: true`"),
        ({"target": "$.a", "remove": False}, "either `update` or `remove: true`"),
        ({"target": "$.a", "remove": "true"}, "either `update` or `remove: true`"),
        ({"update": {}}, "either `update` or `remove: true`"),
        ({"target": 3, "update": {}}, "either `update` or `remove: true`"),
        ({"target": "$.a", "updates": {}}, "has the unknown field 'updates'"),
        ({"target": "$.text", "update": "x"}, "selects a single value"),
        ({"target": "$.text", "remove": True}, "selects a single value"),
        ({"target": "$", "update": "x"}, "selects an object, so `update` must be an object"),
        ({"target": "$", "update": {"a": {}}}, "another type for 'a'"),
        ({"target": "$", "update": {"o": "x"}}, "another type for 'o'"),
    ],
)
def test_invalid_action_is_refused_with_file_line_and_target(tmp_path: Path, action: Document, message: str) -> None:
    document = {"a": [{"n": 1}], "o": {}, "text": "t"}
    before = copy.deepcopy(document)
    good = {"target": "$", "update": {"touched": True}}
    path = overlay(tmp_path, good, action)
    with pytest.raises(GeneratorError) as caught:
        patch(document, [path])
    assert str(caught.value).startswith(f"{path}: line 1: action 2, target {action.get('target')}: ")
    assert message in str(caught.value)
    assert document == before


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"overlay": "1.1.0"}, "expected `overlay: 1.0.0`, found '1.1.0'"),
        ({"overlay": 1.0}, "found 1.0"),
        ({"overlay": None}, "found None"),
        ({"action": []}, "has the unknown field 'action'"),
        ({"actions": []}, "`actions` must be a list"),
        ({"actions": {}}, "`actions` must be a list"),
        ({"actions": ["remove"]}, "`actions` must be a list"),
    ],
)
def test_invalid_overlay_is_refused(tmp_path: Path, fields: Document, message: str) -> None:
    path = overlay(tmp_path, {"target": "$", "update": {}}, **fields)
    with pytest.raises(GeneratorError) as caught:
        patch({}, [path])
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_folder_without_overlays_is_refused(tmp_path: Path, repository: Path, run: Run) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        result = run("patch", repository / "spec/realtime.json", "--overlays", folder)
        assert result.code == 1
        assert result.err.startswith(f"error: {folder}: contains no overlay document")


# The first letter of a key determines the type of its value, so any two of these objects can be merged.
_primitives = st.none() | st.booleans() | st.integers() | st.text(max_size=3)


def _object_of(
    objects: st.SearchStrategy[Document], lists: st.SearchStrategy[list[Any]]
) -> st.SearchStrategy[Document]:
    fields: dict[str, st.SearchStrategy[Any]] = {"p1": _primitives, "p2": _primitives, "l1": lists, "l2": lists}
    return st.fixed_dictionaries({}, optional={**fields, "o1": objects, "o2": objects})


_flat = _object_of(st.just({}), st.lists(_primitives, max_size=2))
_objects = _object_of(_object_of(_flat, st.lists(_flat, max_size=2)), st.lists(_primitives | _flat, max_size=2))


def _assert_merged(old: Document, update: Document, new: Document) -> None:
    assert new.keys() == old.keys() | update.keys()
    for key, value in new.items():
        if key not in update:
            assert value == old[key]
        elif key not in old or key.startswith("p"):
            assert value == update[key]
        elif key.startswith("l"):
            assert value == old[key] + update[key]
        else:
            _assert_merged(old[key], update[key], value)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(old=_objects, update=_objects)
def test_merge_keeps_appends_or_replaces_each_key(tmp_path: Path, old: Document, update: Document) -> None:
    before = copy.deepcopy(old)
    document = {"one": old, "two": old}
    patched = patch(document, [overlay(tmp_path, {"target": "$.one", "update": update})])
    _assert_merged(old, update, patched["one"])
    assert patched["two"] == old
    assert old == before

    both = overlay(tmp_path, {"target": "$.*", "update": update})
    assert patch(document, [both]) == {"one": patched["one"], "two": patched["one"]}


def test_error_names_first_line_of_action(tmp_path: Path) -> None:
    path = tmp_path / "overlay.yaml"
    path.write_text(
        "# Why\noverlay: 1.0.0\nactions:\n  - target: $\n    update: {a: 1}\n\n  # And this\n"
        "  - description: gone\n    target: $.b\n    remove: true\n",
        encoding="utf-8",
    )
    with pytest.raises(GeneratorError, match=r"overlay.yaml: line 8: action 2, target \$.b: matches nothing"):
        patch({}, [path])


TYPED = {"a": {"b": {"type": "integer", "description": "x", "nullable": False, "enum": [1], "title": "T"}}}


@pytest.mark.parametrize(
    ("update", "stated", "new"),
    [
        ({"type": "string"}, 'type: "integer"', 'type: "string"'),
        ({"nullable": True}, "nullable: false", "nullable: true"),
        ({"nullable": 0}, "nullable: false", "nullable: 0"),
        ({"type": ["integer"]}, 'type: "integer"', 'type: ["integer"]'),
        ({"anyOf": [{"type": "string"}]}, 'type: "integer"', 'anyOf: [{"type": "string"}]'),
        ({"oneOf": [{"type": "boolean"}]}, 'type: "integer"', 'oneOf: [{"type": "boolean"}]'),
    ],
)
def test_update_that_hides_published_value_is_refused(tmp_path: Path, update: Document, stated: str, new: str) -> None:
    path = overlay(tmp_path, {"target": "$.a", "update": {"new": 1}}, {"target": "$", "update": {"a": {"b": update}}})
    with pytest.raises(GeneratorError) as failure:
        patch(TYPED, [path])
    assert str(failure.value).startswith(f"{path}: line ")
    assert (
        ": action 2, target $: `update` would hide a published value at a.b: "
        f"the document says {stated}, the overlay {new}. Adapt" in str(failure.value)
    )


@pytest.mark.parametrize(
    "update",
    [
        {"type": "integer", "nullable": False},
        {"title": "Other", "description": "y", "operationId": "z"},
        {"format": "int64", "enum": [2]},
        {"anyOf": [{"type": "string"}, {"type": "number"}]},
        {"anyOf": [{"$ref": "#/x"}]},
    ],
)
def test_names_additions_and_the_same_value_hide_nothing(tmp_path: Path, update: Document) -> None:
    patch(TYPED, [overlay(tmp_path, {"target": "$.a.b", "update": update})])


def test_removed_value_and_value_of_an_overlay_may_be_replaced(tmp_path: Path) -> None:
    replaced = {"target": "$.a", "update": {"b": {"type": "string"}}}
    last = {"target": "$.a.b", "update": {"type": "array"}}
    path = overlay(tmp_path, {"target": "$.a.b", "remove": True}, replaced, last)
    assert patch(TYPED, [path]) == {"a": {"b": {"type": "array"}}}
    path = overlay(tmp_path, {"target": "$.l[0]", "remove": True}, {"target": "$.l[0]", "update": {"type": 2}})
    with pytest.raises(GeneratorError, match="the document says type: 1"):
        patch({"l": [{"type": 0}, {"type": 1}]}, [path])
