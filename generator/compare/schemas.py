"""Comparison of two schemas, with a rule for each change in the direction of the schema."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from generator.compare.rules import RULES, Change
from generator.compare.schema_types import ANNOTATIONS, FORMATS, Reader, SchemaType
from generator.names import attribute_name

_HANDLED = frozenset(
    {"type", "nullable", "enum", "const", "properties", "required", "additionalProperties", "items", "prefixItems"}
    | {"allOf", "anyOf", "oneOf", "default", "deprecated", "$ref", "$defs", "definitions"}
)
_UPPER = frozenset({"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"})
# Pairs of formats in which the second accepts all values of the first.
_LOOSER = frozenset({("format", "int32", "int64"), ("format", "float", "double")})
_LOWER = frozenset({"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"})


@dataclass(frozen=True)
class Location:
    """The location of two schemas.

    Attributes:
        direction: "request" or "response".
        operation: The method and path of the operation.
        part: The part of the operation; empty for the operation itself.
        python: The Python names that a change here affects.
        parents: The class or operation that contains the schema, on each side.
        names: The name of the schema there, on each side.
        inside: The path from the part to the schema, through properties and lists.
    """

    direction: str
    operation: str
    part: str
    python: tuple[str, ...]
    parents: tuple[str, str] = ("", "")
    names: tuple[str, str] = ("", "")
    inside: str = ""

    @property
    def where(self) -> str:
        """The location in the document, for people."""
        return ", ".join(filter(None, [self.operation, self.part, self.inside.removeprefix(".")]))


class SchemaComparison:
    """Comparison of schemas of two documents, which collects the changes.

    Attributes:
        changes: The changes, in the order of the documents.
        models: Names of the models in each direction, on both sides.
    """

    def __init__(self, old: Reader, new: Reader) -> None:
        self.old = old
        self.new = new
        self.changes: list[Change] = []
        self.models: dict[str, set[str]] = {"request": set(), "response": set()}
        self._active: list[tuple[str, str]] = []
        self._compared: set[tuple[str, str, str, str]] = set()
        self._noting: list[str] = []

    def add(self, kind: str, location: Location, old: str | None = None, new: str | None = None) -> None:
        """Add a change. `kind` is a key of `RULES`."""
        rule = RULES[kind][location.direction]
        self.changes.append(Change(kind, location.direction, rule, location.python, (location.where,), old, new))

    def note(self, location: Location, schema: Any, reader: Reader, side: int) -> None:
        """Record the models of a schema."""
        text = json.dumps(schema)
        if text in self._noting:
            return
        self._noting.append(text)
        for schema_type in reader.types(schema, location.parents[side], location.names[side]):
            if schema_type.model in self.models[location.direction]:
                continue
            if schema_type.model:
                self.models[location.direction].add(schema_type.model)
            if schema_type.label == "list":
                item = replace(location, names=(f"{location.names[0]}_item", f"{location.names[1]}_item"))
                self.note(item, reader.items(schema_type), reader, side)
            for name, member in schema_type.schema.get("properties", {}).items():
                self.note(replace(location, parents=(schema_type.model,) * 2, names=(name, name)), member, reader, side)
        self._noting.pop()

    def compare(self, old: Any, new: Any, location: Location) -> None:
        """Compare the types and descriptions of two schemas."""
        pair = (json.dumps(old), json.dumps(new))
        if pair in self._active:
            return
        self._active.append(pair)
        self._compare_annotations(old, new, location)
        self._compare_types(old, new, location)
        self._active.pop()

    def compare_values(self, old: Any, new: Any, location: Location) -> None:
        """Compare the default and the deprecation of two properties or parameters."""
        before, after = self.old.merge(old), self.new.merge(new)
        if before.get("default") != after.get("default"):
            self.add(
                "default changed",
                location,
                *(None if "default" not in it else repr(it["default"]) for it in (before, after)),
            )
        self.compare_deprecated(
            old=before.get("deprecated", False), new=after.get("deprecated", False), location=location
        )

    def compare_deprecated(self, *, old: bool, new: bool, location: Location, subject: str = "") -> None:
        """Compare the deprecation of an operation, a property or a parameter."""
        if new and not old:
            self.add(f"{subject}deprecated", location)
        elif old and not new:
            self.add(f"{subject}no longer deprecated", location)

    def compare_required(self, *, old: bool, new: bool, location: Location) -> None:
        """Compare whether a property, a parameter or a body is required."""
        if new and not old:
            self.add("became required", location)
        elif old and not new:
            self.add("became optional", location)

    def _compare_annotations(self, old: Any, new: Any, location: Location) -> None:
        before, after = self.old.merge(old), self.new.merge(new)
        descriptions = {
            key for key in before.keys() | after.keys() if key in ANNOTATIONS - {"title"} or key.startswith("x-")
        }
        if any(before.get(key) != after.get(key) for key in descriptions):
            self.add("description changed", location)

    def _compare_types(self, old: Any, new: Any, location: Location) -> None:
        before = self.old.types(old, location.parents[0], location.names[0])
        after = self.new.types(new, location.parents[1], location.names[1])
        pairs, removed, added = _paired(before, after)
        texts: list[str] = []
        if removed or added:
            texts = [
                self.old.text(old, location.parents[0], location.names[0]),
                self.new.text(new, location.parents[1], location.names[1]),
            ]
        for types, kind in ((added, "became nullable"), (removed, "no longer nullable")):
            if any(schema_type.label == "None" for schema_type in types):
                self.add(kind, location, *texts)
        for reader, schemas, side in ((self.old, old, 0), (self.new, new, 1)):
            self.note(location, schemas, reader, side)
        for types, kind in ((removed, "enumeration removed"), (added, "enumeration added")):
            for schema_type in [it for it in types if it.values is not None and _is_open(it, before, after)]:
                types.remove(schema_type)
                self.add(kind, replace(location, python=(*location.python, schema_type.model)), *texts)
        if change := self._type_change(removed, added, before, after):
            self.add(change, location, *texts)
        for one, other in pairs:
            self._compare_matched(one, other, location, is_open=_is_open(one, before, after))

    def _type_change(
        self, removed: list[SchemaType], added: list[SchemaType], old: list[SchemaType], new: list[SchemaType]
    ) -> str | None:
        removed_labels, added_labels = ({one.label for one in types} - {"None"} for types in (removed, added))
        old_labels, new_labels = ({one.label for one in types} for types in (old, new))
        # A type checker accepts an int as a float, and anything as Any.
        still_accepted = {
            label for label in removed_labels if "Any" in new_labels or (label == "int" and "float" in new_labels)
        }
        accepted_before = {
            label for label in added_labels if "Any" in old_labels or (label == "int" and "float" in old_labels)
        }
        if not (removed_labels or added_labels):
            return None
        # Any stands for plain JSON, which is not interchangeable with a model.
        if ("Any" in removed_labels and any(_is_converted(one, self.new) for one in added)) or (
            "Any" in added_labels and any(_is_converted(one, self.old) for one in removed)
        ):
            return "type changed"
        if removed_labels <= still_accepted and added_labels:
            return "type widened"
        if added_labels <= accepted_before and removed_labels:
            return "type narrowed"
        if not removed_labels:
            return "type widened"
        return "type narrowed" if not added_labels else "type changed"

    def _compare_matched(self, old: SchemaType, new: SchemaType, location: Location, *, is_open: bool) -> None:
        if old.model != new.model and old.model and new.model:
            self.add("model renamed", replace(location, python=(old.model, new.model)), old.model, new.model)
        self._compare_enumerations(old, new, location, is_open=is_open)
        self._compare_constraints(old, new, location)
        if old.label == "list":
            names = (f"{location.names[0]}_item", f"{location.names[1]}_item")
            item = replace(location, inside=f"{location.inside}[]", names=names)
            self.compare(self.old.items(old), self.new.items(new), item)
        elif old.label == "object":
            key = (old.model, new.model, location.direction, location.operation)
            if key not in self._compared:
                self._compared.add(key)
                self._compare_properties(old, new, location)
                self._compare_additional(old, new, location)

    def _compare_enumerations(self, old: SchemaType, new: SchemaType, location: Location, *, is_open: bool) -> None:
        if old.values is None or new.values is None:
            if old.values is not None or new.values is not None:
                narrowed = old.values is None
                texts = [
                    schema_type.label if schema_type.values is None else _values(schema_type.values)
                    for schema_type in (old, new)
                ]
                self.add("type narrowed" if narrowed else "type widened", location, *texts)
                if old.model:
                    self.add("enumeration removed", replace(location, python=(old.model,)), texts[0])
            return
        if removed := [value for value in old.values if value not in new.values]:
            self.add("known value removed" if is_open else "enum value removed", location, old=_values(removed))
        if added := [value for value in new.values if value not in old.values]:
            self.add("known value added" if is_open else "enum value added", location, new=_values(added))

    def _compare_constraints(self, old: SchemaType, new: SchemaType, location: Location) -> None:
        for key in dict.fromkeys([*old.schema, *new.schema]):
            before, after = old.schema.get(key), new.schema.get(key)
            if key in _HANDLED or key in ANNOTATIONS or key.startswith("x-") or before == after:
                continue
            if key == "format" and old.label == new.label and (before in FORMATS or after in FORMATS):
                continue
            tightened = _is_tightened(key, before, after)
            kind = "constraint tightened" if tightened else "constraint loosened"
            self.add(kind, location, *(None if value is None else f"{key}: {value}" for value in (before, after)))

    def _compare_properties(self, old: SchemaType, new: SchemaType, location: Location) -> None:
        before, after = old.schema.get("properties", {}), new.schema.get("properties", {})
        required = tuple(set(schema_type.schema.get("required", ())) for schema_type in (old, new))

        def at(name: str, new_name: str | None = None) -> Location:
            names = (name, new_name or name)
            models = (old.model or new.model, new.model or old.model)
            python = tuple(
                dict.fromkeys(f"{model}.{attribute_name(it)}" for model, it in zip(models, names, strict=True))
            )
            if len(python) == 2 and new_name is None:
                python = python[1:]  # The renamed class is a separate change.
            return replace(location, inside=f"{location.inside}.{name}", python=python, parents=models, names=names)

        renamed = paired_by_content(
            {name: (self.old.canonical(before[name]), name in required[0]) for name in before if name not in after},
            {name: (self.new.canonical(after[name]), name in required[1]) for name in after if name not in before},
        )
        for name, schema in before.items():
            if name in renamed:
                self.add("property renamed", at(name, renamed[name]), name, renamed[name])
            elif name not in after:
                removed = at(name)
                python = (f"{old.model}.{attribute_name(name)}",)
                self.add("property removed", replace(removed, python=python), self.old.text(schema, old.model, name))
                self.note(removed, schema, self.old, 0)
            else:
                here = at(name)
                self.compare_required(old=name in required[0], new=name in required[1], location=here)
                self.compare_values(schema, after[name], here)
                self.compare(schema, after[name], here)
        if location.direction == "request":
            # Properties can be required without a description.
            for name in sorted((required[0] ^ required[1]) - before.keys() - after.keys()):
                unknown = replace(at(name), python=(f"{new.model}.additional_properties",))
                self.compare_required(old=name in required[0], new=name in required[1], location=unknown)
        for name, schema in after.items():
            if name not in before and name not in renamed.values():
                kind = "property added, required" if name in required[1] else "property added, optional"
                self.add(kind, at(name), new=self.new.text(schema, new.model, name))
                self.note(at(name), schema, self.new, 1)

    def _compare_additional(self, old: SchemaType, new: SchemaType, location: Location) -> None:
        before, after = (schema_type.schema.get("additionalProperties", True) for schema_type in (old, new))
        here = replace(
            location,
            inside=f"{location.inside}.*",
            python=(f"{new.model}.additional_properties",),
            parents=(old.model, new.model),
            names=("AdditionalProperty", "AdditionalProperty"),
        )
        if after is False and before is not False:
            self.add("additional properties refused", here)
        elif before is False and after is not False:
            self.add("additional properties allowed", here)
        elif before is not False:
            self.compare({} if before is True else before, {} if after is True else after, here)


def paired_by_content(old: dict[str, Any], new: dict[str, Any]) -> dict[str, str]:
    """Match removed and added names by content. Ambiguous matches are left out."""
    contents = [list(side.values()) for side in (old, new)]
    return {
        name: new_name
        for name, content in old.items()
        for new_name, new_content in new.items()
        if content == new_content and contents[0].count(content) == contents[1].count(content) == 1
    }


def _is_converted(schema_type: SchemaType, reader: Reader, depth: int = 0) -> bool:
    """Return whether the client converts the JSON value, to a model or a date for example."""
    if schema_type.label == "list":
        items = reader.types(reader.items(schema_type), "", "item")
        return depth < 4 and any(_is_converted(item, reader, depth + 1) for item in items)
    return schema_type.label == "object" or schema_type.label in FORMATS.values()


def _paired(
    old: list[SchemaType], new: list[SchemaType]
) -> tuple[list[tuple[SchemaType, SchemaType]], list[SchemaType], list[SchemaType]]:
    def fit(one: SchemaType, other: SchemaType) -> bool:
        alone = all([schema_type.label for schema_type in types].count(one.label) == 1 for types in (old, new))
        return one.label == other.label and (one.model == other.model or alone)

    pairs = [(one, other) for one in old for other in new if fit(one, other)]
    removed = [schema_type for schema_type in old if all(schema_type is not one for one, _ in pairs)]
    added = [schema_type for schema_type in new if all(schema_type is not other for _, other in pairs)]
    return pairs, removed, added


def _is_open(enumeration: SchemaType, *sides: list[SchemaType]) -> bool:
    """Return whether all sides allow unlisted values of an enumeration (see `open_enums`)."""
    return all(
        any(schema_type.label == enumeration.label and schema_type.values is None for schema_type in types)
        for types in sides
    )


def _is_tightened(key: str, old: Any, new: Any) -> bool:
    if old in (None, False) or new in (None, False) or (key, old, new) in _LOOSER:
        return old in (None, False)
    if isinstance(old, int | float) and isinstance(new, int | float):
        if key in _UPPER:
            return new < old
        if key in _LOWER:
            return new > old
    return True  # A new pattern may accept less: assume the worst.


def _values(values: list[Any]) -> str:
    return ", ".join(map(repr, values))
