"""Changelog in the format of Keep a Changelog (https://keepachangelog.com/en/1.1.0/)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date

from generator.document import GeneratorError

_UNRELEASED = re.compile(r"^## (?:\[Unreleased\]|Unreleased)[ \t]*\n", re.MULTILINE | re.IGNORECASE)
_RELEASED = re.compile(r"^## \[?(\d+\.\d+\.\d+)\b", re.MULTILINE)
# The next version, or the links at the end.
_END = re.compile(r"^(?:## |\[[^\]]+\]: )", re.MULTILINE)
_LINK = re.compile(r"^\[unreleased\]: .*$", re.MULTILINE | re.IGNORECASE)
_COMPARED = re.compile(r"(?P<name>\[unreleased\]: )(?P<base>\S+/compare/)(?P<old>\S+?)\.\.\.HEAD", re.IGNORECASE)


@dataclass(frozen=True)
class Changelog:
    """A changelog.

    Attributes:
        before: The text up to and including the heading "Unreleased".
        unreleased: The text below it, without surrounding empty lines.
        after: The released versions and the links.
    """

    before: str
    unreleased: str
    after: str

    @property
    def is_empty(self) -> bool:
        """Whether there are no unreleased lines. Headings do not count."""
        return all(not line or line.startswith("#") for line in map(str.strip, self.unreleased.splitlines()))

    @property
    def last_version(self) -> str | None:
        """The last released version."""
        found = _RELEASED.search(self.after)
        return found[1] if found else None

    def release(self, version: str, day: date) -> str:
        """Return the changelog with the unreleased lines moved under a version.

        Raises:
            GeneratorError: The link for "Unreleased" has an unknown form.
        """
        heading = self.before.splitlines()[-1]
        name = f"[{version}]" if "[" in heading else version
        after = _LINK.sub(lambda link: _links(link[0], version), self.after)
        parts = [self.before.rstrip("\n"), f"## {name} - {day.isoformat()}", self.unreleased, after.strip("\n")]
        return "\n\n".join(part for part in parts if part) + "\n"


def parse_changelog(text: str) -> Changelog:
    """Parse a changelog.

    Raises:
        GeneratorError: It has no heading `## Unreleased`, or several.
    """
    found = list(_UNRELEASED.finditer(text))
    if len(found) != 1:
        raise GeneratorError(
            f"has {len(found)} headings `## Unreleased`, expected one. List the changes since the last release there."
        )
    start = found[0].end()
    following = _END.search(text, start)
    end = following.start() if following else len(text)
    return Changelog(text[:start], text[start:end].strip("\n"), text[end:])


def _links(line: str, version: str) -> str:
    link = _COMPARED.fullmatch(line)
    if link is None:
        raise GeneratorError(f"cannot update the link {line!r}. Make it end with `/compare/vX.Y.Z...HEAD`.")
    return f"{link['name']}{link['base']}v{version}...HEAD\n[{version}]: {link['base']}{link['old']}...v{version}"
