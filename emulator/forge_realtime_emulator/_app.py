"""The HTTP side: one endpoint per operation of the document, and the emulator's own under `/_emulator`."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from ._authorization import Authorization, parse_authorization
from ._document import Operation, load_document, read_document
from ._errors import Refused
from ._origin import OwnOriginOnly
from ._records import RecordedRequest
from ._sidecar import Sidecar
from ._subscribers import serve_subscriber
from ._tokens import TOKEN_LIFETIME

BODY_LIMIT = 1024 * 1024
"""Bytes that a request's body may have. What Atlassian allows is not known."""

_log = logging.getLogger("forge_realtime_emulator")


def create_app(document: Mapping[str, Any] | None = None, *, token_lifetime: int = TOKEN_LIFETIME) -> Starlette:
    """Makes the emulator as an ASGI application, for a server of one's own. `Emulator` brings a server with it.

    Args:
        document: The OpenAPI document; by default the derived one that is shipped with the package.
        token_lifetime: Whole seconds that a signed token is valid; with 0 every token has already expired.

    Raises:
        EmulatorError: The document cannot be used.
        ValueError: The lifetime is negative.
    """
    sidecar = Sidecar(read_document(load_document() if document is None else document), token_lifetime)

    async def faults(request: Request) -> Response:
        try:
            sidecar.faults.add(_parse_json(request, await _read_body(request)))
        except ValueError as error:
            return _refusal_response(Refused(400, "INVALID_FAULT", f"Invalid fault: {error}."))
        return JSONResponse({})

    async def subscribe(websocket: WebSocket) -> None:
        await serve_subscriber(websocket, sidecar)

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)
        return _refusal_response(error)

    async def unrouted(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        known = ", ".join(f"{operation.method} {operation.path}" for operation in sidecar.document.operations.values())
        message = f"The document has no such operation. It has {known}."
        code = HTTPStatus(error.status_code).name
        return JSONResponse({"code": code, "message": message}, error.status_code, headers=error.headers)

    async def disconnected(_: Request, __: Exception) -> Response:
        return Response()

    routes: list[BaseRoute] = [
        Route(operation.path, OperationEndpoint(operation, sidecar).serve, methods=[operation.method])
        for operation in sidecar.document.operations.values()
    ]
    routes.append(Route("/_emulator/faults", faults, methods=["POST"]))
    routes.append(WebSocketRoute("/_emulator/subscribe", subscribe))
    app = Starlette(
        routes=routes,
        middleware=[Middleware(OwnOriginOnly)],
        exception_handlers={Refused: refused, HTTPException: unrouted, ClientDisconnect: disconnected},
    )
    app.router.redirect_slashes = False
    app.state.sidecar = sidecar
    return app


class OperationEndpoint:
    """Checks the calls of one operation, has them answered, and records them."""

    def __init__(self, operation: Operation, sidecar: Sidecar) -> None:
        self._operation = operation
        self._sidecar = sidecar

    async def serve(self, request: Request) -> Response:
        """Answers one call. A fault that waits for it comes before everything else."""
        name = self._operation.operation_id
        header = self._sidecar.document.header
        fault = self._sidecar.faults.take(name)
        authorization: Authorization | None = None
        body: Any = None
        try:
            raw = await _read_body(request)
            authorization = parse_authorization(header, request.headers.getlist(header))
            body = self._read(request, raw)
            if fault is not None:
                raise fault
            answer = self._sidecar.answer(name, authorization, body)
        except Refused as refused:
            refusal = fault or refused
        except RecursionError:
            refusal = fault or _invalid("the JSON is nested too deeply")
        else:
            delivered = answer.delivered
            _log.info("%-20s 200%s", name, "" if delivered is None else f"  reached {delivered} subscriber(s)")
            self._record(request, 200, authorization, body)
            return JSONResponse(answer.body)
        _log.info("%-20s %d  %s: %s", name, refusal.status, refusal.code, refusal.message)
        self._record(request, refusal.status, authorization, body)
        return _refusal_response(refusal)

    def _read(self, request: Request, raw: bytes) -> Any:
        schema = self._operation.body
        if schema is None or not (raw or self._operation.body_required):
            return None
        body = _parse_json(request, raw)
        problem = schema.problem(body)
        if problem is not None:
            raise _invalid(problem)
        return body

    def _record(self, request: Request, status: int, authorization: Authorization | None, body: Any) -> None:
        headers = {name: ", ".join(request.headers.getlist(name)) for name in request.headers}
        self._sidecar.requests.append(
            RecordedRequest(self._operation.operation_id, status, authorization, headers, body)
        )


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    size = 0
    async for chunk in request.stream():
        # What is over the limit is read and dropped: a sender that is cut off would not see the answer.
        size += len(chunk)
        if size <= BODY_LIMIT:
            body += chunk
    if size > BODY_LIMIT:
        message = f"The request body has {size} bytes; the emulator takes up to {BODY_LIMIT}. Send a smaller payload."
        raise Refused(413, "PAYLOAD_TOO_LARGE", message)
    return bytes(body)


def _parse_json(request: Request, raw: bytes) -> Any:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise _invalid("the header Content-Type must be application/json")
    try:
        return json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise _invalid("the body is not UTF-8") from error
    except ValueError as error:
        raise _invalid("the body is not valid JSON") from error


def _refuse_constant(_: str) -> None:
    raise ValueError("NaN and Infinity are not JSON")


def _invalid(problem: str) -> Refused:
    return Refused(400, "INVALID_REQUEST", f"Invalid request: {problem}.")


def _refusal_response(refusal: Refused) -> Response:
    headers = None if refusal.retry_after is None else {"Retry-After": str(refusal.retry_after)}
    return JSONResponse({"code": refusal.code, "message": refusal.message}, refusal.status, headers=headers)
