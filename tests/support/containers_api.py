"""The whole document in the form that the published collection had in August 2026: 14 groups, 60 operations.

Descriptions are left out. Whether `security` stands at the root, at each operation, at both or nowhere is not known, so
each form can be had.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Literal

Document = dict[str, Any]
Security = Literal["global", "operation", "both", "none"]

HEADER = {"name": "forge-proxy-authorization", "in": "header", "required": True, "schema": {"type": "string"}}
CONTENT_TYPE = {"name": "Content-Type", "in": "header", "required": False, "schema": {"type": "string"}}

ANY = {"type": "object"}
TEXT = {"type": "string"}
NUMBER = {"type": "number"}
INTEGER = {"type": "integer"}


def _ref(name: str) -> Document:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(items: Document) -> Document:
    return {"type": "array", "items": items}


def _enum(*values: str) -> Document:
    return {"type": "string", "enum": list(values)}


def _object(*required: str, **properties: Document) -> Document:
    """Return the schema of an object. `required` properties without a schema are strings."""
    members = {name: properties.get(name, TEXT) for name in dict.fromkeys([*required, *properties])}
    return {
        "type": "object",
        **({"required": list(required)} if required else {}),
        "properties": members,
    }


VALUE = {"oneOf": [TEXT, {"type": "boolean"}, NUMBER, _list({}), ANY]}
_FILTERS = {"oneOf": [_ref("OrFilters"), _ref("AndFilters")]}
_CONTENT = {"oneOf": [TEXT, _list(_ref("TextContent"))]}
_METADATA_FIELDS = _list(_enum("CREATED_AT", "UPDATED_AT", "EXPIRE_TIME"))
_STORED = _object("key", "value", value=VALUE, createdAt=NUMBER, updatedAt=NUMBER, expireTime=TEXT)
_PAGE = _object("data", data=_list(_ref("GetResponseSchema")), cursor=TEXT)

SCHEMAS: Document = {
    "AppInstallation": _object("id", installationContext=TEXT, version=TEXT, secondaryInstallationContexts=_list(TEXT)),
    "AppInstallationsResponse": _object(
        "installations", installations=_list(_ref("AppInstallation")), cursor={"type": "string", "nullable": True}
    ),
    "InvocationContext": _object(
        app=_object(id=TEXT, installationId=TEXT, environment=_object(type=TEXT, id=TEXT)),
        context=_object(cloudId=TEXT, moduleKey=TEXT, userAccess=_object(enabled={"type": "boolean"})),
    ),
    "DynamicModule": _object("key", "type", "data", data=ANY),
    "AsyncEvent": _object("body", body=ANY, delayInSeconds=INTEGER, concurrency=_object(key=TEXT, limit=INTEGER)),
    "GetOptions": _object(metadataFields=_METADATA_FIELDS),
    "Ttl": _object("value", "unit", value=NUMBER, unit=_enum("SECONDS", "MINUTES", "HOURS", "DAYS")),
    "SetOptions": {**_object(ttl=_ref("Ttl")), "additionalProperties": False},
    "ExtendedSetOptions": _object(
        ttl=_ref("Ttl"),
        keyPolicy=_enum("FAIL_IF_EXISTS", "OVERRIDE"),
        returnValue=_enum("PREVIOUS", "LATEST"),
        returnMetadataFields=_METADATA_FIELDS,
    ),
    "GetResponseSchema": _STORED,
    "SetResponseSchema": _STORED,
    "WhereCondition": _object(
        "condition", "property", "values", condition=_enum("BEGINS_WITH"), property=_enum("key"), values=_list(VALUE)
    ),
    "Error": _object("code", "message"),
    "BatchSuccess": _object("key", entityName=TEXT),
    "BatchFailure": _object("key", "error", entityName=TEXT, error=_ref("Error")),
    "BatchResponse": _object(
        "successfulKeys",
        "failedKeys",
        successfulKeys=_list(_ref("BatchSuccess")),
        failedKeys=_list(_ref("BatchFailure")),
    ),
    "Filter": _object(
        "condition", "property", "values", condition=_enum("BETWEEN", "EQUAL_TO", "EXISTS"), values=_list({})
    ),
    "OrFilters": _object("or", **{"or": _list(_ref("Filter"))}),
    "AndFilters": _object("and", **{"and": _list(_ref("Filter"))}),
    "SetTransactionUntypedItemSchema": {
        **_object("key", "value", value=VALUE, options=_ref("SetOptions")),
        "additionalProperties": False,
    },
    "SetTransactionTypedItemSchema": {
        **_object("key", "value", "entityName", value=VALUE, conditions=_FILTERS, options=_ref("SetOptions")),
        "additionalProperties": False,
    },
    "TransactionDeleteItem": _object("key", entityName=TEXT, conditions=_FILTERS),
    "TransactionCheckItem": _object("key", "entityName", "conditions", conditions=_FILTERS),
    "TextContent": _object("type", "text", type=_enum("text")),
    "SystemMessage": {"title": "System message", **_object("role", "content", role=_enum("system"), content=_CONTENT)},
    "UserMessage": {"title": "User message", **_object("role", "content", role=_enum("user"), content=_CONTENT)},
    "AssistantMessage": {
        "title": "Assistant message",
        **_object("role", role=_enum("assistant"), content=_CONTENT, tool_calls=_list(_ref("ToolCall"))),
    },
    "ToolMessage": {
        "title": "Tool message",
        **_object("role", "tool_call_id", "content", role=_enum("tool"), content=_CONTENT),
    },
    "ToolCall": _object(
        "id", "type", "function", type=_enum("function"), index=INTEGER, function=_object(name=TEXT, arguments=TEXT)
    ),
    "LLM": {"type": "string"},
    "LLMTool": _object(
        "type",
        "function",
        type=_enum("function"),
        function=_object("name", description=TEXT, parameters=ANY),
    ),
    "LLMToolObject": _object("type", "function", type=_enum("function"), function=_object("name")),
    "LLMRequestPayload": _object(
        "messages",
        messages=_list(
            {
                "oneOf": [
                    _ref("SystemMessage"),
                    _ref("UserMessage"),
                    _ref("AssistantMessage"),
                    _ref("ToolMessage"),
                ]
            }
        ),
        top_p=NUMBER,
        max_completion_tokens=NUMBER,
        temperature=NUMBER,
        tools=_list(_ref("LLMTool")),
        tool_choice={"oneOf": [_enum("auto", "none", "required"), _ref("LLMToolObject")]},
        stream={"type": "boolean"},
    ),
    "LLMResponsePayload": _object(
        "choices",
        choices=_list(_object(finish_reason=TEXT, index=INTEGER, message=_ref("AssistantMessage"))),
        usage=_object(input_token=INTEGER, output_token=INTEGER),
    ),
    "LLMListResponsePayload": _object(models=_list(_object(model=TEXT, status=_enum("active", "deprecated")))),
    "OsObjectMetadataResponse": _object("key", currentVersion=TEXT, checksum=TEXT, size=INTEGER, contentType=TEXT),
    "OsUrlResponse": _object("url"),
    "SqlResponse": _object(
        rows=_list(ANY),
        metadata=_object(dbExecutionTime=NUMBER, fields=_list(_object(catalog=TEXT, name=TEXT, schema=TEXT))),
    ),
}

KVS = "/forge/storage/kvs/v1"
OS = "/forge/storage/os/v1"
SQL = "/forge/storage/sql/v1"
MODULES = "/atlassian/forge/installation/v1/dynamic/module"
REALTIME = "/forge/realtime/v1"
_GET_OPTIONS = {"options": _ref("GetOptions")}
_SET = {"value": VALUE, "options": _ref("ExtendedSetOptions")}
_KEY = _object("key")
_SQL_QUERY = _object("query", params=_list({}))

# Tag, method, path, query parameters, request body, status and body of success.
_Row = tuple[str, str, str, list[Document], Document | None, str, Document | None]


def _query(name: str, schema: Document, *, required: bool = False) -> Document:
    return {"name": name, "in": "query", "required": required, "schema": schema}


_ROWS: list[_Row] = [
    (
        *("App Installations", "get", "/v1/installations"),
        [_query("pageSize", {"type": "integer", "minimum": 1, "maximum": 100, "default": 100}), _query("cursor", TEXT)],
        *(None, "200", _ref("AppInstallationsResponse")),
    ),
    (
        *("App Installations", "get", "/v1/installation/{installationId}", []),
        *(None, "200", _ref("AppInstallation")),
    ),
    ("Atlassian GraphQL", "post", "/atlassian/graphql/", [], ANY, "200", ANY),
    ("Forge Context", "get", "/invocation/context", [], None, "200", _ref("InvocationContext")),
    (
        *("Forge Dynamic Modules", "get", MODULES),
        [_query("nextPageToken", TEXT), _query("limit", INTEGER)],
        *(None, "200", _object(result=_list(_ref("DynamicModule")), lastEvaluatedKey=TEXT)),
    ),
    ("Forge Dynamic Modules", "put", MODULES, [], _ref("DynamicModule"), "200", _ref("DynamicModule")),
    ("Forge Dynamic Modules", "post", MODULES, [], _ref("DynamicModule"), "201", None),
    ("Forge Dynamic Modules", "get", f"{MODULES}/{{key}}", [], None, "200", _ref("DynamicModule")),
    ("Forge Dynamic Modules", "delete", f"{MODULES}/{{key}}", [], None, "204", None),
    (
        *("Forge Events", "post", "/atlassian/forge/events/v1/async-events", []),
        *(_object("queueName", "events", events=_list(_ref("AsyncEvent"))), "202", ANY),
    ),
    ("Forge KVS", "post", f"{KVS}/get", [], _object("key", **_GET_OPTIONS), "200", _ref("GetResponseSchema")),
    ("Forge KVS", "post", f"{KVS}/set", [], _object("key", "value", **_SET), "200", _ref("SetResponseSchema")),
    ("Forge KVS", "post", f"{KVS}/delete", [], _KEY, "204", None),
    (
        *("Forge KVS", "post", f"{KVS}/query", []),
        *(_object(limit=NUMBER, after=TEXT, where=_list(_ref("WhereCondition")), **_GET_OPTIONS), "200", _PAGE),
    ),
    (
        *("Forge KVS", "post", f"{KVS}/batch/set", []),
        _list(_object("key", "value", value=VALUE, entityName=TEXT, options=_ref("SetOptions"))),
        *("200", _ref("BatchResponse")),
    ),
    (
        *("Forge KVS", "post", f"{KVS}/batch/delete", []),
        *(_list(_object("key", entityName=TEXT)), "200", _ref("BatchResponse")),
    ),
    (
        *("Forge KVS", "post", f"{KVS}/batch/get", [], _list(_object("key", entityName=TEXT, **_GET_OPTIONS))),
        *("200", _object(successfulKeys=_list(_ref("GetResponseSchema")), failedKeys=_list(_ref("BatchFailure")))),
    ),
    ("Forge KVS", "post", f"{KVS}/secret/get", [], _object("key", **_GET_OPTIONS), "200", _ref("GetResponseSchema")),
    ("Forge KVS", "post", f"{KVS}/secret/set", [], _object("key", "value", **_SET), "200", _ref("SetResponseSchema")),
    ("Forge KVS", "post", f"{KVS}/secret/delete", [], _KEY, "204", None),
    (
        *("Forge KVS", "post", f"{KVS}/entity/get", []),
        *(_object("entityName", "key", **_GET_OPTIONS), "200", _ref("GetResponseSchema")),
    ),
    (
        *("Forge KVS", "post", f"{KVS}/entity/set", []),
        _object("entityName", "key", "value", value=ANY, options=_ref("ExtendedSetOptions")),
        *("200", _ref("SetResponseSchema")),
    ),
    ("Forge KVS", "post", f"{KVS}/entity/delete", [], _object("entityName", "key"), "204", None),
    (
        *("Forge KVS", "post", f"{KVS}/entity/query", []),
        _object(
            "entityName",
            "indexName",
            cursor=TEXT,
            limit=NUMBER,
            sort=_enum("ASC", "DESC"),
            partition=_list({}),
            range=_object(condition=TEXT, values=_list({})),
            filters=_FILTERS,
            metadataFields=_METADATA_FIELDS,
        ),
        *("200", _PAGE),
    ),
    (
        *("Forge KVS", "post", f"{KVS}/transaction", []),
        _object(
            set=_list(
                {"oneOf": [_ref("SetTransactionTypedItemSchema"), _ref("SetTransactionUntypedItemSchema")]},
            ),
            delete=_list(_ref("TransactionDeleteItem")),
            check=_list(_ref("TransactionCheckItem")),
        ),
        *("204", None),
    ),
    ("Forge LLM", "get", "/forge/llm", [], None, "200", _ref("LLMListResponsePayload")),
    ("Forge LLM", "post", "/forge/llm/{model}", [], _ref("LLMRequestPayload"), "200", _ref("LLMResponsePayload")),
    ("Forge Object Store", "post", f"{OS}/delete", [], _KEY, "204", None),
    ("Forge Object Store", "post", f"{OS}/metadata", [], _KEY, "200", _ref("OsObjectMetadataResponse")),
    (
        *("Forge Object Store", "post", f"{OS}/upload-url", []),
        _object(
            *("key", "length", "checksum", "checksumType"),
            length=INTEGER,
            checksumType=_enum("SHA1", "SHA256", "CRC32", "CRC32C"),
            ttlSeconds=INTEGER,
            overwrite={"type": "boolean"},
        ),
        *("200", _ref("OsUrlResponse")),
    ),
    ("Forge Object Store", "post", f"{OS}/download-url", [], _KEY, "200", _ref("OsUrlResponse")),
    (
        *("Forge Realtime", "post", f"{REALTIME}/publish", []),
        _object("name", "payload", options=_object(token=TEXT, contextOverrides=_list(TEXT))),
        *("200", ANY),
    ),
    ("Forge Realtime", "post", f"{REALTIME}/publish/global", [], _object("name", "payload", options=ANY), "200", ANY),
    (
        *("Forge Realtime", "post", f"{REALTIME}/token", []),
        _object("channelName", "claims", claims=ANY, permissions=_list(_enum("subscribe", "publish"))),
        *("200", ANY),
    ),
    ("Forge WebTriggers", "post", "/forge/webtrigger/url", [], _object("moduleKey"), "200", _object(url=TEXT)),
    (
        *("Forge WebTriggers", "delete", "/forge/webtrigger/url"),
        [_query("url", {"type": "string", "format": "uri"}, required=True)],
        *(None, "204", None),
    ),
    ("Forge WebTriggers", "get", "/forge/webtrigger/urls", [], None, "200", _object(urls=_list(TEXT))),
    ("Forge SQL", "post", f"{SQL}/execute", [], _SQL_QUERY, "200", _ref("SqlResponse")),
    ("Forge SQL", "post", f"{SQL}/execute/ddl", [], _SQL_QUERY, "200", _ref("SqlResponse")),
]
WILDCARDS = {"Confluence": "/confluence/{target}", "Forge Proxy": "/proxy/{target}", "Jira": "/jira/{target}"}
_WITHOUT_HEADER = {"App Installations", "Forge WebTriggers"}
_WITHOUT_SECURITY = {"Forge LLM"}
_WITH_CONTENT_TYPE = {"Forge Events", "Forge Realtime"}

TAGS = sorted({row[0] for row in _ROWS} | WILDCARDS.keys())


def containers_api(security: Security = "operation") -> Document:
    """Return the document, with `security` in one of its forms."""
    paths: Document = {}
    for tag, method, path, query, body, status, result in _rows():
        parameters = copy.deepcopy(query)
        parameters += [
            {"name": part[1:-1], "in": "path", "required": True, "schema": _path_schema(part)}
            for part in path.split("/")
            if part.startswith("{")
        ]
        if tag not in _WITHOUT_HEADER:
            parameters.append(dict(HEADER))
        if body == ANY or tag in _WITH_CONTENT_TYPE:
            parameters.append(dict(CONTENT_TYPE))
        found = {"description": "Done"}
        failed: Document = {code: {"description": "Failed"} for code in ("400", "429", "500")}
        operation: Document = {
            "tags": [tag],
            **({"parameters": parameters} if parameters else {}),
            **({"requestBody": {"required": True, "content": _json(body)}} if body is not None else {}),
            "responses": {status: found | ({"content": _json(result)} if result is not None else {}), **failed},
        }
        if security in ("operation", "both") and tag not in _WITHOUT_SECURITY:
            operation["security"] = [{"bearerAuth": []}]
        paths.setdefault(path, {})[method] = operation
    return {
        "openapi": "3.0.1",
        "info": {"title": "Forge Containers API", "version": "1.0.0"},
        "servers": [{"url": "http://localhost:7072"}],
        "tags": [{"name": tag} for tag in TAGS],
        "paths": paths,
        **({"security": [{"bearerAuth": []}]} if security in ("global", "both") else {}),
        "components": {
            "schemas": copy.deepcopy(SCHEMAS),
            **({"securitySchemes": {"bearerAuth": {"type": "http", "scheme": "bearer"}}} if security != "none" else {}),
        },
    }


def _rows() -> Iterator[_Row]:
    yield from _ROWS
    for tag, path in WILDCARDS.items():
        for method in ("get", "put", "post", "delete", "options", "head", "patch"):
            body = ANY if method in ("put", "post", "patch") else None
            yield tag, method, path, [], body, "200", None if method == "head" else ANY


def _path_schema(part: str) -> Document:
    return {
        "{installationId}": {"type": "string", "format": "uuid"},
        "{model}": _ref("LLM"),
    }.get(part, TEXT)


def _json(schema: Document) -> Document:
    return {"application/json": {"schema": copy.deepcopy(schema)}}
