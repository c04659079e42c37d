"""Subscriptions for tests: a real WebSocket with a blocking API."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from .._platform.errors import SubscriptionClosed, SubscriptionRefused

# At DEBUG, websockets logs frames with their payloads and tokens.
_wire_log = logging.getLogger("forge_realtime_emulator.wire")
_wire_log.setLevel(logging.INFO)

_SUBSCRIBE_TIMEOUT = 10.0
"""Seconds in which the emulator accepts or refuses a subscription."""


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """Event as received by a subscriber.

    Attributes:
        channel: The channel name.
        payload: The payload exactly as published; hidden in the repr.
        event_id: The event id, the same that the publisher got.
        event_timestamp: Epoch milliseconds as a string.
    """

    channel: str
    payload: str = field(repr=False)
    event_id: str
    event_timestamp: str


class Subscription:
    """Live subscription, opened by `Emulator.subscribe`.

    Attributes:
        channel: The channel name.
    """

    def __init__(self, channel: str, connection: ClientConnection, why_not: Callable[[], str]) -> None:
        self.channel = channel
        self._connection = connection
        self._why_not = why_not

    def receive(self, timeout: float = 5.0) -> ReceivedEvent:
        """Wait for the next event.

        Args:
            timeout: Seconds to wait; 0 returns only an event that has already arrived.

        Raises:
            TimeoutError: No event came in time.
            SubscriptionClosed: The emulator closed the subscription.
        """
        try:
            message = _receive(self._connection, timeout)
        except TimeoutError:
            raise TimeoutError(
                f"No event on channel {self.channel!r} within {timeout:g} s.\n{self._why_not()}"
            ) from None
        return ReceivedEvent(message["channel"], message["payload"], message["eventId"], message["eventTimestamp"])


@contextmanager
def open_subscription(
    url: str, subscription: Mapping[str, Any], explainer: Callable[[Mapping[str, Any]], Callable[[], str]]
) -> Iterator[Subscription]:
    """Subscribe, and unsubscribe when the context ends.

    Args:
        url: The WebSocket URL of the endpoint.
        subscription: The first message.
        explainer: Called when the subscription has begun. Returns the function that explains why no event came.

    Raises:
        SubscriptionRefused: The emulator did not accept the subscription.
    """
    # No proxy: the emulator is local. No limits: a test may read slowly.
    with connect(url, proxy=None, compression=None, max_size=None, max_queue=None, logger=_wire_log) as connection:
        connection.send(json.dumps(subscription))
        first = _receive(connection, _SUBSCRIBE_TIMEOUT)
        if first["type"] == "error":
            raise SubscriptionRefused(first["code"], first["message"])
        yield Subscription(subscription["channel"], connection, explainer(subscription))


def _receive(connection: ClientConnection, timeout: float) -> dict[str, Any]:
    try:
        message: dict[str, Any] = json.loads(connection.recv(timeout))
    except ConnectionClosed as closed:
        code, reason = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "the connection was lost")
        raise SubscriptionClosed(code, reason) from None
    return message
