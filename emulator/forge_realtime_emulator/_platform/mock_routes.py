"""Mock routes: responses to what the emulator does not carry out, such as Jira, KVS, and functions of the app."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import EmulatorError
from .schema import Schema
from .text import printable

_OWN = ("/_emulator/", "/forge/realtime/", "/invocation/", "/v1/installation")
"""Beginnings of paths that the emulator serves itself."""

ROUTE = Schema(
    {
        "type": "object",
        "required": ["method", "path"],
        "additionalProperties": False,
        "properties": {
            "method": {"type": "string", "enum": ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"]},
            "path": {"type": "string", "pattern": "^/"},
            "status": {"type": "integer", "minimum": 200, "maximum": 599},
            "json": {},
        },
    }
)

_ROUTES = Schema({"type": "array"})


@dataclass(frozen=True, slots=True)
class MockResponse:
    """Response of a mock route.

    Attributes:
        status: The HTTP status.
        has_body: Whether there is a body.
        body: The JSON body; hidden in the repr.
    """

    status: int
    has_body: bool = False
    body: Any = field(default=None, repr=False)


class MockRoutes:
    """Registry of mock routes."""

    def __init__(self) -> None:
        self._kept: list[tuple[str, re.Pattern[str], MockResponse]] = []
        self._routes: list[tuple[str, re.Pattern[str], MockResponse]] = []

    def add(self, route: Any) -> None:
        """Add a route. Of several that match, the last one added responds.

        Args:
            route: `{"method": "GET", "path": "/jira/rest/api/3/issue/{key}", "status": 200, "json": {}}`. `{name}`
                matches one segment of a path. Without `status` it is 200, without `json` there is no body.

        Raises:
            ValueError: The route has another form, or the emulator carries out this path itself.
        """
        if problem := ROUTE.problem(route):
            raise ValueError(problem)
        if route["path"].startswith(_OWN):
            raise ValueError("path: the emulator carries it out itself; make it fail with a fault instead")
        response = MockResponse(route.get("status", 200), "json" in route, route.get("json"))
        self._routes.append((route["method"], _pattern(route["path"]), response))

    def keep(self, routes: list[Any]) -> None:
        """Add routes that survive a reset.

        Raises:
            ValueError: A route has another form, or they are not a list.
        """
        if problem := _ROUTES.problem(routes):
            raise ValueError(problem)
        for route in routes:
            self.add(route)
        self._kept = [*self._routes]

    def reset(self) -> None:
        """Forget the routes that do not survive a reset."""
        self._routes = [*self._kept]

    def find(self, method: str, path: str) -> MockResponse | None:
        """Find the response to a request; `path` has no query."""
        for expected, pattern, response in reversed(self._routes):
            if expected == method and pattern.fullmatch(path):
                return response
        return None


def read_mock_routes(path: Path) -> list[Any]:
    """Read the file of `emulate --mocks`: a JSON array of routes.

    Raises:
        EmulatorError: The file is not such an array.
    """
    try:
        routes = json.loads(path.read_text(encoding="utf-8"))
        MockRoutes().keep(routes)
    except (OSError, ValueError, RecursionError) as error:
        raise EmulatorError(f"{path}: cannot be read as mock routes: {error}.") from error
    return list(routes)


def explain_missing(method: str, path: str) -> str:
    """Say how to add the route that a request needs."""
    route = json.dumps({"method": method, "path": path, "status": 200, "json": {}})
    return (
        f"The emulator does not carry out {printable(method)} {printable(path)}. Say what it responds by a mock route:"
        f" {route} in the array of the file of emulate --mocks FILE, the same posted to /_emulator/mocks, or in a test"
        f" realtime_emulator.mock({json.dumps(method)}, {json.dumps(path)}, json={{}})."
    )


def _pattern(path: str) -> re.Pattern[str]:
    parts = re.split(r"\{\w+\}", path)
    return re.compile("[^/]+".join(map(re.escape, parts)))
