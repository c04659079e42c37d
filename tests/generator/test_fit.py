"""A document that the hand-written package does not fit any more stops the run, and the line to look at is named."""

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
    """With the last known revision pinned."""
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
            "PublishOptions(**options)",
            "missing 1 required positional argument: 'kind'",
        ),
        (
            _update(TOKEN + SCHEMA, REQUIRED_TEXT),
            "_realtime/operations.py",
            "return SignRealtimeTokenRequest(",
            "missing 1 required positional argument: 'kind'",
        ),
        (
            _update(f"{PUBLISH}.parameters", {"name": "site", **PARAMETER}),
            "_realtime/client.py",
            "self._prepare(_publish, body=body)",
            "missing 1 required keyword-only argument: 'site'",
        ),
        (
            _update(TOKEN, {"operationId": "sign"}),
            "_realtime/client.py",
            "import sign_realtime_token",
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
            "publish sends what the document refuses: the body.payload: 'payload' is too long",
        ),
        (
            _update(f"{TOKEN}{SCHEMA}.properties.claims", {"additionalProperties": {"type": "object"}}),
            "_realtime/operations.py",
            "claims=RealtimeTokenClaims.from_dict(claims)",
            "ValueError: ",
        ),
    ],
)
def test_the_line_to_look_at_is_named(
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
    # The scratch copy, which is gone, is not.
    assert tempfile.gettempdir() not in result.err.replace(str(repo), "")
    [number] = re.findall(
        rf"overlays/forge_realtime/{file}, line (\d+): the hand-written package does not fit", result.err
    )
    lines = (repo / "overlays/forge_realtime" / file).read_text(encoding="utf-8").splitlines()
    assert line in lines[int(number) - 1]
    assert snapshot(repo) == before


def test_what_the_package_does_not_need_to_know_goes_on(repo: Path, run: Run) -> None:
    _overlay(
        repo,
        _update(f"{TOKEN}{SCHEMA}.properties.permissions.items.enum", "all"),
        _update(f"{PUBLISH}{SCHEMA}.properties", {"urgent": {"type": "boolean"}}),
        _update(
            f"{PUBLISH}.responses['200'].content['application/json'].schema.properties", {"shard": {"type": "string"}}
        ),
    )
    assert run("--root", repo, "generate").code == 0


def test_what_the_document_lacks_is_said(repo: Path, run: Run) -> None:
    _overlay(
        repo,
        {"target": f"{PUBLISH}{SCHEMA}.properties.options.properties.contextOverrides", "remove": True},
        {"target": f"{TOKEN}{SCHEMA}.properties.permissions", "remove": True},
    )
    result = run("--root", repo, "generate")
    assert result.code == 0, result.err
    lacking = "publish(context_overrides=...), sign_realtime_token(permissions=...)"
    assert f"fit: notice: the document has no property for {lacking}\n" in result.out


def test_a_package_that_cannot_be_probed_is_an_error(repo: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("generator.pipeline.overlay_fit._SMOKE_CALLS", repo / "gone.py")
    (repo / "generated.lock").unlink()
    result = run("--root", repo, "generate")
    assert result.code == 1
    assert "gone.py could not be run" in result.err
