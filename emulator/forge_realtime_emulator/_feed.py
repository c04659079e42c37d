"""What the console sees as it happens."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

_WAITING = 1000
"""Records that may wait for one console; the oldest are dropped."""


class Record(Protocol):
    """A call or an event."""

    def to_json(self) -> dict[str, Any]: ...


class _Start:
    def to_json(self) -> dict[str, Any]:
        return {"kind": "start"}


START = _Start()
"""Tells the reader that nothing happened before."""


class Reader:
    """What waits for one console."""

    def __init__(self) -> None:
        self._records: list[Record] = []
        self._woken = asyncio.Event()

    def wake(self, record: Record | None) -> None:
        """Hands it a record, or tells it that the state has changed."""
        if record is not None:
            self._records.append(record)
            del self._records[:-_WAITING]
        self._woken.set()

    async def next(self, timeout: float) -> list[dict[str, Any]]:
        """Waits until there is something new, but no longer than so many seconds, and returns the new records."""
        try:
            async with asyncio.timeout(timeout):
                await self._woken.wait()
        except TimeoutError:
            return []
        self._woken.clear()
        records, self._records = self._records, []
        return [record.to_json() for record in records]


class Feed:
    """Hands what happens to all consoles that are open. Everything here runs in one event loop."""

    def __init__(self) -> None:
        self._readers: set[Reader] = set()
        self.closed = False
        """Whether the emulator stops: then every stream ends."""

    @contextmanager
    def reader(self) -> Iterator[Reader]:
        """A reader that gets everything until the context ends."""
        reader = Reader()
        self._readers.add(reader)
        try:
            yield reader
        finally:
            self._readers.remove(reader)

    def send(self, record: Record) -> None:
        """Hands a record to all readers."""
        for reader in self._readers:
            reader.wake(record)

    def open(self) -> None:
        """Lets streams begin, again after `close`."""
        self.closed = False

    def close(self) -> None:
        """Ends all streams."""
        self.closed = True
        self.changed()

    def changed(self) -> None:
        """Tells all readers that the state has changed."""
        for reader in self._readers:
            reader.wake(None)
