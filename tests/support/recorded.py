"""The only stream of an emulator, read from its events."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from attrs import frozen

from forge_realtime_emulator import Emulator
from tests.support.streams import Reader


@frozen
class RecordedStream:
    """A stream with its value and what its end mark says."""

    id: str
    value: Any
    ended: bool
    error: dict[str, str] | None
    stopped: dict[str, str] | None


def recorded(emulator: Emulator) -> RecordedStream:
    """Return the only stream that was published to an emulator."""
    return recorded_in(event.payload for event in emulator.events)


def recorded_in(payloads: Iterable[str]) -> RecordedStream:
    """Return the only stream in the payloads of some events."""
    reader = Reader(payloads)
    last = reader.only[-1]
    value = None
    if reader.data:
        text = last["merge"] == "append"
        value = "".join(reader.data) if text else [item for data in reader.data for item in data]
    return RecordedStream(last["stream"], value, last["end"], last.get("error"), last.get("stopped"))
