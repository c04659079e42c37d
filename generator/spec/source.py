"""The text of spec/source.toml, which says where the pinned document comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime

_HEAD = "# Where spec/{document} comes from. Written by `make pull`.\n"
_COMMENTS = {
    "sha256": "Of the file here, which says what was published in one canonical form.",
    "published_sha256": "Of the bytes as they were published.",
    "page": 'Its link "OpenAPI" leads to the document.',
    "version": "As the document says it.",
}


def source_text(source: Mapping[str, str | datetime | None]) -> str:
    """The text of spec/source.toml; what is None is left out."""
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
    # A JSON string is a TOML string, but for one character that JSON does not escape.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
