"""Reference reader of streams: what a page shows of them, as docs/stream-envelope.md specifies it.

`frontend/streams.js` does the same in a page. The emulator's own record of streams, which sees every publish and knows
no waiting, is `streams`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .streams import parse_envelope
from .strict_json import parse

_HOLD = 1.0
_LONGEST_HOLD = 60.0
_HELD_LIMIT = 1_000
_EMPTY = {"append": "", "batch": []}
_KINDS = {"append": str, "batch": list}


class StreamReader:
    """Reader of the streams of one channel, as a page reads them.

        reader = StreamReader()
        while not reader.ended:
            reader.read(subscription.receive(timeout=5).payload)
        assert reader.values == {stream_id: "Hello"}

    Not thread-safe. It has no limit of streams.

    Args:
        fetch_value: Returns the value that a snapshot names by stream id and digest. If it raises a LookupError, the
            reader waits for the next snapshot.
        clock: Returns the time in seconds.

    Attributes:
        calls: What `streams.js` would call: names of handlers (`onUpdate`, `onEnd`, `onGap`) with their argument.
        values: The value of each stream so far: the text, the newest state, or the list of all items. With `reduce`,
            the newest data.
        ended: The argument of `onEnd` of each stream that has ended.
    """

    def __init__(
        self, fetch_value: Callable[[str, str], Any] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.values: dict[str, Any] = {}
        self.ended: dict[str, dict[str, Any]] = {}
        self._fetch_value = fetch_value
        self._clock = clock
        self._open: dict[str, _Open] = {}

    def read(self, payload: str) -> None:
        """Read the payload of an event. Payloads that are not envelopes are ignored."""
        envelope = parse_envelope(payload)
        if envelope is None or envelope["stream"] in self.ended:
            return
        stream = self._open.setdefault(envelope["stream"], _Open(envelope["stream"], envelope["merge"]))
        if envelope["merge"] != stream.merge:
            return
        if "seq" in envelope:
            self._hold(stream, envelope)
        if "snapshot" in envelope and stream.id not in self.ended:
            self._collect(stream, envelope, envelope["snapshot"])

    def advance(self) -> None:
        """Report the gaps whose time is over, and show what waited for them."""
        for stream in list(self._open.values()):
            self._show_held(stream)
            if stream.ending is not None and stream.next_at <= self._clock():
                self._end(stream, stream.next - 1, stream.ending[0])

    @property
    def next_at(self) -> float | None:
        """Time at which `advance` has something to do; `None` if nothing waits."""
        first: float = min((stream.next_at for stream in self._open.values()), default=math.inf)
        return None if first == math.inf else first

    def _hold(self, stream: _Open, envelope: dict[str, Any]) -> None:
        seq = envelope["seq"]
        if stream.ending is not None or seq < stream.next or seq in stream.held:
            return
        if stream.merge == "latest" and "data" in envelope:
            stream.go_to(seq)
        stream.held[seq] = (envelope, self._patience_of(envelope))
        self._show_held(stream)

    def _patience_of(self, envelope: dict[str, Any]) -> float:
        """Return until when an envelope waits."""
        every: float = envelope.get("snapshotEvery", 0)
        return self._clock() + min(_HOLD + 2 * every, _LONGEST_HOLD)

    def _show_held(self, stream: _Open) -> None:
        while stream.held:
            if stream.next in stream.held:
                self._show(stream, stream.held.pop(stream.next)[0])
            elif stream.next_at <= self._clock() or len(stream.held) > _HELD_LIMIT:
                first = stream.next
                stream.next = min(stream.held)
                stream.complete = False
                self.calls.append(("onGap", {"stream": stream.id, "from": first, "to": stream.next - 1}))
            else:
                return

    def _show(self, stream: _Open, envelope: dict[str, Any]) -> None:
        seq = envelope["seq"]
        stream.next = seq + 1
        if "data" in envelope:
            data, updates = envelope["data"], envelope["updates"]
            is_whole = stream.merge in ("latest", "reduce")
            value = data if is_whole else self.values.get(stream.id, _EMPTY[stream.merge]) + data
            stream.updates += updates
            self._update(stream, value, {"seq": seq, "data": data, "updates": updates})
        if envelope["end"] and (stream.complete or "snapshotEvery" not in envelope):
            self._end(stream, seq, envelope)
        elif envelope["end"]:
            # The final snapshot may still complete the value.
            stream.ending = (envelope, self._patience_of(envelope))
            stream.held.clear()

    def _update(self, stream: _Open, value: Any, event: dict[str, Any]) -> None:
        self.values[stream.id] = value
        stream.shown = value if stream.merge == "append" else event["data"]
        self.calls.append(("onUpdate", {"stream": stream.id, "merge": stream.merge, "value": stream.shown, **event}))

    def _end(self, stream: _Open, seq: int, envelope: dict[str, Any]) -> None:
        self._open.pop(stream.id, None)
        stream.held.clear()
        event = {"stream": stream.id, "seq": seq, "merge": stream.merge, "value": stream.shown}
        event |= {name: envelope.get(name) for name in ("error", "stopped")}
        self.ended[stream.id] = event
        self.calls.append(("onEnd", event))

    def _collect(self, stream: _Open, envelope: dict[str, Any], snapshot: dict[str, Any]) -> None:
        at: int = snapshot["at"]
        parts: int = snapshot.get("parts", 0)
        end = envelope if "seq" not in envelope and envelope["end"] else None
        if at < stream.next + stream.complete:
            if end and at <= stream.next:
                self._end(stream, at - 1, end)
            return
        if "digest" in snapshot:
            if self._fetch_value is not None:
                try:
                    value = self._fetch_value(stream.id, snapshot["digest"])
                except LookupError:
                    return
                self._take(stream, snapshot, value, end)
            return
        if at < stream.parts_of[0]:
            return
        if (at, parts) != stream.parts_of:
            stream.parts_of, stream.parts = (at, parts), {}
        stream.parts[snapshot["part"]] = snapshot["text"]
        if len(stream.parts) < parts:
            return
        text = "".join(stream.parts[part] for part in range(parts))
        stream.parts_of, stream.parts = (0, 0), {}
        try:
            value = None if not snapshot["updates"] else text if stream.merge == "append" else parse(text)
        except (ValueError, RecursionError):
            return
        self._take(stream, snapshot, value, end)

    def _take(self, stream: _Open, snapshot: dict[str, Any], value: Any, end: dict[str, Any] | None) -> None:
        at, updates = snapshot["at"], snapshot["updates"]
        if updates and not isinstance(value, _KINDS.get(stream.merge, object)):
            return
        added, complete, had = updates - stream.updates, stream.complete, stream.next
        held = stream.held.get(at - 1)
        last = held[0] if held and held[0]["end"] else None
        stream.go_to(at)
        stream.updates, stream.complete = updates, True
        if updates and (added > 0 or not complete):
            whole = not complete or (stream.merge == "reduce" and had > 0)
            is_sequence = stream.merge in _EMPTY and not whole
            data = value[len(self.values.get(stream.id, ())) :] if is_sequence else value
            event = {"seq": at - 1, "data": data, "updates": updates if whole else added}
            self._update(stream, value, {**event, "whole": True} if whole else event)
        if stream.ending is not None:
            last = stream.ending[0]
        if (ending := end or last) is not None:
            self._end(stream, at - 1, ending)
        else:
            self._show_held(stream)


@dataclass
class _Open:
    """A stream that has not ended. `updates` counts those in the value; without a gap, it is `complete`."""

    id: str
    merge: str
    next: int = 0
    complete: bool = True
    updates: int = 0
    shown: Any = None
    # Updates that came early, and until when they wait.
    held: dict[int, tuple[dict[str, Any], float]] = field(default_factory=dict)
    # The last envelope, and until when it waits for the final snapshot.
    ending: tuple[dict[str, Any], float] | None = None
    # The snapshot that is arriving: its place and its number of parts.
    parts_of: tuple[int, int] = (0, 0)
    parts: dict[int, str] = field(default_factory=dict)

    @property
    def next_at(self) -> float:
        held = next(iter(self.held.values()), self.ending)
        return math.inf if held is None else held[1]

    def go_to(self, seq: int) -> None:
        self.next = seq
        for early in [early for early in self.held if early < seq]:
            del self.held[early]
