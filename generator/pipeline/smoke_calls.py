"""Run by `generator.pipeline.overlay_fit` in a process of its own: `python smoke_calls.py FOLDER PACKAGE`.

Imports the package from the folder, calls each named operation on a transport that only records, and prints as JSON what was
sent, or what failed and in which line of the package.
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

CHANNEL = "channel"
ANSWER = {"eventId": "event", "eventTimestamp": "0", "token": "token", "expiresAt": 0}


def main(folder: str, package: str) -> None:
    sys.path.insert(0, folder)
    try:
        found = probe(package)
    except Exception as error:  # noqa: BLE001 (whatever it is, it is said)
        # An ImportError names the scratch file behind what it says.
        said = re.sub(rf" \({re.escape(folder)}[^()]*\)$", "", str(error))
        found = {"error": f"{type(error).__name__}: {said}", "line": None}
        for frame in traceback.extract_tb(error.__traceback__):
            path = Path(frame.filename)
            # Generated code and `_prepare` find out; whoever called them is wrong.
            if path.is_relative_to(folder) and "_api" not in path.parts and frame.name != "_prepare":
                found["line"] = [str(path.relative_to(folder)), frame.lineno]
    print(json.dumps(found))


def probe(package: str) -> dict[str, Any]:
    sent: list[dict[str, Any]] = []

    def record(request: httpx.Request) -> httpx.Response:
        sent.append({"method": request.method, "path": request.url.path, "body": json.loads(request.content)})
        return httpx.Response(200, json=ANSWER)

    realtime: Any = importlib.import_module(package)
    for name in realtime.__all__:
        # Loads the module that it is in.
        getattr(realtime, name)
    operations: Any = importlib.import_module(f"{package}._realtime.operations")
    client = realtime.RealtimeClient("http://localhost", transport=httpx.MockTransport(record))
    live = client.for_invocation(realtime.Invocation("invocation"))
    lacking = operations.lacking()
    overrides = {} if any("context_overrides" in argument for argument in lacking) else {"context_overrides": ["issue"]}
    permissions = (
        {} if any("permissions" in argument for argument in lacking) else {"permissions": ["subscribe", "publish"]}
    )
    token = "." + base64.urlsafe_b64encode(json.dumps({"channel": {"name": CHANNEL}}).encode()).decode() + "."

    calls: list[tuple[str, dict[str, Any]]] = [
        ("publish", {"payload": "payload"}),
        ("publish", {"payload": "payload", "token": token, **overrides}),
        ("publish_global", {"payload": "payload"}),
        ("publish_global", {"payload": "payload", "token": token}),
        ("sign_realtime_token", {"claims": {"team": "red"}}),
        ("sign_realtime_token", {"claims": {"team": "red"}, **permissions}),
    ]
    for name, arguments in calls:
        getattr(live, name)(CHANNEL, **arguments)
        builder = getattr(operations, f"{name}_request")
        file = Path(inspect.getfile(builder)).relative_to(sys.path[0])
        sent[-1]["line"] = [str(file), inspect.getsourcelines(builder)[1]]
    return {"lacking": lacking, "sent": sent}


if __name__ == "__main__":
    main(*sys.argv[1:])
