"""`/openapi.json`: the emulator's own endpoints, described for programs."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from .json import JSONResponse


class Endpoint(Route):
    """Route with a description for `/openapi.json`.

    Args:
        method: The HTTP method.
        path: The path.
        endpoint: The endpoint.
        summary: What it does, in one line.
        body: The schema of the JSON body, or `None` if it takes none.
        query: What the query takes: each name with its meaning.
        returns: The media type of the response.
    """

    def __init__(
        self,
        method: str,
        path: str,
        endpoint: Callable[[Request], Awaitable[Response]],
        summary: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        returns: str = "application/json",
    ) -> None:
        super().__init__(path, endpoint, methods=[method])
        self._method = method.lower()
        self._summary = summary
        self._body = body
        self._query = query or {}
        self._returns = returns

    def describe(self) -> tuple[str, str, dict[str, Any]]:
        """Return path, method and the operation object."""
        path = re.sub(r":\w+}", "}", self.path)
        named = re.findall(r"{(\w+)}", path)
        in_path = [{"name": name, "in": "path", "required": True, "schema": {"type": "integer"}} for name in named]
        in_query = [
            {"name": name, "in": "query", "description": meaning, "schema": {"type": "string"}}
            for name, meaning in self._query.items()
        ]
        refused = {"description": "Refused; the message says why.", "content": _content(_REFUSED, "application/json")}
        may_be_refused = in_path or in_query or self._body is not None
        return (
            path,
            self._method,
            {
                "operationId": f"{self._method}{re.sub(r'[^a-z]+', '_', path.removeprefix('/_emulator'))}".rstrip("_"),
                "summary": self._summary,
                **({"parameters": [*in_path, *in_query]} if in_path or in_query else {}),
                **(
                    {}
                    if self._body is None
                    else {
                        "requestBody": {"required": True, "content": _content(as_3_1(self._body), "application/json")}
                    }
                ),
                "responses": {
                    "200": {"description": HTTPStatus.OK.phrase, "content": _content({}, self._returns)},
                    **({"4XX": refused} if may_be_refused else {}),
                },
            },
        )


_REFUSED: Mapping[str, Any] = {
    "type": "object",
    "required": ["code", "message"],
    "properties": {"code": {"type": "string"}, "message": {"type": "string"}, "detail": {"type": "string"}},
}


def openapi_route(routes: Iterable[BaseRoute]) -> Route:
    """Build the route of the document that describes these routes."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        if isinstance(route, Endpoint):
            path, method, operation = route.describe()
            paths.setdefault(path, {})[method] = operation
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "Forge Realtime emulator: control endpoints",
            "version": "1",
            "description": "For tests, scripts and the console. The platform has none of them.",
        },
        "paths": paths,
    }

    async def openapi(_: Request) -> Response:
        return JSONResponse(document)

    return Route("/openapi.json", openapi)


def _content(schema: Mapping[str, Any], media_type: str) -> dict[str, Any]:
    return {media_type: {"schema": schema} if schema else {}}


def as_3_1(schema: Any) -> Any:
    """Return a schema of OpenAPI 3.0 in the spelling of 3.1, for the keywords that are spelt differently."""
    if isinstance(schema, list):
        return [as_3_1(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    spelt = {name: as_3_1(value) for name, value in schema.items()}
    if spelt.pop("nullable", False) is True:
        spelt["type"] = [spelt["type"], "null"]
    if spelt.get("exclusiveMinimum") is True:
        spelt["exclusiveMinimum"] = spelt.pop("minimum")
    return spelt
