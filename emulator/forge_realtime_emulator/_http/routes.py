"""The ASGI application: one endpoint per operation of the document, and the emulator's own under `/_emulator`."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from .._platform.authorization import Authorization, parse_authorization
from .._platform.document import Operation, load_document, read_document
from .._platform.errors import EmulatorError, RefusedError
from .._platform.faults import Fault
from .._platform.records import RecordedRequest, channel_of
from .._platform.settings import Settings
from .._platform.sidecar import OperationResult, Sidecar
from .bridge import Bridge
from .connection import transport_of
from .console import console_routes
from .control import Control
from .json import JSONResponse, invalid, parse_json, read_body
from .log import log, log_event, log_refusal
from .mocks import mock_response
from .origin import RefuseOrigins, parse_origin
from .subscribers import serve_page, serve_subscriber, stream_subscriber

_FAILED: Mapping[str, Mapping[str, None]] = {
    "publish": {"eventId": None, "eventTimestamp": None},
    "publish_global": {"eventId": None, "eventTimestamp": None},
    "sign_realtime_token": {"token": None, "expiresAt": None},
}
"""The documented result of each operation when it has failed, beside `errors`."""

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
    routes: list[BaseRoute] = [
        Route(operation.path, OperationEndpoint(operation, sidecar), methods=[operation.method])
        for operation in sidecar.document.operations.values()
    ]
    routes += [
        *_read_only_routes(sidecar),
        *console_routes(),
        *Control(sidecar).routes(),
        *Bridge(sidecar, service).routes(),
        *_subscription_routes(sidecar),
    ]
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
        Route("/_emulator/subscribe", stream),
        WebSocketRoute("/_emulator/subscribe", subscribe),
        WebSocketRoute("/_emulator/subscriptions", page),
    ]


async def _on_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    log_refusal(request.url.path, error.status, error)
    return _refusal_response(error)


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


class OperationEndpoint:
    """ASGI application that checks the calls of one operation, carries them out and records them."""

    def __init__(self, operation: Operation, sidecar: Sidecar) -> None:
        self._operation = operation
        self._sidecar = sidecar

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._serve(Request(scope, receive))
        await response(scope, receive, send)

    async def _serve(self, request: Request) -> Response:
        # A pending fault applies even to a call that would be refused.
        call = _Call(request, self._operation, self._sidecar)
        await call.read()
        fault = self._sidecar.faults.take(**call.describe())
        if fault is not None and fault.delay and not await self._sidecar.faults.delay(fault.delay):
            ended = "The emulator stopped or was reset while this call was delayed; nothing was done."
            return _refusal_response(RefusedError(503, "DELAY_ENDED", ended))
        if fault is None or fault.only_delays:
            return self._respond(call, call.carry_out(), fault)
        if fault.delivered and isinstance(refused := call.carry_out(), RefusedError):
            # A call that cannot be delivered gets its own refusal.
            return self._respond(call, refused, None)
        return self._respond(call, fault.refusal, fault)

    def _respond(self, call: _Call, outcome: OperationResult | RefusedError, fault: Fault | None) -> Response:
        in_200 = self._sidecar.settings.errors_in_200
        name = self._operation.operation_id
        broken = fault.answer if fault is not None else None
        response: Response
        if isinstance(outcome, OperationResult):
            status = 200
            if outcome.event is None:
                log.info("%-20s 200  on %.100r", name, call.channel)
            else:
                log_event(name, outcome.event)
            response = JSONResponse(outcome.body)
            call.record(200, None, fault)
        else:
            status = {None: outcome.status, "reset": 0}.get(broken, 200)
            if outcome.logical and in_200 and fault is None:
                status = 200
            log_refusal(name, status or "reset", outcome, call.channel)
            response = _refusal_response(outcome, status, _FAILED.get(name))
            call.record(status, outcome, fault)
        return _BrokenResponse(broken) if broken is not None else response


class _Call:
    def __init__(self, request: Request, operation: Operation, sidecar: Sidecar) -> None:
        self._request = request
        self._operation = operation
        self._sidecar = sidecar
        self._authorization: Authorization | None = None
        self._body: Any = None
        self._size = 0
        self._refused: RefusedError | None = None

    async def read(self) -> None:
        header = self._sidecar.document.header
        try:
            raw = await read_body(self._request)
            self._authorization = parse_authorization(header, self._request.headers.getlist(header))
            schema = self._operation.body
            if schema is not None and (raw or self._operation.body_required):
                body = parse_json(self._request, raw)
                if problem := schema.problem(_without_null_token(body)):
                    raise invalid(problem)
                self._body = body
                self._size = len(raw)
        except RefusedError as refused:
            self._refused = refused
        except RecursionError:
            self._refused = invalid("the JSON is nested too deeply")

    @property
    def channel(self) -> Any:
        """The channel named in the body, or `None`."""
        return channel_of(self._body)

    def describe(self) -> dict[str, str | None]:
        """Describe the call for `Faults.take`."""
        installation = None
        if self._authorization is not None:
            with contextlib.suppress(RefusedError):
                installation = self._sidecar.installation(self._authorization)
        return {
            "operation": self._operation.operation_id,
            "channel": self.channel,
            "installation": installation,
        }

    def carry_out(self) -> OperationResult | RefusedError:
        if self._refused is not None or self._authorization is None:
            return self._refused or invalid("it has no authorization")
        try:
            return self._sidecar.carry_out(self._operation.operation_id, self._authorization, self._body)
        except RefusedError as refused:
            return refused
        except RecursionError:
            return invalid("the JSON is nested too deeply")

    def record(self, status: int, refusal: RefusedError | None, fault: Fault | None) -> None:
        headers: dict[str, str] = {}
        for name, value in self._request.headers.items():
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        self._sidecar.record(
            RecordedRequest(
                operation=self._operation.operation_id,
                status=status,
                authorization=self._authorization,
                headers=headers,
                body=self._body,
                code=None if refusal is None else refusal.code,
                message=None if refusal is None else refusal.message,
                detail=None if refusal is None else refusal.detail,
                fault=fault is not None,
                at=self._sidecar.clock.now(),
            ),
            self._size,
        )


class _BrokenResponse(Response):
    """Response that a client cannot read, or a reset connection."""

    def __init__(self, kind: str) -> None:
        super().__init__(b"<!doctype html><title>Not JSON</title>", media_type="text/html")
        self._kind = kind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._kind == "not-json":
            await super().__call__(scope, receive, send)
            return
        if scope["app"].state.connections is None:
            raise EmulatorError(
                f"The fault {self._kind!r} ends a connection, which only the server of Emulator can do."
            )
        if self._kind == "truncated":
            headers = [(b"content-type", b"application/json"), (b"content-length", b"1000")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b'{"eventId": "', "more_body": True})
        transport = transport_of(scope)
        if transport is not None:
            _end_connection(transport, reset=self._kind == "reset")
        while (await receive())["type"] != "http.disconnect":
            pass


def _end_connection(transport: asyncio.Transport, *, reset: bool) -> None:
    if reset:
        # With a linger time of 0, closing sends RST instead of FIN.
        linger = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()
    else:
        transport.close()


def _without_null_token(body: Any) -> Any:
    """Return the body of a call without a token that is null, which counts as none."""
    options = body.get("options") if isinstance(body, dict) else None
    if not isinstance(options, dict) or options.get("token", "") is not None:
        return body
    return {**body, "options": {name: value for name, value in options.items() if name != "token"}}


def _refusal_response(
    refusal: RefusedError, status: int | None = None, failed: Mapping[str, None] | None = None
) -> Response:
    """Build the response to a refused call.

    Args:
        refusal: The refusal.
        status: The status if it is not that of the refusal.
        failed: The documented result of the operation when it has failed, or `None` if none is documented.
    """
    headers = None if refusal.retry_after is None else {"Retry-After": str(refusal.retry_after)}
    body: dict[str, Any] = {"code": refusal.code, "message": refusal.message}
    if refusal.logical and failed is not None:
        body = {**failed, "errors": [{"message": refusal.message}]}
    if refusal.detail is not None:
        body["detail"] = refusal.detail
    return JSONResponse(body, refusal.status if status is None else status, headers=headers)
