"""What the console sees as it happens."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from .bounded_log import BoundedLog

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
        self._records: BoundedLog[Record] = BoundedLog(_WAITING)
        self._woken = asyncio.Event()

    def add(self, record: Record, size: int) -> None:
        """Hands it a record of so many bytes."""
        self._records.append(record, size)
        self._woken.set()

    def wake(self) -> None:
        """Tells it that the state has changed."""
        self._woken.set()

    async def next(self, timeout: float) -> list[dict[str, Any]]:
        """Waits until there is something new, but no longer than so many seconds, and returns the new records."""
        try:
            async with asyncio.timeout(timeout):
                await self._woken.wait()
        except TimeoutError:
            return []
        self._woken.clear()
        records = [record.to_json() for record in self._records]
        self._records.clear()
        return records


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

    def send(self, record: Record, size: int) -> None:
        """Hands a record of so many bytes to all readers."""
        for reader in self._readers:
            reader.add(record, size)

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
            reader.wake()
