"""A document with a new operation: it can be called and emulated without a hand-written line."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from forge_realtime_emulator import Emulator
from generator.__main__ import main
from generator.pipeline.patch import patch
from tests.generator.conftest import copy_repository, repin
from tests.support.fault_server import FaultServer, answer

pytestmark = pytest.mark.slow

Document = dict[str, Any]

PRESENCE = {
    "post": {
        "tags": ["Forge Realtime"],
        "operationId": "getPresence",
        "summary": "Who is on a channel",
        "parameters": [
            {"name": "forge-proxy-authorization", "in": "header", "required": True, "schema": {"type": "string"}},
            {"name": "detail", "in": "query", "schema": {"type": "boolean"}},
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/PresenceRequest"}}},
        },
        "responses": {
            "200": {
                "description": "Who is there",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Presence"}}},
            },
            "429": {"description": "Too many"},
        },
    }
}
SCHEMAS = {
    "PresenceRequest": {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string"}, "mood": {"$ref": "#/components/schemas/Mood"}},
    },
    "Mood": {"type": "string", "enum": ["calm", "wild"]},
    "Cat": {
        "type": "object",
        "properties": {"kind": {"type": "string", "enum": ["cat"]}, "lives": {"type": "integer"}},
    },
    "Dog": {
        "type": "object",
        "properties": {
            "kind": {"type": "string", "enum": ["dog"]},
            "size": {"type": "string", "enum": ["small", "large"]},
        },
    },
    "Presence": {
        "type": "object",
        "properties": {
            "kind": {"type": "string", "enum": ["presence"]},
            "pet": {"oneOf": [{"$ref": "#/components/schemas/Cat"}, {"$ref": "#/components/schemas/Dog"}]},
            "mood": {"$ref": "#/components/schemas/Mood"},
            "state": {"type": "string", "enum": ["open", "closed"], "nullable": True},
            "sizes": {"type": "array", "items": {"type": "integer", "enum": [1, 2]}},
        },
    },
}

PROGRAM = """
import sys
from typing import Any, Literal, assert_type

from forge_realtime import ForgeRealtimeError, RealtimeClient, RetryPolicy
from forge_realtime._api.api.forge_realtime import get_presence
from forge_realtime._api.models import Presence, PresenceRequest

with RealtimeClient(sys.argv[1], retry=RetryPolicy(backoff_initial=0.001)) as realtime:
    live = realtime.for_invocation({"x-forge-invocation-id": "invocation-123"})
    try:
        answer = live.call(get_presence, body=PresenceRequest(name="board-42", mood="calm"), detail=True)
    except ForgeRealtimeError as error:
        print(type(error).__name__, error.delivery.name)
    else:
        assert_type(answer, Presence)
        print(answer.to_dict())
"""


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository generated from a document with a new operation."""
    repo = copy_repository(tmp_path_factory.mktemp("grown"))
    document = json.loads((repo / "spec/forge-containers-api.json").read_text(encoding="utf-8"))
    document["paths"]["/forge/realtime/v1/presence"] = PRESENCE
    document["components"].setdefault("schemas", {}).update(SCHEMAS)
    repin(repo, document)
    assert main(["--root", str(repo), "generate"]) == 0
    return repo


@pytest.fixture(scope="module")
def program(grown: Path) -> Path:
    """The package of that repository, in another folder with a program."""
    folder = grown.parent / "laid"
    for room in ("generated", "overlays"):
        shutil.copytree(grown / room / "forge_realtime", folder / "forge_realtime", dirs_exist_ok=True)
    (folder / "program.py").write_text(PROGRAM, encoding="utf-8")
    return folder / "program.py"


def call(program: Path, url: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(program.parent)}
    done = subprocess.run([sys.executable, program, url], check=False, capture_output=True, text=True, env=environment)
    assert done.stderr == "", done.stderr
    return done.stdout.strip()


def test_new_operation_has_header_retries_and_errors(grown: Path, program: Path) -> None:
    document = json.loads((grown / "spec/realtime.json").read_text(encoding="utf-8"))
    with Emulator(document=document) as emulator:
        emulator.fail_next(status=429)
        assert call(program, emulator.url) == "{}"
        emulator.fail_next(status=403)
        assert call(program, emulator.url) == "RejectedError REJECTED"
        assert [(request.operation, request.status) for request in emulator.requests] == [
            ("getPresence", 429),
            ("getPresence", 200),
            ("getPresence", 403),
        ]
        request = emulator.requests[1]
    assert request.headers["forge-proxy-authorization"] == "Forge as=app,id=invocation-123"
    assert request.body == {"name": "board-42", "mood": "calm"}


def test_new_operation_is_typed(program: Path, mypy_cache: Path) -> None:
    check = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(mypy_cache), "program.py", "forge_realtime"],
        cwd=program.parent,
        check=False,
        capture_output=True,
        text=True,
    )
    assert check.returncode == 0, check.stdout


@pytest.mark.parametrize(
    "body",
    [
        {"mood": "wild", "state": "open", "sizes": [1, 2]},
        {"mood": "sleepy", "state": "ajar", "sizes": [1, 99], "kind": "absence"},
        {"pet": {"kind": "dog", "size": "huge"}},
        {"mood": "calm", "state": None, "who": {"anyone": ["a"]}},
    ],
)
def test_response_may_contain_unknown_values(program: Path, body: Document) -> None:
    with FaultServer(then=answer(200, body)) as server:
        assert ast.literal_eval(call(program, server.url)) == body


def test_request_enumerations_stay_closed() -> None:
    def document(mood: Document, state: Document) -> Document:
        content = {"application/json": {"schema": {"properties": {"mood": mood, "one": {"enum": ["only"]}}}}}
        return {
            "paths": {
                "/p": {
                    "post": {
                        "requestBody": {"content": content},
                        "responses": {"200": {"$ref": "#/components/responses/R"}},
                    }
                }
            },
            "components": {
                "responses": {"R": {"content": {"application/json": {"schema": {"items": state}}}}},
                "schemas": {"Unreached": {"enum": [1, 2]}},
            },
        }

    mood = {"type": "string", "enum": ["calm", "wild"]}
    state = {"type": "string", "title": "State", "enum": ["open", "closed", None], "nullable": True, "description": "d"}
    known = {"type": "string", "title": "State", "enum": ["open", "closed"]}
    opened = {"nullable": True, "description": "d", "anyOf": [known, {"type": "string"}]}
    given = document(mood, state)
    assert patch(given, []) == document(mood, opened)
    assert given == document(mood, state)


def test_union_selectors_stay_closed() -> None:
    def member(kind: Document, **more: Document) -> Document:
        return {"type": "object", "properties": {"kind": kind, **more}}

    def document(*, size: Document, alone: Document) -> Document:
        cats, dog = {"type": "string", "enum": ["cat", "lion"]}, {"type": "string", "enum": ["dog"]}
        by_name = {
            "oneOf": [{"$ref": "#/components/schemas/Cat"}, member(dog)],
            "discriminator": {"propertyName": "kind"},
        }
        by_value = {
            "anyOf": [
                {"allOf": [member(dog, size=size)]},
                member({"$ref": "#/components/schemas/Bird"}),
                member({"const": "bee"}),
            ]
        }
        properties = {"by_name": by_name, "by_value": by_value, "alone": alone, "none": {"enum": [None]}}
        content = {"application/json": {"schema": {"properties": properties}}}
        return {
            "paths": {"/p": {"post": {"responses": {"200": {"content": content}}}}},
            "components": {"schemas": {"Cat": member(cats), "Bird": {"enum": ["bird"]}}},
        }

    size, alone = {"type": "string", "enum": ["small", "large"]}, {"type": "string", "const": "only"}
    given = document(size=size, alone=alone)
    assert patch(given, []) == document(
        size={"anyOf": [size, {"type": "string"}]}, alone={"anyOf": [alone, {"type": "string"}]}
    )
