"""Python names that openapi-python-client gives to operations, parameters, properties and models."""

from __future__ import annotations

from typing import Any

from openapi_python_client.parser.openapi import generate_operation_id
from openapi_python_client.schema.untrusted_string import UntrustedString
from openapi_python_client.strings import ClassName, PythonIdentifier, pascal_case

_PREFIX = "field_"


def operation_name(path: str, method: str, operation: dict[str, Any]) -> str:
    """Return the name of an operation's module."""
    if isinstance(operation.get("operationId"), str):
        return PythonIdentifier(operation["operationId"], _PREFIX)
    return generate_operation_id(path=UntrustedString(path), method=method, prefix=_PREFIX)


def operation_module(path: str, method: str, operation: dict[str, Any]) -> str:
    """Return the full dotted name of an operation's module."""
    tag = PythonIdentifier((operation.get("tags") or ["default"])[0], "tag")
    return f"forge_realtime._api.api.{tag}.{operation_name(path, method, operation)}"


def attribute_name(name: str) -> str:
    """Return the attribute name of a property, or the argument name of a parameter."""
    return PythonIdentifier(name, _PREFIX)


def model_name(schema: dict[str, Any], parent: str, name: str) -> str:
    """Return the class name of an object, or the alias of an enumeration.

    Args:
        schema: The schema of the object or enumeration.
        parent: The class or operation that contains it; empty for a component.
        name: Its name there.
    """
    title = schema.get("title")
    if "enum" not in schema and title:
        return ClassName(title, _PREFIX)
    title = title or name
    return ClassName(f"{pascal_case(parent)}{pascal_case(title)}" if parent else title, _PREFIX)
