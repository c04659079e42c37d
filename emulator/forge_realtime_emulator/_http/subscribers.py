"""Endpoints for subscribers: a WebSocket and Server-Sent Events at `/_emulator/subscribe`, and a WebSocket for pages.

The WebSocket for programs carries JSON in text frames, one subscription per connection, with the names of the front
end's bridge:

1. The subscriber sends one message and nothing after it: `{"channel": "board-42", "isGlobal": false, "invocation":
   "invocation-123", "options": {"token": "…", "contextOverrides": ["issue"], "replaySeconds": 60}}`.
   Only `channel` is required; a global subscription takes no `contextOverrides`. `invocation` names the registered
   context to subscribe in; the default is the default context.
2. The emulator sends `{"type": "subscribed"}`, then the replayed events. Every event published from then on arrives.
3. Each event is sent as
   `{"type": "event", "channel": "board-42", "payload": "…", "eventId": "…", "eventTimestamp": "1789000000000"}`,
   in the order of publishing. `payload` is the string exactly as published.

On an error, the emulator sends `{"type": "error", "code": "…", "message": "…"}`, with an explanation of the platform's
messages in `detail`, and closes the connection with code 1008. Other close codes: 1001 the emulator stopped or was
reset, 1007 a frame was not UTF-8, 1009 a frame was over 1 MiB, 1013 the subscriber read too slowly and 1,024 events or
32 MiB were waiting. A subscriber whose first message does not come within 30 s is refused. A closed subscriber that
still does not read is cut off after 60 s. A token is checked when subscribing. Whether a subscription ends when its
token expires is unknown; here it goes on.

Server-Sent Events: `GET /_emulator/subscribe?channel=board-42&isGlobal=true&invocation=…&token=…
&contextOverrides=issue,project&replaySeconds=60`. Each message is the data of one event. When the emulator ends the
stream, the last message is `{"type": "closed", "code": 1013, "reason": "…"}`. A refused subscription is a response with
an error status and `{"code", "message"}`.

The WebSocket at `/_emulator/subscriptions` carries all subscriptions of a page, because browsers limit the connections
to one host. Only `bridge.js` uses it. The page chooses a number for each subscription, which is in every message:
`{"id": 1, "type": "subscribe", "subscription": {"channel": …}}` and `{"id": 1, "type": "unsubscribe"}`. The emulator
sends the messages above with that `id`, `{"id": 1, "type": "unsubscribed"}`, and `{"id": 1, "type": "closed", "code",
"reason"}` for one that it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect

from .._platform.channels import Listener, Subscriber
from .._platform.errors import RefusedError
from .._platform.schema import Schema
from .._platform.sidecar import SUBSCRIPTION, Sidecar
from .._platform.strict_json import parse
from .connection import abort
from .event_stream import EventStream
from .log import log_refusal

_POLICY_VIOLATION = 1008
_FIRST_MESSAGE = 30.0
"""Seconds in which the first message comes."""

_PING = 15.0
"""Seconds between comments in a quiet stream, so that both sides notice a dead connection."""

QUERY = {
    "channel": "The name of the channel; required.",
    "isGlobal": "true for the global channel.",
    "invocation": "The invocation in whose context to subscribe.",
    "token": "A realtime token.",
    "contextOverrides": "Names of the context, separated by commas.",
    "replaySeconds": "Seconds for which to replay earlier events.",
}
"""What the query of a subscription takes."""

_PAGE_MESSAGE = Schema(
    {
        "type": "object",
        "required": ["id", "type"],
        "additionalProperties": False,
        "properties": {
            "id": {"type": "integer", "minimum": 1},
            "type": {"type": "string", "enum": ["subscribe", "unsubscribe"]},
            "subscription": {},
        },
    }
)


async def serve_subscriber(websocket: WebSocket, sidecar: Sidecar) -> None:
    """Serve one connection from its first message to its end."""
    await websocket.accept()
    try:
        first = await _first_message(websocket)
        if first is not None and first["type"] == "websocket.disconnect":
            return
        try:
            listener = sidecar.subscription(_checked(_parse(first)), "websocket")
            with sidecar.channels.subscriber(listener, lambda: abort(websocket.scope)) as subscriber:
                await _deliver(websocket, subscriber)
        except RefusedError as refusal:
            log_refusal("subscribe", None, refusal)
            # A malformed frame may have closed the connection already.
            with contextlib.suppress(RuntimeError):
                await websocket.send_json(_error(refusal))
                await websocket.close(_POLICY_VIOLATION, refusal.code)
    except WebSocketDisconnect:
        pass


async def serve_page(websocket: WebSocket, sidecar: Sidecar) -> None:
    """Serve all subscriptions of one page over one connection."""
    await websocket.accept()
    page = _Page(websocket, sidecar)
    try:
        await page.serve()
    except RefusedError as refusal:
        log_refusal("subscribe", None, refusal)
        with contextlib.suppress(RuntimeError):
            await websocket.close(_POLICY_VIOLATION, refusal.code)
    except WebSocketDisconnect:
        pass
    finally:
        await page.end()


class _Page:
    def __init__(self, websocket: WebSocket, sidecar: Sidecar) -> None:
        self._websocket = websocket
        self._sidecar = sidecar
        self._deliveries: dict[int, asyncio.Task[None]] = {}
        # uvicorn may wait within a send.
        self._sending = asyncio.Lock()

    async def serve(self) -> None:
        """Serve the page until its connection ends.

        Raises:
            RefusedError: The page sent something else than a message of the protocol.
        """
        while (received := await self._websocket.receive())["type"] == "websocket.receive":
            message = _parse(received)
            if problem := _PAGE_MESSAGE.problem(message):
                raise _invalid(problem)
            await self._stop(message["id"])
            if message["type"] == "unsubscribe":
                await self._send(message["id"], {"type": "unsubscribed"})
            else:
                await self._subscribe(message["id"], message.get("subscription"))

    async def end(self) -> None:
        """End all subscriptions."""
        for id_ in list(self._deliveries):
            await self._stop(id_)

    async def _subscribe(self, id_: int, subscription: Any) -> None:
        try:
            listener = self._sidecar.subscription(_checked(subscription), "page")
        except RefusedError as refusal:
            log_refusal("subscribe", None, refusal)
            await self._send(id_, _error(refusal))
        else:
            self._deliveries[id_] = asyncio.create_task(self._deliver(id_, listener))

    async def _deliver(self, id_: int, listener: Listener) -> None:
        channels = self._sidecar.channels
        with contextlib.suppress(WebSocketDisconnect):
            with channels.subscriber(listener, lambda: abort(self._websocket.scope)) as subscriber:
                while isinstance(message := await subscriber.next(), str):
                    await self._send(id_, message)
            await self._send(id_, {"type": "closed", "code": message.code, "reason": message.reason})

    async def _stop(self, id_: int) -> None:
        delivery = self._deliveries.pop(id_, None)
        if delivery is not None:
            delivery.cancel()
            await asyncio.gather(delivery, return_exceptions=True)

    async def _send(self, id_: int, message: str | dict[str, Any]) -> None:
        text = message if isinstance(message, str) else json.dumps(message)
        async with self._sending:
            try:
                # Each message is a JSON object with at least one field.
                await self._websocket.send_text(f'{{"id": {id_}, {text[1:]}')
            except RuntimeError:
                # The connection is closed already, for example by a malformed frame.
                raise WebSocketDisconnect from None


async def stream_subscriber(request: Request, sidecar: Sidecar) -> Response:
    """Serve one stream of Server-Sent Events.

    Raises:
        RefusedError: The query is not a subscription, or the subscription is not accepted.
    """
    listener = sidecar.subscription(_read_query(request), "sse")

    async def stream() -> AsyncGenerator[str | None]:
        with sidecar.channels.subscriber(listener, lambda: abort(request.scope)) as subscriber:
            while True:
                try:
                    async with asyncio.timeout(_PING):
                        message = await subscriber.next()
                except TimeoutError:
                    yield None
                    continue
                if not isinstance(message, str):
                    yield json.dumps({"type": "closed", "code": message.code, "reason": message.reason})
                    return
                yield message

    return EventStream(stream())


def _read_query(request: Request) -> dict[str, Any]:
    query = dict(request.query_params)
    subscription: dict[str, Any] = {name: query.pop(name) for name in ("channel", "invocation") if name in query}
    options: dict[str, Any] = {name: query.pop(name) for name in ("token",) if name in query}
    try:
        if "isGlobal" in query:
            subscription["isGlobal"] = {"true": True, "false": False}[query.pop("isGlobal")]
        if "replaySeconds" in query:
            options["replaySeconds"] = parse(query.pop("replaySeconds"))
    except (KeyError, ValueError, RecursionError):
        raise _invalid("isGlobal is true or false, and replaySeconds a number") from None
    if "contextOverrides" in query:
        names = query.pop("contextOverrides")
        options["contextOverrides"] = names.split(",") if names else []
    return _checked({**subscription, "options": options, **query})


async def _first_message(websocket: WebSocket) -> Message | None:
    try:
        async with asyncio.timeout(_FIRST_MESSAGE):
            return await websocket.receive()
    except TimeoutError:
        return None


def _parse(message: Message | None) -> Any:
    if message is None:
        raise _invalid(f"no message came within {_FIRST_MESSAGE:g} s")
    text = message.get("text")
    if text is None:
        raise _invalid("a message must be a text frame")
    try:
        return parse(text)
    except (ValueError, RecursionError) as error:
        raise _invalid("a message is not valid JSON") from error


def _error(refusal: RefusedError) -> dict[str, Any]:
    error = {"type": "error", "code": refusal.code, "message": refusal.message}
    return error if refusal.detail is None else {**error, "detail": refusal.detail}


def _checked(subscription: Any) -> dict[str, Any]:
    if problem := SUBSCRIPTION.problem(subscription):
        raise _invalid(problem)
    return dict(subscription)


def _invalid(problem: str) -> RefusedError:
    return RefusedError(
        400,
        "INVALID_SUBSCRIPTION",
        f"Invalid subscription: {problem}."
        ' Send {"channel": "…", "isGlobal": false, "options": {"token": "…", "contextOverrides": ["…"]}}.',
    )


async def _deliver(websocket: WebSocket, subscriber: Subscriber) -> None:
    sending = asyncio.create_task(_send(websocket, subscriber))
    receiving = asyncio.create_task(websocket.receive())
    try:
        done, _ = await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        sending.cancel()
        receiving.cancel()
        await asyncio.gather(sending, receiving, return_exceptions=True)
    if sending in done:
        sending.result()
    elif receiving.result()["type"] == "websocket.receive":
        raise RefusedError(
            400,
            "UNEXPECTED_MESSAGE",
            "A subscriber sends one message only. For another subscription open another connection.",
        )


async def _send(websocket: WebSocket, subscriber: Subscriber) -> None:
    try:
        while isinstance(message := await subscriber.next(), str):
            await websocket.send_text(message)
        await websocket.close(message.code, message.reason)
    except RuntimeError:
        # uvicorn's keepalive has already closed the connection, because the subscriber was silent.
        return
