"""What reads streams in tests, and an event loop whose time passes at once."""

from __future__ import annotations

import asyncio
import json
import selectors
import time
from collections import defaultdict
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar
from unittest.mock import patch

T = TypeVar("T")


class Reader:
    """Assembles the streams of a channel, as a front end that drops the numbers that it has seen."""

    def __init__(self, payloads: Iterable[str] = ()) -> None:
        self.envelopes: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.duplicates = 0
        for payload in payloads:
            self.read(payload)

    def read(self, payload: str) -> None:
        envelope = json.loads(payload)
        assert envelope["forgeStream"] == 1
        seen = self.envelopes[envelope["stream"]]
        assert envelope["seq"] <= len(seen), "there is a hole, or two were in flight at a time"
        if envelope["seq"] < len(seen):
            assert envelope == seen[envelope["seq"]], "the same number, but not the same bytes"
            self.duplicates += 1
            return
        assert not (seen and seen[-1]["end"]), "there is more after the end"
        seen.append(envelope)

    @property
    def only(self) -> list[dict[str, Any]]:
        """The events of the one stream that there is."""
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
    """Does not wait: the time of the loop passes at once."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "this would wait for ever"
            self.now += max(0.0, timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


def run_virtually(main: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.run`, in no time. Only for what needs neither sockets nor threads."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner, patch.object(time, "monotonic", runner.get_loop().time):
        return runner.run(main)
