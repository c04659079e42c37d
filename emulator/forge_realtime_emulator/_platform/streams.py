"""Streams: many small updates of a client, published as few events, reassembled for tests and the console.

An event belongs to a stream if its payload is the JSON of an envelope:

    {"forgeStream": 2, "stream": "9f0c…", "merge": "append", "seq": 0, "data": "Hel", "updates": 3, "end": false}

`seq` counts the updates from 0; a retried one keeps its number. `snapshot` holds a part of the whole value. See
docs/stream-envelope.md. To the platform an envelope is a payload like any other.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from .bounded_log import SIZE_LIMIT
from .channels import Address
from .strict_json import parse

STREAM_LIMIT = 1_000
"""Number of streams that are kept. The oldest are dropped, also when together they exceed `SIZE_LIMIT`: first those
that have ended."""

_KNOWN_LIMIT = 10_000
"""Number of stream ids that are remembered beyond a reset. The oldest are forgotten."""

_SHOWN = 50
_SHOWN_LENGTH = 500
"""Number of streams that the console shows, and of the last characters of each."""

_MARK = '"forgeStream"'

_KINDS: dict[str, type] = {"append": str, "latest": object, "batch": list, "reduce": object}
"""The merge kinds, and the type of their data."""

_COUNTS = ("forgeStream", "seq", "updates", "at", "part", "parts")
"""The integers of an envelope and its snapshot. JSON has one kind of number: 2.0 is 2, as in the browser."""

_LAST_SEQ = 2**53 - 1
"""The largest number that the reader in the browser can count to."""

_BASE = -1
_PART_LIMIT = 10_000
"""The largest number of parts of a snapshot."""


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
        operations: The number of accepted publishes, including duplicates and those that carry only a snapshot.
        duplicates: The number of updates that came again.
        gaps: The first and last number of each run of missing updates that no snapshot covers.
        ended: Whether its end was published.
        error: The class of the error that ended it, or `None`.
        message: The app's public message of that error, or `None`.
        stopped: Who stopped it (`by`) and why (`reason`, optional), or `None`.
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
    message: str | None
    stopped: dict[str, str] | None = field(repr=False)
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
            "message": self.message,
            "stopped": self.stopped,
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
        self._streams: dict[tuple[Address, str], _Stream] = {}
        self._size = 0
        # The number of resets before each stream began. Survives a reset.
        self._known: dict[str, int] = {}
        self._resets = 0

    def is_left_over(self, payload: str) -> bool:
        """Return whether a publish belongs to a stream that began before the last reset.

        A client repeats the final snapshot seconds after the end of a stream, when the next test may be running. `seq`
        0 begins a stream, even if its id was used before.
        """
        envelope = parse_envelope(payload)
        if envelope is None:
            return False
        if envelope.get("seq") == 0:
            self._known[envelope["stream"]] = self._resets
        known = self._known.setdefault(envelope["stream"], self._resets)
        if len(self._known) > _KNOWN_LIMIT:
            del self._known[next(iter(self._known))]
        return known < self._resets

    def take(self, address: Address, payload: str, at: float) -> None:
        """Add an event to its stream, if it belongs to one."""
        envelope = parse_envelope(payload)
        if envelope is None:
            return
        key = (address, envelope["stream"])
        stream = self._streams.setdefault(key, _Stream(address, envelope, at))
        if envelope["merge"] != stream.merge:
            return
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

    def reset(self) -> None:
        """Forget all streams, and take further publishes of them for left over."""
        self.clear()
        self._resets += 1

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
    if not isinstance(value, dict):
        return None
    value = _with_integers(value)
    if isinstance(value.get("snapshot"), dict):
        value["snapshot"] = _with_integers(value["snapshot"])
    return value if _is_envelope(value) else None


def _with_integers(record: dict[str, Any]) -> dict[str, Any]:
    found = [(name, record.get(name)) for name in _COUNTS]
    return {
        **record,
        **{name: int(number) for name, number in found if isinstance(number, float) and number.is_integer()},
    }


def _is_envelope(value: dict[str, Any]) -> bool:
    if not (_is_count(value.get("forgeStream")) and value["forgeStream"] == 2 and isinstance(value.get("stream"), str)):
        return False
    if value.get("merge") not in list(_KINDS) or not isinstance(value.get("end"), bool):
        return False
    has_update = _is_count(value.get("seq")) and _is_count(value.get("updates"))
    every = value.get("snapshotEvery", 1)
    return (
        (has_update if "seq" in value else "snapshot" in value)
        and ("data" not in value or isinstance(value["data"], _KINDS[value["merge"]]))
        and ("error" not in value or _is_record(value["error"], "type", "message"))
        and ("stopped" not in value or _is_record(value["stopped"], "by", "reason"))
        and ("snapshot" not in value or _is_snapshot(value["snapshot"]))
        and isinstance(every, int | float)
        and not isinstance(every, bool)
        and 0 < every < math.inf
    )


def _is_record(value: object, required: str, optional: str) -> bool:
    return isinstance(value, dict) and isinstance(value.get(required), str) and isinstance(value.get(optional, ""), str)


def _is_snapshot(value: object) -> bool:
    if not (isinstance(value, dict) and _is_count(value.get("at")) and value["at"] and _is_count(value.get("updates"))):
        return False
    if "digest" in value:
        return isinstance(value["digest"], str)
    part: Any = value.get("part")
    parts: Any = value.get("parts")
    is_part = _is_count(part) and _is_count(parts) and part < parts <= _PART_LIMIT
    return is_part and isinstance(value.get("text"), str)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LAST_SEQ


class _Stream:
    def __init__(self, address: Address, envelope: dict[str, Any], at: float) -> None:
        self._address = address
        self._id: str = envelope["stream"]
        self.merge: str = envelope["merge"]
        # The updates by number, and the size of their publishes. Those below `_base` are in the value of a snapshot,
        # whose size has the key `_BASE`.
        self._data: dict[int, Any] = {}
        self._sizes: dict[int, int] = {}
        self._base = 0
        self._value_at_base: Any = None
        self._updates_at_base = 0
        self._updates: dict[int, int] = {}
        self._seen: set[int] = set()
        self._duplicates = self._operations = 0
        # The first number that was not seen, as far as it was looked for.
        self._unseen = 0
        self._parts_at = self._parts_count = self._parts_size = 0
        self._parts: dict[int, str] = {}
        # The sum of the sizes, of the parts too.
        self.size = 0
        self.ended = False
        self._end: dict[str, Any] = {}
        self._began = at

    def add(self, envelope: dict[str, Any], size: int, at: float) -> None:
        self._at = at
        self._operations += 1
        if envelope["end"]:
            self.ended = True
            self._end = envelope
        if "seq" in envelope:
            self._add_update(envelope, size)
        if "snapshot" in envelope:
            self._add_part(envelope["snapshot"], size)

    def _add_update(self, envelope: dict[str, Any], size: int) -> None:
        seq = envelope["seq"]
        if seq in self._seen:
            self._duplicates += 1
            return
        self._seen.add(seq)
        if seq < self._base:
            return
        self._updates[seq] = envelope["updates"]
        if "data" not in envelope:
            return
        if self.merge in ("append", "batch"):
            self._data[seq] = envelope["data"]
            self._sizes[seq] = size
            self.size += size
        elif seq >= max(self._data, default=0):
            self._data = {seq: envelope["data"]}
            self._sizes = {seq: size}
            self.size = size + self._parts_size

    def _add_part(self, snapshot: dict[str, Any], size: int) -> None:
        # Of use only if it covers missing updates. No publish is lost on the way to this reader, but it may come late.
        at = snapshot["at"]
        if "digest" in snapshot or at < max(self._base + 1, self._parts_at):
            return
        while self._unseen in self._seen:
            self._unseen += 1
        if at <= self._unseen:
            return
        if (at, snapshot["parts"]) != (self._parts_at, self._parts_count):
            self._begin_parts(at, snapshot["parts"])
        if snapshot["part"] not in self._parts:
            self._parts_size += size
            self.size += size
        self._parts[snapshot["part"]] = snapshot["text"]
        if len(self._parts) < snapshot["parts"]:
            return
        text, size = "".join([self._parts[number] for number in sorted(self._parts)]), self._parts_size
        # A snapshot that turns out to be none does not keep off an older one.
        self._begin_parts(0, 0)
        try:
            value = None if not snapshot["updates"] else text if self.merge == "append" else parse(text)
        except (ValueError, RecursionError):
            return
        if snapshot["updates"] and not isinstance(value, _KINDS[self.merge]):
            return
        self._base, self._value_at_base, self._updates_at_base = at, value, snapshot["updates"]
        self._data = {seq: data for seq, data in self._data.items() if seq >= at}
        self._updates = {seq: updates for seq, updates in self._updates.items() if seq >= at}
        self._sizes = {_BASE: size, **{seq: size for seq, size in self._sizes.items() if seq >= at}}
        self.size = sum(self._sizes.values())
        self._unseen = max(self._unseen, at)

    def _begin_parts(self, at: int, count: int) -> None:
        self.size -= self._parts_size
        self._parts_at, self._parts_count, self._parts_size, self._parts = at, count, 0, {}

    def record(self) -> RecordedStream:
        error = self._end.get("error", {})
        return RecordedStream(
            address=self._address,
            id=self._id,
            merge=self.merge,
            value=self._value(),
            updates=self._updates_at_base + sum(self._updates.values()),
            operations=self._operations,
            duplicates=self._duplicates,
            gaps=tuple(self._gaps()),
            ended=self.ended,
            error=error.get("type"),
            message=error.get("message"),
            stopped=self._end.get("stopped"),
            began=self._began,
            at=self._at,
        )

    def _value(self) -> Any:
        pieces = [self._data[seq] for seq in sorted(self._data)]
        if self._updates_at_base:
            pieces.insert(0, self._value_at_base)
        if not pieces:
            return None
        if self.merge == "append":
            return "".join(pieces)
        return [item for piece in pieces for item in piece] if self.merge == "batch" else pieces[-1]

    def _gaps(self) -> list[tuple[int, int]]:
        seen = sorted(seq for seq in self._seen if seq >= self._base)
        return [(before + 1, seq - 1) for before, seq in pairwise([self._base - 1, *seen]) if seq > before + 1]
