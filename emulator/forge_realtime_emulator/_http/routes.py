"""The ASGI application: one endpoint per operation of the document, and the emulator's own under `/_emulator`."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from .._platform.authorization import parse_authorization
from .._platform.document import load_document, read_document
from .._platform.errors import RefusedError
from .._platform.settings import Settings
from .._platform.sidecar import Sidecar
from .bridge import Bridge
from .console import console_routes
from .control import Control
from .json import JSONResponse, invalid
from .log import log, log_refusal
from .mcp import mcp_route
from .mocks import mock_response
from .openapi import Endpoint, openapi_route
from .operations import OperationEndpoint, refusal_response
from .origin import RefuseOrigins, parse_origin
from .subscribers import QUERY, serve_page, serve_subscriber, stream_subscriber

_PAGE_SIZE = re.compile("[1-9][0-9]?|100")


def create_app(
    document: Mapping[str, Any] | None = None,
    settings: Settings | None = None,
    *,
    service: str | None = None,
    origins: Iterable[str] = (),
) -> Starlette:
    """Create the emulator as an ASGI application, for a server of your own. `Emulator` brings a server with it.

    Args:
        document: The OpenAPI document; by default the derived one shipped with the package.
        settings: Behaviour of the emulator; by default `Settings()`.
        service: The base URL of the app's service, for `invokeService()` in a browser.
        origins: The origins of the pages that may load `/bridge.js` and use it.

    Raises:
        EmulatorError: The document cannot be used.
        TypeError: `settings` is not a `Settings`.
        ValueError: `service` is not a base URL, or an origin is not an origin.
    """
    if not isinstance(settings, Settings | None):
        raise TypeError(
            f"settings: takes Settings(...), such as Settings(limit=2); this is of the type {type(settings).__name__}"
        )
    sidecar = Sidecar(read_document(load_document() if document is None else document), settings or Settings())
    operations = {
        operation.operation_id: OperationEndpoint(operation, sidecar)
        for operation in sidecar.document.operations.values()
    }
    routes: list[BaseRoute] = [
        Route(operation.path, operations[operation.operation_id], methods=[operation.method])
        for operation in sidecar.document.operations.values()
    ]
    routes += [
        *_read_only_routes(sidecar),
        *console_routes(),
        *Control(sidecar, operations).routes(),
        *Bridge(sidecar, service).routes(),
        *_subscription_routes(sidecar),
        mcp_route(sidecar),
    ]
    routes.append(openapi_route(routes))
    app = Starlette(
        routes=routes,
        middleware=[Middleware(RefuseOrigins, origins=[parse_origin(origin) for origin in origins])],
        exception_handlers={
            RefusedError: _on_refused,
            HTTPException: _not_found_handler(sidecar, routes),
            ClientDisconnect: _on_disconnect,
        },
    )
    app.router.redirect_slashes = False
    app.state.sidecar = sidecar
    # Set by the server of `Emulator`, for faults that end a connection.
    app.state.connections = None
    return app


def _read_only_routes(sidecar: Sidecar) -> list[BaseRoute]:
    """Build the routes of the platform's own GET operations, which the derived document does not have."""

    async def context(request: Request) -> Response:
        header = sidecar.document.header
        authorization = parse_authorization(header, request.headers.getlist(header))
        return JSONResponse(sidecar.invocation_context(authorization))

    async def installations(request: Request) -> Response:
        size = request.query_params.get("pageSize", "100")
        if not _PAGE_SIZE.fullmatch(size):
            raise invalid("pageSize must be a whole number from 1 to 100")
        return JSONResponse(sidecar.installations(int(size), request.query_params.get("cursor")))

    async def installation(request: Request) -> Response:
        return JSONResponse(sidecar.installation_details(request.path_params["id"]))

    return [
        Route("/invocation/context", context),
        Route("/v1/installations", installations),
        Route("/v1/installation/{id:path}", installation),
    ]


def _subscription_routes(sidecar: Sidecar) -> list[BaseRoute]:
    async def stream(request: Request) -> Response:
        return await stream_subscriber(request, sidecar)

    async def subscribe(websocket: WebSocket) -> None:
        await serve_subscriber(websocket, sidecar)

    async def page(websocket: WebSocket) -> None:
        await serve_page(websocket, sidecar)

    return [
        Endpoint("GET", "/_emulator/subscribe", stream, "Subscribe", query=QUERY, returns="text/event-stream"),
        WebSocketRoute("/_emulator/subscribe", subscribe),
        WebSocketRoute("/_emulator/subscriptions", page),
    ]


async def _on_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    log_refusal(request.url.path, error.status, error)
    return refusal_response(error)


async def _on_disconnect(_: Request, __: Exception) -> Response:
    return Response()


def _not_found_handler(
    sidecar: Sidecar, routes: Iterable[BaseRoute]
) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def on_not_found(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if request.url.path.startswith("/_emulator/"):
            message = f"The emulator has no such endpoint. It has {', '.join(_endpoints(routes))}."
        elif response := mock_response(sidecar, request.method, request.scope["path"]):
            return response
        else:
            operations = sidecar.document.operations.values()
            known = ", ".join(f"{operation.method} {operation.path}" for operation in operations)
            message = f"The document has no such operation. It has {known}."
        code = HTTPStatus(error.status_code).name
        log.info("%-20s %d  %s %s", "-", error.status_code, request.method, request.url.path)
        return JSONResponse({"code": code, "message": message}, error.status_code, headers=error.headers)

    return on_not_found


def _endpoints(routes: Iterable[BaseRoute]) -> Iterator[str]:
    for route in routes:
        if isinstance(route, Route) and route.path.startswith("/_emulator/"):
            for method in sorted((route.methods or set()) - {"HEAD"}):
                yield f"{method} {route.path}"
