"""Control endpoints under `/_emulator`, for the console, other processes and curl.

* `GET /_emulator/state`: contexts, subscribers, current rates, last streams, pending faults
* `GET /_emulator/feed`: Server-Sent Events, each a JSON object with `kind`: `start`, `state`, `request`, `event` or
  `invoke` (a page's call of the service). At `start`, which comes again after a reset, forget everything read before;
  the last 100 records of each kind follow, oldest first. The same over a WebSocket, a text frame each, is for the
  console: a browser opens six connections to one host, but 255 WebSockets
* `POST /_emulator/faults`: add a fault; `DELETE`: drop the pending faults
* `POST /_emulator/mocks`: add a mock route: `{"method": "GET", "path": "/jira/rest/api/3/issue/{key}", "status": 200,
  "json": {…}}`
* `POST /_emulator/contexts`: register contexts
* `POST /_emulator/clock`: `{"advance": 3600}`, in seconds
* `POST /_emulator/limit`: `{"limit": 50}`, or `null` for no limit
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
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from .._platform.channels import GOING_AWAY
from .._platform.feed import START, Record
from .._platform.sidecar import Sidecar
from .event_stream import EventStream
from .json import JSONResponse, invalid, read_json
from .log import log_event

_PAST = 100
"""Number of past records of each kind that a new reader of the feed gets."""

_MAX_INTERVAL = 1.0
"""Seconds between states in a quiet feed: the rate falls without an event."""

_MIN_INTERVAL = 0.1
"""Seconds between states in a busy feed: with a thousand contexts, a state is as long as a thousand events."""


class Control:
    """The control endpoints of one sidecar."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        return [
            Route("/_emulator/state", self._state),
            Route("/_emulator/feed", self._feed),
            WebSocketRoute("/_emulator/feed", self._serve_console),
            Route("/_emulator/faults", self._changing(self._sidecar.faults.add), methods=["POST"]),
            Route("/_emulator/faults", self._clear_faults, methods=["DELETE"]),
            Route("/_emulator/mocks", self._changing(self._sidecar.mocks.add), methods=["POST"]),
            Route("/_emulator/contexts", self._changing(self._register), methods=["POST"]),
            Route("/_emulator/clock", self._changing(self._advance), methods=["POST"]),
            Route("/_emulator/limit", self._changing(self._limit), methods=["POST"]),
            Route("/_emulator/publish", self._changing(self._publish), methods=["POST"]),
            Route("/_emulator/reset", self._reset, methods=["POST"]),
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

    async def _clear_faults(self, _: Request) -> Response:
        self._sidecar.faults.clear()
        self._sidecar.feed.changed()
        return JSONResponse({})

    async def _reset(self, _: Request) -> Response:
        self._sidecar.reset()
        return JSONResponse({})

    async def _feed(self, _: Request) -> Response:
        return EventStream(self._messages())

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
            async with contextlib.aclosing(self._messages()) as messages:
                async for message in messages:
                    await websocket.send_text(message)
            await websocket.close(GOING_AWAY, "The emulator stopped.")

    async def _messages(self) -> AsyncGenerator[str]:
        loop = asyncio.get_running_loop()
        with self._sidecar.feed.reader() as reader:
            # Copied at once: the reader gets everything that happens from here on.
            for past in [*self._past()]:
                yield json.dumps(past.to_json())
            while not self._sidecar.feed.closed:
                yield json.dumps(self._sidecar.state())
                sent = loop.time()
                until = sent + _MAX_INTERVAL
                while not self._sidecar.feed.closed and (left := until - loop.time()) > 0:
                    for record in await reader.next(left):
                        yield json.dumps(record)
                    until = min(until, sent + _MIN_INTERVAL)

    def _past(self) -> list[Record]:
        kept = (self._sidecar.invokes, self._sidecar.events, self._sidecar.requests)
        past = [record for records in kept for record in [*records][-_PAST:]]
        past.sort(key=lambda record: record.at)
        return [START, *past]

    def _advance(self, body: Any) -> None:
        self._sidecar.clock.advance(_only(body, "advance"))

    def _limit(self, body: Any) -> None:
        self._sidecar.settings = dataclasses.replace(self._sidecar.settings, limit=_only(body, "limit"))

    def _publish(self, body: Any) -> dict[str, Any]:
        event = self._sidecar.publish_from_page(body)
        log_event("publish (page)", event)
        return {"eventId": event.event_id, "eventTimestamp": event.event_timestamp}

    def _register(self, body: Any) -> None:
        self._sidecar.contexts.register(body)


def _only(body: Any, name: str) -> Any:
    if not isinstance(body, dict) or list(body) != [name]:
        raise ValueError(f'expected {{"{name}": …}}')
    return body[name]
