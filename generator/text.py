"""Text of a document where people read it: in a terminal, in source code and in Markdown."""

from __future__ import annotations

import json
import os
import re
import sys
import unicodedata

# Controls, bidirectional and other invisible characters, lone surrogates, and line breaks that few programs know.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# Cannot be Markup, mentions, references or addresses. Nothing else is left without a code span.
_PLAIN = re.compile(r"""(?:[A-Za-z0-9 /,.{}()"'=;?+-]|(?<=\w)_+(?=\w)|: )*""", re.ASCII)
_LINKED = re.compile(r"www\.|gh-\d|\b[0-9a-f]{7,40}\b", re.IGNORECASE)


def escape_hidden(text: str, *, in_json: bool = False) -> str:
    r"""Escape what is invisible or moves other text, such as U+202E, as in Python: `\u202e`.

    Line breaks and tabs stay, and so does text without such characters.

    Args:
        text: Any text, or source code, where these characters occur in strings and comments only.
        in_json: Escape as JSON does, which differs above U+FFFF.
    """
    if text.isascii() and text.replace("\n", "").replace("\t", "").isprintable():
        return text
    return "".join(
        _escape(character, in_json=in_json)
        if unicodedata.category(character) in _HIDDEN and character not in "\n\t"
        else character
        for character in text
    )


def markdown(text: str) -> str:
    """Return one line of Markdown that shows a text as it is: as a code span if Markdown could mean more by it."""
    return text if _PLAIN.fullmatch(text) and not _LINKED.search(text) else code_span(text)


def code_span(text: str) -> str:
    """Return a text as a code span on one line, which its own backticks cannot end."""
    line = escape_hidden(text).replace("\n", r"\n").replace("\t", r"\t")
    fence = "`" * (_longest_run(line) + 1)
    padding = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{padding}{line}{padding}{fence}"


def code_block(text: str) -> str:
    """Return a text as a code block, which its own lines cannot end."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}text\n{escape_hidden(text).strip()}\n{fence}"


def say(text: str) -> None:
    """Print a line. If nobody reads the output any more (`| head -1`), drop it and go on."""
    _write(f"{escape_hidden(text)}\n")


def write_stdout(text: str) -> None:
    """Print a text as UTF-8, as it is. If nobody reads the output any more, drop it and go on."""
    _write(text)


def _write(text: str) -> None:
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode())
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # Python would try again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _escape(character: str, *, in_json: bool) -> str:
    if in_json:
        return json.dumps(character)[1:-1]
    number = ord(character)
    return f"\\U{number:08x}" if number > 0xFFFF else f"\\u{number:04x}"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
