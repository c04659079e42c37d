"""Clients for other groups: every operation of the document, and what documents can do to them."""

from __future__ import annotations

import asyncio
import copy
import importlib
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_type_hints
from unittest.mock import patch as replaced
from urllib.parse import parse_qsl, quote, urlsplit
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI

import forge_realtime
import forge_realtime.wsgi
from generator.document import GeneratorError
from generator.names import attribute_name, operation_module
from generator.pipeline import sibling_client
from generator.pipeline.patch import overlays_for, patch
from generator.pipeline.select import select
from generator.pipeline.sibling_client import make_client, require_typed
from generator.references import resolve
from tests.generator.conftest import REPOSITORY, copy_repository, render_unformatted, repin
from tests.support.containers_api import HEADER, TAGS, WILDCARDS, Security, containers_api
from tests.support.fault_server import Behaviour, FaultServer, answer

pytestmark = pytest.mark.slow

Document = dict[str, Any]
API = containers_api()
OPERATIONS = [(path, method) for path, item in API["paths"].items() for method in item]
SAMPLES: Document = {
    "integer": 7,
    "number": 7.5,
    "boolean": False,
    "uuid": "9f6f6d1e-5ac3-4a0e-8f0e-5a6f3a0c7a11",
    "uri": "https://example.com/x1?a=b&c=d",
}
# By the overlay for Realtime.
NAMED = {
    "/forge/realtime/v1/publish": "publish",
    "/forge/realtime/v1/publish/global": "publish_global",
    "/forge/realtime/v1/token": "sign_realtime_token",
}
INSTALLATION = "installation-1"
AUTHORIZATION = f"Forge as=app,installationId={INSTALLATION}"


class Made:
    """A package that was made for a document, and its modules."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.package = importlib.import_module(name)

    def operation(self, name: str) -> ModuleType:
        [path] = self.folder.glob(f"_api/api/*/{name}.py")
        return importlib.import_module(f"{self.package.__name__}._api.api.{path.parent.name}.{name}")

    def model(self, name: str) -> Any:
        return getattr(importlib.import_module(f"{self.package.__name__}._api.models"), name)

    def client(self, url: str, **policy: Any) -> Any:
        retry = self.package.RetryPolicy(**{"backoff_initial": 0.001, "backoff_max": 0.01, **policy})
        return self.package.ForgeClient(url, retry=retry)

    def call(self, server: FaultServer, name: str, *arguments: Any, **keywords: Any) -> Any:
        with self.client(server.url) as client:
            return client.for_installation(INSTALLATION).call(self.operation(name), *arguments, **keywords)

    def error(self, server: FaultServer, name: str, *arguments: Any, **keywords: Any) -> Any:
        with pytest.raises(self.package.ForgeRealtimeError) as caught:
            self.call(server, name, *arguments, **keywords)
        return caught.value


Make = Callable[..., Made]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    """Make and import packages quickly: in this process and without ruff."""
    folder = tmp_path_factory.mktemp("siblings")
    root = copy_repository(folder)
    pinned: list[Document] = []
    made: dict[tuple[str, str], Made] = {}

    def make(document: Document, *tags: str) -> Made:
        key = json.dumps(document), " ".join(tags)
        if key not in made:
            if pinned[-1:] != [document]:
                repin(root, document)
                pinned.append(document)
            name = f"sibling_{len(made)}"
            with (
                replaced.object(sibling_client, "render", render_unformatted),
                replaced.object(sibling_client, "_require_importable"),
            ):
                target = make_client(root, tags, name, folder / "made")
            made[key] = Made(target, name)
        return made[key]

    sys.path.insert(0, str(folder / "made"))
    with replaced.dict(sys.modules):
        yield make
    sys.path.remove(str(folder / "made"))


def small(*operations: Document, **components: Document) -> Document:
    """Return a document with operations of the group Small at `/small/0`, `/small/1`, … or at their own `path`."""
    paths: Document = {}
    for number, operation in enumerate(operations):
        rest = {
            key: value for key, value in operation.items() if key not in {"path", "method", "shared", "takes_header"}
        }
        header = [HEADER] if operation.get("takes_header", True) else []
        item = paths.setdefault(operation.get("path", f"/small/{number}"), {})
        if "shared" in operation:
            item["parameters"] = operation["shared"]
        item[operation.get("method", "get")] = {
            "tags": ["Small"],
            "responses": {"200": {"description": "Done"}},
            **rest,
            "parameters": [*rest.get("parameters", []), *header],
        }
    return {
        "openapi": "3.0.1",
        "info": {"title": "Small", "version": "1"},
        "tags": [{"name": "Small"}],
        "paths": paths,
        "components": components,
    }


def responding(status: str = "200", **content: Document) -> Document:
    """Return `responses` with the media types of `content`, in which `__` stands for a slash."""
    media = {name.replace("__", "/").replace("_", "-"): {"schema": schema} for name, schema in content.items()}
    return {status: {"description": "Done", **({"content": media} if media else {})}}


def sample(schema: Document) -> Any:
    """Return a value with every property of a schema."""
    found = resolve(API, schema)
    if "oneOf" in found:
        return sample(found["oneOf"][0])
    if "enum" in found:
        return found["enum"][-1]
    if found.get("type") == "object":
        return {name: sample(member) for name, member in found.get("properties", {"any": {}}).items()}
    if found.get("type") == "array":
        return [sample(found["items"])]
    return SAMPLES.get(str(found.get("format", found.get("type"))), "a b/ü")


def body_for(operation: ModuleType, value: Any) -> Any:
    """Return a value as the argument `body` of an operation."""
    hint = get_type_hints(operation._get_kwargs)["body"]
    if hasattr(hint, "from_dict"):
        return hint.from_dict(value)
    [model] = get_args(hint)
    return [model.from_dict(member) for member in value]


@pytest.mark.parametrize(("path", "method"), OPERATIONS, ids=[f"{method} {path}" for path, method in OPERATIONS])
def test_operation_sends_what_document_says(make: Make, path: str, method: str) -> None:
    operation = API["paths"][path][method]
    [tag] = operation["tags"]
    made = make(API, tag)
    module = made.operation(NAMED.get(path) or operation_module(path, method, operation).rpartition(".")[2])
    signature = inspect.signature(module._get_kwargs).parameters

    arguments: dict[str, Any] = {}
    expected_path, expected_query = path, {}
    takes_header = False
    for parameter in operation.get("parameters", ()):
        name, value = parameter["name"], sample(parameter.get("schema", {}))
        if parameter["in"] == "path":
            safe = "/" if tag in WILDCARDS else ""
            expected_path = expected_path.replace(f"{{{name}}}", quote(value, safe=safe))
            arguments[attribute_name(name)] = UUID(value) if value == SAMPLES["uuid"] else value
        elif parameter["in"] == "query":
            expected_query[name] = str(value)
            arguments[name if name in signature else attribute_name(name)] = value
        takes_header |= name == "forge-proxy-authorization"
    # The generator has an argument `url` of its own.
    arguments = {name if name in signature else f"{name}_query": value for name, value in arguments.items()}
    body = None
    if "requestBody" in operation:
        body = sample(operation["requestBody"]["content"]["application/json"]["schema"])
        arguments["body"] = body_for(module, body)
    [status] = [status for status in operation["responses"] if status.startswith("2")]
    content = operation["responses"][status].get("content")
    response = sample(content["application/json"]["schema"]) if content else None

    with FaultServer(then=answer(int(status), response)) as server, made.client(server.url) as client:
        result = (client.for_installation(INSTALLATION) if takes_header else client).call(module, **arguments)

    [received] = server.received
    sent = urlsplit(received.path)
    assert (received.method, sent.path) == (method.upper(), expected_path)
    assert dict(parse_qsl(sent.query)) == expected_query
    assert (json.loads(received.body) if received.body else None) == body
    assert received.headers.get("content-type") == ("application/json" if body is not None else None)
    assert received.headers.get("forge-proxy-authorization") == (AUTHORIZATION if takes_header else None)
    if method != "head":
        assert (result.to_dict() if hasattr(result, "to_dict") else result) == response


def test_document_has_fourteen_groups_and_sixty_operations() -> None:
    assert (len(TAGS), len(OPERATIONS)) == (14, 60)
    assert {tag for item in API["paths"].values() for operation in item.values() for tag in operation["tags"]} == {
        *TAGS
    }


@pytest.mark.parametrize("security", ["global", "both", "none"])
def test_form_of_security_makes_no_difference(repository: Path, security: Security) -> None:
    for tag in TAGS:
        overlays = overlays_for([tag], repository / "overlays/openapi")
        expected = patch(select(API, [tag]), overlays)
        found = patch(select(containers_api(security), [tag]), overlays)
        assert found["paths"] == expected["paths"]
        assert found["security"] == expected["security"]
        assert found["components"] == expected["components"]


REFERENCE = {"$ref": "#/components/parameters/A"}
PLACES: dict[str, tuple[Document, Document]] = {
    "inline": ({"parameters": [HEADER]}, {}),
    "reference": ({"parameters": [REFERENCE]}, {"A": HEADER}),
    "reference to a reference": (
        {"parameters": [{"$ref": "#/components/parameters/B"}]},
        {"A": HEADER, "B": REFERENCE},
    ),
    "path": ({"shared": [HEADER]}, {}),
    "reference in path": ({"shared": [REFERENCE]}, {"A": HEADER}),
    "path and operation": ({"shared": [HEADER], "parameters": [REFERENCE]}, {"A": HEADER}),
    "other case": ({"parameters": [{**HEADER, "name": "Forge-Proxy-Authorization"}]}, {}),
}


@pytest.mark.parametrize("security", [None, [], [{"bearerAuth": []}]])
@pytest.mark.parametrize("place", PLACES)
def test_header_is_found_wherever_it_is_defined(repository: Path, place: str, security: list[Document] | None) -> None:
    operation, parameters = PLACES[place]
    own = {} if security is None else {"security": security}
    document = small(
        {**operation, **own, "takes_header": False},
        {"takes_header": False},
        parameters=parameters,
        securitySchemes={"bearerAuth": {"type": "http", "scheme": "bearer"}},
    )
    patched = patch(select(document, ["Small"]), overlays_for(["Small"], repository / "overlays/openapi"))
    first, second = patched["paths"].values()
    assert first["get"]["parameters"] == []
    assert first.get("parameters", []) == []
    assert "security" not in first["get"]
    assert second["get"]["security"] == []
    assert patched["security"] == [{"forgeProxyAuthorization": []}]


def test_header_as_reference_is_sent_and_missing_invocation_is_named(make: Make) -> None:
    document = small({"parameters": [REFERENCE], "takes_header": False}, parameters={"A": HEADER})
    made = make(document, "Small")
    with FaultServer(then=answer(204)) as server:
        assert made.call(server, "get_small_0") is None
        with made.client(server.url) as client, pytest.raises(made.package.NoInvocationError):
            client.call(made.operation("get_small_0"))
    assert [request.headers["forge-proxy-authorization"] for request in server.received] == [AUTHORIZATION]


WILDCARD = {
    "path": "/jira/{target}",
    "parameters": [{"name": "target", "in": "path", "required": True, "schema": {"type": "string"}}],
    "responses": responding(application__json={"type": "object"}),
}


@pytest.fixture
def jira(make: Make) -> Made:
    post = {
        **WILDCARD,
        "method": "post",
        "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}},
    }
    named_path = json.loads(json.dumps(WILDCARD).replace("target", "path").replace("jira", "files/{space}"))
    space = {"name": "space", "in": "path", "required": True, "schema": {"type": "string"}}
    named_path["parameters"].insert(0, space)
    return make(small(WILDCARD, post, named_path), "Small")


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("rest/api/3/issue/A-1", "/jira/rest/api/3/issue/A-1"),
        ("a b/ü#%2F;=@:+", "/jira/a%20b/%C3%BC%23%252F%3B%3D%40%3A%2B"),
        ("a//b/", "/jira/a//b/"),
        ("a/..b/c..", "/jira/a/..b/c.."),
    ],
)
def test_wildcard_keeps_slashes_and_encodes_the_rest(jira: Made, target: str, path: str) -> None:
    with FaultServer(then=answer(200, {})) as server:
        jira.call(server, "get_jira_target", target)
    assert [request.path for request in server.received] == [path]


def test_only_last_parameter_is_wildcard(jira: Made) -> None:
    with FaultServer(then=answer(200, {})) as server:
        jira.call(server, "get_files_space_path", "a/b", "c/d")
    assert [request.path for request in server.received] == ["/files/a%2Fb/c/d"]


@pytest.mark.parametrize("target", ["..", "../x", "a/../b", "a/.", "a/%2e%2E/b", "a/./b"])
def test_wildcard_with_dot_segment_is_refused(jira: Made, target: str) -> None:
    with FaultServer(then=answer(200, {})) as server:
        error = jira.error(server, "get_jira_target", target)
    assert isinstance(error, jira.package.UsageError)
    assert "'..'" in str(error)
    assert server.received == []


def test_query_in_wildcard_is_refused_and_argument_sends_it(jira: Made) -> None:
    query = jira.model("GetJiraTargetQuery").from_dict({"jql": "a = b&c", "fields": ["x", "y"], "max": 5})
    with FaultServer(then=answer(200, {})) as server:
        error = jira.error(server, "get_jira_target", "rest/api/3/search?jql=x")
        jira.call(server, "get_jira_target", "rest/api/3/search", query=query)
    assert "Pass it as query=" in str(error)
    assert "jql" not in str(error)
    [received] = server.received
    assert urlsplit(received.path).path == "/jira/rest/api/3/search"
    assert parse_qsl(urlsplit(received.path).query) == [
        *(("jql", "a = b&c"), ("fields", "x"), ("fields", "y"), ("max", "5"))
    ]


RESULTS: dict[str, tuple[Behaviour, object]] = {
    "object": (answer(200, {"key": "A-1"}), {"key": "A-1"}),
    "list": (answer(200, [{"key": "A-1"}]), [{"key": "A-1"}]),
    "empty list": (answer(200, []), []),
    "created": (answer(201, {"key": "A-1"}), {"key": "A-1"}),
    "accepted without a body": (answer(202), None),
    "no content": (answer(204), None),
    "text": (answer(200, "größer".encode("latin-1"), {"Content-Type": "text/plain; charset=latin-1"}), "größer"),
    "bytes": (answer(200, b"\x89PNG", {"Content-Type": "image/png"}), b"\x89PNG"),
    "other JSON": (answer(200, b"[1]", {"Content-Type": "application/vnd.api+json; charset=utf-8"}), [1]),
    "errors beside data": (answer(200, {"data": 1, "errors": [{"message": "no"}]}), ...),
}


@pytest.mark.parametrize("kind", RESULTS)
def test_wildcard_accepts_any_response_of_success(jira: Made, kind: str) -> None:
    response, result = RESULTS[kind]
    if result is ...:
        result = {"data": 1, "errors": [{"message": "no"}]}
    with FaultServer(then=response) as server:
        body = jira.model("PostJiraTargetBody").from_dict({"a": 1})
        assert jira.call(server, "post_jira_target", "rest/api/3/issue", body=body) == result
    assert len(server.received) == 1


def test_asyncio_client_calls_wildcard(jira: Made) -> None:
    async def run(url: str) -> Any:
        async with jira.package.AsyncForgeClient(url) as client:
            return await client.for_installation(INSTALLATION).call(jira.operation("get_jira_target"), "a/b c%2F,+")

    with FaultServer(then=answer(200, [1])) as server:
        assert asyncio.run(run(server.url)) == [1]
    assert [request.path for request in server.received] == ["/jira/a/b%20c%252F%2C%2B"]


@pytest.fixture
def typed(make: Make) -> Made:
    """A group with one operation for each kind of response."""
    model = {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}}
    binary = {"type": "string", "format": "binary"}
    responses = [
        responding(application__json=model),
        responding(application__json={"type": "array", "items": model}),
        responding(text__csv=binary),
        responding(application__pdf=binary),
        {**responding("200", application__json=model), **responding("201", application__json=model)},
        responding("201", application__json={}),
        {"2XX": {"$ref": "#/components/responses/Done"}},
    ]
    operations = [{"path": f"/typed/{number}", "responses": each} for number, each in enumerate(responses)]
    operations += [{"path": f"/typed/{number}", "responses": responses[0], "method": "post"} for number in range(2)]
    done = responding("2XX", image__png=binary)["2XX"]
    return make(small(*operations, responses={"Done": done}), "Small")


def test_documented_responses_are_read(typed: Made) -> None:
    def get(number: int, response: Behaviour) -> tuple[Any, str]:
        with FaultServer(then=response) as server:
            return typed.call(server, f"get_typed_{number}"), server.received[0].headers["accept"]

    [item], accept = get(1, answer(200, [{"id": "a"}]))
    assert (item.to_dict(), accept) == ({"id": "a"}, "application/json")
    assert get(2, answer(200, b"a,b", {"Content-Type": "text/csv"})) == ("a,b", "text/csv")
    file, accept = get(3, answer(200, b"%PDF", {"Content-Type": "application/pdf"}))
    assert (file.payload.read(), accept) == (b"%PDF", "application/pdf")
    assert get(4, answer(201, {"id": "b"}))[0].to_dict() == {"id": "b"}
    assert get(5, answer(201, {"id": "c"}))[0] == {"id": "c"}
    file, accept = get(6, answer(206, b"PNG", {"Content-Type": "image/png"}))
    assert (file.payload.read(), accept) == (b"PNG", "image/png")


def test_operation_without_documented_success_accepts_any(make: Make) -> None:
    made = make(small({"responses": {"default": {"description": "?"}}}), "Small")
    for response, result in (answer(200, {"a": 1}), {"a": 1}), (answer(201, [1]), [1]), (answer(204), None):
        with FaultServer(then=response) as server:
            assert made.call(server, "get_small_0") == result


@pytest.mark.parametrize("status", [201, 202, 204, 205])
def test_undocumented_success_without_body_is_accepted(typed: Made, status: int) -> None:
    with FaultServer(then=answer(status)) as server:
        assert typed.call(server, "get_typed_0") is None


@pytest.mark.parametrize("name", ["get_typed_0", "post_typed_0"])
@pytest.mark.parametrize(
    "response",
    [
        answer(200, [{"id": "a"}]),
        answer(200, []),
        answer(200, {"name": "a"}),
        answer(200, b"<html>"),
        answer(203, {"id": "a"}),
        answer(200, b"data: {}\n\n", {"Content-Type": "text/event-stream"}),
    ],
    ids=["list", "empty list", "other object", "HTML", "undocumented status", "stream"],
)
def test_unreadable_success_is_requested_once(typed: Made, name: str, response: Behaviour) -> None:
    with FaultServer(then=response) as server:
        error = typed.error(server, name)
    assert isinstance(error, typed.package.UnexpectedResponseError)
    assert error.delivery is typed.package.Delivery.UNKNOWN
    assert len(server.received) == 1


EVENTS = {"type": "string"}
STREAMS = {
    "SSE": responding(text__event_stream=EVENTS),
    "NDJSON": responding(application__x_ndjson=EVENTS),
    "JSON Lines": responding(application__jsonl=EVENTS),
}


def test_stream_is_refused_before_anything_is_sent(make: Make) -> None:
    made = make(small(*({"responses": each} for each in STREAMS.values())), "Small")
    with FaultServer(then=answer(200, {})) as server:
        for number in range(len(STREAMS)):
            error = made.error(server, f"get_small_{number}")
            assert isinstance(error, made.package.UsageError)
            assert "responds with a stream (" in str(error)
            assert "Nothing was sent" in str(error)
    assert server.received == []


def test_json_beside_stream_is_read(make: Make) -> None:
    responses = responding(text__event_stream=EVENTS, application__json={"type": "object"})
    made = make(small({"responses": responses}), "Small")
    with FaultServer(then=answer(200, {"a": 1})) as server:
        assert made.call(server, "get_small_0").to_dict() == {"a": 1}
    assert server.received[0].headers["accept"] == "application/json"


def test_body_that_asks_for_stream_is_refused(make: Make) -> None:
    made = make(API, "Forge LLM")
    payload = made.model("LLMRequestPayload")
    with FaultServer(then=answer(200, {"choices": []})) as server:
        error = made.error(
            server, "post_forge_llm_model", "m", body=payload.from_dict({"messages": [], "stream": True})
        )
        assert "asks for a stream (stream: true)" in str(error)
        assert server.received == []
        made.call(server, "post_forge_llm_model", "m", body=payload.from_dict({"messages": [], "stream": False}))
    assert len(server.received) == 1


@pytest.mark.parametrize(
    ("method", "attempts"),
    [("get", 3), ("head", 3), ("options", 3), ("put", 3), ("delete", 3), ("post", 1), ("patch", 1)],
)
def test_only_idempotent_methods_are_repeated_after_server_error(make: Make, method: str, attempts: int) -> None:
    made = make(API, "Jira")
    operation = made.operation(f"{method}_jira_target")
    arguments = {"body": body_for(operation, {})} if method in ("put", "post", "patch") else {}
    for policy, expected in ({}, attempts), ({"delivery": "at_least_once"}, 3):
        with (
            FaultServer(then=answer(500)) as server,
            made.client(server.url, max_attempts=3, **policy) as client,
            pytest.raises(made.package.ServerError),
        ):
            client.for_installation(INSTALLATION).call(operation, "x", **arguments)
        assert len(server.received) == expected


@pytest.mark.parametrize(
    ("tags", "defaults"),
    [
        (["Forge SQL"], ("at_most_once", 30.0, 30.0)),
        (["Forge Realtime", "Forge SQL"], ("at_most_once", 30.0, 30.0)),
        (["Forge Realtime"], ("at_least_once", 5.0, 2.0)),
    ],
)
def test_defaults_of_group_are_in_its_docstring(make: Make, tags: list[str], defaults: tuple[object, ...]) -> None:
    made = make(API, *tags)
    policy = made.package.RetryPolicy()
    assert (policy.delivery, policy.deadline, policy.attempt_timeout) == defaults
    docstring = str(made.package.__doc__)
    assert docstring.startswith(f"Client for {', '.join(tags)}.")
    assert f'RetryPolicy(delivery="{defaults[0]}")' in docstring
    assert f"RetryPolicy(deadline={defaults[1]})" in docstring


def test_errors_beside_data_are_part_of_result_but_for_rate_limit(make: Make) -> None:
    made = make(API, "Atlassian GraphQL")
    partly = {"data": {"a": 1}, "errors": [{"message": "Unauthorized request"}]}
    limited = {"data": None, "errors": [{"message": "RATE_LIMIT_EXCEEDED"}]}
    body = made.model("PostAtlassianGraphqlBody").from_dict({"query": "{ a }"})
    with FaultServer(answer(200, partly), answer(200, limited), then=answer(200, partly)) as server:
        for attempts in (1, 2):
            assert made.call(server, "post_atlassian_graphql", body=body).to_dict() == partly
            assert len(server.received) == (1 if attempts == 1 else 3)


def colliding() -> Document:
    """Return a document whose names are those of generated code."""
    holder: Document = {
        "type": "object",
        "required": ["cls", "d"],
        "additionalProperties": False,
        "properties": {
            name: {"type": "array", "items": {"type": "string"}}
            for name in ("d", "cls", "toDict", "from_dict", "fieldDict", "src_dict", "additional_properties", "normal")
        },
    }
    union: Document = {"oneOf": [{"type": "string"}, {"type": "array", "items": {}}, {"type": "object"}]}
    member: Document = {"type": "object", "properties": {"when": {"type": "string", "format": "date-time"}, "u": union}}
    names = ("Any", "Client", "Response", "T", "TypeVar", "Unset", "Mapping", "HTTPStatus", "cast", "D", "ForgeClient")
    schemas: Document = {name: copy.deepcopy(member) for name in names}
    schemas["Holder"] = holder
    schemas["All"] = {
        "type": "object",
        "properties": {f"a{name}": {"$ref": f"#/components/schemas/{name}"} for name in names},
    }
    arguments = ("body", "headers", "params", "kwargs", "quote", "response", "client", "operation", "self", "query")
    query = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in arguments]
    path = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in ("body", "quote")]

    def json_body(name: str) -> Document:
        return {"required": True, "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}}

    return small(
        {"method": "post", "parameters": query, "requestBody": json_body("Holder"), "responses": responding("204")},
        {
            "path": "/small/{body}/{quote}",
            "method": "put",
            "shared": path,
            "requestBody": json_body("All"),
            "responses": responding(application__json={"$ref": "#/components/schemas/All"}),
        },
        {"path": "/small/publish", "operationId": "publish", "responses": responding(application__json=union)},
        {"path": "/small/import", "operationId": "import", "responses": responding("204")},
        schemas=schemas,
    )


def test_names_that_collide_are_sent_unchanged(make: Make) -> None:
    made = make(colliding(), "Small")
    holder = {name: ["x"] for name in ("d", "cls", "toDict", "additional_properties", "normal")}
    body = made.model("Holder").from_dict(holder)
    assert (body.normal, body["toDict"]) == (["x"], ["x"])
    gathered = made.model("PostSmall0MoreQuery")(body="b", headers="h", params="p", quote="q")
    everything = {"aResponse": {"u": [1]}, "acast": {"u": {"a": 1}}, "aD": {"when": "2026-08-01T00:00:00+00:00"}}
    with FaultServer(answer(204), then=answer(200, everything)) as server:
        made.call(server, "post_small_0", body=body, more_query=gathered, client_query="c", query="y", operation="o")
        result = made.call(server, "put_small_body_quote", "a/b", "c", body=made.model("All").from_dict(everything))
    assert result.to_dict() == everything
    first, second = server.received
    assert json.loads(first.body) == holder
    assert dict(parse_qsl(urlsplit(first.path).query)) == {
        "body": "b",
        "headers": "h",
        "params": "p",
        "quote": "q",
        "client": "c",
        "query": "y",
        "operation": "o",
    }
    assert second.path == "/small/a%2Fb/c"
    assert json.loads(second.body) == everything


def test_copied_modules_name_nothing_that_the_package_lacks(make: Make) -> None:
    made = make(small({}), "Small")
    for name in ("asgi", "django", "logs", "otel", "wsgi"):
        module = importlib.import_module(f"{made.package.__name__}.{name}")
        text = (made.folder / f"{name}.py").read_text(encoding="utf-8")
        assert "RealtimeClient" not in text
        documented = inspect.getdoc(module)
        assert documented
        assert ".publish(" not in documented
    assert "client = ForgeClient(instrument=Instrumentation())" in (made.folder / "otel.py").read_text(encoding="utf-8")


def test_middleware_of_both_packages_can_be_added(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code of docs/regenerate.md."""
    kvs = make(small({}), "Small").package
    monkeypatch.setitem(sys.modules, "forge_kvs", kvs)
    for name in ("asgi", "wsgi"):
        monkeypatch.setitem(sys.modules, f"forge_kvs.{name}", importlib.import_module(f"{kvs.__name__}.{name}"))
    page = (REPOSITORY / "docs/regenerate.md").read_text(encoding="utf-8")
    stack, both = re.findall(
        r"^```python\n(.*?)^```$", page.partition("### Two packages in one app")[2], re.DOTALL | re.MULTILINE
    )
    seen: list[tuple[Any, Any]] = []

    def look(*_: object) -> list[bytes]:
        seen.append((forge_realtime.current_invocation(), kvs.current_invocation()))
        return []

    app = FastAPI()
    app.get("/")(lambda: bool(look()))
    namespace: dict[str, Any] = {"app": app, "Callable": Callable}
    exec(stack, namespace)
    headers = {"X-Forge-Invocation-Id": "first", "X-B3-TraceId": "463ac35c9f6413ad"}

    async def request() -> int:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app.test") as client:
            return (await client.get("/", headers=headers)).status_code

    assert asyncio.run(request()) == 200
    wrapped: Any = importlib.import_module(f"{kvs.__name__}.wsgi").InvocationMiddleware(look)
    start_response: Any = None
    forge_realtime.wsgi.InvocationMiddleware(wrapped)({"HTTP_X_FORGE_INVOCATION_ID": "first"}, start_response)
    exec(both, namespace)
    invocation = forge_realtime.Invocation("first", trace_id="463ac35c9f6413ad")
    namespace["in_both"](invocation, look)
    look()
    assert [(one and one.id, other and other.id) for one, other in seen] == [("first", "first")] * 3 + [(None, None)]
    assert seen[0][1].trace_id == seen[2][1].trace_id == invocation.trace_id


@pytest.mark.timeout(300)
def test_packages_for_all_groups_pass_mypy_strict_and_pyright(make: Make) -> None:
    require_typed(make(API, *TAGS).folder, make(colliding(), "Small").folder, make(API, "Jira").folder)


def test_package_with_wrong_types_is_refused(tmp_path: Path) -> None:
    package = tmp_path / "wrong"
    package.mkdir()
    (package / "__init__.py").write_text("number: int = 'text'\n", encoding="utf-8")
    with pytest.raises(GeneratorError, match=r"does not pass mypy --strict:\nwrong/__init__\.py:1: error"):
        require_typed(package)
    (package / "__init__.py").write_text("# mypy: ignore-errors\nnumber: int = 'text'\n", encoding="utf-8")
    with pytest.raises(GeneratorError, match="does not pass pyright:"):
        require_typed(package)
