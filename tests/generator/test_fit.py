"""`generate` fails if the hand-written package does not fit the document, and names the line to change."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.generator.conftest import last_revision, render_unformatted, repin

Run = Callable[..., Any]
Snapshot = Callable[[Path], dict[str, tuple[bytes, int]]]

PUBLISH = "$.paths['/forge/realtime/v1/publish'].post"
TOKEN = "$.paths['/forge/realtime/v1/token'].post"
SCHEMA = ".requestBody.content['application/json'].schema"
REQUIRED_TEXT = {"required": ["kind"], "properties": {"kind": {"type": "string"}}}


@pytest.fixture(autouse=True)
def rendering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("generator.pipeline.regenerate.render", render_unformatted)


@pytest.fixture
def repo(repo: Path) -> Path:
    """A repository with the last known revision pinned."""
    repin(repo, last_revision())
    return repo


def _overlay(repo: Path, *actions: Any) -> None:
    overlay = {"overlay": "1.0.0", "actions": actions}
    (repo / "overlays/openapi/99.json").write_text(json.dumps(overlay), encoding="utf-8")


def _update(target: str, update: Any) -> dict[str, Any]:
    return {"target": target, "update": update}


PARAMETER = {"in": "query", "required": True, "schema": {"type": "string"}}


@pytest.mark.parametrize(
    ("action", "file", "line", "problem"),
    [
        (
            _update(PUBLISH + SCHEMA, REQUIRED_TEXT),
            "_realtime/operations.py",
            "return PublishRequest(",
            "missing 1 required positional argument: 'kind'",
        ),
        (
            _update(f"{PUBLISH}{SCHEMA}.properties.options", REQUIRED_TEXT),
            "_realtime/operations.py",
            "_model(PublishOptions, **options)",
            "missing 1 required positional argument: 'kind'",
        ),
        (
            _update(TOKEN + SCHEMA, REQUIRED_TEXT),
            "_realtime/operations.py",
            "return _model(",
            "missing 1 required positional argument: 'kind'",
        ),
        (
            _update(f"{PUBLISH}.parameters", {"name": "site", **PARAMETER}),
            "_realtime/base.py",
            "prepared = self._prepare(",
            "missing 1 required keyword-only argument: 'site'",
        ),
        (
            _update(TOKEN, {"operationId": "sign"}),
            "_realtime/operations.py",
            "import publish, publish_global, sign_realtime_token",
            "cannot import name 'sign_realtime_token'",
        ),
        (
            _update(TOKEN + SCHEMA, {"title": "SignRequest"}),
            "_realtime/operations.py",
            "from .._api.models import (",
            "cannot import name 'SignRealtimeTokenRequest'",
        ),
        (
            _update(f"{PUBLISH}{SCHEMA}.properties.payload", {"maxLength": 3}),
            "_realtime/operations.py",
            "def publish_request(",
            "publish sends an invalid request: body.payload: 'payload' is too long",
        ),
        (
            _update(f"{TOKEN}{SCHEMA}.properties.claims", {"additionalProperties": {"type": "object"}}),
            "_realtime/operations.py",
            "claims=RealtimeTokenClaims.from_dict(copy.value)",
            "ValueError: ",
        ),
    ],
)
def test_line_to_change_is_named(
    repo: Path,
    run: Run,
    snapshot: Snapshot,
    action: dict[str, Any],
    file: str,
    line: str,
    problem: str,
) -> None:
    _overlay(repo, action)
    before = snapshot(repo)
    result = run("--root", repo, "generate")
    assert result.code == 1
    assert problem in result.err
    # Not in the scratch copy, which is deleted.
    assert tempfile.gettempdir() not in result.err.replace(str(repo), "")
    [number] = re.findall(
        rf"overlays/forge_realtime/{file}, line (\d+): the hand-written package no longer fits", result.err
    )
    lines = (repo / "overlays/forge_realtime" / file).read_text(encoding="utf-8").splitlines()
    assert line in lines[int(number) - 1]
    assert snapshot(repo) == before


RESPONSE = f"{PUBLISH}.responses['200'].content['application/json'].schema"
UNREAD = "publish cannot read the documented response"


@pytest.mark.parametrize(
    ("actions", "line", "problem"),
    [
        (
            [_update(f"{RESPONSE}.properties.eventId", {"format": "uuid"})],
            "def publish_result(",
            f'{UNREAD} 200 with {{"eventId": "6f1e7c0a-',
        ),
        (
            [_update(f"{RESPONSE}.properties.eventTimestamp.anyOf[0]", {"format": "date-time"})],
            "def publish_result(",
            f'{UNREAD} 200 with {{"eventId": "text", "eventTimestamp": "2026-08-01T12:00:00Z"}}',
        ),
        (
            [_update(f"{RESPONSE}.properties.eventTimestamp.anyOf", [{"type": "object"}])],
            "def publish_result(",
            f'{UNREAD} 200 with {{"eventId": "text", "eventTimestamp": {{}}}}',
        ),
        (
            [
                _update(
                    f"{PUBLISH}.responses",
                    {"202": {"description": "", "content": {"application/json": {"schema": {"type": "object"}}}}},
                )
            ],
            "def publish_result(",
            f"{UNREAD} 202 with {{}}",
        ),
        (
            [_update(f"{PUBLISH}.responses", {"204": {"description": "no content"}})],
            "def publish_result(",
            f"{UNREAD} 204 with null",
        ),
        (
            [
                _update(
                    f"{TOKEN}.responses['200'].content['application/json'].schema.properties.token", {"format": "date"}
                )
            ],
            "def realtime_token(",
            "sign_realtime_token cannot read the documented response 200 with",
        ),
        (
            [_update(f"{PUBLISH}{SCHEMA}.properties.options", {"required": ["token"]})],
            "_model(PublishOptions, **options)",
            "UsageError: The API document asks for more in this call: missing 1 required positional argument: 'token'.",
        ),
        (
            [_update(f"{TOKEN}{SCHEMA}", {"required": ["permissions"]})],
            "return _model(",
            "asks for more in this call: missing 1 required positional argument: 'permissions'.",
        ),
        (
            [_update(f"{TOKEN}{SCHEMA}.properties.permissions", {"minItems": 3})],
            "def sign_realtime_token_request(",
            "sign_realtime_token sends an invalid request: body.permissions:",
        ),
    ],
)
def test_each_argument_and_each_documented_response_is_tried(
    repo: Path, run: Run, actions: list[Any], line: str, problem: str
) -> None:
    _overlay(repo, *actions)
    result = run("--root", repo, "generate")
    assert result.code == 1
    assert problem in result.err
    [number] = re.findall(r"_realtime/operations.py, line (\d+): the hand-written package no longer fits", result.err)
    lines = (repo / "overlays/forge_realtime/_realtime/operations.py").read_text(encoding="utf-8").splitlines()
    assert line in lines[int(number) - 1]


def test_calls_keep_to_formats_enumerations_and_patterns(repo: Path, run: Run) -> None:
    properties = f"{PUBLISH}{SCHEMA}.properties"
    _overlay(
        repo,
        _update(f"{properties}.name", {"pattern": "^[a-z]+-[0-9]{2,4}$"}),
        _update(f"{properties}.payload", {"enum": ["moved", "closed"]}),
        _update(f"{properties}.options.properties.contextOverrides.items", {"enum": ["board", "project"]}),
        _update(f"{TOKEN}{SCHEMA}.properties.channelName", {"format": "uuid", "minLength": 36}),
        _update(
            f"{TOKEN}{SCHEMA}.properties.claims",
            {"required": ["account"], "properties": {"account": {"type": "string"}}},
        ),
        _update(f"{RESPONSE}.properties.eventId", {"pattern": "^evt_[A-F0-9]{8}$"}),
    )
    result = run("--root", repo, "generate")
    assert (result.code, result.err) == (0, "")


def test_additions_to_document_fit(repo: Path, run: Run) -> None:
    _overlay(
        repo,
        _update(f"{TOKEN}{SCHEMA}.properties.permissions.items.enum", "all"),
        _update(f"{PUBLISH}{SCHEMA}.properties", {"urgent": {"type": "boolean"}}),
        _update(
            f"{PUBLISH}.responses['200'].content['application/json'].schema.properties", {"shard": {"type": "string"}}
        ),
    )
    assert run("--root", repo, "generate").code == 0


def test_unsupported_arguments_are_listed(repo: Path, run: Run) -> None:
    _overlay(
        repo,
        {"target": f"{PUBLISH}{SCHEMA}.properties.options.properties.contextOverrides", "remove": True},
        {"target": f"{TOKEN}{SCHEMA}.properties.permissions", "remove": True},
    )
    result = run("--root", repo, "generate")
    assert result.code == 0, result.err
    unsupported = "publish(context_overrides=...), sign_realtime_token(permissions=...)"
    assert f"fit: notice: the document has no property for {unsupported}\n" in result.out


def test_failing_smoke_calls_program_is_error(repo: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("generator.pipeline.overlay_fit._SMOKE_CALLS", repo / "gone.py")
    (repo / "generated.lock").unlink()
    result = run("--root", repo, "generate")
    assert result.code == 1
    assert "gone.py failed:" in result.err
