"""Envelopes of streams, as the client sends them, and payloads that only look like envelopes."""

from __future__ import annotations

import json
from typing import Any

ID = "0123456789abcdef" * 2

_NOTHING: Any = object()


def envelope(seq: Any, data: Any = _NOTHING, *, merge: Any = "append", stream: Any = ID, **more: Any) -> str:
    content = {} if data is _NOTHING else {"data": data}
    value = {"forgeStream": 1, "stream": stream, "seq": seq, "merge": merge, **content, "updates": 1, "end": False}
    return json.dumps({**value, **more}, ensure_ascii=False, separators=(",", ":"))


def _without(name: str) -> str:
    return json.dumps({key: value for key, value in json.loads(envelope(0, "x")).items() if key != name})


NO_ENVELOPES = [
    "",
    "plain",
    "null",
    "7",
    '["forgeStream"]',
    '{"forgeStream":1}',
    envelope(0, "x")[:-1],
    f"[{envelope(0, 'x')}]",
    *(_without(name) for name in ("forgeStream", "stream", "seq", "merge", "updates", "end")),
    envelope(0, "x", forgeStream=2),
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
    envelope(0, "x", end=True, error={"message": "secret"}),
]
