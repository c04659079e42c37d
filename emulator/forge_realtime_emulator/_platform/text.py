"""Text from outside, made safe to show."""

from __future__ import annotations


def printable(text: str) -> str:
    """Escape what could control a terminal or break a line: control, bidirectional and other invisible characters."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
