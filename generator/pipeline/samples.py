"""Sample values of a schema: each alternative, value of an enumeration and null once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from itertools import islice
from typing import Any

from openapi_schema_validator import OAS30Validator, OAS31Validator

from generator.document import Document
from generator.references import resolve

_DEEPEST = 8
_MOST = 50
_FORMATS = {
    "uuid": "6f1e7c0a-3d2b-4c5d-8e9f-0a1b2c3d4e5f",
    "date": "2026-08-01",
    "date-time": "2026-08-01T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "PT1S",
    "email": "a@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "byte": "dGV4dA==",
}


def samples(document: Document, schema: Any) -> list[Any]:
    """Return valid values of a schema, the most complete one first. Empty if none is found.

    Values keep to `type`, `format`, `enum` and `pattern`, and to lengths and bounds where that is simple.

    Args:
        document: An OpenAPI document, for references.
        schema: A schema in it.
    """
    return list(islice(_values(document, schema, 0), _MOST))


def schema_validator(document: Document, schema: Any) -> Any:
    """Return a validator for a schema whose references resolve against the document."""
    validator: Any = OAS30Validator if document["openapi"].startswith("3.0.") else OAS31Validator
    # evolve() keeps the document and validates only the schema.
    return validator(document).evolve(schema=schema)


def _values(document: Document, schema: Any, depth: int) -> Iterator[Any]:
    if depth > _DEEPEST or not isinstance(schema, dict):
        return
    if "$ref" in schema:
        yield from _values(document, resolve(document, schema), depth + 1)
        return
    if members := schema.get("allOf"):
        yield from _values(document, _merged(document, schema, members), depth + 1)
        return
    for keyword in ("anyOf", "oneOf"):
        if alternatives := schema.get(keyword):
            rest = {key: value for key, value in schema.items() if key not in {keyword, "nullable"}}
            for member in alternatives:
                resolved = _merged(document, rest, [member])
                allowed = schema_validator(document, rest)
                yield from (value for value in _values(document, resolved, depth + 1) if allowed.is_valid(value))
            break
    else:
        yield from _plain_values(document, schema, depth)
    if schema.get("nullable"):
        yield None


def _merged(document: Document, schema: Document, members: list[Any]) -> Document:
    merged = {key: value for key, value in schema.items() if key != "allOf"}
    for member in members:
        for key, value in resolve(document, member).items():
            if key == "properties":
                merged[key] = {**merged.get(key, {}), **value}
            elif key in {"required", "allOf"}:
                merged[key] = [*merged.get(key, []), *value]
            else:
                merged[key] = value
    return merged


def _plain_values(document: Document, schema: Document, depth: int) -> Iterator[Any]:
    if "const" in schema:
        yield schema["const"]
        return
    if "enum" in schema:
        yield from schema["enum"]
        return
    kinds = schema.get("type", "object" if "properties" in schema else "string")
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        if kind == "string":
            text = _text(schema)
            if schema_validator(document, {**schema, "type": "string"}).is_valid(text):
                yield text
        elif kind in {"integer", "number"}:
            yield schema.get("minimum", min(1, schema.get("maximum", 1)))
        elif kind == "boolean":
            yield from (True, False)
        elif kind == "null":
            yield None
        elif kind == "array":
            items = list(islice(_values(document, schema.get("items", {}), depth + 1), _MOST))
            least = max(1, schema.get("minItems", 1))
            yield from ([item] * least for item in items)
        else:
            yield from _objects(document, schema, depth)


def _objects(document: Document, schema: Document, depth: int) -> Iterator[Document]:
    members = {
        name: list(islice(_values(document, member, depth + 1), _MOST))
        for name, member in schema.get("properties", {}).items()
    }
    full = {name: values[0] for name, values in members.items() if values}
    if any(name in members and name not in full for name in schema.get("required", ())):
        return
    yield full
    for name, values in members.items():
        yield from ({**full, name: value} for value in values[1:])


def _text(schema: Document) -> str:
    if "pattern" in schema:
        return _matching_text(schema["pattern"])
    if schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]]
    text = "text".ljust(schema.get("minLength", 0), "x")
    return text[: schema.get("maxLength", len(text))]


def _matching_text(pattern: str) -> str:
    """Return a text that a simple pattern matches. For others, it may not."""
    try:
        # The only parser of patterns there is; it has no public name.
        parsed = import_module("re._parser").parse(pattern)
    except (re.error, OverflowError):
        return ""
    return "".join(_part(kind, value) for kind, value in parsed)


def _part(kind: Any, value: Any) -> str:  # noqa: PLR0911 (one for each kind)
    match str(kind):
        case "LITERAL":
            return chr(value)
        case "NOT_LITERAL":
            return "b" if value == ord("a") else "a"
        case "ANY":
            return "a"
        case "IN":
            return next((text for text in map(chr, range(32, 127)) if _is_in(value, text)), "")
        case "CATEGORY":
            return _part("IN", [(kind, value)])
        case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
            least, most, parts = value
            return "".join(_part(*part) for part in parts) * int(max(least, min(1, most)))
        case "SUBPATTERN":
            return "".join(_part(*part) for part in value[-1])
        case "BRANCH":
            return "".join(_part(*part) for part in value[1][0])
        case _:
            return ""


def _is_in(members: list[tuple[Any, Any]], text: str) -> bool:
    names = {"CATEGORY_DIGIT": r"\d", "CATEGORY_WORD": r"\w", "CATEGORY_SPACE": r"\s"}
    negated, found = False, False
    for kind, value in members:
        match str(kind):
            case "NEGATE":
                negated = True
            case "LITERAL":
                found |= ord(text) == value
            case "RANGE":
                found |= value[0] <= ord(text) <= value[1]
            case "CATEGORY":
                is_not = "_NOT_" in str(value)
                known = names.get(str(value).replace("_NOT_", "_"), "")
                found |= bool(known and re.match(known, text)) != is_not
    return found != negated
