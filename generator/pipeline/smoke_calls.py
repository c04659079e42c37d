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

CHANNEL = "channel"
RESPONSE = {"eventId": "event", "eventTimestamp": "0", "token": "token", "expiresAt": 0}


def main(folder: str, package: str) -> None:
    """Print the result of the calls as JSON."""
    sys.path.insert(0, folder)
    try:
        result = make_calls(package)
    except Exception as error:  # noqa: BLE001 (every error is part of the result)
        # An ImportError ends with the path of the scratch copy.
        message = re.sub(rf" \({re.escape(folder)}[^()]*\)$", "", str(error))
        result = {"error": f"{type(error).__name__}: {message}", "line": None}
        for frame in traceback.extract_tb(error.__traceback__):
            path = Path(frame.filename)
            # Generated code and `_prepare` only detect the mistake; their caller made it.
            if path.is_relative_to(folder) and "_api" not in path.parts and frame.name != "_prepare":
                result["line"] = [str(path.relative_to(folder)), frame.lineno]
    print(json.dumps(result))


def make_calls(package: str) -> dict[str, Any]:
    """Make each named call, with and without its optional arguments."""
    sent: list[dict[str, Any]] = []

    def record(request: httpx.Request) -> httpx.Response:
        sent.append({"method": request.method, "path": request.url.path, "body": json.loads(request.content)})
        return httpx.Response(200, json=RESPONSE)

    realtime: Any = importlib.import_module(package)
    for name in realtime.__all__:
        # Exported names are imported on first use.
        getattr(realtime, name)
    operations: Any = importlib.import_module(f"{package}._realtime.operations")
    client = realtime.RealtimeClient("http://localhost", transport=httpx.MockTransport(record))
    live = client.for_invocation(realtime.Invocation("invocation"))
    unsupported = operations.lacking()
    overrides = (
        {} if any("context_overrides" in argument for argument in unsupported) else {"context_overrides": ["issue"]}
    )
    permissions = (
        {} if any("permissions" in argument for argument in unsupported) else {"permissions": ["subscribe", "publish"]}
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
    return {"unsupported": unsupported, "sent": sent}


if __name__ == "__main__":
    main(*sys.argv[1:])
