"""Streams: what a client sent as many small updates and published as few events, put together again.

An event belongs to a stream when its payload is the JSON of an envelope:

    {"forgeStream": 1, "stream": "9f0c…", "seq": 0, "merge": "append", "data": "Hel", "updates": 3, "end": false}

`seq` counts the publishes from 0, and one that comes again has the number that it had. The platform knows nothing of this: an
envelope is a payload like any other.
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
"""Streams that are remembered; the oldest go first, and also when what they hold is over `SIZE_LIMIT` together."""

_SHOWN = 50
_SHOWN_LENGTH = 500
"""Streams that the console shows, and the last characters of each."""

_MARK = '"forgeStream"'

_KINDS: dict[str, type] = {"append": str, "latest": object, "batch": list, "reduce": object}
"""The ways to merge, and what the data is then."""

_LAST_SEQ = 2**53 - 1
"""The reader in the browser counts no further."""


@dataclass(frozen=True, slots=True)
class RecordedStream:
    """A stream so far, as it was published, whether or not somebody was subscribed.

    Attributes:
        address: Where it was published to.
        id: The stream's id.
        merge: How its updates are merged: `append`, `latest`, `batch` or `reduce`.
        value: What it comes to, in the order of the numbers: with `append` the whole text, with `batch` the list of all
            items, else the last state. None when nothing but the end came. Hidden in the repr.
        updates: Updates of the sender that its publishes hold; what was published twice counts once.
        operations: Publishes that were accepted, those that came again too.
        duplicates: Those that came again.
        gaps: The first and the last number of each run of publishes that are missing.
        ended: Whether its end was published.
        error: What kind of error ended it, or None.
        began: When its first publish came, in seconds since the epoch, by the emulator's clock.
        at: When its last one came.
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
        """The channel's name."""
        return self.address.channel

    def to_json(self) -> dict[str, Any]:
        """As the console shows it: of a long value its end."""
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
    """How far something is, from 0 to 1, where its state is a share, or has the shares `done` and `of`."""
    done, of = (state.get("done"), state.get("of")) if isinstance(state, dict) else (state, 1)
    if isinstance(done, int | float) and isinstance(of, int | float) and 0 <= done <= of and of > 0:
        return done / of
    return None


class Streams:
    """All streams, each by where it was published to and its id. Everything here runs in one event loop."""

    def __init__(self) -> None:
        self._streams: dict[tuple[Address, str, str], _Stream] = {}
        self._size = 0

    def take(self, address: Address, payload: str, at: float) -> None:
        """Adds an event to its stream, if it belongs to one."""
        envelope = _envelope(payload)
        if envelope is None:
            return
        key = (address, envelope["stream"], envelope["merge"])
        stream = self._streams.setdefault(key, _Stream(address, envelope, at))
        before = stream.size
        stream.add(envelope, len(payload), at)
        self._size += stream.size - before
        while len(self._streams) > STREAM_LIMIT or (self._size > SIZE_LIMIT and len(self._streams) > 1):
            self._size -= self._streams.pop(next(iter(self._streams))).size

    def clear(self) -> None:
        """Forgets them all."""
        self._streams.clear()
        self._size = 0

    def records(self) -> list[RecordedStream]:
        """All that are remembered, in the order of their first publishes."""
        return [stream.record() for stream in self._streams.values()]

    def shown(self) -> list[dict[str, Any]]:
        """The last ones, as the console shows them."""
        return [stream.record().to_json() for stream in [*self._streams.values()][-_SHOWN:]]


def _envelope(payload: str) -> Any:
    """The envelope that a payload is, or None."""
    if _MARK not in payload:
        return None
    try:
        value = parse(payload)
    except (ValueError, RecursionError):
        return None
    is_one = (
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
    return value if is_one else None


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
        self._ended = False
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
            self._ended = True
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
            ended=self._ended,
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
