"""The pinned document. If it was transcribed by hand, it must match the reference page."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate

PUBLISH = "/forge/realtime/v1/publish"
PUBLISH_GLOBAL = "/forge/realtime/v1/publish/global"
TOKEN = "/forge/realtime/v1/token"


@pytest.fixture(scope="module")
def source(repository: Path) -> dict[str, Any]:
    return tomllib.loads((repository / "spec/source.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def transcribed(repository: Path, source: dict[str, Any]) -> dict[str, Any]:
    if "how" not in source:
        pytest.skip("the pinned document was pulled, not transcribed")
    document: dict[str, Any] = json.loads((repository / "spec/forge-containers-api.json").read_text(encoding="utf-8"))
    return document


@pytest.mark.parametrize("name", ["forge-containers-api.json", "realtime.json"])
def test_committed_document_is_valid_and_canonical(repository: Path, name: str) -> None:
    text = (repository / "spec" / name).read_text(encoding="utf-8")
    document = json.loads(text)
    validate(document)
    assert text == json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def test_source_records_document_and_origin(repository: Path, source: dict[str, Any]) -> None:
    content = (repository / "spec" / source["document"]).read_bytes()
    assert source["document"] == "forge-containers-api.json"
    assert source["sha256"] == hashlib.sha256(content).hexdigest()
    assert source["page"].startswith("https://developer.atlassian.com/platform/forge/rest/")
    assert source["address"]
    assert source["obtained"]
    assert "not downloaded" in source.get("how", "not downloaded")


def test_groups_match_reference_page(transcribed: dict[str, Any]) -> None:
    assert transcribed["openapi"].startswith("3.0.")
    assert transcribed["info"]["title"] == "Forge Containers API"
    assert "FORGE_EGRESS_PROXY_URL" in transcribed["info"]["description"]
    assert {
        tag: [
            path
            for path, item in transcribed["paths"].items()
            for operation in item.values()
            if tag in operation["tags"]
        ]
        for tag in (tag["name"] for tag in transcribed["tags"])
    } == {
        "App Installations": ["/v1/installations"],
        "Forge Context": ["/invocation/context"],
        "Forge Realtime": [PUBLISH, PUBLISH_GLOBAL, TOKEN],
    }
    assert {tag["name"]: tag.get("description") for tag in transcribed["tags"]}["Forge Realtime"] == (
        "Forge realtime service endpoints for publishing events"
    )


@pytest.mark.parametrize(
    ("path", "summary", "description", "success"),
    [
        (
            PUBLISH,
            "Publish an event to a realtime channel",
            (
                "Proxies POST requests to Forge realtime services for publishing events. All clients in the same "
                "context as the sender and subscribed to this realtime channel will receive the event. "
                '"Publish" requests only work when the request originated from a UI context invocation. In the '
                "forge-proxy-authorization header you must specify the id of the invocation; you can't perform "
                "operations on behalf of an installationId."
            ),
            "Realtime message published successfully",
        ),
        (
            PUBLISH_GLOBAL,
            "Publish an event to a global realtime channel",
            (
                "Proxies POST requests to Forge realtime services for publishing events. All clients subscribed to "
                "this global realtime channel will receive the event."
            ),
            "Global realtime message published successfully",
        ),
        (
            TOKEN,
            "Sign a forge realtime token",
            "Signs a forge realtime token that can be used to securely publish events to realtime channels.",
            "Realtime token signed successfully",
        ),
    ],
)
def test_operation_matches_reference_page(
    transcribed: dict[str, Any], path: str, summary: str, description: str, success: str
) -> None:
    assert list(transcribed["paths"][path]) == ["post"]
    operation = transcribed["paths"][path]["post"]
    assert operation["summary"] == summary
    assert operation["description"] == description
    assert operation["requestBody"]["required"] is True
    assert [
        (parameter["name"], parameter["in"], parameter["required"], parameter["schema"])
        for parameter in operation["parameters"]
    ] == [
        ("forge-proxy-authorization", "header", True, {"type": "string"}),
        ("Content-Type", "header", False, {"type": "string"}),
    ]
    assert operation["parameters"][0]["example"] == "Forge as=app,id=invocation-123"
    assert operation["responses"]["200"] == {
        "description": success,
        "content": {"application/json": {"schema": {"type": "object"}}},
    }


def test_statuses_match_reference_page(transcribed: dict[str, Any]) -> None:
    assert list(transcribed["paths"][PUBLISH]["post"]["responses"]) == ["200", "400", "500"]
    assert list(transcribed["paths"][PUBLISH_GLOBAL]["post"]["responses"]) == ["200"]
    assert list(transcribed["paths"][TOKEN]["post"]["responses"]) == ["200"]


def test_request_bodies_match_revision_3(transcribed: dict[str, Any]) -> None:
    def body(path: str) -> dict[str, Any]:
        media_type: dict[str, Any] = transcribed["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        return media_type

    text = {"type": "string"}
    assert transcribed["paths"][PUBLISH]["post"]["requestBody"]["description"] == "Event data to be published"
    assert body(PUBLISH) == {
        "schema": {
            "type": "object",
            "required": ["name", "payload"],
            "properties": {
                "name": text,
                "payload": text,
                "options": {
                    "type": "object",
                    "properties": {"token": text, "contextOverrides": {"type": "array", "items": text}},
                },
            },
        },
        "example": {
            "name": "forge-container-realtime-channel",
            "payload": "Realtime message sent from the container service, id=1",
            "options": {"token": "example-token"},
        },
    }
    assert body(PUBLISH_GLOBAL) == {
        "schema": {
            "type": "object",
            "required": ["name", "payload"],
            "properties": {"name": text, "payload": text, "options": {"type": "object"}},
        },
        "example": {
            "name": "forge-container-realtime-channel",
            "payload": "Realtime message sent from the container service, id=1",
        },
    }
    assert body(TOKEN) == {
        "schema": {
            "type": "object",
            "required": ["channelName", "claims"],
            "properties": {
                "channelName": text,
                "claims": {"type": "object"},
                "permissions": {"type": "array", "items": {"type": "string", "enum": ["subscribe", "publish"]}},
            },
        },
        "example": {
            "channelName": "forge-container-realtime-channel",
            "claims": {"allowedUsers": ["user1", "user2"]},
        },
    }


def test_derived_document_has_operation_ids_and_security(repository: Path) -> None:
    derived = json.loads((repository / "spec/realtime.json").read_text(encoding="utf-8"))
    operations = {path: item["post"] for path, item in derived["paths"].items() if "post" in item}
    names = {PUBLISH: "publish", PUBLISH_GLOBAL: "publish_global", TOKEN: "sign_realtime_token"}
    assert names.items() <= {path: operation["operationId"] for path, operation in operations.items()}.items()
    assert all(operations[path]["parameters"] == [] for path in names)
    assert derived["security"] == [{"forgeProxyAuthorization": []}]
    scheme = derived["components"]["securitySchemes"]["forgeProxyAuthorization"]
    assert (scheme["type"], scheme["in"], scheme["name"]) == ("apiKey", "header", "forge-proxy-authorization")
