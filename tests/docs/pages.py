"""The pages of the manual and their code blocks.

A comment on the line before a block says how it is tested:

* `<!-- test: continues -->`: run in the namespace of the block before
* `<!-- test: from tests/examples/fastapi -->`: the code of a file in that folder
* `<!-- test: pytest -p syrupy -->`: run with pytest and these options
* `<!-- test: no, … -->`: not run, for the reason given

Without one, Python runs as a program, or with pytest if it defines a test, and shell commands run in bash, both against
an emulator. A block `text` directly after a block shows its whole output, in which `…` stands for anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
}

_BLOCK = re.compile(
    r"(?:^<!-- test: (?P<test>.*?) -->\n+)?"
    r"^```(?P<language>\S*)\n(?P<code>.*?)^```$"
    r"(?:\n\n```text\n(?P<output>.*?)^```$)?",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """One code block of a page.

    Attributes:
        page: The path of the page from the root of the repository.
        line: The number of its first line.
        language: The word behind the opening fence.
        code: The text in it.
        test: How to test it, from the comment before it; "" without one.
        output: The output shown behind it, or `None` if none is shown.
    """

    page: str
    line: int
    language: str
    code: str
    test: str
    output: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def is_pytest(self) -> bool:
        """Whether pytest runs it."""
        return self.test.startswith("pytest") or bool(re.search(r"^(async )?def test_", self.code, re.MULTILINE))


def blocks_of(page: str) -> list[Block]:
    """Return the blocks of a page in their order."""
    text = PAGES[page]
    return [
        Block(
            page,
            text.count("\n", 0, match.start("code")),
            match["language"],
            match["code"],
            match["test"] or "",
            match["output"],
        )
        for match in _BLOCK.finditer(text)
        # Directives of MyST.
        if match["language"][:1] != "{"
    ]


def shows(expected: str, printed: str) -> bool:
    """Return whether an output is the one that a page shows, in which `…` stands for anything."""
    pattern = ".*?".join(re.escape(part) for part in expected.strip().split("…"))
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None
