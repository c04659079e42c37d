from __future__ import annotations

import ast
import hashlib
import inspect
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import forge_realtime
import forge_realtime._core.errors


def test_exported_names_are_complete_and_documented() -> None:
    package = inspect.getsource(forge_realtime)
    declared = {
        alias.asname or alias.name
        for statement in ast.walk(ast.parse(package))
        if isinstance(statement, ast.ImportFrom) and statement.level
        for alias in statement.names
    }
    assert sorted(declared) == forge_realtime.__all__
    assert set(forge_realtime.__all__) <= set(dir(forge_realtime))
    for name in declared - {"__version__"}:
        assert inspect.getdoc(getattr(forge_realtime, name)), f"{name} has no docstring"


def test_a_name_is_loaded_at_its_first_use() -> None:
    program = "import sys, forge_realtime; print('httpx' in sys.modules)"
    program += "; from forge_realtime import RealtimeClient; print('asyncio' in sys.modules, RealtimeClient)"
    program += "; from forge_realtime import AsyncRealtimeClient; print('asyncio' in sys.modules)"
    shown = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True).stdout
    assert shown.split("\n")[:3] == [
        "False",
        "False <class 'forge_realtime._realtime.client.RealtimeClient'>",
        "True",
    ]


def test_what_only_calls_need_is_loaded_with_the_first_client() -> None:
    """An import of the client takes half of httpx's time less for it. A call must not import anything."""
    program = """
import sys
from forge_realtime import {client} as Client
def loaded():
    print(*(name.removeprefix("forge_realtime.") for name in sys.modules))
loaded()
Client("http://sidecar.test")
loaded()
"""
    later = {
        "_api",
        "_api.models.publish_request",
        "_client.settings",
        "_core.attempts",
        "_core.authorization",
        "_core.invocation",
        "_core.policy",
        "_quota.limiter",
        "_realtime.operations",
        "_realtime.results",
        "_realtime.settings",
        "_realtime.tokens",
        "_streams.buffer",
        "attr",
        "attrs",
        "httpcore",
    }
    for client, more in (("RealtimeClient", "_streams.worker"), ("AsyncRealtimeClient", "_streams.async_stream")):
        command = [sys.executable, "-I", "-c", program.format(client=client)]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        at_import, with_client = map(set, map(str.split, shown.splitlines()))
        assert at_import.isdisjoint(later | {more})
        assert with_client > later | {more}


def test_publishing_loads_no_dateutil() -> None:
    """It takes as long to load as a third of httpx, and a call should import nothing."""
    program = """
import sys
import httpx
from forge_realtime import RealtimeClient

times = iter(["1767225600000", "2026-01-01T00:00:00Z"])
respond = lambda request: httpx.Response(
    200, json={"eventId": "e", "eventTimestamp": next(times)}, headers={"Date": "Thu, 01 Jan 2026 00:00:00 GMT"}
)
with RealtimeClient("http://sidecar.test", transport=httpx.MockTransport(respond)) as realtime:
    live = realtime.for_invocation({"x-forge-invocation-id": "invocation-123"})
    print(live.publish("c", "p").event_timestamp == live.publish("c", "p").event_timestamp, "dateutil" in sys.modules)
"""
    shown = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True).stdout
    assert shown == "True False\n"


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="module 'forge_realtime' has no attribute 'Realtime'"):
        _ = forge_realtime.Realtime  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]


def test_import_says_what_a_broken_dependency_lacks() -> None:
    # Another module of this name, which the import finds first.
    program = "import sys, types; sys.modules['httpx'] = types.ModuleType('httpx')"
    program += "; from forge_realtime import RealtimeClient"
    run = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False)
    message = "ImportError: RealtimeClient cannot be loaded: module 'httpx' has no attribute "
    assert run.stderr.splitlines()[-1].startswith(message), run.stderr


def test_errors_are_one_tree_drawn_in_the_docstring() -> None:
    errors = {
        name: value
        for name in forge_realtime.__all__
        if inspect.isclass(value := getattr(forge_realtime, name)) and issubclass(value, Exception)
    }
    drawn = inspect.getdoc(forge_realtime._core.errors) or ""
    for name, kind in errors.items():
        assert issubclass(kind, forge_realtime.ForgeRealtimeError)
        assert f" {name}" in drawn


def test_errors_and_results_are_picklable() -> None:
    error = forge_realtime.RateLimitedError("too many")
    error.status, error.body, error.attempts = 429, b"{}", ()
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.args, copy.status, copy.body) == (type(error), error.args, 429, b"{}")
    assert pickle.loads(pickle.dumps(forge_realtime.RetryPolicy(deadline=9))) == forge_realtime.RetryPolicy(deadline=9)


def test_error_made_from_its_message_alone_claims_no_more_than_is_known() -> None:
    # Celery's JSON results rebuild an error so, and an app's tests raise them so.
    kinds = [getattr(forge_realtime, name) for name in forge_realtime.__all__ if name.endswith("Error")]
    found = {kind: kind(*kind("failed").args).delivery for kind in kinds}
    assert found == {
        kind: forge_realtime.Delivery.NOT_SENT
        if issubclass(kind, forge_realtime.UsageError)
        else forge_realtime.Delivery.UNKNOWN
        for kind in kinds
    }


def test_importing_it_needs_only_the_core_dependencies() -> None:
    # httpx imports click where it is installed: here it is not.
    program = "import sys; sys.modules['click'] = sys.modules['aiohttp'] = None; from forge_realtime import *"
    program += "; print(*{name.partition('.')[0] for name, module in sys.modules.items() if module})"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    extras = {
        "click",
        "forge_realtime_emulator",
        "starlette",
        "uvicorn",
        "websockets",
        "jsonschema",
        "openapi_schema_validator",
        "jwt",
        "redis",
    }
    assert extras.isdisjoint(loaded)


def test_it_knows_its_document() -> None:
    pinned = (Path(__file__).parents[3] / "spec/forge-containers-api.json").read_bytes()
    assert forge_realtime.__document__.sha256 == hashlib.sha256(pinned).hexdigest()
    assert forge_realtime.__document__.version == json.loads(pinned)["info"]["version"]
