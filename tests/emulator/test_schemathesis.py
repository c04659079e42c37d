"""The running emulator against the derived document, with calls that schemathesis makes up from it."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import hypothesis
import schemathesis
from schemathesis.specs.openapi.checks import status_code_conformance

from tests.emulator.api import Api

DOCUMENT = json.loads(files("forge_realtime_emulator").joinpath("realtime.json").read_text(encoding="utf-8"))
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
OVERRIDES = ["board", "issue", "project", "content", "space", "repository", "pullRequest"]


@SCHEMA.auth()
class Invocation:
    """The authorization that every call gets; schemathesis leaves it out and breaks it by itself."""

    def get(self, _: schemathesis.Case[Any], __: schemathesis.AuthContext) -> str:
        return "Forge as=app,id=invocation-123"

    def set(self, case: schemathesis.Case[Any], data: str, _: schemathesis.AuthContext) -> None:
        case.headers["forge-proxy-authorization"] = data


def mend(body: Any, api: Api) -> None:
    """Puts in what the schema cannot say: a token has to be signed for the channel, and overrides have names."""
    options = body.get("options") if isinstance(body, dict) else None
    if not isinstance(options, dict):
        return
    if isinstance(options.get("token"), str) and isinstance(body.get("name"), str):
        options["token"] = api.sign(body["name"])
    overrides = options.get("contextOverrides")
    if isinstance(overrides, list) and all(isinstance(name, str) for name in overrides):
        options["contextOverrides"] = [OVERRIDES[len(name) % len(OVERRIDES)] for name in overrides]


@SCHEMA.parametrize()
@hypothesis.settings(max_examples=40, deadline=None, derandomize=True, database=None)
def test_every_response_conforms_to_the_document(case: schemathesis.Case[Any], api: Api) -> None:
    mend(case.body, api)
    answer = case.call(base_url=api.emulator.url)
    # The document lists answers of success only (overlays/openapi/30-failures.yaml).
    refused = 400 <= answer.status_code < 500
    case.validate_response(answer, excluded_checks=[status_code_conformance] if refused else [])


def test_all_operations_are_tested() -> None:
    operations: Any = SCHEMA.get_all_operations()
    assert {operation.ok().label for operation in operations} == {
        "POST /forge/realtime/v1/publish",
        "POST /forge/realtime/v1/publish/global",
        "POST /forge/realtime/v1/token",
    }
