"""The subscriber's end of a subscription, for tests: a real WebSocket, used synchronously."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from ._errors import SubscriptionClosed, SubscriptionRefused

# websockets logs frames at DEBUG, and frames have payloads and tokens in them.
_wire_log = logging.getLogger("forge_realtime_emulator.wire")
_wire_log.setLevel(logging.INFO)

_ANSWER_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """An event as a subscriber got it.

    Attributes:
        channel: The channel's name.
        payload: The payload exactly as published; hidden in the repr.
        event_id: The id that the publisher was answered too.
        event_timestamp: Epoch milliseconds as a string.
    """

    channel: str
    payload: str = field(repr=False)
    event_id: str
    event_timestamp: str


class Subscription:
    """A live subscription. `Emulator.subscribe` opens it.

    Attributes:
        channel: The channel's name.
    """

    def __init__(self, channel: str, connection: ClientConnection) -> None:
        self.channel = channel
        self._connection = connection

    def receive(self, timeout: float = 5.0) -> ReceivedEvent:
        """Waits for the next event.

        Args:
            timeout: Seconds to wait at most; with 0 only what has already arrived is returned.

        Raises:
            TimeoutError: No event came in time.
            SubscriptionClosed: The emulator closed the subscription.
        """
        try:
            message = _receive(self._connection, timeout)
        except TimeoutError:
            raise TimeoutError(
                f"No event on channel {self.channel!r} within {timeout} s. Look at emulator.events and"
                " emulator.requests: scope, context overrides and token claims must match the publisher's exactly."
            ) from None
        return ReceivedEvent(message["channel"], message["payload"], message["eventId"], message["eventTimestamp"])


@contextmanager
def open_subscription(
    address: str,
    channel: str,
    *,
    is_global: bool,
    token: str | None,
    context_overrides: Sequence[str] | None,
) -> Iterator[Subscription]:
    """Subscribes, and unsubscribes when the context ends.

    Args:
        address: The WebSocket address of the endpoint.
        channel: The channel's name.
        is_global: Whether to get what is published globally, instead of what is published in scope.
        token: A realtime token, or None.
        context_overrides: The context that replaces the default scope, or None.

    Raises:
        SubscriptionRefused: The emulator did not accept it.
    """
    options: dict[str, Any] = {}
    if token is not None:
        options["token"] = token
    if context_overrides is not None:
        options["contextOverrides"] = list(context_overrides)
    # No proxy: the emulator is local. No limits: whoever reads here decides how slowly.
    with connect(address, proxy=None, compression=None, max_size=None, max_queue=None, logger=_wire_log) as connection:
        connection.send(json.dumps({"channel": channel, "isGlobal": is_global, "options": options}))
        answer = _receive(connection, _ANSWER_TIMEOUT)
        if answer["type"] == "error":
            raise SubscriptionRefused(answer["code"], answer["message"])
        yield Subscription(channel, connection)


def _receive(connection: ClientConnection, timeout: float) -> dict[str, Any]:
    try:
        message: dict[str, Any] = json.loads(connection.recv(timeout))
    except ConnectionClosed as closed:
        code, reason = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "the connection was lost")
        raise SubscriptionClosed(code, reason) from None
    return message
