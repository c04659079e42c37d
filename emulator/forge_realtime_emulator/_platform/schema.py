"""Checking JSON values against schemas, with messages that name the field and never repeat a value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice
from typing import Any

from openapi_schema_validator import OAS30Validator, OAS31Validator

_TOLD = 10
"""Problems that are told of one value. The others are not even looked for: a list may have a million."""


class Schema:
    """One schema, ready to check values.

    Args:
        schema: An OpenAPI schema object.
        document: The OpenAPI document that the schema's `$ref`s point into.
        openapi: The document's OpenAPI version; from 3.1 on, schemas are JSON Schema 2020-12.
    """

    def __init__(
        self, schema: Mapping[str, Any], *, document: Mapping[str, Any] | None = None, openapi: str = "3.0"
    ) -> None:
        validator = OAS30Validator if openapi.startswith("3.0") else OAS31Validator
        # The root holds what references point to; evolve() keeps it and checks only the schema.
        self._validator: Any = validator(document or schema).evolve(schema=schema)

    def problem(self, value: Any) -> str | None:
        """Says in one line what is wrong with `value`, up to ten things, or None."""
        errors = list(islice(self._validator.iter_errors(value), _TOLD + 1))
        told = sorted(errors[:_TOLD], key=lambda error: str(error.json_path))
        more = ["and more"] if len(errors) > _TOLD else []
        return "; ".join([*dict.fromkeys(_describe(error) for error in told), *more]) or None


def _describe(error: Any) -> str:
    field = error.json_path.removeprefix("$").removeprefix(".") or "the JSON value"
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
            return f"{field}: has an unknown key; allowed are {', '.join(error.schema.get('properties', {}))}"
        case "minimum" | "maximum" as bound:
            return f"{field}: must be at {'least' if bound == 'minimum' else 'most'} {rule}"
        case _:
            return f"{field}: breaks the schema's rule {error.validator!r}"
