"""Snapshots of a stream: its whole value, repeated for readers that came late or lost an event."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from typing import Final

from attrs import frozen

# A value of this many full envelopes is repeated every `interval` seconds, a larger one less often in proportion.
_FULL_RATE_ENVELOPES: Final = 4
# Values of this many full envelopes are kept.
_KEPT_ENVELOPES: Final = 16
_LEAST_ROOM: Final = 1_024
# A snapshot waits this long for an update to travel with.
_RIDE_SECONDS: Final = 0.5
# Between two snapshots that are asked for.
_LEAST_SECONDS: Final = 1.0
# Envelopes of updates for each envelope that carries only a part of a snapshot.
_UPDATES_PER_PART: Final = 4
# States of a merge function that are folded into one.
_UNFOLDED: Final = 32
_JOINTS: Final = {"append": ("", "", ""), "batch": ("[", ",", "]")}


@frozen(eq=False, repr=False)
class Part:
    """A part of a snapshot as JSON, or its digest."""

    json: str
    # Of the text, in bytes.
    size: int
    # The digest, and the value as JSON that the app is to keep under this name.
    stored: tuple[str, str] | None = None


class Snapshots:
    """The value of one stream so far, and the parts of its snapshots. The lock of the buffer protects it.

    Args:
        merge: The merge kind of the envelopes.
        fold: Combines several states, as JSON, into one. For `reduce` only.
        max_bytes: Most bytes of data and text in an envelope.
        interval: Seconds between two snapshots.
        stored: The app keeps values that do not fit one envelope.
    """

    __slots__ = (
        "_alone",
        "_asked",
        "_bytes",
        "_covered",
        "_envelopes",
        "_fold",
        "_interval",
        "_made",
        "_merge",
        "_part_taken",
        "_parts",
        "_pieces",
        "_room",
        "_stored",
        "_updates",
    )

    def __init__(
        self, merge: str, fold: Callable[[list[str]], str | None], max_bytes: int, interval: float, *, stored: bool
    ) -> None:
        self._merge = merge
        self._fold = fold
        self._room = max(max_bytes, _LEAST_ROOM)
        self._interval = interval
        self._stored = stored
        # Pieces of JSON without the quotes or brackets of the whole; None if the value is not kept any more.
        self._pieces: list[str] | None = []
        self._bytes = 0
        self._updates = 0
        self._envelopes = 0
        # The last snapshot: how many envelopes it covers, and when it was made.
        self._covered = 0
        self._made = -math.inf
        # When a snapshot was asked for that has not been made yet.
        self._asked = math.inf
        self._parts: list[Part] = []
        self._part_taken = -math.inf
        # Envelopes that carried only a part.
        self._alone = 0

    @property
    def every(self) -> float | None:
        """Seconds within which the value is repeated; None if it is not."""
        if self._pieces is None:
            return None
        return self._interval * max(1.0, self._bytes / (_FULL_RATE_ENVELOPES * self._room))

    def add(self, text: str, size: int, updates: int, now: float) -> None:
        """Add the data of the next envelope. Without updates, it only ends the stream."""
        self._envelopes += 1
        if self._pieces is None:
            return
        if updates:
            self._updates += updates
            if self._merge == "latest":
                self._pieces, self._bytes = [text], size
            else:
                self._pieces.append(text)
                self._bytes += size
        if self._merge == "reduce" and len(self._pieces) > _UNFOLDED:
            self._join()
        if self._bytes > _KEPT_ENVELOPES * self._room and not self._stored:
            self._pieces, self._parts = None, []
        elif self._envelopes == 1:
            # It is the whole value.
            self._covered, self._made = 1, now

    def request(self, now: float) -> None:
        """Make a snapshot with the next update, even if nothing is new."""
        if self._envelopes:
            self._covered, self._asked = -1, min(now, self._asked)

    def with_update(self, size: int, now: float) -> Part | None:
        """Return the part that travels with an update of this size, if there is one."""
        if not self._parts and self._due() <= now:
            self._make(self._room - size, self._room // 2, now)
        return self._take(now) if self._parts and size + self._parts[0].size <= self._room else None

    def with_end(self, size: int, now: float) -> Part | None:
        """Return the final snapshot if it fits the last envelope; otherwise `rest` returns its parts."""
        self._parts = []
        self._make(self._room - size, self._room, now)
        fits = len(self._parts) == 1 and size + self._parts[0].size <= self._room
        return self._take(now) if fits else None

    def alone_at(self) -> float:
        """Return when a part is to be published without an update."""
        if self._alone * _UPDATES_PER_PART > self._envelopes:
            return math.inf
        return (self._part_taken if self._parts else self._due()) + _RIDE_SECONDS

    def alone(self, now: float) -> Part | None:
        """Return the next part, for an envelope of its own."""
        if not self._parts:
            self._make(self._room, self._room, now)
        self._alone += 1
        return self._take(now) if self._parts else None

    def drop(self) -> None:
        """Give up the parts that are left, and make another snapshot after the usual time."""
        self._parts, self._covered = [], -1

    def rest(self) -> list[Part]:
        """Return the parts of the final snapshot that did not travel with the last envelope."""
        parts, self._parts = self._parts, []
        return parts

    def all_parts(self) -> list[Part]:
        """Make the final snapshot again, and return its parts."""
        self._parts = []
        self._make(self._room, self._room, self._made)
        return self.rest()

    def _due(self) -> float:
        every = self.every
        if every is None or self._covered == self._envelopes:
            return math.inf
        is_asked = self._asked < math.inf
        return max(self._asked, self._made + min(_LEAST_SECONDS, every)) if is_asked else self._made + every

    def _take(self, now: float) -> Part:
        self._part_taken = now
        return self._parts.pop(0)

    def _make(self, room: int, cut: int, now: float) -> None:
        """Make the parts of a snapshot: one if its text fits the room, otherwise of `cut` bytes each."""
        if (text := self._join()) is None:
            return
        self._covered, self._made, self._asked = self._envelopes, now, math.inf
        at = f'"at":{self._envelopes},"updates":{self._updates}'
        escaped = (text if self._merge == "append" else json.dumps(text, ensure_ascii=False)[1:-1]).encode()
        if len(escaped) <= room:
            self._parts = [Part(f'{{{at},"part":0,"parts":1,"text":"{escaped.decode()}"}}', len(escaped))]
        elif self._stored:
            value = f'"{text}"' if self._merge == "append" else text
            named = json.loads(value) if self._merge == "append" else text
            digest = hashlib.sha256(named.encode()).hexdigest()
            self._parts = [Part(f'{{{at},"digest":"{digest}"}}', len(digest), (digest, value))]
        else:
            texts = cut_escaped(escaped, cut)
            self._parts = [
                Part(f'{{{at},"part":{number},"parts":{len(texts)},"text":"{piece.decode()}"}}', len(piece))
                for number, piece in enumerate(texts)
            ]

    def _join(self) -> str | None:
        """Return the value, and keep it as a single piece."""
        if self._pieces is None:
            return None
        if self._merge == "reduce" and len(self._pieces) > 1:
            joined = self._fold(self._pieces)
            if joined is None:
                self._pieces = None
                return None
            self._bytes = len(joined.encode())
        else:
            joined = _JOINTS.get(self._merge, ("", "", ""))[1].join(self._pieces)
        self._pieces = [joined] if self._updates else []
        before, _, after = _JOINTS.get(self._merge, ("", "", "")) if self._updates else ("", "", "")
        return f"{before}{joined}{after}"


def cut_escaped(text: bytes, size: int) -> list[bytes]:
    """Cut the inside of a JSON string into pieces of at most `size` bytes, not within a character or an escape."""
    pieces = []
    start = 0
    while start < len(text):
        end = min(start + size, len(text))
        # Continuation bytes of UTF-8.
        while end < len(text) and text[end] & 0xC0 == 0x80:
            end -= 1
        # The last backslash that begins an escape.
        mark = text.rfind(b"\\", max(start, end - 6), end)
        if mark >= 0:
            first = mark
            while first > start and text[first - 1] == 0x5C:
                first -= 1
            if (mark - first) % 2:
                mark -= 1
            if mark + (6 if text[mark + 1 : mark + 2] == b"u" else 2) > end:
                end = mark
        pieces.append(text[start:end])
        start = end
    return pieces
