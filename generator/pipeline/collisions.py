"""Names of a document that collide with names of generated code.

openapi-python-client 0.29 renames Python's keywords and builtins, but not its own variables and imports. No step edits
generated code, so classes get other names by its configuration, and properties and parameters by the document.
"""

from __future__ import annotations

import json

from generator.document import Document, copied
from generator.names import attribute_name, operation_name
from generator.references import METHODS, resolve, walk

CLASSES = frozenset(
    {
        *(
            "Any",
            "AuthenticatedClient",
            "BinaryIO",
            "Cast",
            "Client",
            "Cls",
            "D",
            "Datetime",
            "Generator",
            "HTTPStatus",
        ),
        *("Isoparse", "Mapping", "Response", "T", "TextIO", "TypeVar", "Types", "UNSET", "UUID", "Unset"),
    }
)
"""Class names that generated modules import or define, or whose module is named like a variable."""
_ATTRIBUTES = frozenset(
    {"additional_keys", "additional_properties", "cast", "cls", "d", "field_dict", "from_dict", "src_dict", "to_dict"}
)
_ARGUMENTS = frozenset({"body", "cookies", "headers", "kwargs", "params", "quote", "response"})


def class_overrides() -> str:
    """Return a line for the configuration of openapi-python-client that renames colliding classes."""
    overrides = {
        name: {"class_name": f"{name}Model", "module_name": f"{name.lower()}_model"} for name in sorted(CLASSES)
    }
    return f"class_overrides: {json.dumps(overrides)}\n"


def rename_collisions(document: Document) -> None:
    """Keep properties and parameters from getting the names of variables. Changes the document, and no request.

    A property stays available as an additional property (`model["to_dict"]`). A path parameter is renamed in the
    template. Query parameters become properties of one object, whose properties are sent as query parameters.
    """
    for kind, schema in list(walk(document, "document")):
        if kind == "schema":
            _leave_to_additional_properties(schema)
    for path, item in list(document["paths"].items()):
        for method in METHODS & item.keys():
            _gather_query_parameters(document, item, item[method])
        names = {method: operation_name(path, method, item[method]) for method in METHODS & item.keys()}
        renamed = _rename_path_parameters(document, path, item)
        if renamed != path:
            for method, name in names.items():
                item[method].setdefault("operationId", name)
            document["paths"] = {renamed if key == path else key: value for key, value in document["paths"].items()}


def _leave_to_additional_properties(schema: Document) -> None:
    properties = schema.get("properties")
    colliding = {name for name in properties or () if attribute_name(name) in _ATTRIBUTES}
    if not colliding or not isinstance(properties, dict):
        return
    schema["properties"] = {name: member for name, member in properties.items() if name not in colliding}
    if "required" in schema:
        schema["required"] = [name for name in schema["required"] if name not in colliding]
        if not schema["required"]:
            del schema["required"]
    schema.pop("additionalProperties", None)


def _gather_query_parameters(document: Document, item: Document, operation: Document) -> None:
    own = [resolve(document, parameter) for parameter in operation.get("parameters", ())]
    shared = [
        parameter
        for parameter in (resolve(document, parameter) for parameter in item.get("parameters", ()))
        if not any(_is_same(parameter, other) for other in own)
    ]
    colliding = [parameter for parameter in (*own, *shared) if _collides(parameter, "query")]
    if not colliding:
        return
    kept = [
        parameter
        for parameter in operation.get("parameters", ())
        if not _collides(resolve(document, parameter), "query")
    ]
    required = [parameter["name"] for parameter in colliding if parameter.get("required")]
    taken = {attribute_name(str(parameter.get("name"))) for parameter in (*own, *shared)}
    gathered = {
        "name": "query" if "query" not in taken else "more_query",
        "in": "query",
        "required": bool(required),
        "schema": {
            "type": "object",
            "properties": {parameter["name"]: parameter.get("schema", {}) for parameter in colliding},
            **({"required": required} if required else {}),
        },
    }
    operation["parameters"] = [*kept, copied(gathered)]


def _rename_path_parameters(document: Document, path: str, item: Document) -> str:
    item_lists = [item, *(item[method] for method in METHODS & item.keys())]
    for holder in item_lists:
        for index, parameter in enumerate(holder.get("parameters", ())):
            found = resolve(document, parameter)
            if _collides(found, "path"):
                renamed = f"{attribute_name(found['name'])}_path"
                holder["parameters"][index] = {**copied(found), "name": renamed}
                path = path.replace(f"{{{found['name']}}}", f"{{{renamed}}}")
        # Gathered into each operation.
        if holder is item and "parameters" in item:
            item["parameters"] = [
                parameter for parameter in item["parameters"] if not _collides(resolve(document, parameter), "query")
            ]
    return path


def _collides(parameter: Document, location: str) -> bool:
    return parameter.get("in") == location and attribute_name(str(parameter.get("name"))) in _ARGUMENTS


def _is_same(one: Document, other: Document) -> bool:
    return (one.get("in"), one.get("name")) == (other.get("in"), other.get("name"))
