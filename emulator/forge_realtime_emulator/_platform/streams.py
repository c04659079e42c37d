"""Streams: many small updates of a client, published as few events, reassembled for tests and the console.

An event belongs to a stream if its payload is the JSON of an envelope:

    {"forgeStream": 1, "stream": "9f0c…", "seq": 0, "merge": "append", "data": "Hel", "updates": 3, "end": false}

`seq` counts the publishes from 0; a retried publish keeps its number. To the platform an envelope is a payload like any
other.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from .bounded_log import SIZE_LIMIT
from .channels import Address
from .strict_json import parse

STREAM_LIMIT = 1_000
"""Number of streams that are kept. The oldest are dropped, also when together they exceed `SIZE_LIMIT`: first those
that have ended."""

_SHOWN = 50
_SHOWN_LENGTH = 500
"""Number of streams that the console shows, and of the last characters of each."""

_MARK = '"forgeStream"'

_KINDS: dict[str, type] = {"append": str, "latest": object, "batch": list, "reduce": object}
"""The merge kinds, and the type of their data."""

_LAST_SEQ = 2**53 - 1
"""The largest number that the reader in the browser can count to."""


@dataclass(frozen=True, slots=True)
class RecordedStream:
    """A stream as published so far, whether or not anybody was subscribed.

    Attributes:
        address: The address that it was published to.
        id: The stream id.
        merge: The merge kind: `append`, `latest`, `batch` or `reduce`.
        value: The reassembled value: for `append` the whole text, for `batch` the list of all items, else the newest
            value. `None` if only the end came. Hidden in the repr.
        updates: The number of updates in its publishes, duplicates not counted.
        operations: The number of accepted publishes, including duplicates.
        duplicates: The number of publishes that came again.
        gaps: The first and last number of each run of missing publishes.
        ended: Whether its end was published.
        error: The kind of error that ended it, or `None`.
        began: The time of its first publish: seconds since the epoch, by the emulator's clock.
        at: The time of its last publish.
    """

    address: Address = field(repr=False)
    id: str
    merge: str
    value: Any = field(repr=False)
    updates: int
    operations: int
    duplicates: int
    gaps: tuple[tuple[int, int], ...]
    ended: bool
    error: str | None
    began: float
    at: float

    @property
    def channel(self) -> str:
        """The channel name."""
        return self.address.channel

    def to_json(self) -> dict[str, Any]:
        """Return the form for the console, with the end of a long value."""
        text = self.value if self.merge == "append" else json.dumps(self.value, ensure_ascii=False)
        is_state = self.merge in ("latest", "reduce")
        return {
            **self.address.to_json(),
            "stream": self.id,
            "merge": self.merge,
            "length": len(text or ""),
            "shown": (text or "")[-_SHOWN_LENGTH:],
            "progress": _progress(self.value) if is_state else None,
            "updates": self.updates,
            "operations": self.operations,
            "duplicates": self.duplicates,
            "gaps": self.gaps,
            "ended": self.ended,
            "error": self.error,
        }


def _progress(state: Any) -> float | None:
    """Return the progress from 0 to 1 if the state is such a number, or has the numbers `done` and `of`."""
    done, of = (state.get("done"), state.get("of")) if isinstance(state, dict) else (state, 1)
    if isinstance(done, int | float) and isinstance(of, int | float) and 0 <= done <= of and of > 0:
        return done / of
    return None


class Streams:
    """Registry of streams by address and id. Everything here runs in one event loop."""

    def __init__(self) -> None:
        self._streams: dict[tuple[Address, str, str], _Stream] = {}
        self._size = 0

    def take(self, address: Address, payload: str, at: float) -> None:
        """Add an event to its stream, if it belongs to one."""
        envelope = parse_envelope(payload)
        if envelope is None:
            return
        key = (address, envelope["stream"], envelope["merge"])
        stream = self._streams.setdefault(key, _Stream(address, envelope, at))
        before = stream.size
        stream.add(envelope, len(payload), at)
        self._size += stream.size - before
        while len(self._streams) > STREAM_LIMIT or (self._size > SIZE_LIMIT and len(self._streams) > 1):
            others = [other for other in self._streams if other != key]
            dropped = next((other for other in others if self._streams[other].ended), others[0])
            self._size -= self._streams.pop(dropped).size

    def clear(self) -> None:
        """Forget all streams."""
        self._streams.clear()
        self._size = 0

    def records(self) -> list[RecordedStream]:
        """Return the kept streams, in the order of their first publishes."""
        return [stream.record() for stream in self._streams.values()]

    def shown(self) -> list[dict[str, Any]]:
        """Return the last streams, in the form for the console."""
        return [stream.record().to_json() for stream in [*self._streams.values()][-_SHOWN:]]


def parse_envelope(payload: str) -> Any:
    """Parse a payload as an envelope, or return `None`."""
    if _MARK not in payload:
        return None
    try:
        value = parse(payload)
    except (ValueError, RecursionError):
        return None
    is_envelope = (
        isinstance(value, dict)
        and _is_count(value.get("forgeStream"))
        and value["forgeStream"] == 1
        and isinstance(value.get("stream"), str)
        and _is_count(value.get("seq"))
        and _is_count(value.get("updates"))
        and value.get("merge") in list(_KINDS)
        and isinstance(value.get("end"), bool)
        and isinstance(value.get("error", ""), str)
        and ("data" not in value or isinstance(value["data"], _KINDS[value["merge"]]))
    )
    return value if is_envelope else None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LAST_SEQ


class _Stream:
    def __init__(self, address: Address, envelope: dict[str, Any], at: float) -> None:
        self.size = 0
        self._address = address
        self._id: str = envelope["stream"]
        self._merge: str = envelope["merge"]
        self._data: dict[int, Any] = {}
        self._seen: set[int] = set()
        self._updates = self._operations = 0
        self.ended = False
        self._error: str | None = None
        self._began = at

    def add(self, envelope: dict[str, Any], size: int, at: float) -> None:
        self._at = at
        self._operations += 1
        seq = envelope["seq"]
        if seq in self._seen:
            return
        self._seen.add(seq)
        self._updates += envelope["updates"]
        if envelope["end"]:
            self.ended = True
            self._error = envelope.get("error")
        if "data" not in envelope:
            return
        if self._merge in ("append", "batch"):
            self._data[seq] = envelope["data"]
            self.size += size
        elif seq >= max(self._data, default=0):
            self._data = {seq: envelope["data"]}
            self.size = size

    def record(self) -> RecordedStream:
        return RecordedStream(
            address=self._address,
            id=self._id,
            merge=self._merge,
            value=self._value(),
            updates=self._updates,
            operations=self._operations,
            duplicates=self._operations - len(self._seen),
            gaps=tuple(self._gaps()),
            ended=self.ended,
            error=self._error,
            began=self._began,
            at=self._at,
        )

    def _value(self) -> Any:
        pieces = [self._data[seq] for seq in sorted(self._data)]
        if not pieces:
            return None
        if self._merge == "append":
            return "".join(pieces)
        return [item for piece in pieces for item in piece] if self._merge == "batch" else pieces[-1]

    def _gaps(self) -> list[tuple[int, int]]:
        seen = sorted(self._seen)
        return [(before + 1, seq - 1) for before, seq in pairwise([-1, *seen]) if seq > before + 1]
