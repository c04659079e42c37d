"""Who is subscribed to what, and the delivery of events to them. Everything here runs in one event loop."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from .bounded_log import BoundedLog

QUEUE_LIMIT = 1024
QUEUE_SIZE = 32 * 1024 * 1024
"""Events, and bytes of them, that may wait for one subscriber before it is closed as too slow."""

PATIENCE = 60.0
"""Seconds that a closed subscriber has to read what was sent to it and why it was closed; then it is cut off."""

REPLAY_LIMIT = 10_000
"""Events that are kept to be replayed, of all channels together; the oldest go first."""

GOING_AWAY = 1001
TRY_AGAIN_LATER = 1013


@dataclass(frozen=True, slots=True)
class Address:
    """Where an event goes: it reaches exactly the subscribers at an equal address.

    Attributes:
        installation: Nothing is delivered across installations.
        channel: The channel's name, case-sensitive.
        is_global: Scoped events reach only scoped subscriptions, global ones only global subscriptions.
        scope: What has to be equal beside that, readable: `module default-module` with the parts of the product context
            in the default scope, `overrides` with the names and values of the context overrides; empty when global.
        claims: The token's claims as canonical JSON, or None without a token; hidden in the repr.
    """

    installation: str
    channel: str
    is_global: bool
    scope: str
    claims: str | None = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """As the console shows it."""
        return {
            "installation": self.installation,
            "channel": self.channel,
            "isGlobal": self.is_global,
            "scope": self.scope,
            "claims": None if self.claims is None else json.loads(self.claims),
        }


@dataclass(frozen=True, slots=True)
class _Event:
    address: Address
    payload: str
    event_id: str
    at: float

    @property
    def message(self) -> str:
        return json.dumps(
            {
                "type": "event",
                "channel": self.address.channel,
                "payload": self.payload,
                "eventId": self.event_id,
                "eventTimestamp": str(int(self.at * 1000)),
            }
        )


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
    """The messages that wait for one subscriber, at most `QUEUE_LIMIT` and `QUEUE_SIZE`.

    Args:
        first: What it gets before all others; that does not count as waiting.
        cut_off: Ends its connection at once; called when it is closed and still does not read.
    """

    def __init__(self, first: Iterable[str], cut_off: Callable[[], object]) -> None:
        self._first = deque(first)
        self._queue: asyncio.Queue[str | Close] = asyncio.Queue()
        self._size = 0
        self._closed = False
        self._cut_off = cut_off
        self._timer: asyncio.TimerHandle | None = None

    def offer(self, message: str) -> bool:
        """Queues a message without ever waiting; False when the subscriber is closed or too slow for it."""
        if self._closed:
            return False
        waiting = self._queue.qsize()
        if waiting and (waiting >= QUEUE_LIMIT or self._size + len(message) > QUEUE_SIZE):
            self.close(TRY_AGAIN_LATER, f"Too slow: {waiting} events were waiting. Read faster, then subscribe again.")
            return False
        self._size += len(message)
        self._queue.put_nowait(message)
        return True

    def close(self, code: int, reason: str) -> None:
        """Drops what waits, and has the connection closed."""
        self._closed = True
        self._first.clear()
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait(Close(code, reason))
        self._timer = asyncio.get_running_loop().call_later(PATIENCE, self._cut_off)

    async def next(self) -> str | Close:
        """Waits for the next message, or for the end."""
        if self._first:
            return self._first.popleft()
        message = await self._queue.get()
        if isinstance(message, str):
            self._size -= len(message)
        return message

    def gone(self) -> None:
        """Tells it that its connection has ended."""
        if self._timer is not None:
            self._timer.cancel()


class Channels:
    """All subscribers by address, and the events that can be replayed.

    Args:
        changed: Called when somebody has subscribed or gone.
    """

    def __init__(self, changed: Callable[[], object]) -> None:
        self._subscribers: dict[Address, list[Subscriber]] = {}
        self._past: BoundedLog[_Event] = BoundedLog(REPLAY_LIMIT)
        self._changed = changed

    @contextmanager
    def subscriber(self, address: Address, since: float | None, cut_off: Callable[[], object]) -> Iterator[Subscriber]:
        """A subscriber that gets the events of one address until the context ends.

        Args:
            address: Where it listens.
            since: From when on it gets what was published before, in seconds of the emulator's clock; None: nothing.
            cut_off: Ends its connection at once.
        """
        first = [json.dumps({"type": "subscribed"})]
        if since is not None:
            first += [event.message for event in self._past if event.at >= since and event.address == address]
        subscriber = Subscriber(first, cut_off)
        self._subscribers.setdefault(address, []).append(subscriber)
        self._changed()
        try:
            yield subscriber
        finally:
            subscriber.gone()
            self._forget(address, subscriber)

    def deliver(self, address: Address, payload: str, event_id: str, at: float) -> int:
        """Queues an event for every subscriber at the address, never waiting for any, and keeps it for replay.

        Returns:
            How many it was queued for.
        """
        event = _Event(address, payload, event_id, at)
        self._past.append(event, len(payload))
        subscribers = self._subscribers.get(address)
        if not subscribers:
            return 0
        message = event.message
        delivered = 0
        for subscriber in [*subscribers]:
            if subscriber.offer(message):
                delivered += 1
            else:
                self._forget(address, subscriber)
        return delivered

    def live(self) -> dict[Address, int]:
        """How many subscribers there are, by address."""
        return {address: len(subscribers) for address, subscribers in self._subscribers.items()}

    def close(self, reason: str) -> None:
        """Closes every subscriber, and forgets what could be replayed."""
        self._past.clear()
        for subscribers in self._subscribers.values():
            for subscriber in subscribers:
                subscriber.close(GOING_AWAY, reason)
        self._subscribers = {}
        self._changed()

    def _forget(self, address: Address, subscriber: Subscriber) -> None:
        # No longer there when it was closed before it went.
        if subscriber in (there := self._subscribers.get(address, [])):
            there.remove(subscriber)
            if not there:
                del self._subscribers[address]
            self._changed()
