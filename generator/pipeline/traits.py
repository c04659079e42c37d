"""What the client has to know about operations of other groups, beyond the generated code.

The document marks no wildcard, says of most groups only "object", and lists media types that openapi-python-client
cannot read. So some operations are rewritten before rendering, and the traits of each go into `_core/group.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from generator.document import Document, copied
from generator.names import operation_module
from generator.references import METHODS, resolve, walk

WILDCARD_NAMES = frozenset({"target", "path"})
"""Names of a last path parameter that stands for a whole path: `/jira/{target}`, `/jira/{path}`."""
_STREAMS = frozenset(
    {
        "text/event-stream",
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "application/x-jsonlines",
        "application/json-lines",
        "application/json-seq",
        "application/stream+json",
    }
)
_COMBINED = ("allOf", "anyOf", "oneOf", "enum", "const")


def read_traits(document: Document) -> dict[str, dict[str, Any]]:
    """Rewrite operations so that their requests and responses can be made and read, and return what is left to know.

    Args:
        document: A patched document. It is changed.

    Returns:
        By the last two parts of an operation's module: arguments of `Traits` in `_core/group.py`. Operations without
        any are left out.
    """
    traits = {}
    _loosen_unions(document)
    for path, item in document["paths"].items():
        for method in METHODS & item.keys():
            operation = item[method]
            found = dict(_traits(document, path, item, operation))
            if found:
                traits[".".join(operation_module(path, method, operation).split(".")[-2:])] = found
    return dict(sorted(traits.items()))


def _traits(document: Document, path: str, item: Document, operation: Document) -> Iterator[tuple[str, Any]]:
    if operation.get("security") == []:
        yield "header", False
    if name := _wildcard(path):
        _open_wildcard(document, item, operation, name)
        yield "wildcard", path.count("/")
        yield "accept", "application/json, */*;q=0.5"
    else:
        # The document may have listed failures only.
        operation["responses"] = operation["responses"] or {"2XX": {"description": "Done"}}
        kinds: list[str] = []
        for status, response in operation["responses"].items():
            if status.startswith("2"):
                found = copied(resolve(document, response))
                kinds += _keep_readable_content(found)
                operation["responses"][status] = found
        if streams := [kind for kind in kinds if _essence(kind) in _STREAMS]:
            yield "stream", streams[0]
        elif kinds and not any(map(_is_json, kinds)):
            yield "accept", ", ".join(dict.fromkeys(kinds))
    if _has_stream_property(document, operation):
        yield "stream_property", "stream"


def _wildcard(path: str) -> str | None:
    found = re.search(r"/\{([^{}/]+)\}$", path)
    return found[1] if found and found[1] in WILDCARD_NAMES else None


def _open_wildcard(document: Document, item: Document, operation: Document, name: str) -> None:
    """Let an operation take any query, and any response of success: it stands for all operations of another API."""
    parameters = operation.setdefault("parameters", [])
    taken = [resolve(document, parameter) for parameter in [*parameters, *item.get("parameters", ())]]
    if not any(parameter.get("in") == "query" for parameter in taken):
        parameters.append(
            {
                "name": "query",
                "in": "query",
                "description": f"Query parameters of the path that `{name}` stands for. A list repeats its parameter.",
                "schema": {"type": "object", "additionalProperties": True},
            }
        )
    operation["responses"] = {"2XX": {"description": "Whatever the other API responds with."}}


def _keep_readable_content(response: Document) -> list[str]:
    """Reduce the media types of a response to one that generated code reads. Returns the original ones."""
    content = response.get("content") or {}
    kinds = [kind for kind in content if _is_json(kind)] or [kind for kind in content if _essence(kind) not in _STREAMS]
    if not kinds:
        response.pop("content", None)
        return list(content)
    if _is_json(kinds[0]):
        response["content"] = {kinds[0]: content[kinds[0]]}
    elif all(_essence(kind).startswith("text/") for kind in kinds):
        response["content"] = {"text/plain": {"schema": {"type": "string"}}}
    else:
        response["content"] = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    return kinds


def _loosen_unions(document: Document) -> None:
    """Let a list of anything in a union be anything: generated code has a redundant cast for it, which mypy reports."""
    for kind, schema in list(walk(document, "document")):
        if kind != "schema":
            continue
        for key in ("oneOf", "anyOf"):
            if isinstance(members := schema.get(key), list):
                schema[key] = [{} if _is_untyped_list(document, member) else member for member in members]
        if (schema.get("nullable") or isinstance(schema.get("type"), list)) and _is_untyped_list(document, schema):
            for key in ("type", "nullable", "items"):
                schema.pop(key, None)


def _is_untyped_list(document: Document, schema: Any) -> bool:
    found = resolve(document, schema)
    types = found.get("type")
    items = resolve(document, found.get("items"))
    return "array" in (types if isinstance(types, list) else [types]) and not {"type", *_COMBINED} & items.keys()


def _has_stream_property(document: Document, operation: Document) -> bool:
    body = resolve(document, operation.get("requestBody"))
    waiting = [media.get("schema") for kind, media in body.get("content", {}).items() if _is_json(kind)]
    seen: list[int] = []
    while waiting:
        schema = resolve(document, waiting.pop())
        if id(schema) in seen:
            continue
        seen.append(id(schema))
        if resolve(document, schema.get("properties", {}).get("stream")).get("type") == "boolean":
            return True
        waiting += [member for key in ("allOf", "anyOf", "oneOf") for member in schema.get(key, ())]
    return False


def _essence(media_type: str) -> str:
    return media_type.partition(";")[0].strip().lower()


def _is_json(media_type: str) -> bool:
    essence = _essence(media_type)
    return essence not in _STREAMS and (essence == "application/json" or essence.endswith("+json"))
