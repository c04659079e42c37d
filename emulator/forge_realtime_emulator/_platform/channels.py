"""Channels: subscribers, and the delivery of events to them. Everything here runs in one event loop."""

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
"""Number of events, and of their bytes, that may wait for one subscriber before it is closed as too slow."""

PATIENCE = 60.0
"""Seconds that a closed subscriber has to read the rest and the reason before it is cut off."""

REPLAY_LIMIT = 10_000
"""Number of events kept for replay, of all channels together; the oldest are dropped."""

GOING_AWAY = 1001
TRY_AGAIN_LATER = 1013


@dataclass(frozen=True, slots=True)
class Address:
    """Address of events and subscribers. An event reaches exactly the subscribers with an equal address.

    Attributes:
        installation: The installation id. Nothing is delivered across installations.
        channel: The channel name, case-sensitive.
        is_global: Whether the channel is global. Scoped events reach only scoped subscriptions, global events only
            global ones.
        scope: The scope in readable form: `module default-module` with the product context for the default scope,
            `overrides` with names and values for context overrides, empty for a global channel.
        claims: The claims of the token as canonical JSON, or `None` without a token; hidden in the repr.
    """

    installation: str
    channel: str
    is_global: bool
    scope: str
    claims: str | None = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return the form for the console."""
        return {
            "installation": self.installation,
            "channel": self.channel,
            "isGlobal": self.is_global,
            "scope": self.scope,
            "claims": None if self.claims is None else json.loads(self.claims),
        }


@dataclass(frozen=True, slots=True)
class Listener:
    """An accepted subscription.

    Attributes:
        address: The address to listen at.
        id: Its number, unique until a reset.
        via: How it is connected: `websocket`, `sse`, or `page` for one of the subscriptions of `bridge.js`.
        invocation: The invocation in whose context it subscribed, or `None` for the default context.
        since: When it subscribed: seconds since the epoch, by the emulator's clock.
        replay_since: The time from which to replay events, or `None` for no replay.
    """

    address: Address = field(repr=False)
    id: int
    via: str
    invocation: str | None
    since: float
    replay_since: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the form for the details of an event that it got."""
        return {"id": self.id, "via": self.via, "invocation": self.invocation, "since": self.since}


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
    """End of a subscription: close the connection.

    Attributes:
        code: The WebSocket close code.
        reason: The reason, at most 123 bytes as the protocol demands.
    """

    code: int
    reason: str


class Subscriber:
    """Queue of messages for one subscriber, bounded by `QUEUE_LIMIT` and `QUEUE_SIZE`.

    Args:
        listener: The subscription.
        first: Messages to send before all others. They do not count against the bounds.
        cut_off: Ends the connection at once. Called if the subscriber is closed and still does not read.
    """

    def __init__(self, listener: Listener, first: Iterable[str], cut_off: Callable[[], object]) -> None:
        self.listener = listener
        self._first = deque(first)
        self._queue: asyncio.Queue[str | Close] = asyncio.Queue()
        self._size = 0
        self._closed = False
        self._cut_off = cut_off
        self._timer: asyncio.TimerHandle | None = None

    def offer(self, message: str) -> bool:
        """Queue a message without waiting. Return `False` if the subscriber is closed or too slow."""
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
        """Drop the queued messages and have the connection closed."""
        self._closed = True
        self._first.clear()
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait(Close(code, reason))
        self._timer = asyncio.get_running_loop().call_later(PATIENCE, self._cut_off)

    async def next(self) -> str | Close:
        """Wait for the next message, or for the end."""
        if self._first:
            return self._first.popleft()
        message = await self._queue.get()
        if isinstance(message, str):
            self._size -= len(message)
        return message

    def gone(self) -> None:
        """Note that the connection has ended."""
        if self._timer is not None:
            self._timer.cancel()


class Channels:
    """Registry of subscribers by address, and of events for replay.

    Args:
        changed: Called when a subscriber comes or goes.
    """

    def __init__(self, changed: Callable[[], object]) -> None:
        self._subscribers: dict[Address, list[Subscriber]] = {}
        # With 2,000 channels, to look through all of them took longer than a publish.
        self._by_name: dict[str, dict[Address, None]] = {}
        self._past: BoundedLog[_Event] = BoundedLog(REPLAY_LIMIT)
        self._changed = changed

    @contextmanager
    def subscriber(self, listener: Listener, cut_off: Callable[[], object]) -> Iterator[Subscriber]:
        """Provide a subscriber that gets the events of one address until the context ends.

        Args:
            listener: The subscription.
            cut_off: Ends the connection at once.
        """
        address, since = listener.address, listener.replay_since
        first = [json.dumps({"type": "subscribed"})]
        if since is not None:
            first += [event.message for event in self._past if event.at >= since and event.address == address]
        subscriber = Subscriber(listener, first, cut_off)
        self._subscribers.setdefault(address, []).append(subscriber)
        self._by_name.setdefault(address.channel.lower(), {})[address] = None
        self._changed()
        try:
            yield subscriber
        finally:
            subscriber.gone()
            self._forget(address, subscriber)

    def deliver(
        self, address: Address, payload: str, event_id: str, at: float, *, keep_unheard: bool
    ) -> list[Listener]:
        """Queue an event for every subscriber at the address, without waiting, and keep it for replay.

        Args:
            address: The address to deliver at.
            payload: The payload as published.
            event_id: The event id.
            at: Seconds since the epoch, by the emulator's clock.
            keep_unheard: Whether to keep an event for replay even if it reaches nobody.

        Returns:
            The subscribers that it was queued for.
        """
        event = _Event(address, payload, event_id, at)
        delivered: list[Listener] = []
        if subscribers := self._subscribers.get(address):
            message = event.message
            for subscriber in [*subscribers]:
                if subscriber.offer(message):
                    delivered.append(subscriber.listener)
                else:
                    self._forget(address, subscriber)
        if delivered or keep_unheard:
            self._past.append(event, len(payload))
        return delivered

    def live(self) -> dict[Address, int]:
        """Return the number of subscribers by address."""
        return {address: len(subscribers) for address, subscribers in self._subscribers.items()}

    def live_named(self, channel: str) -> dict[Address, int]:
        """Return the number of subscribers by address, of the channels with this name in lower or upper case."""
        addresses = self._by_name.get(channel.lower(), ())
        return {address: len(self._subscribers[address]) for address in addresses}

    def close(self, reason: str) -> None:
        """Close every subscriber, and forget the events kept for replay."""
        self._past.clear()
        for subscribers in self._subscribers.values():
            for subscriber in subscribers:
                subscriber.close(GOING_AWAY, reason)
        self._subscribers = {}
        self._by_name = {}
        self._changed()

    def _forget(self, address: Address, subscriber: Subscriber) -> None:
        # It is already gone if it was closed first.
        if subscriber in (subscribers := self._subscribers.get(address, [])):
            subscribers.remove(subscriber)
            if not subscribers:
                del self._subscribers[address]
                named = self._by_name[address.channel.lower()]
                del named[address]
                if not named:
                    del self._by_name[address.channel.lower()]
            self._changed()
