"""The differences of two schemas, each classed for the direction in which the schema travels."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from generator.compare.rules import RULES, Change
from generator.compare.schema_types import ANNOTATIONS, FORMATS, Reader, Shape
from generator.names import attribute_name

_HANDLED = frozenset(
    {"type", "nullable", "enum", "const", "properties", "required", "additionalProperties", "items", "prefixItems"}
    | {"allOf", "anyOf", "oneOf", "default", "deprecated", "$ref", "$defs", "definitions"}
)
_UPPER = frozenset({"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"})
# Named formats, of which the second takes all that the first does.
_LOOSER = frozenset({("format", "int32", "int64"), ("format", "float", "double")})
_LOWER = frozenset({"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"})


@dataclass(frozen=True)
class Place:
    """Where two schemas stand.

    Attributes:
        direction: "request" or "answer".
        operation: The method and path of the operation.
        part: The part of the operation; empty for the operation itself.
        python: The Python names that a change here concerns.
        parents: The class or operation that holds the schema, on either side.
        names: The name of the schema there, on either side.
        inside: The way from the part to here, through properties and lists.
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
        """The place in the document, for people."""
        return ", ".join(filter(None, [self.operation, self.part, self.inside.removeprefix(".")]))


class SchemaComparison:
    """Compares schemas of two documents and keeps what it finds.

    Attributes:
        changes: What was found, in the order of the documents.
        models: The names of the classes seen in each direction, on both sides.
    """

    def __init__(self, old: Reader, new: Reader) -> None:
        self.old = old
        self.new = new
        self.changes: list[Change] = []
        self.models: dict[str, set[str]] = {"request": set(), "answer": set()}
        self._active: list[tuple[str, str]] = []
        self._compared: set[tuple[str, str, str, str]] = set()
        self._noting: list[str] = []

    def add(self, kind: str, place: Place, old: str | None = None, new: str | None = None) -> None:
        """Keeps a change of a kind that `RULES` names."""
        rule = RULES[kind][place.direction]
        self.changes.append(Change(kind, place.direction, rule, place.python, (place.where,), old, new))

    def note(self, place: Place, schema: Any, reader: Reader, side: int) -> None:
        """Remembers the classes of a schema that only one side has."""
        text = json.dumps(schema)
        if text in self._noting:
            return
        self._noting.append(text)
        for shape in reader.shapes(schema, place.parents[side], place.names[side]):
            if shape.model in self.models[place.direction]:
                continue
            if shape.model:
                self.models[place.direction].add(shape.model)
            if shape.label == "list":
                item = replace(place, names=(f"{place.names[0]}_item", f"{place.names[1]}_item"))
                self.note(item, reader.items(shape), reader, side)
            for name, member in shape.schema.get("properties", {}).items():
                self.note(replace(place, parents=(shape.model,) * 2, names=(name, name)), member, reader, side)
        self._noting.pop()

    def compare(self, old: Any, new: Any, place: Place) -> None:
        """Compares what two schemas allow, and how they are described."""
        pair = (json.dumps(old), json.dumps(new))
        if pair in self._active:
            return
        self._active.append(pair)
        self._compare_annotations(old, new, place)
        self._compare_types(old, new, place)
        self._active.pop()

    def compare_values(self, old: Any, new: Any, place: Place) -> None:
        """Compares the default and the notice of two properties or parameters."""
        before, after = self.old.merge(old), self.new.merge(new)
        if before.get("default") != after.get("default"):
            self.add(
                "default changed",
                place,
                *(None if "default" not in it else repr(it["default"]) for it in (before, after)),
            )
        self.compare_deprecated(before.get("deprecated", False), after.get("deprecated", False), place)

    def compare_deprecated(self, old: bool, new: bool, place: Place, subject: str = "") -> None:
        """Compares the notice that something will go."""
        if new and not old:
            self.add(f"{subject}deprecated", place)
        elif old and not new:
            self.add(f"{subject}no longer deprecated", place)

    def compare_presence(self, old: bool, new: bool, place: Place) -> None:
        """Compares whether something is required."""
        if new and not old:
            self.add("became required", place)
        elif old and not new:
            self.add("became optional", place)

    def _compare_annotations(self, old: Any, new: Any, place: Place) -> None:
        before, after = self.old.merge(old), self.new.merge(new)
        words = {key for key in before.keys() | after.keys() if key in ANNOTATIONS - {"title"} or key.startswith("x-")}
        if any(before.get(key) != after.get(key) for key in words):
            self.add("described otherwise", place)

    def _compare_types(self, old: Any, new: Any, place: Place) -> None:
        before = self.old.shapes(old, place.parents[0], place.names[0])
        after = self.new.shapes(new, place.parents[1], place.names[1])
        pairs, gone, come = _paired(before, after)
        texts: list[str] = []
        if gone or come:
            texts = [
                self.old.text(old, place.parents[0], place.names[0]),
                self.new.text(new, place.parents[1], place.names[1]),
            ]
        for shapes, kind in ((come, "became nullable"), (gone, "no longer nullable")):
            if any(shape.label == "None" for shape in shapes):
                self.add(kind, place, *texts)
        for reader, schemas, side in ((self.old, old, 0), (self.new, new, 1)):
            self.note(place, schemas, reader, side)
        for shapes, kind in ((gone, "enumeration removed"), (come, "enumeration added")):
            for shape in [it for it in shapes if it.values is not None and _is_open(it, before, after)]:
                shapes.remove(shape)
                self.add(kind, replace(place, python=(*place.python, shape.model)), *texts)
        if retyped := self._retyped(gone, come, before, after):
            self.add(retyped, place, *texts)
        for one, other in pairs:
            self._compare_shapes(one, other, _is_open(one, before, after), place)

    def _retyped(self, gone: list[Shape], come: list[Shape], old: list[Shape], new: list[Shape]) -> str | None:
        went, came = ({shape.label for shape in shapes} - {"None"} for shapes in (gone, come))
        had, has = ({shape.label for shape in shapes} for shapes in (old, new))
        # A type checker takes an int for a float, and anything for Any.
        covered = {label for label in went if "Any" in has or (label == "int" and "float" in has)}
        foreseen = {label for label in came if "Any" in had or (label == "int" and "float" in had)}
        if not (went or came):
            return None
        # What Any was is JSON as it travels; an object of a class is not.
        if ("Any" in went and any(_is_made(shape, self.new) for shape in come)) or (
            "Any" in came and any(_is_made(shape, self.old) for shape in gone)
        ):
            return "retyped"
        if went <= covered and came:
            return "widened"
        if came <= foreseen and went:
            return "narrowed"
        if not went:
            return "widened"
        return "narrowed" if not came else "retyped"

    def _compare_shapes(self, old: Shape, new: Shape, is_open: bool, place: Place) -> None:
        if old.model != new.model and old.model and new.model:
            self.add("model renamed", replace(place, python=(old.model, new.model)), old.model, new.model)
        self._compare_enumerations(old, new, is_open, place)
        self._compare_constraints(old, new, place)
        if old.label == "list":
            names = (f"{place.names[0]}_item", f"{place.names[1]}_item")
            item = replace(place, inside=f"{place.inside}[]", names=names)
            self.compare(self.old.items(old), self.new.items(new), item)
        elif old.label == "object":
            key = (old.model, new.model, place.direction, place.operation)
            if key not in self._compared:
                self._compared.add(key)
                self._compare_properties(old, new, place)
                self._compare_additional(old, new, place)

    def _compare_enumerations(self, old: Shape, new: Shape, is_open: bool, place: Place) -> None:
        if old.values is None or new.values is None:
            if old.values is not None or new.values is not None:
                narrowed = old.values is None
                texts = [shape.label if shape.values is None else _values(shape.values) for shape in (old, new)]
                self.add("narrowed" if narrowed else "widened", place, *texts)
                if old.model:
                    self.add("enumeration removed", replace(place, python=(old.model,)), texts[0])
            return
        if gone := [value for value in old.values if value not in new.values]:
            self.add("known value removed" if is_open else "enum value removed", place, old=_values(gone))
        if come := [value for value in new.values if value not in old.values]:
            self.add("known value added" if is_open else "enum value added", place, new=_values(come))

    def _compare_constraints(self, old: Shape, new: Shape, place: Place) -> None:
        for key in dict.fromkeys([*old.schema, *new.schema]):
            before, after = old.schema.get(key), new.schema.get(key)
            if key in _HANDLED or key in ANNOTATIONS or key.startswith("x-") or before == after:
                continue
            if key == "format" and old.label == new.label and (before in FORMATS or after in FORMATS):
                continue
            tightened = _is_tightened(key, before, after)
            kind = "constraint tightened" if tightened else "constraint loosened"
            self.add(kind, place, *(None if value is None else f"{key}: {value}" for value in (before, after)))

    def _compare_properties(self, old: Shape, new: Shape, place: Place) -> None:
        before, after = old.schema.get("properties", {}), new.schema.get("properties", {})
        required = tuple(set(shape.schema.get("required", ())) for shape in (old, new))

        def at(name: str, new_name: str | None = None) -> Place:
            names = (name, new_name or name)
            models = (old.model or new.model, new.model or old.model)
            python = tuple(
                dict.fromkeys(f"{model}.{attribute_name(it)}" for model, it in zip(models, names, strict=True))
            )
            if len(python) == 2 and new_name is None:
                python = python[1:]  # The class was renamed, which is a change of its own.
            return replace(place, inside=f"{place.inside}.{name}", python=python, parents=models, names=names)

        renamed = paired_by_content(
            {name: (self.old.canonical(before[name]), name in required[0]) for name in before if name not in after},
            {name: (self.new.canonical(after[name]), name in required[1]) for name in after if name not in before},
        )
        for name, schema in before.items():
            if name in renamed:
                self.add("property renamed", at(name, renamed[name]), name, renamed[name])
            elif name not in after:
                gone = at(name)
                python = (f"{old.model}.{attribute_name(name)}",)
                self.add("property removed", replace(gone, python=python), self.old.text(schema, old.model, name))
                self.note(gone, schema, self.old, 0)
            else:
                here = at(name)
                self.compare_presence(name in required[0], name in required[1], here)
                self.compare_values(schema, after[name], here)
                self.compare(schema, after[name], here)
        if place.direction == "request":
            # Required, but not described.
            for name in sorted((required[0] ^ required[1]) - before.keys() - after.keys()):
                unknown = replace(at(name), python=(f"{new.model}.additional_properties",))
                self.compare_presence(name in required[0], name in required[1], unknown)
        for name, schema in after.items():
            if name not in before and name not in renamed.values():
                kind = "property added, required" if name in required[1] else "property added, optional"
                self.add(kind, at(name), new=self.new.text(schema, new.model, name))
                self.note(at(name), schema, self.new, 1)

    def _compare_additional(self, old: Shape, new: Shape, place: Place) -> None:
        before, after = (shape.schema.get("additionalProperties", True) for shape in (old, new))
        here = replace(
            place,
            inside=f"{place.inside}.*",
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
    """The names that went and came with the same content, where just one fits just one."""
    contents = [list(side.values()) for side in (old, new)]
    return {
        name: new_name
        for name, content in old.items()
        for new_name, new_content in new.items()
        if content == new_content and contents[0].count(content) == contents[1].count(content) == 1
    }


def _is_made(shape: Shape, reader: Reader, depth: int = 0) -> bool:
    """Whether the client makes something else of it than JSON has: an object of a class, a date."""
    if shape.label == "list":
        items = reader.shapes(reader.items(shape), "", "item")
        return depth < 4 and any(_is_made(item, reader, depth + 1) for item in items)
    return shape.label == "object" or shape.label in FORMATS.values()


def _paired(old: list[Shape], new: list[Shape]) -> tuple[list[tuple[Shape, Shape]], list[Shape], list[Shape]]:
    def fit(one: Shape, other: Shape) -> bool:
        alone = all([shape.label for shape in shapes].count(one.label) == 1 for shapes in (old, new))
        return one.label == other.label and (one.model == other.model or alone)

    pairs = [(one, other) for one in old for other in new if fit(one, other)]
    gone = [shape for shape in old if all(shape is not one for one, _ in pairs)]
    come = [shape for shape in new if all(shape is not other for _, other in pairs)]
    return pairs, gone, come


def _is_open(enumeration: Shape, *sides: list[Shape]) -> bool:
    """Whether any other value of its type is allowed beside an enumeration, on all sides: generator/open_response_enums.py."""
    return all(any(shape.label == enumeration.label and shape.values is None for shape in shapes) for shapes in sides)


def _is_tightened(key: str, old: Any, new: Any) -> bool:
    if old in (None, False) or new in (None, False) or (key, old, new) in _LOOSER:
        return old in (None, False)
    if isinstance(old, int | float) and isinstance(new, int | float):
        if key in _UPPER:
            return new < old
        if key in _LOWER:
            return new > old
    return True  # Whether another pattern takes less cannot be told: the worse is assumed.


def _values(values: list[Any]) -> str:
    return ", ".join(map(repr, values))
