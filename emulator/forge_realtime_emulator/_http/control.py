"""The emulator's own endpoints, under `/_emulator`: for the console, for other processes, and for curl.

* `GET /_emulator/state`: what is registered, who is subscribed, the current rate, the last streams, the faults that
  wait
* `GET /_emulator/feed`: Server-Sent Events, each a JSON object with `kind`: `start`, `state`, `request`, `event` or
  `invoke` (a page's call of the service). After `start`, which comes again after a reset, everything that was read
  before is void; the last hundred records of each kind follow, oldest first
* `POST /_emulator/faults`: adds a fault; `DELETE`: drops those that wait
* `POST /_emulator/contexts`: registers contexts
* `POST /_emulator/clock`: `{"advance": 3600}`, seconds
* `POST /_emulator/limit`: `{"limit": 50}`, or null for none
* `POST /_emulator/publish`: publishes as a front end does: `{"channel": "…", "payload": "…", "isGlobal": true,
  "invocation": "…", "options": {"token": "…", "contextOverrides": ["issue"]}}`; answers `{"eventId", "eventTimestamp"}`
* `POST /_emulator/reset`: forgets everything but the settings and contexts of the start
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from .._platform.feed import START, Record
from .._platform.sidecar import Sidecar
from .json import JSONResponse, invalid, read_json
from .log import log_event

_PAST = 100
_PULSE = 1.0
"""Seconds between states in a quiet feed: the current rate falls without an event."""

_LEAST = 0.1
"""Seconds between states in a busy one: with a thousand contexts, a state is as long as a thousand events."""


class Control:
    """The endpoints over one sidecar."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar

    def routes(self) -> list[BaseRoute]:
        """The routes."""
        return [
            Route("/_emulator/state", self._state),
            Route("/_emulator/feed", self._feed),
            Route("/_emulator/faults", self._changing(self._sidecar.faults.add), methods=["POST"]),
            Route("/_emulator/faults", self._clear_faults, methods=["DELETE"]),
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
                answer = change(body)
            except ValueError as error:
                raise invalid(str(error).removesuffix(".")) from None
            self._sidecar.feed.changed()
            return JSONResponse(answer or {})

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
        return StreamingResponse(self._stream(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    async def _stream(self) -> AsyncIterator[str]:
        with self._sidecar.feed.reader() as reader:
            # At once: what happens from here on, the reader gets.
            for past in [*self._past()]:
                yield _sse(past.to_json())
            while not self._sidecar.feed.closed:
                yield _sse(self._sidecar.state())
                sent = time.monotonic()
                until = sent + _PULSE
                while not self._sidecar.feed.closed and (left := until - time.monotonic()) > 0:
                    for record in await reader.next(left):
                        yield _sse(record)
                    until = min(until, sent + _LEAST)

    def _past(self) -> list[Record]:
        # All at once: what happens while it is sent waits for the reader, and would be in both.
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


def _sse(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"
