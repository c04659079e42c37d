"""A reader of streams, and an event loop with virtual time."""

from __future__ import annotations

import asyncio
import json
import selectors
import time
from collections import defaultdict
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar
from unittest.mock import patch

from forge_realtime._core import clock

T = TypeVar("T")


class Reader:
    """Assembles the streams of a channel as the platform sees them: in order, nothing missing, duplicates dropped.

    Each snapshot has to be the value of the updates that it covers.
    """

    def __init__(self, payloads: Iterable[str] = ()) -> None:
        self.envelopes: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.duplicates = 0
        # Envelopes that carry only a part of a snapshot, and whole snapshots.
        self.alone: list[dict[str, Any]] = []
        self.snapshots: dict[str, list[int]] = defaultdict(list)
        # Texts of snapshots with updates that were never published on their own: their delivery was unknown.
        self.beyond: dict[str, str] = {}
        self._parts: dict[tuple[str, int, int], list[str | None]] = {}
        for payload in payloads:
            self.read(payload)

    def read(self, payload: str) -> None:
        envelope = json.loads(payload)
        assert envelope["forgeStream"] == 2
        seen = self.envelopes[envelope["stream"]]
        if "seq" in envelope:
            self._read_update(envelope, seen)
        else:
            assert "snapshot" in envelope
            self.alone.append(envelope)
        if "snapshot" in envelope:
            self._read_snapshot(envelope, seen, envelope["snapshot"])

    def _read_update(self, envelope: dict[str, Any], seen: list[dict[str, Any]]) -> None:
        assert envelope["seq"] <= len(seen), "an envelope is missing, or two publishes were in flight"
        if envelope["seq"] < len(seen):
            assert envelope == seen[envelope["seq"]], "the same sequence number with other content"
            self.duplicates += 1
            return
        assert not (seen and seen[-1]["end"]), "an envelope follows the end mark"
        seen.append(envelope)

    def _read_snapshot(self, envelope: dict[str, Any], seen: list[dict[str, Any]], snapshot: dict[str, Any]) -> None:
        stream, merge = envelope["stream"], envelope["merge"]
        covered = seen[: snapshot["at"]]
        is_known = len(covered) == snapshot["at"]
        assert is_known or ("seq" not in envelope and envelope["end"]), "a snapshot of updates that were not published"
        assert not is_known or snapshot["updates"] == sum(envelope["updates"] for envelope in covered)
        if "digest" in snapshot:
            return
        parts = self._parts.setdefault((stream, snapshot["at"], snapshot["parts"]), [None] * snapshot["parts"])
        assert parts[snapshot["part"]] in (None, snapshot["text"]), "parts of the same snapshot differ"
        parts[snapshot["part"]] = snapshot["text"]
        if None in parts:
            return
        self.snapshots[stream].append(snapshot["at"])
        text = "".join(map(str, parts))
        data = [envelope["data"] for envelope in covered if "data" in envelope]
        if not is_known:
            self.beyond[stream] = text
            return
        if merge == "append":
            assert text == "".join(data)
        elif not data:
            assert text == ""
        elif merge == "latest":
            assert json.loads(text) == data[-1]
        elif merge == "batch":
            assert json.loads(text) == [item for items in data for item in items]

    @property
    def only(self) -> list[dict[str, Any]]:
        """The envelopes of the only stream."""
        [envelopes] = self.envelopes.values()
        return envelopes

    @property
    def data(self) -> list[Any]:
        return [envelope["data"] for envelope in self.only if "data" in envelope]

    @property
    def text(self) -> str:
        return "".join(self.data)

    @property
    def updates(self) -> int:
        return sum(envelope["updates"] for envelope in self.only)

    @property
    def ended(self) -> bool:
        return bool(self.only[-1]["end"])


class _Selector(selectors.DefaultSelector):
    """Selector that advances the virtual time instead of waiting."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "nothing is left to do, and no timer is set"
            self.now += max(0.0, timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


def run_virtually(main: Coroutine[Any, Any, T]) -> T:
    """Run like `asyncio.run`, in virtual time. Not for code that needs sockets or threads."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        now = runner.get_loop().time
        with patch.object(time, "monotonic", now), patch.object(clock, "monotonic", now):
            return runner.run(main)
