"""Schema checks of JSON values, with messages that name the field and never repeat a value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice
from typing import Any

from openapi_schema_validator import OAS30Validator, OAS31Validator

from .text import printable

_SHOWN = 100
"""Number of characters of an unknown key that a message repeats."""
_REPORTED = 10
"""Number of problems reported for one value. The search stops there: a list may have a million."""


class Schema:
    """Validator for one schema.

    Args:
        schema: An OpenAPI schema object.
        document: The OpenAPI document that the schema's `$ref`s point into.
        openapi: The OpenAPI version of the document. From 3.1 on, schemas are JSON Schema 2020-12.

    Attributes:
        definition: The schema.
    """

    def __init__(
        self, schema: Mapping[str, Any], *, document: Mapping[str, Any] | None = None, openapi: str = "3.0"
    ) -> None:
        self.definition = schema
        validator = OAS30Validator if openapi.startswith("3.0") else OAS31Validator
        # References resolve against the root; evolve() keeps that root and checks only the schema.
        self._validator: Any = validator(document or schema).evolve(schema=schema)

    def problem(self, value: Any) -> str | None:
        """Describe up to ten problems of `value` in one line, or return `None` if it is valid."""
        try:
            errors = list(islice(self._validator.iter_errors(value), _REPORTED + 1))
        except UnicodeEncodeError:
            return "a text has a lone surrogate, which UTF-8 cannot encode; send valid Unicode"
        reported = sorted(errors[:_REPORTED], key=lambda error: str(error.json_path))
        more = ["and more"] if len(errors) > _REPORTED else []
        return "; ".join([*dict.fromkeys(_describe(error) for error in reported), *more]) or None


def _describe(error: Any) -> str:
    field = printable(error.json_path.removeprefix("$").removeprefix(".")) or "the JSON value"
    rule = error.validator_value
    match error.validator:
        case "required":
            missing = ", ".join(name for name in rule if name not in error.instance)
            return f"{field}: missing {missing}"
        case "type":
            kinds = [rule] if isinstance(rule, str) else rule
            return f"{field}: must be of type {' or '.join(kinds)}"
        case "enum":
            return f"{field}: must be one of {', '.join(map(json.dumps, rule))}"
        case "additionalProperties":
            properties = error.schema.get("properties", {})
            unknown = next(str(key) for key in error.instance if key not in properties)
            allowed = f"allowed are {', '.join(properties)}" if properties else "it takes none"
            return f"{field}: has an unknown key {unknown[:_SHOWN]!r}; {allowed}"
        case "minimum" | "maximum" as bound:
            is_excluded = error.schema.get("exclusiveMinimum") is True
            than = "at most" if bound == "maximum" else "above" if is_excluded else "at least"
            return f"{field}: must be {than} {rule}"
        case _:
            return f"{field}: breaks the schema's rule {error.validator!r}"
