from __future__ import annotations

import hashlib
import inspect
import json
import pickle
import subprocess
import sys
from pathlib import Path

import forge_realtime


def test_exported_names_are_complete_and_documented() -> None:
    public = {
        name for name, value in vars(forge_realtime).items() if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert sorted(public | {"__document__", "__version__"}) == forge_realtime.__all__
    for name in public:
        assert inspect.getdoc(getattr(forge_realtime, name)), f"{name} has no docstring"


def test_errors_are_one_tree_drawn_in_the_docstring() -> None:
    errors = {
        name: value
        for name, value in vars(forge_realtime).items()
        if inspect.isclass(value) and issubclass(value, Exception)
    }
    drawn = inspect.getdoc(forge_realtime._errors) or ""
    for name, kind in errors.items():
        assert issubclass(kind, forge_realtime.ForgeRealtimeError)
        assert f" {name}" in drawn


def test_errors_and_results_are_picklable() -> None:
    error = forge_realtime.RateLimitedError("too many")
    error.status, error.body, error.attempts = 429, b"{}", ()
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.args, copy.status, copy.body) == (type(error), error.args, 429, b"{}")
    assert pickle.loads(pickle.dumps(forge_realtime.RetryPolicy(deadline=9))) == forge_realtime.RetryPolicy(deadline=9)


def test_importing_it_needs_only_the_core_dependencies() -> None:
    # httpx imports click where it is installed: here it is not.
    program = "import sys; sys.modules['click'] = None; import forge_realtime"
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
    }
    assert extras.isdisjoint(loaded)


def test_it_knows_its_document() -> None:
    pinned = (Path(__file__).parents[2] / "spec/forge-containers-api.json").read_bytes()
    assert forge_realtime.__document__.sha256 == hashlib.sha256(pinned).hexdigest()
    assert forge_realtime.__document__.version == json.loads(pinned)["info"]["version"]
