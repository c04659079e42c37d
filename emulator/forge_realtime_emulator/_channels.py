"""Who is subscribed to what, and the delivery of events to them. Everything here runs in one event loop."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ._records import RecordedEvent

QUEUE_LIMIT = 1024
"""Events that may wait for one subscriber before it is closed as too slow."""

GOING_AWAY = 1001
TRY_AGAIN_LATER = 1013


@dataclass(frozen=True, slots=True)
class Address:
    """Where an event goes: it reaches exactly the subscribers at an equal address.

    Attributes:
        installation: Nothing is delivered across installations.
        channel: The channel's name, case-sensitive.
        is_global: Scoped events reach only scoped subscriptions, global ones only global subscriptions.
        context: Module and Atlassian context; None when global, or replaced by `overrides`.
        overrides: The context overrides, or None when there are none. They must match exactly. Whether their order
            matters is not known; here it does not. `[]` is an address of its own and reaches no global subscription.
        claims: The token's claims as canonical JSON, or None without a token.
    """

    installation: str
    channel: str
    is_global: bool
    context: str | None
    overrides: frozenset[str] | None
    claims: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Close:
    """Tells the sender of a subscriber's messages to close the connection.

    Attributes:
        code: The WebSocket close code.
        reason: At most 123 bytes, as the protocol demands.
    """

    code: int
    reason: str


class Subscriber:
    """The messages that wait for one subscriber, at most `QUEUE_LIMIT`."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[str | Close] = asyncio.Queue(QUEUE_LIMIT)
        self._closed = False

    def offer(self, message: str) -> bool:
        """Queues a message without ever waiting; False when the subscriber is closed or too slow for it."""
        if self._closed:
            return False
        if self._queue.full():
            self.close(
                TRY_AGAIN_LATER, f"Too slow: {QUEUE_LIMIT} events were waiting. Read faster, then subscribe again."
            )
            return False
        self._queue.put_nowait(message)
        return True

    def close(self, code: int, reason: str) -> None:
        """Drops what waits, and has the connection closed."""
        self._closed = True
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait(Close(code, reason))

    async def next(self) -> str | Close:
        """Waits for the next message, or for the end."""
        return await self._queue.get()


class Channels:
    """All subscribers by address."""

    def __init__(self) -> None:
        self._subscribers: dict[Address, list[Subscriber]] = {}

    @contextmanager
    def subscriber(self, address: Address) -> Iterator[Subscriber]:
        """A subscriber that gets the events of one address until the context ends."""
        subscriber = Subscriber()
        self._subscribers.setdefault(address, []).append(subscriber)
        try:
            yield subscriber
        finally:
            self._subscribers[address].remove(subscriber)
            if not self._subscribers[address]:
                del self._subscribers[address]

    def publish(self, address: Address, payload: str) -> RecordedEvent:
        """Queues an event for every subscriber at the address. It never waits for any of them."""
        event_id = str(uuid.uuid4())
        timestamp = str(time.time_ns() // 1_000_000)
        message = json.dumps(
            {
                "type": "event",
                "channel": address.channel,
                "payload": payload,
                "eventId": event_id,
                "eventTimestamp": timestamp,
            }
        )
        delivered = sum(subscriber.offer(message) for subscriber in self._subscribers.get(address, []))
        return RecordedEvent(
            channel=address.channel,
            payload=payload,
            is_global=address.is_global,
            event_id=event_id if delivered else None,
            event_timestamp=timestamp if delivered else None,
            delivered=delivered,
        )

    def close(self) -> None:
        """Closes every subscriber, because the emulator stops."""
        for subscribers in self._subscribers.values():
            for subscriber in subscribers:
                subscriber.close(GOING_AWAY, "The emulator stopped.")
