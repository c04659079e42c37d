"""Cases of changes: mutations of a document, and their expected results.

Each case starts from the derived document. `before` prepares the old side, `after` turns it into the new side.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from generator.pipeline.open_enums import open_response_enums

Document = dict[str, Any]
Mutation = Callable[[Document], object]

PUBLISH = "/forge/realtime/v1/publish"
GLOBAL = "/forge/realtime/v1/publish/global"
TOKEN = "/forge/realtime/v1/token"
PRESENCE = "/forge/realtime/v1/presence"
API = "forge_realtime._api.api.forge_realtime"

EVENT = {"name": "board-42", "payload": "moved"}
SIGNING = {"channelName": "board-42", "claims": {}}


@dataclass
class Case:
    """One change.

    Attributes:
        after: Turns the old document into the new one.
        changes: Kind, effect and Python names of each change in the report.
        griffe: Effect according to griffe.
        before: Prepares the old document.
        code: Public names with their annotations in the old and the new code; `None` if they do not exist there.
        calls: Method, path, body, and the status of the emulator with the old and with the new document.
        header: The header with the credentials, on the new side.
    """

    after: Mutation
    changes: list[tuple[str, str, tuple[str, ...]]]
    griffe: str
    before: Mutation = lambda _: None
    code: dict[str, tuple[str | None, str | None]] = field(default_factory=dict)
    calls: list[tuple[str, str, Any, int, int]] = field(default_factory=list)
    header: str = "forge-proxy-authorization"

    def documents(self, derived: Document) -> tuple[Document, Document]:
        old = copy.deepcopy(derived)
        self.before(old)
        new = copy.deepcopy(old)
        self.after(new)
        return old, new


def same(text: str) -> tuple[str, str]:
    return text, text


def operation(document: Document, path: str = PUBLISH) -> Document:
    found: Document = next(iter(document["paths"][path].values()))
    return found


def request(document: Document, path: str = PUBLISH) -> Document:
    schema: Document = operation(document, path)["requestBody"]["content"]["application/json"]["schema"]
    return schema


def options(document: Document) -> Document:
    schema: Document = request(document)["properties"]["options"]
    return schema


def response(document: Document, path: str = PUBLISH) -> Document:
    schema: Document = operation(document, path)["responses"]["200"]["content"]["application/json"]["schema"]
    return schema


def permissions(document: Document) -> Document:
    schema: Document = request(document, TOKEN)["properties"]["permissions"]
    return schema


def in_request(name: str, schema: Document, required: bool = False) -> Mutation:
    def put(document: Document) -> None:
        request(document)["properties"][name] = schema
        if required:
            request(document)["required"].append(name)

    return put


def in_response(name: str, schema: Document, required: bool = False, open_enums: bool = False) -> Mutation:
    def put(document: Document) -> None:
        response(document)["properties"][name] = copy.deepcopy(schema)
        if open_enums:  # As `generate` does.
            document.update(open_response_enums(document))
        if required:
            response(document).setdefault("required", []).append(name)

    return put


def parameter(name: str, place: str = "query", schema: Document | None = None, **more: Any) -> Mutation:
    def put(document: Document) -> None:
        parameters = operation(document)["parameters"]
        parameters[:] = [one for one in parameters if one["name"] != name]
        parameters.append({"name": name, "in": place, "schema": schema or {"type": "string"}, **more})

    return put


def presence(document: Document) -> None:
    document["paths"][PRESENCE] = {
        "get": {
            "tags": ["Forge Realtime"],
            "operationId": "presence",
            "parameters": [{"name": "channelName", "in": "query", "required": True, "schema": {"type": "string"}}],
            "responses": {
                "200": {
                    "description": "ok",
                    "content": {
                        "application/json": {
                            "schema": {
                                "title": "Presence",
                                "type": "object",
                                "properties": {"users": {"type": "array", "items": {"type": "string"}}},
                            }
                        }
                    },
                }
            },
        }
    }


def presence_by_body(document: Document) -> Document:
    presence(document)
    schema = {"title": "Filter", "type": "object", "properties": {"team": {"type": "string"}}}
    body = {"required": True, "content": {"application/json": {"schema": schema}}}
    operation(document, PRESENCE)["requestBody"] = body
    return body


def _move_path(document: Document) -> None:
    document["paths"] = {
        path.replace("v1/publish", "v2/publish") if path == PUBLISH else path: item
        for path, item in document["paths"].items()
    }


def _move_method(document: Document) -> None:
    document["paths"][TOKEN] = {"put": document["paths"][TOKEN]["post"]}


def _without_name(document: Document) -> None:
    """As in the published document, where the name derives from the address."""
    _move_path(document)
    del operation(document, "/forge/realtime/v2/publish")["operationId"]


def _second_body(document: Document) -> None:
    other = {"title": "PublishForm", "type": "object", "properties": {"name": {"type": "string"}}}
    operation(document)["requestBody"]["content"]["application/x-www-form-urlencoded"] = {"schema": other}


def _rename_media(part: Document) -> None:
    part["content"]["application/vnd.forge+json"] = part["content"].pop("application/json")


def _accepted(title: str) -> Mutation:
    def put(document: Document) -> None:
        schema = {"title": title, "type": "object", "properties": {"id": {"type": "string"}}}
        content = {"application/json": {"schema": schema}}
        operation(document)["responses"]["202"] = {"description": "later", "content": content}

    return put


def _shared_response(document: Document) -> None:
    schema = response(document)
    document["components"]["schemas"] = {"PublishResponse": copy.deepcopy(schema)}
    reference = {"$ref": "#/components/schemas/PublishResponse"}
    operation(document)["responses"]["200"]["content"]["application/json"]["schema"] = reference


def _also_202(document: Document) -> None:
    operation(document)["responses"]["202"] = copy.deepcopy(operation(document)["responses"]["200"])


def _move_status(document: Document) -> None:
    operation(document)["responses"]["201"] = operation(document)["responses"].pop("200")


def _text_before(document: Document) -> None:
    content = operation(document)["responses"]["200"]["content"]
    operation(document)["responses"]["200"]["content"] = {"text/plain": {"schema": STRING}, **content}


def _no_body(document: Document) -> None:
    operation(document)["responses"]["200"].pop("content")


def _shared_options(document: Document) -> None:
    """Both requests share their options, a component in `allOf`."""
    shared = {"type": "object", "properties": {"token": {"type": "string"}}, "title": "SharedOptions"}
    document["components"]["schemas"] = {"SharedOptions": shared}
    for path in (PUBLISH, GLOBAL):
        request(document, path)["properties"]["options"] = {"allOf": [{"$ref": "#/components/schemas/SharedOptions"}]}


def _shared(document: Document) -> Document:
    schema: Document = document["components"]["schemas"]["SharedOptions"]
    return schema


STRING, NUMBER, INTEGER = {"type": "string"}, {"type": "number"}, {"type": "integer"}
STATES = {"type": "string", "enum": ["open", "closed"]}
MORE_STATES = {"type": "string", "enum": ["open", "closed", "gone"]}
POST = "POST"

CASES: dict[str, Case] = {
    # Operations
    "operation added": Case(
        after=presence,
        changes=[("operation added", "additive", (f"{API}.presence",))],
        griffe="additive",
        code={f"{API}.presence": (None, "(*, channel_name: str) -> Presence"), "Presence": (None, "class")},
        calls=[("GET", f"{PRESENCE}?channelName=x", None, 404, 200)],
    ),
    "operation removed": Case(
        before=presence,
        after=lambda document: document["paths"].pop(PRESENCE),
        changes=[("operation removed", "breaking", (f"{API}.presence",))],
        griffe="breaking",
        code={f"{API}.presence": ("(*, channel_name: str) -> Presence", None), "Presence": ("class", None)},
        calls=[("GET", f"{PRESENCE}?channelName=x", None, 200, 404)],
    ),
    "operation moved, path": Case(
        after=_move_path,
        changes=[("operation moved", "cosmetic", (f"{API}.publish",))],
        griffe="cosmetic",
        code={f"{API}.publish": same("(*, body: PublishRequest) -> PublishResponse")},
        calls=[(POST, PUBLISH, EVENT, 200, 404), (POST, "/forge/realtime/v2/publish", EVENT, 404, 200)],
    ),
    "operation moved, method": Case(
        after=_move_method,
        changes=[("operation moved", "cosmetic", (f"{API}.sign_realtime_token",))],
        griffe="cosmetic",
        calls=[(POST, TOKEN, SIGNING, 200, 405), ("PUT", TOKEN, SIGNING, 405, 200)],
    ),
    "operation moved and renamed, known by its content": Case(
        after=_without_name,
        changes=[
            ("operation renamed", "breaking", (f"{API}.publish", f"{API}.post_forge_realtime_v2_publish")),
            ("operation moved", "cosmetic", (f"{API}.post_forge_realtime_v2_publish",)),
        ],
        griffe="breaking",
        code={f"{API}.publish": ("(*, body: PublishRequest) -> PublishResponse", None)},
        calls=[(POST, PUBLISH, EVENT, 200, 404)],
    ),
    "operation renamed": Case(
        after=lambda document: operation(document).update(operationId="send"),
        changes=[("operation renamed", "breaking", (f"{API}.publish", f"{API}.send"))],
        griffe="breaking",
        code={f"{API}.send": (None, "(*, body: PublishRequest) -> PublishResponse")},
        calls=[(POST, PUBLISH, EVENT, 200, 200)],
    ),
    "operation deprecated": Case(
        after=lambda document: operation(document).update(deprecated=True),
        changes=[("operation deprecated", "additive", (f"{API}.publish",))],
        griffe="none",
        calls=[(POST, PUBLISH, EVENT, 200, 200)],
    ),
    "operation no longer deprecated": Case(
        before=lambda document: operation(document).update(deprecated=True),
        after=lambda document: operation(document).pop("deprecated"),
        changes=[("operation no longer deprecated", "cosmetic", (f"{API}.publish",))],
        griffe="none",
        calls=[(POST, PUBLISH, EVENT, 200, 200)],
    ),
    "security changed": Case(
        after=lambda document: document["components"]["securitySchemes"]["forgeProxyAuthorization"].update(
            name="x-forge"
        ),
        changes=[("security changed", "breaking", ("RealtimeClient", "AsyncRealtimeClient"))],
        griffe="none",
        calls=[(POST, PUBLISH, EVENT, 200, 200)],
        header="x-forge",
    ),
    # Parameters
    "parameter added, optional": Case(
        after=parameter("limit", schema=INTEGER),
        changes=[("parameter added, optional", "additive", ("publish(limit)",))],
        griffe="cosmetic",
        code={
            f"{API}.publish": (
                "(*, body: PublishRequest) -> PublishResponse",
                "(*, body: PublishRequest, limit: int | Unset = UNSET) -> PublishResponse",
            )
        },
        calls=[(POST, PUBLISH, EVENT, 200, 200), (POST, f"{PUBLISH}?limit=1", EVENT, 200, 200)],
    ),
    "parameter added, required": Case(
        after=parameter("X-Region", "header", required=True),
        changes=[("parameter added, required", "breaking", ("publish(x_region)",))],
        griffe="breaking",
        code={
            f"{API}.publish": (
                "(*, body: PublishRequest) -> PublishResponse",
                "(*, body: PublishRequest, x_region: str) -> PublishResponse",
            )
        },
    ),
    "parameter removed": Case(
        before=parameter("limit"),
        after=lambda document: operation(document)["parameters"].clear(),
        changes=[("parameter removed", "breaking", ("publish(limit)",))],
        griffe="breaking",
        code={
            f"{API}.publish": (
                "(*, body: PublishRequest, limit: str | Unset = UNSET) -> PublishResponse",
                "(*, body: PublishRequest) -> PublishResponse",
            )
        },
    ),
    "parameter renamed": Case(
        before=parameter("limit", schema=INTEGER),
        after=lambda document: operation(document)["parameters"][0].update(name="maxItems"),
        changes=[("parameter renamed", "breaking", ("publish(limit)", "publish(max_items)"))],
        griffe="breaking",
    ),
    "parameter moved": Case(
        before=parameter("limit"),
        after=lambda document: operation(document)["parameters"][0].update({"in": "header"}),
        changes=[("parameter moved", "cosmetic", ("publish(limit)",))],
        griffe="cosmetic",
        code={f"{API}.publish": same("(*, body: PublishRequest, limit: str | Unset = UNSET) -> PublishResponse")},
    ),
    "parameter became required": Case(
        before=parameter("limit"),
        after=parameter("limit", required=True),
        changes=[("became required", "breaking", ("publish(limit)",))],
        griffe="breaking",
    ),
    "parameter became optional": Case(
        before=parameter("limit", required=True),
        after=parameter("limit"),
        changes=[("became optional", "additive", ("publish(limit)",))],
        griffe="cosmetic",
    ),
    "parameter type changed": Case(
        before=parameter("limit"),
        after=parameter("limit", schema=INTEGER),
        changes=[("type changed", "breaking", ("publish(limit)",))],
        griffe="cosmetic",
        code={
            f"{API}.publish": (
                "(*, body: PublishRequest, limit: str | Unset = UNSET) -> PublishResponse",
                "(*, body: PublishRequest, limit: int | Unset = UNSET) -> PublishResponse",
            )
        },
    ),
    "parameter nullable": Case(
        before=parameter("limit"),
        after=parameter("limit", schema={"type": "string", "nullable": True}),
        changes=[("became nullable", "additive", ("publish(limit)",))],
        griffe="cosmetic",
    ),
    "parameter with one more value": Case(
        before=parameter("state", schema=STATES),
        after=parameter("state", schema=MORE_STATES),
        changes=[("enum value added", "additive", ("publish(state)",))],
        griffe="cosmetic",
        code={"PublishState": ("Literal['closed', 'open']", "Literal['closed', 'gone', 'open']")},
    ),
    "parameter deprecated": Case(
        before=parameter("limit"),
        after=parameter("limit", deprecated=True),
        changes=[("deprecated", "additive", ("publish(limit)",))],
        griffe="none",
    ),
    "path parameter renamed": Case(
        before=lambda document: (
            parameter("id", "path", required=True)(document),
            document["paths"].update({f"{PUBLISH}/{{id}}": document["paths"].pop(PUBLISH)}),
        ),
        after=lambda document: (
            document["paths"][f"{PUBLISH}/{{id}}"]["post"]["parameters"][0].update(name="channel"),
            document["paths"].update({f"{PUBLISH}/{{channel}}": document["paths"].pop(f"{PUBLISH}/{{id}}")}),
        ),
        changes=[("parameter renamed", "breaking", ("publish(id)", "publish(channel)"))],
        griffe="breaking",
        code={
            f"{API}.publish": (
                "(id: str, *, body: PublishRequest) -> PublishResponse",
                "(channel: str, *, body: PublishRequest) -> PublishResponse",
            )
        },
    ),
    # Bodies
    "body became optional": Case(
        before=presence_by_body,
        after=lambda document: operation(document, PRESENCE)["requestBody"].update(required=False),
        changes=[("became optional", "additive", ("presence(body)",))],
        griffe="cosmetic",
        code={
            f"{API}.presence": (
                "(*, body: Filter, channel_name: str) -> Presence",
                "(*, body: Filter | Unset = UNSET, channel_name: str) -> Presence",
            )
        },
        calls=[("GET", f"{PRESENCE}?channelName=x", None, 400, 200)],
    ),
    "body became required": Case(
        before=lambda document: (
            presence_by_body(document),
            operation(document, PRESENCE)["requestBody"].update(required=False),
        ),
        after=lambda document: operation(document, PRESENCE)["requestBody"].update(required=True),
        changes=[("became required", "breaking", ("presence(body)",))],
        griffe="breaking",
        calls=[("GET", f"{PRESENCE}?channelName=x", None, 200, 400)],
    ),
    "body added, required": Case(
        before=presence,
        after=presence_by_body,
        changes=[("body added, required", "breaking", ("presence(body)",))],
        griffe="breaking",
        code={"Filter.team": (None, "str | Unset = UNSET")},
        calls=[("GET", f"{PRESENCE}?channelName=x", None, 200, 400)],
    ),
    "body added, optional": Case(
        before=presence,
        after=lambda document: (
            presence_by_body(document),
            operation(document, PRESENCE)["requestBody"].pop("required"),
        ),
        changes=[("body added, optional", "additive", ("presence(body)",))],
        griffe="additive",
        code={"Filter.team": (None, "str | Unset = UNSET")},
        calls=[("GET", f"{PRESENCE}?channelName=x", None, 200, 200)],
    ),
    "body removed": Case(
        after=lambda document: operation(document).pop("requestBody"),
        changes=[("body removed", "breaking", ("publish(body)",))],
        griffe="breaking",
        code={f"{API}.publish": ("(*, body: PublishRequest) -> PublishResponse", "() -> PublishResponse")},
    ),
    "content type added": Case(
        after=_second_body,
        changes=[("content type added", "additive", ("publish(body)",))],
        griffe="additive",
        code={"PublishForm": (None, "class")},
        calls=[(POST, PUBLISH, EVENT, 200, 200)],
    ),
    "content type removed": Case(
        before=_second_body,
        after=lambda document: operation(document)["requestBody"]["content"].pop("application/x-www-form-urlencoded"),
        changes=[("content type removed", "breaking", ("publish(body)",))],
        griffe="breaking",
        code={"PublishForm": ("class", None)},
        calls=[(POST, PUBLISH, EVENT, 200, 200)],
    ),
    "content type renamed": Case(
        after=lambda document: _rename_media(operation(document)["requestBody"]),
        changes=[("content type renamed", "cosmetic", ("publish(body)",))],
        griffe="cosmetic",
        code={f"{API}.publish": same("(*, body: PublishRequest) -> PublishResponse")},
    ),
    # Responses
    "response of another content type": Case(
        after=lambda document: _rename_media(operation(document)["responses"]["200"]),
        changes=[("content type renamed", "cosmetic", (f"{API}.publish",))],
        griffe="none",
        calls=[(POST, PUBLISH, EVENT, 200, 200)],
    ),
    "status added": Case(
        after=_accepted("Accepted"),
        changes=[("status added", "breaking", (f"{API}.publish",))],
        griffe="additive",
        code={
            f"{API}.publish": (
                "(*, body: PublishRequest) -> PublishResponse",
                "(*, body: PublishRequest) -> Accepted | PublishResponse",
            )
        },
        calls=[(POST, PUBLISH, EVENT, 200, 200)],
    ),
    "status added, same type": Case(
        before=_shared_response,
        after=_also_202,
        changes=[("status added, same type", "additive", (f"{API}.publish",))],
        griffe="cosmetic",
        code={f"{API}.publish": same("(*, body: PublishRequest) -> PublishResponse")},
        calls=[(POST, PUBLISH, EVENT, 200, 200)],
    ),
    "status removed": Case(
        before=_accepted("Accepted"),
        after=lambda document: operation(document)["responses"].pop("202"),
        changes=[("status removed", "breaking", (f"{API}.publish",))],
        griffe="breaking",
        code={"Accepted": ("class", None)},
        calls=[(POST, PUBLISH, EVENT, 200, 200)],
    ),
    "status renamed": Case(
        after=_move_status,
        changes=[("status renamed", "cosmetic", (f"{API}.publish",))],
        griffe="cosmetic",
        code={f"{API}.publish": same("(*, body: PublishRequest) -> PublishResponse")},
    ),
    # Properties of requests
    "property added, optional": Case(
        after=in_request("timeToLive", INTEGER),
        changes=[("property added, optional", "additive", ("PublishRequest.time_to_live",))],
        griffe="additive",
        code={"PublishRequest.time_to_live": (None, "int | Unset = UNSET")},
        calls=[(POST, PUBLISH, EVENT, 200, 200), (POST, PUBLISH, {**EVENT, "timeToLive": "x"}, 200, 400)],
    ),
    "property added, required": Case(
        after=in_request("region", STRING, required=True),
        changes=[("property added, required", "breaking", ("PublishRequest.region",))],
        griffe="breaking",
        code={"PublishRequest.region": (None, "str")},
        calls=[(POST, PUBLISH, EVENT, 200, 400), (POST, PUBLISH, {**EVENT, "region": "eu"}, 200, 200)],
    ),
    "property removed": Case(
        after=lambda document: options(document)["properties"].pop("contextOverrides"),
        changes=[("property removed", "breaking", ("PublishOptions.context_overrides",))],
        griffe="breaking",
        code={"PublishOptions.context_overrides": ("list[str] | Unset = UNSET", None)},
        calls=[(POST, PUBLISH, {**EVENT, "options": {"contextOverrides": ["issue"]}}, 200, 200)],
    ),
    "property renamed": Case(
        after=lambda document: options(document)["properties"].update(
            signedToken=options(document)["properties"].pop("token")
        ),
        changes=[("property renamed", "breaking", ("PublishOptions.token", "PublishOptions.signed_token"))],
        griffe="breaking",
        code={
            "PublishOptions.token": ("str | Unset = UNSET", None),
            "PublishOptions.signed_token": (None, "str | Unset = UNSET"),
        },
        calls=[(POST, PUBLISH, {**EVENT, "options": {"signedToken": 1}}, 200, 400)],
    ),
    "property required": Case(
        after=lambda document: request(document)["required"].append("options"),
        changes=[("became required", "breaking", ("PublishRequest.options",))],
        griffe="breaking",
        code={"PublishRequest.options": ("PublishOptions | Unset = UNSET", "PublishOptions")},
        calls=[(POST, PUBLISH, EVENT, 200, 400), (POST, PUBLISH, {**EVENT, "options": {}}, 200, 200)],
    ),
    # Required arguments of a constructor come first, so griffe sees a changed order.
    "property optional": Case(
        before=in_request("region", STRING, required=True),
        after=lambda document: request(document)["required"].remove("region"),
        changes=[("became optional", "additive", ("PublishRequest.region",))],
        griffe="breaking",
        code={"PublishRequest.region": ("str", "str | Unset = UNSET")},
        calls=[(POST, PUBLISH, EVENT, 400, 200)],
    ),
    "property type changed": Case(
        after=in_request("payload", {"type": "object", "title": "Payload"}),
        changes=[("type changed", "breaking", ("PublishRequest.payload",))],
        griffe="additive",
        code={"PublishRequest.payload": ("str", "Payload")},
        calls=[(POST, PUBLISH, EVENT, 200, 400)],
    ),
    "property type widened": Case(
        after=in_request("payload", {"anyOf": [STRING, NUMBER]}),
        changes=[("type widened", "additive", ("PublishRequest.payload",))],
        griffe="cosmetic",
        code={"PublishRequest.payload": ("str", "float | str")},
        calls=[(POST, PUBLISH, EVENT, 200, 200), (POST, PUBLISH, {**EVENT, "payload": 1}, 400, 200)],
    ),
    "property type narrowed": Case(
        before=in_request("size", NUMBER),
        after=in_request("size", INTEGER),
        changes=[("type narrowed", "breaking", ("PublishRequest.size",))],
        griffe="cosmetic",
        code={"PublishRequest.size": ("float | Unset = UNSET", "int | Unset = UNSET")},
        calls=[(POST, PUBLISH, {**EVENT, "size": 1.5}, 200, 400)],
    ),
    "property type narrowed to an enumeration": Case(
        before=in_request("state", STRING),
        after=in_request("state", STATES),
        changes=[("type narrowed", "breaking", ("PublishRequest.state",))],
        griffe="additive",
        code={"PublishRequest.state": ("str | Unset = UNSET", "PublishRequestState | Unset = UNSET")},
        calls=[(POST, PUBLISH, {**EVENT, "state": "ajar"}, 200, 400)],
    ),
    "items of a property type changed": Case(
        after=lambda document: options(document)["properties"]["contextOverrides"].update(items=INTEGER),
        changes=[("type changed", "breaking", ("PublishOptions.context_overrides",))],
        griffe="cosmetic",
        code={"PublishOptions.context_overrides": ("list[str] | Unset = UNSET", "list[int] | Unset = UNSET")},
        calls=[(POST, PUBLISH, {**EVENT, "options": {"contextOverrides": ["issue"]}}, 200, 400)],
    ),
    "property nullable": Case(
        after=lambda document: options(document)["properties"]["contextOverrides"].update(nullable=True),
        changes=[("became nullable", "additive", ("PublishOptions.context_overrides",))],
        griffe="cosmetic",
        code={
            "PublishOptions.context_overrides": ("list[str] | Unset = UNSET", "list[str] | None | Unset = UNSET"),
        },
        calls=[(POST, PUBLISH, {**EVENT, "options": {"contextOverrides": None}}, 400, 200)],
    ),
    "property no longer nullable": Case(
        before=lambda document: options(document)["properties"]["contextOverrides"].update(nullable=True),
        after=lambda document: options(document)["properties"]["contextOverrides"].pop("nullable"),
        changes=[("no longer nullable", "breaking", ("PublishOptions.context_overrides",))],
        griffe="cosmetic",
        calls=[(POST, PUBLISH, {**EVENT, "options": {"contextOverrides": None}}, 200, 400)],
    ),
    "enum value added": Case(
        after=lambda document: permissions(document)["items"]["enum"].append("manage"),
        changes=[("enum value added", "additive", ("SignRealtimeTokenRequest.permissions",))],
        griffe="cosmetic",
        code={
            "SignRealtimeTokenRequestPermissionsItem": (
                "Literal['publish', 'subscribe']",
                "Literal['manage', 'publish', 'subscribe']",
            )
        },
        calls=[(POST, TOKEN, {**SIGNING, "permissions": ["manage"]}, 400, 200)],
    ),
    "enum value removed": Case(
        after=lambda document: permissions(document)["items"]["enum"].remove("subscribe"),
        changes=[("enum value removed", "breaking", ("SignRealtimeTokenRequest.permissions",))],
        griffe="cosmetic",
        code={"SignRealtimeTokenRequestPermissionsItem": ("Literal['publish', 'subscribe']", "Literal['publish']")},
        calls=[(POST, TOKEN, {**SIGNING, "permissions": ["subscribe"]}, 200, 400)],
    ),
    "default changed": Case(
        before=in_request("urgency", {"type": "string", "default": "low"}),
        after=in_request("urgency", {"type": "string", "default": "high"}),
        changes=[("default changed", "breaking", ("PublishRequest.urgency",))],
        griffe="breaking",
        code={"PublishRequest.urgency": ("str | Unset = 'low'", "str | Unset = 'high'")},
    ),
    "constraint tightened": Case(
        after=lambda document: request(document)["properties"]["name"].update(maxLength=5),
        changes=[("constraint tightened", "breaking", ("PublishRequest.name",))],
        griffe="none",
        calls=[(POST, PUBLISH, EVENT, 200, 400)],
    ),
    "constraint loosened": Case(
        before=lambda document: request(document)["properties"]["name"].update(maxLength=5),
        after=lambda document: request(document)["properties"]["name"].update(maxLength=50),
        changes=[("constraint loosened", "additive", ("PublishRequest.name",))],
        griffe="none",
        calls=[(POST, PUBLISH, EVENT, 400, 200)],
    ),
    "additional properties refused": Case(
        after=lambda document: options(document).update(additionalProperties=False),
        changes=[("additional properties refused", "breaking", ("PublishOptions.additional_properties",))],
        griffe="breaking",
        calls=[(POST, PUBLISH, {**EVENT, "options": {"more": 1}}, 200, 400)],
    ),
    "additional properties allowed": Case(
        before=lambda document: options(document).update(additionalProperties=False),
        after=lambda document: options(document).pop("additionalProperties"),
        changes=[("additional properties allowed", "additive", ("PublishOptions.additional_properties",))],
        griffe="additive",
        calls=[(POST, PUBLISH, {**EVENT, "options": {"more": 1}}, 400, 200)],
    ),
    "model renamed": Case(
        after=lambda document: options(document).update(title="Scope"),
        changes=[("model renamed", "breaking", ("PublishOptions", "Scope"))],
        griffe="breaking",
        code={"PublishRequest.options": ("PublishOptions | Unset = UNSET", "Scope | Unset = UNSET")},
        calls=[(POST, PUBLISH, EVENT, 200, 200)],
    ),
    "property deprecated": Case(
        after=lambda document: options(document)["properties"]["token"].update(deprecated=True),
        changes=[("deprecated", "additive", ("PublishOptions.token",))],
        griffe="none",
        calls=[(POST, PUBLISH, EVENT, 200, 200)],
    ),
    "property no longer deprecated": Case(
        before=lambda document: options(document)["properties"]["token"].update(deprecated=True),
        after=lambda document: options(document)["properties"]["token"].pop("deprecated"),
        changes=[("no longer deprecated", "cosmetic", ("PublishOptions.token",))],
        griffe="none",
    ),
    "property of a component that two operations share": Case(
        before=_shared_options,
        after=lambda document: _shared(document)["properties"].pop("token"),
        changes=[("property removed", "breaking", ("SharedOptions.token",))],
        griffe="breaking",
        code={"SharedOptions.token": ("str | Unset = UNSET", None)},
    ),
    "arguments in another order": Case(
        after=lambda document: options(document)["properties"].update(
            token=options(document)["properties"].pop("token")
        ),
        changes=[],
        griffe="breaking",
        calls=[(POST, PUBLISH, EVENT, 200, 200)],
    ),
    # Properties of responses
    "property added to a response": Case(
        after=in_response("shard", STRING, required=True),
        changes=[("property added, required", "additive", ("PublishResponse.shard",))],
        griffe="additive",
        code={"PublishResponse.shard": (None, "str")},
        calls=[(POST, PUBLISH, EVENT, 200, 200)],
    ),
    "property removed from a response": Case(
        after=lambda document: response(document)["properties"].pop("errors"),
        changes=[("property removed", "breaking", ("PublishResponse.errors",))],
        griffe="breaking",
        code={"PublishResponse.errors": ("Any | Unset = UNSET", None)},
        calls=[(POST, PUBLISH, EVENT, 200, 200)],
    ),
    "property renamed in a response": Case(
        before=in_response("shard", STRING),
        after=lambda document: response(document)["properties"].update(
            part=response(document)["properties"].pop("shard")
        ),
        changes=[("property renamed", "breaking", ("PublishResponse.shard", "PublishResponse.part"))],
        griffe="breaking",
    ),
    "property required in a response": Case(
        before=in_response("shard", STRING),
        after=lambda document: response(document).update(required=["shard"]),
        changes=[("became required", "additive", ("PublishResponse.shard",))],
        griffe="cosmetic",
        code={"PublishResponse.shard": ("str | Unset = UNSET", "str")},
        calls=[(POST, PUBLISH, EVENT, 200, 200)],
    ),
    "property optional in a response": Case(
        before=in_response("shard", STRING, required=True),
        after=lambda document: response(document).pop("required"),
        changes=[("became optional", "breaking", ("PublishResponse.shard",))],
        griffe="cosmetic",
        code={"PublishResponse.shard": ("str", "str | Unset = UNSET")},
        calls=[(POST, PUBLISH, EVENT, 200, 200)],
    ),
    "property type widened in a response": Case(
        before=in_response("shard", INTEGER),
        after=in_response("shard", NUMBER),
        changes=[("type widened", "breaking", ("PublishResponse.shard",))],
        griffe="cosmetic",
        code={"PublishResponse.shard": ("int | Unset = UNSET", "float | Unset = UNSET")},
    ),
    "property type narrowed in a response": Case(
        after=lambda document: response(document)["properties"]["eventTimestamp"].update(anyOf=[STRING]),
        changes=[("type narrowed", "additive", ("PublishResponse.event_timestamp",))],
        griffe="cosmetic",
        code={"PublishResponse.event_timestamp": ("float | None | str | Unset = UNSET", "None | str | Unset = UNSET")},
        calls=[(POST, PUBLISH, EVENT, 200, 200)],
    ),
    "property type changed in a response": Case(
        before=in_response("at", STRING),
        after=in_response("at", {"type": "string", "format": "date-time"}),
        changes=[("type changed", "breaking", ("PublishResponse.at",))],
        griffe="cosmetic",
        code={"PublishResponse.at": ("str | Unset = UNSET", "datetime.datetime | Unset = UNSET")},
    ),
    "property nullable in a response": Case(
        before=in_response("shard", STRING),
        after=in_response("shard", {"type": "string", "nullable": True}),
        changes=[("became nullable", "breaking", ("PublishResponse.shard",))],
        griffe="cosmetic",
        code={"PublishResponse.shard": ("str | Unset = UNSET", "None | str | Unset = UNSET")},
    ),
    "property no longer nullable in a response": Case(
        after=lambda document: response(document)["properties"]["eventId"].pop("nullable"),
        changes=[("no longer nullable", "additive", ("PublishResponse.event_id",))],
        griffe="cosmetic",
        code={"PublishResponse.event_id": ("None | str | Unset = UNSET", "str | Unset = UNSET")},
        calls=[(POST, PUBLISH, EVENT, 200, 200)],
    ),
    "enum value added in a response": Case(
        before=in_response("state", STATES),
        after=in_response("state", MORE_STATES),
        changes=[("enum value added", "breaking", ("PublishResponse.state",))],
        griffe="cosmetic",
        code={"PublishResponseState": ("Literal['closed', 'open']", "Literal['closed', 'gone', 'open']")},
    ),
    "enum value removed in a response": Case(
        before=in_response("state", MORE_STATES),
        after=in_response("state", STATES),
        changes=[("enum value removed", "additive", ("PublishResponse.state",))],
        griffe="cosmetic",
        code={"PublishResponseState": ("Literal['closed', 'gone', 'open']", "Literal['closed', 'open']")},
    ),
    "known value added in a response": Case(
        before=in_response("state", STATES, open_enums=True),
        after=in_response("state", MORE_STATES, open_enums=True),
        changes=[("known value added", "additive", ("PublishResponse.state",))],
        griffe="cosmetic",
        code={
            "PublishResponse.state": same("PublishResponseStateType0 | str | Unset = UNSET"),
            "PublishResponseStateType0": ("Literal['closed', 'open']", "Literal['closed', 'gone', 'open']"),
        },
        calls=[(POST, PUBLISH, EVENT, 200, 200)],
    ),
    "known value removed from a response": Case(
        before=in_response("state", MORE_STATES, open_enums=True),
        after=in_response("state", STATES, open_enums=True),
        changes=[("known value removed", "cosmetic", ("PublishResponse.state",))],
        griffe="cosmetic",
        code={"PublishResponseStateType0": ("Literal['closed', 'gone', 'open']", "Literal['closed', 'open']")},
    ),
    "response of another type": Case(
        after=lambda document: operation(document)["responses"]["200"]["content"]["application/json"].update(
            schema={"type": "string"}
        ),
        changes=[("type changed", "breaking", (f"{API}.publish",))],
        griffe="breaking",
        code={
            f"{API}.publish": (
                "(*, body: PublishRequest) -> PublishResponse",
                "(*, body: PublishRequest) -> str",
            )
        },
        calls=[(POST, PUBLISH, EVENT, 200, 200)],
    ),
    "constraint tightened in a response": Case(
        before=in_response("shard", STRING),
        after=in_response("shard", {"type": "string", "pattern": "^[a-z]$"}),
        changes=[("constraint tightened", "cosmetic", ("PublishResponse.shard",))],
        griffe="none",
    ),
    "response without a body": Case(
        after=_no_body,
        changes=[
            ("content type removed", "cosmetic", (f"{API}.publish",)),
            ("response body removed", "breaking", (f"{API}.publish",)),
        ],
        griffe="breaking",
        code={
            f"{API}.publish": (
                "(*, body: PublishRequest) -> PublishResponse",
                "(*, body: PublishRequest) -> Any",
            )
        },
        calls=[(POST, PUBLISH, EVENT, 200, 200)],
    ),
    "body added to a response": Case(
        before=_no_body,
        after=lambda document: operation(document)["responses"]["200"].update(
            content={"application/json": {"schema": STRING}}
        ),
        changes=[
            ("content type added", "cosmetic", (f"{API}.publish",)),
            ("response body added", "additive", (f"{API}.publish",)),
        ],
        griffe="cosmetic",
        code={f"{API}.publish": ("(*, body: PublishRequest) -> Any", "(*, body: PublishRequest) -> str")},
        calls=[(POST, PUBLISH, EVENT, 200, 200)],
    ),
    "content type before the one that the client read": Case(
        after=_text_before,
        changes=[
            ("content type added", "cosmetic", (f"{API}.publish",)),
            ("type changed", "breaking", (f"{API}.publish",)),
        ],
        griffe="breaking",
        code={f"{API}.publish": ("(*, body: PublishRequest) -> PublishResponse", "(*, body: PublishRequest) -> str")},
    ),
    "errors of a response described": Case(
        after=lambda document: response(document)["properties"]["errors"].update(
            {"type": "array", "items": {"type": "object", "properties": {"code": STRING}}}
        ),
        changes=[("type changed", "breaking", ("PublishResponse.errors",))],
        griffe="additive",
        code={"PublishResponse.errors": ("Any | Unset = UNSET", "list[PublishResponseErrorsItem] | Unset = UNSET")},
        calls=[(POST, PUBLISH, EVENT, 200, 200)],
    ),
    "values of a response named": Case(
        before=in_response("state", STRING),
        after=in_response("state", STATES, open_enums=True),
        changes=[("enumeration added", "additive", ("PublishResponse.state", "PublishResponseStateType0"))],
        griffe="additive",
        code={
            "PublishResponse.state": ("str | Unset = UNSET", "PublishResponseStateType0 | str | Unset = UNSET"),
            "PublishResponseStateType0": (None, "Literal['closed', 'open']"),
        },
        calls=[(POST, PUBLISH, EVENT, 200, 200)],
    ),
    "values of a response no longer named": Case(
        before=in_response("state", STATES, open_enums=True),
        after=in_response("state", STRING),
        changes=[("enumeration removed", "breaking", ("PublishResponse.state", "PublishResponseStateType0"))],
        griffe="breaking",
    ),
    "values of a request no longer listed": Case(
        after=lambda document: permissions(document).update(items=STRING),
        changes=[
            ("type widened", "additive", ("SignRealtimeTokenRequest.permissions",)),
            ("enumeration removed", "breaking", ("SignRealtimeTokenRequestPermissionsItem",)),
        ],
        griffe="breaking",
        code={"SignRealtimeTokenRequestPermissionsItem": ("Literal['publish', 'subscribe']", None)},
        calls=[(POST, TOKEN, {**SIGNING, "permissions": ["manage"]}, 400, 200)],
    ),
    "property required that is not described": Case(
        after=lambda document: request(document)["required"].append("ttl"),
        changes=[("became required", "breaking", ("PublishRequest.additional_properties",))],
        griffe="none",
        calls=[(POST, PUBLISH, EVENT, 200, 400)],
    ),
    "parameter serialization changed": Case(
        before=parameter("scope", schema={"type": "array", "items": {"type": "string"}}),
        after=parameter("scope", schema={"type": "array", "items": {"type": "string"}}, explode=False),
        changes=[("serialization changed", "breaking", ("publish(scope)",))],
        griffe="none",
    ),
    # Descriptions
    "example and description": Case(
        after=lambda document: (
            operation(document).update(description="Other words."),
            options(document)["properties"]["token"].update(description="A token.", example="x"),
            operation(document)["requestBody"]["content"]["application/json"].update(example={"name": "a"}),
            document["info"].update(version="2"),
        ),
        changes=[
            ("description changed", "cosmetic", (f"{API}.publish",)),
            ("description changed", "cosmetic", ("publish(body)",)),
            ("description changed", "cosmetic", ("PublishOptions.token",)),
            ("description changed", "cosmetic", ()),
        ],
        griffe="cosmetic",
        calls=[(POST, PUBLISH, EVENT, 200, 200)],
    ),
    "name and description of the security scheme": Case(
        after=lambda document: (
            document["components"]["securitySchemes"].update(
                forge={**document["components"]["securitySchemes"].pop("forgeProxyAuthorization"), "description": "x"}
            ),
            document.update(security=[{"forge": []}]),
        ),
        changes=[],
        griffe="none",
        calls=[(POST, PUBLISH, EVENT, 200, 200)],
    ),
}
