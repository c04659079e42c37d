"""The subscriber's end of a subscription, for tests: a real WebSocket, used synchronously."""

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

    def __init__(self, channel: str, connection: ClientConnection, why_not: Callable[[], str]) -> None:
        self.channel = channel
        self._connection = connection
        self._why_not = why_not

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
                f"No event on channel {self.channel!r} within {timeout:g} s.\n{self._why_not()}"
            ) from None
        return ReceivedEvent(message["channel"], message["payload"], message["eventId"], message["eventTimestamp"])


@contextmanager
def open_subscription(
    address: str, subscription: Mapping[str, Any], explained: Callable[[Mapping[str, Any]], Callable[[], str]]
) -> Iterator[Subscription]:
    """Subscribes, and unsubscribes when the context ends.

    Args:
        address: The WebSocket address of the endpoint.
        subscription: The first message.
        explained: Called when the subscription has begun; what it returns says why no event came.

    Raises:
        SubscriptionRefused: The emulator did not accept it.
    """
    # No proxy: the emulator is local. No limits: whoever reads here decides how slowly.
    with connect(address, proxy=None, compression=None, max_size=None, max_queue=None, logger=_wire_log) as connection:
        connection.send(json.dumps(subscription))
        answer = _receive(connection, _ANSWER_TIMEOUT)
        if answer["type"] == "error":
            raise SubscriptionRefused(answer["code"], answer["message"])
        yield Subscription(subscription["channel"], connection, explained(subscription))


def _receive(connection: ClientConnection, timeout: float) -> dict[str, Any]:
    try:
        message: dict[str, Any] = json.loads(connection.recv(timeout))
    except ConnectionClosed as closed:
        code, reason = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "the connection was lost")
        raise SubscriptionClosed(code, reason) from None
    return message
