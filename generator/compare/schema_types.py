"""Types that openapi-python-client makes of a schema, with references and `allOf` resolved."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from generator.document import Document
from generator.names import model_name

# Keywords for people. They do not affect types.
ANNOTATIONS = frozenset(
    {
        "description",
        "summary",
        "example",
        "examples",
        "title",
        "externalDocs",
        "xml",
        "readOnly",
        "writeOnly",
        "$comment",
    }
)

_TYPES = {"integer": "int", "number": "float", "boolean": "bool", "array": "list", "object": "object", "null": "None"}
FORMATS = {"date-time": "datetime", "date": "date", "uuid": "UUID", "binary": "File"}


@dataclass(frozen=True)
class SchemaType:
    """One of the types that a schema allows.

    Attributes:
        label: "str", "int", "float", "bool", "datetime", "date", "UUID", "File", "list", "object", "None" or "Any".
        schema: The schema, resolved at its top level.
        model: The name of the class, or the alias of an enumeration; empty if there is none.
    """

    label: str
    schema: Document
    model: str = ""

    @property
    def values(self) -> list[Any] | None:
        """The values of an enumeration, without null."""
        if "const" in self.schema:
            return [self.schema["const"]]
        enum = self.schema.get("enum")
        return None if enum is None else [value for value in enum if value is not None]


class Reader:
    """Reader of the schemas in one document."""

    def __init__(self, document: Document) -> None:
        self.document = document

    def resolve(self, node: Any) -> Document:
        """Return a node merged with the target of its `$ref`."""
        return self._resolve(node)[0]

    def merge(self, schema: Any) -> Document:
        """Return a schema with `$ref` and `allOf` merged into it."""
        return self._merge(schema, ())[0]

    def types(self, schema: Any, parent: str, name: str) -> list[SchemaType]:
        """Return the types that a schema allows, each once, None last.

        Args:
            schema: The schema.
            parent: The class or operation that contains it.
            name: Its name there, from which a class gets its name.
        """
        found: dict[tuple[str, str], SchemaType] = {}
        for schema_type in self._types(schema, parent, name, ()):
            found.setdefault((schema_type.label, schema_type.model), schema_type)
        return sorted(found.values(), key=lambda schema_type: schema_type.label == "None")

    def text(self, schema: Any, parent: str, name: str, depth: int = 0) -> str:
        """Return the types in the form of an annotation, shortened."""
        texts = []
        for schema_type in self.types(schema, parent, name):
            if schema_type.values is not None:
                values = ", ".join(map(repr, schema_type.values))
                texts.append(f"Literal[{values if len(values) < 60 else values[:57] + '...'}]")
            elif schema_type.label == "list":
                items = "..." if depth > 3 else self.text(self.items(schema_type), parent, f"{name}_item", depth + 1)
                texts.append(f"list[{items}]")
            else:
                texts.append(schema_type.model or schema_type.label)
        return " | ".join(texts)

    def items(self, schema_type: SchemaType) -> Any:
        """Return the schema of the items of a list."""
        items = [
            *schema_type.schema.get("prefixItems", []),
            *([schema_type.schema["items"]] if "items" in schema_type.schema else []),
        ]
        return items[0] if len(items) == 1 else {"anyOf": items} if items else {}

    def canonical(self, schema: Any) -> str:
        """Return a text that is equal for schemas that allow the same values, whatever their names and descriptions."""
        return json.dumps(self._canonical(schema, ()), sort_keys=True)

    def _resolve(self, node: Any) -> tuple[Document, str]:
        component = ""
        beside: Document = {}
        followed: set[str] = set()
        while isinstance(node, dict) and isinstance(node.get("$ref"), str) and node["$ref"] not in followed:
            pointer = node["$ref"]
            followed.add(pointer)
            beside = {**{key: value for key, value in node.items() if key != "$ref"}, **beside}
            component = pointer.rsplit("/", 1)[-1]
            node = self._target(pointer)
        return {**(node if isinstance(node, dict) else {}), **beside}, component

    def _target(self, pointer: str) -> Any:
        node: Any = self.document
        for part in pointer.removeprefix("#/").split("/"):
            node = node[part.replace("~1", "/").replace("~0", "~")]
        return node

    def _merge(self, schema: Any, followed: tuple[str, ...]) -> tuple[Document, str]:
        own, component = self._resolve(schema)
        if component in followed:
            return {}, component
        followed = (*followed, component) if component else followed
        branches = [branch for key in ("allOf", "anyOf", "oneOf") for branch in own.get(key, ())]
        if len(branches) == 1 and isinstance(branches[0], dict) and "$ref" in branches[0]:
            # openapi-python-client does not make another class for these.
            inner, inner_component = self._merge(branches[0], followed)
            rest = {key: value for key, value in own.items() if key not in {"allOf", "anyOf", "oneOf"}}
            return _merge_parts([inner, rest]), inner_component or component
        if "allOf" in own:
            parts = [self._merge(part, followed)[0] for part in own["allOf"]]
            titles = [{key: value for key, value in part.items() if key != "title"} for part in parts]
            return _merge_parts([*titles, {key: value for key, value in own.items() if key != "allOf"}]), component
        return own, component

    def _types(self, schema: Any, parent: str, name: str, followed: tuple[str, ...]) -> list[SchemaType]:
        text = json.dumps(schema)
        if text in followed:
            return []
        followed = (*followed, text)
        merged, component = self._merge(schema, ())
        if component:
            parent, name = "", component
        found: list[SchemaType] = []
        branches = [*merged.get("anyOf", ()), *merged.get("oneOf", ())]
        for number, branch in enumerate(branches):
            title = branch.get("title", merged.get("title")) if isinstance(branch, dict) else None
            subscript = title if title and title != merged.get("title") else f"type_{number}"
            found += self._types(branch, parent, f"{name}_{subscript}", followed)
        kinds = merged.get("type", [])
        for kind in [kinds] if isinstance(kinds, str) else kinds or ([] if branches else [_kind(merged)]):
            if not branches:
                found.append(_schema_type(kind, merged, parent, name))
        if merged.get("nullable") is True or None in merged.get("enum", ()):
            found.append(SchemaType("None", {}))
        return found

    def _canonical(self, schema: Any, followed: tuple[str, ...]) -> Any:
        text = json.dumps(schema)
        if text in followed:
            return f"recursive {followed.index(text)}"
        followed = (*followed, text)
        merged = self.merge(schema)
        plain: Document = {}
        for key, value in merged.items():
            if key in ANNOTATIONS or key.startswith("x-") or key == "deprecated":
                continue
            if key == "properties":
                plain[key] = {name: self._canonical(member, followed) for name, member in value.items()}
            elif key in {"items", "additionalProperties"} and isinstance(value, dict):
                plain[key] = self._canonical(value, followed)
            elif key in {"anyOf", "oneOf", "prefixItems"}:
                plain[key] = [self._canonical(member, followed) for member in value]
            else:
                plain[key] = sorted(value) if key == "required" else value
        return plain


def _merge_parts(parts: list[Document]) -> Document:
    merged: Document = {}
    for part in parts:
        for key, value in part.items():
            if key == "properties" and key in merged:
                merged[key] = {**merged[key], **value}
            elif key == "required" and key in merged:
                merged[key] = [*merged[key], *(name for name in value if name not in merged[key])]
            else:
                merged[key] = value
    return merged


def _kind(schema: Mapping[str, Any]) -> str:
    if "properties" in schema or isinstance(schema.get("additionalProperties"), dict):
        return "object"
    if "items" in schema or "prefixItems" in schema:
        return "array"
    values = [schema["const"]] if "const" in schema else [v for v in schema.get("enum", ()) if v is not None]
    if values:
        return "string" if isinstance(values[0], str) else "integer"
    return "null" if schema.get("enum") else "any"


def _schema_type(kind: str, schema: Document, parent: str, name: str) -> SchemaType:
    label = FORMATS.get(str(schema.get("format")), "str") if kind == "string" else _TYPES.get(kind, "Any")
    named = kind == "object" or ("enum" in schema and kind in {"string", "integer"})
    return SchemaType(label, schema, model_name(schema, parent, name) if named else "")
