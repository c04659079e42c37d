"""Live feed of calls and events for the console."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from .bounded_log import BoundedLog

_MAX_WAITING = 1000
"""Number of records that may wait for one console. If more do, the oldest are dropped, and it starts over."""


class Record(Protocol):
    """Record of a call or an event."""

    def to_json(self) -> dict[str, Any]: ...


class _Start:
    def to_json(self) -> dict[str, Any]:
        return {"kind": "start"}


START = _Start()
"""Tells a reader to forget what it read before."""


class Reader:
    """Queue of records for one console."""

    def __init__(self) -> None:
        self._records: BoundedLog[Record] = BoundedLog(_MAX_WAITING)
        self._restarts = False
        self._woken = asyncio.Event()
        self._ended = asyncio.Event()

    def add(self, record: Record, size: int) -> None:
        """Queue a record; `size` is its size in bytes."""
        if self._records.append(record, size):
            self._restarts = True
        self._woken.set()

    def restart(self) -> None:
        """Drop what waits, and send `START` before all that follows."""
        self._records.clear()
        self._restarts = True
        self._woken.set()

    def wake(self) -> None:
        """Wake the reader: the state has changed."""
        self._woken.set()

    def end(self) -> None:
        """Wake the reader at once, to end."""
        self._ended.set()
        self._woken.set()

    async def gather(self, seconds: float) -> None:
        """Let records gather, unless the feed ends."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ended.wait()

    async def next(self, max_wait: float) -> list[Record]:
        """Wait up to `max_wait` seconds for something new, and return the new records."""
        try:
            async with asyncio.timeout(max_wait):
                await self._woken.wait()
        except TimeoutError:
            return []
        self._woken.clear()
        records = [*([START] if self._restarts else []), *self._records]
        self._restarts = False
        self._records.clear()
        return records


class Feed:
    """Distributor of records to all open consoles. Everything here runs in one event loop."""

    def __init__(self) -> None:
        self._readers: set[Reader] = set()
        self.closed = False
        """Whether the emulator is stopping; every stream then ends."""

    @contextmanager
    def reader(self) -> Iterator[Reader]:
        """Provide a reader that gets every record until the context ends."""
        reader = Reader()
        self._readers.add(reader)
        try:
            yield reader
        finally:
            self._readers.remove(reader)

    def send(self, record: Record, size: int) -> None:
        """Queue a record for all readers; `size` is its size in bytes."""
        for reader in self._readers:
            reader.add(record, size)

    def restart(self) -> None:
        """Tell all readers to forget what they read before."""
        for reader in self._readers:
            reader.restart()

    def open(self) -> None:
        """Let streams begin, again after `close`."""
        self.closed = False

    def close(self) -> None:
        """End all streams."""
        self.closed = True
        for reader in self._readers:
            reader.end()

    def changed(self) -> None:
        """Wake all readers: the state has changed."""
        for reader in self._readers:
            reader.wake()
