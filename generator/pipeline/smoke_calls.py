"""Program that `overlay_fit` runs in a process of its own: `python smoke_calls.py FOLDER PACKAGE`.

Imports the package from the folder, makes each named call on a recording transport, and prints JSON: the requests that
were sent, or the error and the line of the package that caused it.
"""

from __future__ import annotations

import base64
import importlib
import inspect
import json
import re
import sys
import traceback
from pathlib import Path
from typing import Any

import httpx

READERS = {"publish": "publish_result", "publish_global": "publish_result", "sign_realtime_token": "realtime_token"}
# Frames that only detect a mistake of their callers.
DETECTING = frozenset({"_prepare", "_model"})


def main(folder: str, package: str) -> None:
    """Print the result of the calls as JSON."""
    sys.path.insert(0, folder)
    try:
        result = make_calls(package, json.load(sys.stdin))
    except Exception as error:  # noqa: BLE001 (every error is part of the result)
        # An ImportError ends with the path of the scratch copy.
        message = re.sub(rf" \({re.escape(folder)}[^()]*\)$", "", str(error))
        result = {"error": f"{type(error).__name__}: {message}", "line": None}
        for frame in traceback.extract_tb(error.__traceback__):
            path = Path(frame.filename)
            if path.is_relative_to(folder) and "_api" not in path.parts and frame.name not in DETECTING:
                result["line"] = [str(path.relative_to(folder)), frame.lineno]
    print(json.dumps(result))


def make_calls(package: str, plan: list[dict[str, Any]]) -> dict[str, Any]:
    """Make the calls of the plan, without arguments that the document does not support."""
    sent: list[dict[str, Any]] = []
    planned: dict[str, Any] = {}

    def respond(request: httpx.Request) -> httpx.Response:
        sent.append({"method": request.method, "path": request.url.path, "body": json.loads(request.content)})
        if planned["body"] is None:
            return httpx.Response(planned["status"])
        return httpx.Response(planned["status"], json=planned["body"])

    realtime: Any = importlib.import_module(package)
    for name in realtime.__all__:
        # Exported names are imported on first use.
        getattr(realtime, name)
    operations: Any = importlib.import_module(f"{package}._realtime.operations")
    unsupported = operations.lacking()
    if not plan:
        return {"unsupported": unsupported, "sent": []}
    retry = realtime.RetryPolicy(max_attempts=1)
    client = realtime.RealtimeClient("http://localhost", transport=httpx.MockTransport(respond), retry=retry)
    live = client.for_invocation(realtime.Invocation("invocation"))
    for planned in plan:
        name, channel = planned["name"], planned["channel"]
        arguments = {
            argument: _token(channel) if argument == "token" else value
            for argument, value in planned["arguments"].items()
            if not any(f"{name}({argument}=" in text for text in unsupported)
        }
        try:
            getattr(live, name)(channel, **arguments)
        except realtime.ResponseError:
            response = json.dumps(planned["body"])
            problem = f"{name} cannot read the documented response {planned['status']} with {response}"
            return {"error": problem, "line": _first_line(getattr(operations, READERS[name]))}
        sent[-1]["line"] = _first_line(getattr(operations, f"{name}_request"))
    return {"unsupported": unsupported, "sent": sent}


def _first_line(function: Any) -> list[Any]:
    return [str(Path(inspect.getfile(function)).relative_to(sys.path[0])), inspect.getsourcelines(function)[1]]


def _token(channel: str) -> str:
    return "." + base64.urlsafe_b64encode(json.dumps({"channel": {"name": channel}}).encode()).decode() + "."


if __name__ == "__main__":
    main(*sys.argv[1:])
