"""Endpoints of the operations: they check calls, carry them out and record them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .._platform.attempts import Attempt
from .._platform.authorization import Authorization, parse_authorization
from .._platform.clock import elapsed
from .._platform.document import Operation
from .._platform.errors import EmulatorError, RefusedError
from .._platform.faults import Fault
from .._platform.records import RecordedEvent, RecordedRequest, channel_of
from .._platform.sidecar import OperationResult, Sidecar
from .connection import transport_of
from .json import JSONResponse, invalid, parse_json, read_body
from .log import log_call

_FAILED: Mapping[str, Mapping[str, None]] = {
    "publish": {"eventId": None, "eventTimestamp": None},
    "publish_global": {"eventId": None, "eventTimestamp": None},
    "sign_realtime_token": {"token": None, "expiresAt": None},
}
"""The documented result of each operation when it has failed, beside `errors`."""


class OperationEndpoint:
    """ASGI application that checks the calls of one operation, carries them out and records them."""

    def __init__(self, operation: Operation, sidecar: Sidecar) -> None:
        self._operation = operation
        self._sidecar = sidecar

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        _, response = await self.serve(Request(scope, receive))
        await response(scope, receive, send)

    async def serve(self, request: Request, *, is_retry: bool = True) -> tuple[int, Response]:
        """Respond to a call, and record it.

        Args:
            request: The request.
            is_retry: Whether it may be the retry of an earlier call.

        Returns:
            The number of its record, and the response.
        """
        # A pending fault applies even to a call that would be refused.
        call = _Call(request, self._operation, self._sidecar)
        await call.read(is_retry=is_retry)
        return call.attempt.id, await self._carry_out(call)

    async def _carry_out(self, call: _Call) -> Response:
        fault = self._sidecar.faults.take(**call.describe())
        if fault is not None:
            self._sidecar.attempts.may_be_retried(call.attempt)
            if fault.delay and not await self._sidecar.faults.delay(fault.delay):
                ended = "The emulator stopped or was reset while this call was delayed; nothing was done."
                return refusal_response(RefusedError(503, "DELAY_ENDED", ended))
        if fault is None:
            return self._respond(call, call.carry_out(), None)
        if fault.only_delays:
            outcome = call.carry_out()
            if isinstance(outcome, OperationResult) and not await call.is_abandoned():
                self._sidecar.attempts.succeed(call.attempt)
            return self._respond(call, outcome, fault)
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
            response = JSONResponse(outcome.body)
            log_call(call.record(200, response, None, fault))
            return response
        status = {None: outcome.status, "reset": 0}.get(broken, 200)
        if outcome.logical and in_200 and fault is None:
            status = 200
        response = refusal_response(outcome, status, _FAILED.get(name)) if broken is None else BrokenResponse(broken)
        log_call(call.record(status, response, outcome, fault))
        return response


class _Call:
    attempt: Attempt

    def __init__(self, request: Request, operation: Operation, sidecar: Sidecar) -> None:
        self._request = request
        self._operation = operation
        self._sidecar = sidecar
        self._authorization: Authorization | None = None
        self._installation: str | None = None
        self._body: Any = None
        self._raw = b""
        self._refused: RefusedError | None = None
        self._event: RecordedEvent | None = None

    async def read(self, *, is_retry: bool) -> None:
        began = elapsed()
        header = self._sidecar.document.header
        values = self._request.headers.getlist(header)
        name = self._operation.operation_id
        key: tuple[object, ...] | None = None
        try:
            self._raw = await read_body(self._request)
            key = (name, *values, self._raw) if is_retry else None
            self._authorization = parse_authorization(header, values)
            schema = self._operation.body
            if schema is not None and (self._raw or self._operation.body_required):
                body = parse_json(self._request, self._raw)
                if problem := schema.problem(_without_null_token(body)):
                    raise invalid(problem)
                self._body = body
        except RefusedError as refused:
            self._refused = refused
        except RecursionError:
            self._refused = invalid("the JSON is nested too deeply")
        self.attempt = self._sidecar.begin(key, began)

    async def is_abandoned(self) -> bool:
        """Return whether the client has closed the connection, as it does before it retries a call that takes long."""
        return await self._request.is_disconnected()

    @property
    def channel(self) -> str | None:
        """The channel named in the body, or `None`."""
        return channel_of(self._body)

    def describe(self) -> dict[str, str | None]:
        """Describe the call for `Faults.take`."""
        if self._authorization is not None:
            with contextlib.suppress(RefusedError):
                self._installation = self._sidecar.installation(self._authorization)
        return {
            "operation": self._operation.operation_id,
            "channel": self.channel,
            "installation": self._installation,
        }

    def carry_out(self) -> OperationResult | RefusedError:
        if self._refused is not None or self._authorization is None:
            return self._refused or invalid("it has no authorization")
        try:
            result = self._sidecar.carry_out(
                self._operation.operation_id, self._authorization, self._body, self.attempt.call
            )
        except RefusedError as refused:
            return refused
        except RecursionError:
            return invalid("the JSON is nested too deeply")
        self._event = result.event
        return result

    def record(
        self, status: int, response: Response, refusal: RefusedError | None, fault: Fault | None
    ) -> RecordedRequest:
        headers: dict[str, str] = {}
        for name, value in self._request.headers.items():
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        attempt = self.attempt
        recorded = RecordedRequest(
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
            id=attempt.id,
            call=attempt.call,
            attempt=attempt.number,
            duration=elapsed() - attempt.began,
            installation=self._installation,
            method=self._operation.method,
            path=self._request.scope["path"],
            raw=self._raw,
            response_headers=None if status == 0 else tuple(response.raw_headers),
            response_body=b"" if status == 0 else bytes(response.body),
            event=self._event,
        )
        self._sidecar.record(attempt, recorded)
        return recorded


class BrokenResponse(Response):
    """Response that a client cannot read, or a reset connection.

    Args:
        kind: `reset`, `truncated` or `not-json`.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        if kind == "truncated":
            super().__init__(b'{"eventId": "', headers={"content-length": "1000"}, media_type="application/json")
        else:
            super().__init__(b"<!doctype html><title>Not JSON</title>", media_type="text/html")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.kind == "not-json":
            await super().__call__(scope, receive, send)
            return
        if scope["app"].state.connections is None:
            raise EmulatorError(f"The fault {self.kind!r} ends a connection, which only the server of Emulator can do.")
        if self.kind == "truncated":
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": self.body, "more_body": True})
        transport = transport_of(scope)
        if transport is not None:
            _end_connection(transport, reset=self.kind == "reset")
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


def refusal_response(
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
