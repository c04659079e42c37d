"""Changelog: its unreleased lines, and how they are released."""

from __future__ import annotations

import re
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generator.document import GeneratorError
from generator.release.changelog import parse_changelog

DAY = date(2026, 3, 1)
FIRST = "# Changelog\n\nWords.\n\n## Unreleased\n\n### Added\n\n- One.\n"


def test_first_release_moves_unreleased_lines() -> None:
    text = parse_changelog(FIRST).release("0.1.0", DAY)
    assert text == "# Changelog\n\nWords.\n\n## Unreleased\n\n## 0.1.0 - 2026-03-01\n\n### Added\n\n- One.\n"
    released = parse_changelog(text)
    assert (released.is_empty, released.last_version) == (True, "0.1.0")


def test_release_updates_links() -> None:
    text = (
        "# Changelog\n\n## [Unreleased]\n\n- Two.\n\n## [0.1.0] - 2026-01-01\n\n- One.\n\n"
        "[unreleased]: https://example.com/forge/compare/v0.1.0...HEAD\n"
        "[0.1.0]: https://example.com/forge/releases/tag/v0.1.0\n"
    )
    assert parse_changelog(text).release("0.2.0", DAY) == (
        "# Changelog\n\n## [Unreleased]\n\n## [0.2.0] - 2026-03-01\n\n- Two.\n\n## [0.1.0] - 2026-01-01\n\n- One.\n\n"
        "[unreleased]: https://example.com/forge/compare/v0.2.0...HEAD\n"
        "[0.2.0]: https://example.com/forge/compare/v0.1.0...v0.2.0\n"
        "[0.1.0]: https://example.com/forge/releases/tag/v0.1.0\n"
    )


def test_link_of_unknown_form_is_refused() -> None:
    changelog = parse_changelog(FIRST + "\n[unreleased]: https://example.com/forge/commits/main\n")
    with pytest.raises(GeneratorError, match=re.escape("Make it end with `/compare/vX.Y.Z...HEAD`")):
        changelog.release("0.1.0", DAY)


@pytest.mark.parametrize("text", ["# Changelog\n", "## Unreleased\n\n## Unreleased\n", "### Unreleased\n", ""])
def test_changelog_needs_one_unreleased_heading(text: str) -> None:
    with pytest.raises(GeneratorError, match="headings `## Unreleased`, expected one"):
        parse_changelog(text)


@pytest.mark.parametrize("lines", ["", "\n\n", "### Added\n", "### Added\n\n### Fixed\n"])
def test_headings_without_lines_are_empty(lines: str) -> None:
    assert parse_changelog(f"## Unreleased\n{lines}\n## 0.1.0 - 2026-01-01\n\n- One.\n").is_empty


LINES = st.lists(
    st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1).map(lambda text: f"- {text}")
    | st.sampled_from(["", "### Added", "### Fixed", "  of two lines"]),
    max_size=8,
)


@given(st.lists(LINES.filter(any), min_size=1, max_size=4))
def test_successive_releases_keep_every_line(releases: list[list[str]]) -> None:
    text = "# Changelog\n\n## Unreleased\n"
    for number, lines in enumerate(releases):
        written = text.replace("## Unreleased\n", "## Unreleased\n\n" + "\n".join(lines) + "\n", 1)
        changelog = parse_changelog(written)
        assert changelog.unreleased == "\n".join(lines).strip("\n")
        text = changelog.release(f"0.{number}.0", DAY)
        assert parse_changelog(text).last_version == f"0.{number}.0"
        assert parse_changelog(text).unreleased == ""
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings == ["Unreleased", *(f"{f'0.{number}.0'} - 2026-03-01" for number in reversed(range(len(releases))))]
    assert [line for line in text.splitlines() if line and not line.startswith(("# ", "## "))] == [
        line for lines in reversed(releases) for line in lines if line
    ]
