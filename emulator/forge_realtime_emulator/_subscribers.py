"""The WebSocket endpoint for subscribers, `/_emulator/subscribe`.

The protocol is JSON in text frames, one subscription per connection, with the names that the front end's bridge uses:

1. The subscriber sends one message, and then nothing more:
   `{"channel": "board-42", "isGlobal": false, "options": {"token": "…", "contextOverrides": ["issue"]}}`.
   Only `channel` is required; a global subscription takes no `contextOverrides`.
2. The emulator answers `{"type": "subscribed"}`. Whatever is published after that arrives.
3. For every event comes
   `{"type": "event", "channel": "board-42", "payload": "…", "eventId": "…", "eventTimestamp": "1789000000000"}`,
   in the order of publishing; `payload` is the string exactly as published.

Whatever goes wrong is answered `{"type": "error", "code": "…", "message": "…"}` before the connection is closed with
code 1008. Other close codes: 1001 the emulator stopped, 1007 a frame was not UTF-8, 1009 a frame was over 1 MiB,
1013 the subscriber read too slowly. A token is checked when subscribing; whether a subscription ends when its token
expires is not known, and here it goes on.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect

from ._channels import Subscriber
from ._errors import Refused
from ._schema import Schema
from ._sidecar import Sidecar

_POLICY_VIOLATION = 1008

_SUBSCRIPTION = Schema(
    {
        "type": "object",
        "required": ["channel"],
        "additionalProperties": False,
        "properties": {
            "channel": {"type": "string"},
            "isGlobal": {"type": "boolean"},
            "options": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "token": {"type": "string"},
                    "contextOverrides": {"type": "array", "items": {"type": "string"}},
                },
            },
        },
    }
)


async def serve_subscriber(websocket: WebSocket, sidecar: Sidecar) -> None:
    """Serves one connection from its first message to its end."""
    await websocket.accept()
    try:
        first = await websocket.receive()
        if first["type"] == "websocket.disconnect":
            return
        try:
            subscription = _read(first)
            is_global = subscription.get("isGlobal", False)
            options = subscription.get("options", {})
            address = sidecar.address(subscription["channel"], is_global, options, "subscribe")
            with sidecar.channels.subscriber(address) as subscriber:
                subscriber.offer(json.dumps({"type": "subscribed"}))
                await _deliver(websocket, subscriber)
        except Refused as refusal:
            await websocket.send_json({"type": "error", "code": refusal.code, "message": refusal.message})
            await websocket.close(_POLICY_VIOLATION, refusal.code)
    except WebSocketDisconnect:
        pass


def _read(message: Message) -> dict[str, Any]:
    text = message.get("text")
    if text is None:
        raise _invalid("the first message must be a text frame")
    try:
        subscription = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _invalid("the first message is not valid JSON") from error
    problem = _SUBSCRIPTION.problem(subscription)
    if problem is not None:
        raise _invalid(problem)
    if subscription.get("isGlobal") and "contextOverrides" in subscription.get("options", {}):
        raise _invalid("options.contextOverrides: a global subscription has no context; leave it out")
    return dict(subscription)


def _invalid(problem: str) -> Refused:
    return Refused(
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
        raise Refused(
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
        # How uvicorn says that its keepalive has already closed the connection, because the subscriber was silent.
        return
