"""Control endpoints under `/_emulator`, for the console, other processes and curl.

* `GET /_emulator/state`: contexts, subscribers, current rates, last streams, pending faults
* `GET /_emulator/calls`: what happened, newest first, with the filters of `FILTERS`: the last attempt of each call, the
  events that pages published, and the pages' calls of the service, each as in the feed
* `GET /_emulator/calls/{id}`: everything about a call: its attempts with request, response and event
* `POST /_emulator/calls/{id}/resend`: carry it out again. The response is `{"id", "status", "body"}`
* `GET /_emulator/recording`: all records with settings and contexts; `POST`: show a recording
* `GET /_emulator/feed`: Server-Sent Events, each a JSON object with `kind`: `start`, `state`, `request`, `event` or
  `invoke` (a page's call of the service). At `start`, forget everything read before; the last 100 records of each kind
  follow, oldest first. It comes again after a reset, with a recording, and before the records that are left if a reader
  was too slow for all of them. The same over a WebSocket is for the console: a browser
  opens six connections to one host, but 255 WebSockets. A text frame has one or more of the objects, a line each
* `POST /_emulator/faults`: add a fault; `DELETE`: drop the pending faults
* `POST /_emulator/mocks`: add a mock route: `{"method": "GET", "path": "/jira/rest/api/3/issue/{key}", "status": 200,
  "json": {…}}`
* `POST /_emulator/contexts`: register contexts
* `POST /_emulator/clock`: `{"advance": 3600}`, in seconds
* `POST /_emulator/settings`: change settings: `{"limit": null, "keep_unheard": true}`
* `POST /_emulator/publish`: publish as a front end does: `{"channel": "…", "payload": "…", "isGlobal": true,
  "invocation": "…", "options": {"token": "…", "contextOverrides": ["issue"]}}`. The response is
  `{"eventId", "eventTimestamp"}`
* `POST /_emulator/reset`: restore the settings and contexts of the start, and forget the rest
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect

from .._platform.calls import FILTERS, Filter, find_call, list_records, read_filter
from .._platform.channels import GOING_AWAY
from .._platform.contexts import REGISTRY
from .._platform.errors import RefusedError
from .._platform.faults import FAULT
from .._platform.feed import START, Record
from .._platform.mock_routes import ROUTE
from .._platform.recording import parse_recording, write_recording
from .._platform.records import AnyRecord, RecordedEvent, RecordedInvoke, RecordedRequest, text_of
from .._platform.settings import CHANGES
from .._platform.sidecar import PAST, PUBLICATION, Sidecar
from .event_stream import EventStream
from .json import JSONResponse, invalid, read_body, read_json, require_json
from .log import log_event
from .openapi import Endpoint
from .operations import BrokenResponse, OperationEndpoint

_GATHERING = 0.05
"""Seconds from one batch of records to the next: under load, a frame for each record takes longer than the record."""

_BATCH = 50
"""Number of records that are written before others run."""

_CHANNELS = 200
"""Number of channels in a state of the feed: it comes up to ten times a second."""

CLOCK: dict[str, Any] = {
    "type": "object",
    "required": ["advance"],
    "additionalProperties": False,
    "properties": {"advance": {"type": "number", "minimum": 0, "description": "Seconds"}},
}
RECORDING: dict[str, Any] = {
    "type": "object",
    "required": ["version", "settings", "contexts", "calls", "events", "invokes"],
    "description": "What GET /_emulator/recording returned",
}

RECORDING_LIMIT = 256 * 1024 * 1024
"""Largest recording that can be shown, in bytes."""

_MAX_INTERVAL = 1.0
"""Seconds between states in a quiet feed: the rate falls without an event."""

_MIN_INTERVAL = 0.1
"""Seconds between states in a busy feed: with a thousand contexts, a state is as long as a thousand events."""


class Control:
    """The control endpoints of one sidecar.

    Args:
        sidecar: The sidecar.
        operations: The endpoints of the operations, by `operationId`.
    """

    def __init__(self, sidecar: Sidecar, operations: Mapping[str, OperationEndpoint]) -> None:
        self._sidecar = sidecar
        self._operations = operations

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        faults = self._sidecar.faults
        return [
            Endpoint("GET", "/_emulator/state", self._state, "See contexts, subscribers, rates, streams and settings"),
            Endpoint(
                "GET",
                "/_emulator/feed",
                self._feed,
                "Follow calls and events live",
                returns="text/event-stream",
            ),
            WebSocketRoute("/_emulator/feed", self._serve_console),
            Endpoint("GET", "/_emulator/calls", self._list_calls, "List what happened, newest first", query=FILTERS),
            Endpoint("GET", "/_emulator/calls/{id:int}", self._show_call, "See everything about a call"),
            Endpoint("POST", "/_emulator/calls/{id:int}/resend", self._resend, "Carry a call or an event out again"),
            Endpoint("GET", "/_emulator/recording", self._export, "Get all records, with settings and contexts"),
            Endpoint("POST", "/_emulator/recording", self._import, "Show a recording", body=RECORDING),
            Endpoint("POST", "/_emulator/faults", self._changing(faults.add), "Make calls fail", body=FAULT.definition),
            Endpoint("DELETE", "/_emulator/faults", self._clear_faults, "Drop the pending faults"),
            Endpoint(
                "POST",
                "/_emulator/mocks",
                self._changing(self._sidecar.mocks.add),
                "Say what a call gets that the emulator does not carry out",
                body=ROUTE.definition,
            ),
            Endpoint(
                "POST",
                "/_emulator/contexts",
                self._changing(self._register),
                "Register contexts",
                body=REGISTRY.definition,
            ),
            Endpoint("POST", "/_emulator/clock", self._changing(self._advance), "Advance the clock", body=CLOCK),
            Endpoint(
                "POST",
                "/_emulator/settings",
                self._changing(self._change_settings),
                "Change settings",
                body=CHANGES.definition,
            ),
            Endpoint(
                "POST",
                "/_emulator/publish",
                self._changing(self._publish),
                "Publish as a front end does",
                body=PUBLICATION.definition,
            ),
            Endpoint(
                "POST",
                "/_emulator/reset",
                self._reset,
                "Restore the settings and contexts of the start, forget the rest",
            ),
        ]

    def _changing(self, change: Callable[[Any], Any]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            body = await read_json(request)
            try:
                result = change(body)
            except ValueError as error:
                raise invalid(str(error).removesuffix(".")) from None
            self._sidecar.feed.changed()
            return JSONResponse(result or {})

        return endpoint

    async def _state(self, _: Request) -> Response:
        return JSONResponse(self._sidecar.state())

    async def _list_calls(self, request: Request) -> Response:
        try:
            wanted = read_filter(request.query_params)
        except ValueError as error:
            raise invalid(str(error)) from None
        return StreamingResponse(_write_list(self._sidecar, wanted), media_type="application/json")

    async def _show_call(self, request: Request) -> Response:
        found = self._find(request)
        first = found[0]
        return JSONResponse(
            {
                "id": first.call if isinstance(first, RecordedRequest) else first.id,
                "attempts": [record.details() for record in found if isinstance(record, RecordedRequest)],
                # What a page did is no call.
                "event": first.details() if isinstance(first, RecordedEvent) else None,
                "invoke": first.details() if isinstance(first, RecordedInvoke) else None,
            }
        )

    async def _resend(self, request: Request) -> Response:
        last = self._find(request)[-1]
        match last:
            case RecordedRequest():
                return await self._send_again(request, last)
            case RecordedEvent():
                event = self._sidecar.publish_again(last)
                log_event("publish (again)", event)
                body = {"eventId": event.event_id, "eventTimestamp": event.event_timestamp}
                return JSONResponse({"id": event.id, "status": 200, "body": json.dumps(body)})
        raise invalid("only a page can call the service again")

    async def _send_again(self, request: Request, call: RecordedRequest) -> Response:
        endpoint = self._operations.get(call.operation)
        if endpoint is None:
            raise invalid("the document has no operation of this name any more")
        if call.code == "PAYLOAD_TOO_LARGE":
            raise invalid("the body of this call was too large to be kept")
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in call.headers.items()]
        scope = {**request.scope, "method": call.method, "path": call.path, "headers": headers, "query_string": b""}

        async def receive() -> Message:
            return {"type": "http.request", "body": call.raw, "more_body": False}

        id_, response = await endpoint.serve(Request(scope, receive), is_retry=False)
        is_reset = isinstance(response, BrokenResponse) and response.kind == "reset"
        status, body = (0, None) if is_reset else (response.status_code, text_of(bytes(response.body)))
        self._sidecar.feed.changed()
        return JSONResponse({"id": id_, "status": status, "body": body})

    async def _export(self, _: Request) -> Response:
        return StreamingResponse(_give_way(write_recording(self._sidecar)), media_type="application/json")

    async def _import(self, request: Request) -> Response:
        raw = await read_body(request, RECORDING_LIMIT)
        require_json(request)
        try:
            # In a thread: it may take seconds.
            recording = await asyncio.to_thread(parse_recording, text_of(raw))
        except ValueError as error:
            raise invalid(f"this is no recording: {str(error).removesuffix('.')}") from None
        self._sidecar.show(recording.settings, recording.contexts, recording.records)
        return JSONResponse({})

    def _find(self, request: Request) -> list[AnyRecord]:
        id_ = request.path_params["id"]
        if found := find_call(self._sidecar, id_):
            return found
        message = f"No call or event has the number {id_}. It is forgotten, or the emulator was reset."
        raise RefusedError(404, "NOT_FOUND", message)

    async def _clear_faults(self, _: Request) -> Response:
        self._sidecar.faults.clear()
        self._sidecar.feed.changed()
        return JSONResponse({})

    async def _reset(self, _: Request) -> Response:
        self._sidecar.reset()
        return JSONResponse({})

    async def _feed(self, _: Request) -> Response:
        async def messages() -> AsyncGenerator[str]:
            async with contextlib.aclosing(self._batches()) as batches:
                async for batch in batches:
                    for message in batch:
                        yield message

        return EventStream(messages())

    async def _serve_console(self, websocket: WebSocket) -> None:
        await websocket.accept()
        sending = asyncio.create_task(self._send_messages(websocket))
        try:
            # A console sends nothing, so whatever comes is its end.
            await websocket.receive()
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def _send_messages(self, websocket: WebSocket) -> None:
        # The connection may be closed already.
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):
            async with contextlib.aclosing(self._batches()) as batches:
                async for batch in batches:
                    await websocket.send_text("\n".join(batch))
            await websocket.close(GOING_AWAY, "The emulator stopped.")

    async def _batches(self) -> AsyncGenerator[list[str]]:
        loop = asyncio.get_running_loop()
        feed = self._sidecar.feed
        with feed.reader() as reader:
            # Copied at once: the reader gets everything that happens from here on.
            records: list[Record] = [START, *self._sidecar.past(PAST)]
            due = sent = loop.time()
            while not feed.closed:
                for start in range(0, len(records), _BATCH):
                    yield [json.dumps(record.to_json()) for record in records[start : start + _BATCH]]
                    await asyncio.sleep(0)
                if loop.time() >= due:
                    yield [json.dumps(self._sidecar.state(_CHANNELS))]
                    sent = loop.time()
                    due = sent + _MAX_INTERVAL
                if records:
                    await reader.gather(_GATHERING)
                records = await reader.next(due - loop.time())
                due = min(due, sent + _MIN_INTERVAL)

    def _advance(self, body: Any) -> None:
        self._sidecar.clock.advance(_only(body, "advance"))

    def _change_settings(self, body: Any) -> None:
        if problem := CHANGES.problem(body):
            raise ValueError(problem)
        self._sidecar.settings = dataclasses.replace(self._sidecar.settings, **body)

    def _publish(self, body: Any) -> dict[str, Any]:
        event = self._sidecar.publish_from_page(body)
        log_event("publish (page)", event)
        return {"eventId": event.event_id, "eventTimestamp": event.event_timestamp}

    def _register(self, body: Any) -> None:
        self._sidecar.contexts.register(body)


async def _write_list(sidecar: Sidecar, wanted: Filter) -> AsyncGenerator[str]:
    yield '{"calls": ['
    separator = ""
    for row in list_records(sidecar, wanted):
        if row is None:
            await asyncio.sleep(0)
            continue
        yield separator + json.dumps(row.to_json())
        separator = ", "
    yield "]}"


async def _give_way(pieces: Iterator[str]) -> AsyncGenerator[str]:
    """Yield pieces, and let others run after each one."""
    for piece in pieces:
        yield piece
        await asyncio.sleep(0)


def _only(body: Any, name: str) -> Any:
    if not isinstance(body, dict) or list(body) != [name]:
        raise ValueError(f'expected {{"{name}": …}}')
    return body[name]
