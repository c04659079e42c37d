"""Operations: checks against the document, and responses."""

from __future__ import annotations

import copy
import json
import re
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forge_realtime_emulator import Emulator, EmulatorError
from tests.emulator.api import Api, failure
from tests.support.features import needs

PUBLISH = "/forge/realtime/v1/publish"
GLOBAL = "/forge/realtime/v1/publish/global"
TOKEN = "/forge/realtime/v1/token"


@pytest.fixture
def document() -> Any:
    return json.loads(files("forge_realtime_emulator").joinpath("realtime.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("path", "body", "problem"),
    [
        (PUBLISH, {"payload": "x"}, "missing name"),
        (PUBLISH, {"name": "x"}, "missing payload"),
        (PUBLISH, {"name": "x", "payload": {"secret": 1}}, "payload: must be of type string"),
        (PUBLISH, {"name": "x", "payload": "x", "options": None}, "options: must be of type object"),
        (PUBLISH, {"name": "x", "payload": "x", "options": {"token": 1}}, "options.token: must be of type string"),
        pytest.param(
            PUBLISH,
            {"name": "x", "payload": "x", "options": {"contextOverrides": ["issue", 1]}},
            "options.contextOverrides[1]: must be of type string",
            marks=needs("context_overrides"),
        ),
        (PUBLISH, ["secret"], "the JSON value: must be of type object"),
        (GLOBAL, {"name": 1, "payload": "x"}, "name: must be of type string"),
        (TOKEN, {"channelName": "x"}, "missing claims"),
        (TOKEN, {"channelName": "x", "claims": "secret"}, "claims: must be of type object"),
        pytest.param(
            TOKEN,
            {"channelName": "x", "claims": {}, "permissions": ["secret"]},
            'permissions[0]: must be one of "subscribe", "publish"',
            marks=needs("permissions"),
        ),
    ],
)
def test_body_against_the_schema_is_refused_naming_the_field(api: Api, path: str, body: Any, problem: str) -> None:
    response = api.post(path, body)
    assert response.status_code == 400
    assert response.json()["code"] == "INVALID_REQUEST"
    assert problem in response.json()["message"]
    assert "secret" not in response.text


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"name": NaN, "payload": ""}', "not valid JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b"1" * 10_000, "not valid JSON"),
    ],
)
def test_body_that_is_not_json_is_refused(api: Api, content: bytes, problem: str) -> None:
    response = api.post(PUBLISH, headers={"Content-Type": "application/json"}, content=content)
    assert response.status_code == 400
    assert problem in response.json()["message"]


@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", ""])
def test_other_content_type_is_refused(api: Api, content_type: str) -> None:
    response = api.post(PUBLISH, {"name": "x", "payload": "x"}, headers={"Content-Type": content_type})
    assert response.status_code == 400
    assert "Content-Type must be application/json" in response.json()["message"]


def test_content_type_with_charset_is_accepted(api: Api, channel: str) -> None:
    body = {"name": channel, "payload": "x"}
    assert api.post(PUBLISH, body, headers={"Content-Type": "Application/JSON; charset=utf-8"}).status_code == 200


def test_body_over_one_mebibyte_is_refused(api: Api, channel: str) -> None:
    around = len(json.dumps({"name": channel, "payload": ""}))
    assert api.post(PUBLISH, {"name": channel, "payload": "x" * (1024 * 1024 - around)}).status_code == 200
    response = api.post(PUBLISH, {"name": channel, "payload": "x" * (1024 * 1024 - around + 1)})
    assert response.status_code == 413
    assert response.json()["code"] == "PAYLOAD_TOO_LARGE"
    assert api.post(PUBLISH, content=b"x" * 20_000_000).status_code == 413


def test_authorization_is_checked_before_the_body(api: Api) -> None:
    assert api.post(PUBLISH, {"nonsense": 1}, None).status_code == 401


def test_empty_permissions_are_refused(api: Api, channel: str) -> None:
    response = api.post(TOKEN, {"channelName": channel, "claims": {}, "permissions": []})
    assert response.status_code == 400
    assert response.json()["message"] == ("Invalid request: permissions: must not be empty. Leave it out for both.")


@pytest.mark.parametrize("path", [PUBLISH, GLOBAL])
def test_null_token_counts_as_none(api: Api, channel: str, path: str) -> None:
    body = {"name": channel, "payload": "x", "options": {"token": None}}
    with api.emulator.subscribe(channel, is_global=path == GLOBAL) as subscription:
        assert failure(api.post(path, body)) is None
        page = {"channel": channel, "payload": "y", "isGlobal": path == GLOBAL, "options": {"token": None}}
        assert api.post("/_emulator/publish", page).status_code == 200
        assert [subscription.receive().payload for _ in range(2)] == ["x", "y"]


def test_global_operations_ignore_context_overrides(api: Api, channel: str) -> None:
    with api.emulator.subscribe(channel, is_global=True, context_overrides=["issue"]) as subscription:
        assert failure(api.publish_global(channel, "x", contextOverrides=["no such override"])) is None
        page = {"channel": channel, "payload": "y", "isGlobal": True, "options": {"contextOverrides": []}}
        assert api.post("/_emulator/publish", page).status_code == 200
        assert [subscription.receive().payload for _ in range(2)] == ["x", "y"]


def test_failed_operation_has_the_documented_form_and_a_detail(own: Api) -> None:
    sign = {"channelName": "x", "claims": {}}
    own.emulator.change(limit=2, token_by_installation=False)
    publish, published = "Forge installationId=i", {"eventId": None, "eventTimestamp": None}
    assert own.publish("x", authorization=publish).json() == {
        **published,
        "errors": [{"message": "Unauthorized request"}],
        "detail": "publish needs the id of an invocation that came from a UI context, and cannot be done on behalf of"
        " an installationId. Send id=<invocation id> of such an invocation, or publish to a global channel.",
    }
    assert own.post(TOKEN, sign, publish).json() == {
        "token": None,
        "expiresAt": None,
        "errors": [{"message": "Unauthorized request"}],
        "detail": "The emulator was told to refuse tokens on behalf of an installationId.",
    }
    detail = "Over 2 operations per second for the installation; nothing was done. Back off and retry."
    limited = {"errors": [{"message": "RATE_LIMIT_EXCEEDED"}], "detail": detail}
    assert own.publish_global("x").json() == {**published, **limited}
    assert own.post(TOKEN, sign).json() == {"token": None, "expiresAt": None, **limited}
    assert own.publish("x", token="x").json() == {
        **published,
        "errors": [{"message": "Realtime token validation failed: INVALID_TOKEN"}],
    }


def test_unknown_path_or_method_lists_the_operations(api: Api, client: httpx.Client) -> None:
    response = api.post("/forge/realtime/publish", {})
    assert response.status_code == 404
    assert f"POST {PUBLISH}" in response.json()["message"]
    assert api.post(PUBLISH + "/", {}).status_code == 404
    response = client.get(api.emulator.url + PUBLISH)
    assert response.status_code == 405
    assert response.json()["code"] == "METHOD_NOT_ALLOWED"


def test_publish_without_subscriber_is_no_error(api: Api, channel: str) -> None:
    for response in (api.publish(channel), api.publish_global(channel)):
        assert response.status_code == 200
        assert response.json() == {"eventId": None, "eventTimestamp": None}


def test_received_event_has_id_and_timestamp(api: Api, channel: str) -> None:
    with api.emulator.subscribe(channel) as subscription:
        before = time.time() * 1000
        response = api.publish(channel).json()
        event = subscription.receive()
    assert re.fullmatch(r"[0-9a-f-]{36}", response["eventId"])
    assert before - 1 <= int(response["eventTimestamp"]) <= time.time() * 1000
    assert (event.event_id, event.event_timestamp) == (response["eventId"], response["eventTimestamp"])


@pytest.mark.parametrize("permissions", [None, ["publish"], ["subscribe", "publish"]])
def test_token_is_a_jwt_in_the_documented_layout(api: Api, channel: str, permissions: list[str] | None) -> None:
    body = {"channelName": channel, "claims": {"team": "red"}}
    if permissions is not None:
        body["permissions"] = permissions
    response = api.post(TOKEN, body).json()
    header, payload, _ = (
        json.loads(_decode(part)) if i < 2 else part for i, part in enumerate(response["token"].split("."))
    )
    assert header["alg"] == "HS256"
    assert payload["channel"] == {"name": channel}
    assert payload["claims"] == {"team": "red"}
    assert payload["exp"] == response["expiresAt"]
    assert payload.get("permissions", None) == permissions
    assert ("permissions" in payload) == (permissions is not None)
    assert type(response["expiresAt"]) is int
    assert 0 <= response["expiresAt"] - 3600 - (time.time() - 60) <= 60


def _decode(part: str) -> bytes:
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))


def test_other_operations_of_the_document_are_checked_and_return_an_empty_object(
    document: dict[str, Any], client: httpx.Client
) -> None:
    paths = document["paths"]
    paths["/forge/realtime/v1/history/{channel}"] = {
        "get": {},
        "post": {"operationId": "keep", "requestBody": {"$ref": "#/components/requestBodies/Keep"}},
    }
    document["components"]["requestBodies"] = {
        "Keep": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Keep"}}}}
    }
    document["components"]["schemas"] = {
        "Keep": {"type": "object", "properties": {"for": {"$ref": "#/components/schemas/Seconds"}}},
        "Seconds": {"type": "integer", "minimum": 1, "nullable": True},
    }
    header = {"forge-proxy-authorization": "Forge id=inv-1"}
    with Emulator(document=document) as emulator:
        url = f"{emulator.url}/forge/realtime/v1/history/news"
        assert client.get(url).status_code == 401
        response = client.get(url, headers=header)
        assert (response.status_code, response.json()) == (200, {})
        assert emulator.requests[-1].operation == "GET /forge/realtime/v1/history/{channel}"
        assert client.post(url, headers=header).status_code == 200
        assert client.post(url, headers=header, json={"for": None}).status_code == 200
        response = client.post(url, headers=header, json={"for": 0})
        assert (response.status_code, response.json()["message"]) == (400, "Invalid request: for: must be at least 1.")
        response = client.post(url, headers=header, json={"for": "secret"})
        assert (response.status_code, response.json()["message"]) == (
            400,
            "Invalid request: for: must be of type integer.",
        )


@pytest.mark.parametrize(
    ("path", "body", "problem"),
    [
        (PUBLISH, None, "name: "),
        (PUBLISH, {}, "name: "),
        (PUBLISH, {"name": "x"}, "payload: "),
        (PUBLISH, {"name": ["x"], "payload": "x"}, "name: "),
        (PUBLISH, {"name": "x", "payload": "x", "options": 1}, "options: "),
        (PUBLISH, {"name": "x", "payload": "x", "options": {"token": 1}}, "token: "),
        (PUBLISH, {"name": "x", "payload": "x", "options": {"contextOverrides": "issue"}}, "contextOverrides: "),
        (PUBLISH, {"name": "x", "payload": "x", "options": {"contextOverrides": [{}]}}, "options.contextOverrides: "),
        (GLOBAL, ["secret"], "name: "),
        (GLOBAL, {"name": "x", "options": {"token": 1}}, "token: "),
        (TOKEN, {"channelName": "x"}, "claims: "),
        (TOKEN, {"channelName": "x", "claims": {}, "permissions": "publish"}, "permissions: "),
        (TOKEN, {"channelName": "x", "claims": {}, "permissions": []}, "permissions: must not be empty"),
    ],
)
def test_looser_document_does_not_loosen_what_the_emulator_needs(
    document: Any, api_of: Callable[[Emulator], Api], path: str, body: Any, problem: str
) -> None:
    for item in document["paths"].values():
        item["post"]["requestBody"]["content"]["application/json"]["schema"] = {}
    with Emulator(document=document) as emulator:
        response = api_of(emulator).post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["code"]) == (400, "INVALID_REQUEST")
    assert response.json()["message"].startswith(f"Invalid request: {problem}")
    assert "secret" not in response.text


def test_routes_and_header_come_from_the_document(document: dict[str, Any], client: httpx.Client) -> None:
    document["paths"] = {"/v2/publish": document["paths"][PUBLISH]}
    document["components"]["securitySchemes"]["forgeProxyAuthorization"]["name"] = "X-Auth"
    with Emulator(document=document) as emulator:
        body = {"name": "x", "payload": "x"}
        assert client.post(emulator.url + PUBLISH, json=body).status_code == 404
        assert client.post(f"{emulator.url}/v2/publish", json=body).status_code == 401
        assert client.post(f"{emulator.url}/v2/publish", json=body, headers={"X-Auth": "Forge id=i"}).status_code == 200


def test_json_schema_2020_document_is_understood(document: dict[str, Any], client: httpx.Client) -> None:
    document["openapi"] = "3.1.0"
    schema = document["paths"][PUBLISH]["post"]["requestBody"]["content"]["application/json"]["schema"]
    schema["properties"]["payload"] = {"type": ["string", "null"]}
    with Emulator(document=document) as emulator:
        header = {"forge-proxy-authorization": "Forge id=inv-1"}
        response = client.post(emulator.url + PUBLISH, json={"name": "x", "payload": 1}, headers=header)
        assert response.json()["message"] == "Invalid request: payload: must be of type string or null."


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda document: document.update(openapi="2.0"), "not OpenAPI 3"),
        (lambda document: document.pop("openapi"), "not OpenAPI 3"),
        (lambda document: document["components"].pop("securitySchemes"), "apiKey"),
        (
            lambda document: document["paths"][TOKEN]["post"].update(requestBody={"$ref": "#/components/nothing"}),
            "#/components/nothing",
        ),
    ],
)
def test_unusable_document_is_refused_with_what_to_do(
    document: dict[str, Any], change: Callable[[dict[str, Any]], Any], problem: str
) -> None:
    changed = copy.deepcopy(document)
    change(changed)
    with pytest.raises(EmulatorError, match=re.escape(problem)):
        Emulator(document=changed)


@needs("context_overrides")
def test_only_the_first_problems_are_reported(api: Api, channel: str) -> None:
    """A million problems would delay every other call for seconds, and make a response of megabytes."""
    response = api.publish(channel, contextOverrides=[1] * 200_000)
    assert response.status_code == 400
    problems = [f"options.contextOverrides[{number}]: must be of type string" for number in range(10)]
    assert response.json()["message"] == f"Invalid request: {'; '.join(problems)}; and more."
    ten = api.publish(channel, contextOverrides=[1] * 10)
    assert ten.json()["message"] == f"Invalid request: {'; '.join(problems)}."


SECRETS = st.text("secret-ä\x1b.[]0").map("secret{}".format)
SECRET_JSON = st.recursive(
    SECRETS | st.integers() | st.none(),
    lambda inner: st.lists(inner) | st.dictionaries(SECRETS, inner),
    max_leaves=5,
)
PROPERTIES = ["name", "payload", "options", "channelName", "claims", "permissions", "token", "contextOverrides"]
SECRET_OBJECT = st.dictionaries(st.sampled_from(PROPERTIES) | SECRETS, SECRET_JSON)


def test_no_refusal_repeats_what_was_sent(own: Api) -> None:
    """An error of the client can show them, and so does the report of a failed test."""
    refusals: set[str | None] = set()

    @settings(deadline=None)
    @given(
        path=st.sampled_from([PUBLISH, GLOBAL, TOKEN]),
        body=SECRET_JSON | st.builds(lambda outer, inner: {**outer, "options": inner}, SECRET_OBJECT, SECRET_OBJECT),
        authorization=st.sampled_from(["Forge id=", "Forge as=user,accountId=secret,id=", "Forge secret=x,id=", "s "]),
        changes=st.fixed_dictionaries({"strict": st.booleans(), "errors_in_200": st.booleans()}),
    )
    def check(path: str, body: Any, authorization: str, changes: dict[str, bool]) -> None:
        own.emulator.change(**changes)
        response = own.post(path, body, f"{authorization}secret")
        call = own.emulator.requests[-1]
        assert "secret" not in f"{call.message} {call.detail}"
        if call.code is not None:
            assert "secret" not in response.text
        refusals.add(call.code)

    check()
    assert {"INVALID_REQUEST", "UNAUTHORIZED"} <= refusals
