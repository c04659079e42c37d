"""Text of spec/source.toml, which records where the pinned document comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime

_HEAD = "# Where spec/{document} comes from. Written by `make pull`.\n"
_COMMENTS = {
    "sha256": "Of this repository's file: the published document in canonical form.",
    "published_sha256": "Of the published bytes.",
    "page": 'Its link "OpenAPI" points to the document.',
    "version": "As the document states it.",
}


def source_text(source: Mapping[str, str | datetime | None]) -> str:
    """Return the text of spec/source.toml, without the keys whose value is `None`."""
    lines = [_HEAD.format(document=source["document"])]
    for key, value in source.items():
        if value is None:
            continue
        if key in _COMMENTS:
            lines.append(f"# {_COMMENTS[key]}\n")
        lines.append(f"{key} = {_toml(value)}\n")
    return "".join(lines)


def _toml(value: str | datetime) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    # A JSON string is a valid TOML string, except for one character that JSON does not escape.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
