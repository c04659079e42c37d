"""Envelopes of streams, as the client sends them, and payloads that only look like envelopes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ID = "0123456789abcdef" * 2

_NOTHING: Any = object()

# What readers do with a sequence of events, by name. Times are in milliseconds.
_FILES = ("order", "snapshots", "end")
_VECTORS = Path(__file__).parent.parent / "vectors/stream-envelope"
VECTORS: dict[str, dict[str, Any]] = {
    vector["name"]: vector
    for name in _FILES
    for vector in json.loads((_VECTORS / f"{name}.json").read_text(encoding="utf-8"))
}


def envelope(seq: Any, data: Any = _NOTHING, *, merge: Any = "append", stream: Any = ID, **more: Any) -> str:
    content = {} if data is _NOTHING else {"data": data}
    value = {"forgeStream": 2, "stream": stream, "merge": merge, "seq": seq, **content, "updates": 1, "end": False}
    return json.dumps({**value, **more}, ensure_ascii=False, separators=(",", ":"))


def snapshot(at: Any, text: Any = "x", *, updates: Any = 1, part: Any = 0, parts: Any = 1) -> dict[str, Any]:
    return {"at": at, "updates": updates, "part": part, "parts": parts, "text": text}


def snapshot_alone(at: int, text: str, *, merge: str = "append", stream: str = ID, **more: Any) -> str:
    """An envelope without an update. `more` are fields of the envelope and of the snapshot."""
    inside = {name: more.pop(name) for name in ("updates", "part", "parts") if name in more}
    value = {"forgeStream": 2, "stream": stream, "merge": merge, "end": False, "snapshot": snapshot(at, text, **inside)}
    return json.dumps({**value, **more}, ensure_ascii=False, separators=(",", ":"))


def _without(name: str) -> str:
    return json.dumps({key: value for key, value in json.loads(envelope(0, "x")).items() if key != name})


NO_ENVELOPES: list[str] = [
    "",
    "plain",
    "null",
    "7",
    '["forgeStream"]',
    '{"forgeStream":2}',
    envelope(0, "x")[:-1],
    f"[{envelope(0, 'x')}]",
    *(_without(name) for name in ("forgeStream", "stream", "seq", "merge", "updates", "end")),
    envelope(0, "x", forgeStream=1),
    envelope(0, "x", forgeStream=3),
    envelope(0, "x", forgeStream=True),
    envelope(0, "x", forgeStream="1"),
    envelope(0, "x", stream=7),
    envelope(-1, "x"),
    envelope(2**53, "x"),
    envelope("0", "x"),
    envelope(True, "x"),
    envelope(0, "x", merge="toString"),
    envelope(0, "x", merge=["append"]),
    envelope(0, 7),
    envelope(0, None),
    envelope(0, "x", merge="batch"),
    envelope(0, "x", updates=-1),
    envelope(0, "x", updates=None),
    envelope(0, "x", end=1),
    envelope(0, "x", end=True, error=None),
    envelope(0, "x", end=True, error="ValueError"),
    envelope(0, "x", end=True, error={"message": "secret"}),
    envelope(0, "x", end=True, error={"type": "ValueError", "message": 7}),
    envelope(0, "x", end=True, stopped=True),
    envelope(0, "x", end=True, stopped={"reason": "enough"}),
    envelope(0, "x", end=True, stopped={"by": "user", "reason": None}),
    *(envelope(0, "x", snapshotEvery=every) for every in (0, -1, "5", True, None)),
    *(
        envelope(0, "x", snapshot=value)
        for value in (
            None,
            7,
            "x",
            snapshot(0),
            snapshot("1"),
            snapshot(1, updates=-1),
            snapshot(1, part=1),
            snapshot(1, parts=0),
            snapshot(1, parts=10_001),
            snapshot(1, text=None),
            {"at": 1, "updates": 1, "digest": 7},
            {"at": 1, "digest": "x"},
        )
    ),
]
