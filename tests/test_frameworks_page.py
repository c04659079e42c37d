"""`docs/frameworks.md`: its code is that of the example apps."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.example_apps import APPS, EXAMPLES

PAGE = (Path(__file__).parent.parent / "docs/frameworks.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))
BLOCKS = {
    title: re.findall(r"^```python\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    for title, section in SECTIONS.items()
}
# The sections with code, and the app that it is from.
FROM = {
    "FastAPI": "fastapi",
    "Django": "django",
    "Flask": "flask",
    "Celery": "celery",
    "Threads": "flask",
    "Timers": "flask",
}
# Run in tests/generator/test_sibling_client.py, where there is another package.
ELSEWHERE = {"Several packages"}


def test_every_block_is_checked() -> None:
    assert sum(map(len, BLOCKS.values())) == PAGE.count("```python")
    assert {title for title, blocks in BLOCKS.items() if blocks} == {*FROM, *ELSEWHERE}
    assert set(FROM.values()) == set(APPS)


@pytest.mark.parametrize(("title", "app"), FROM.items())
def test_code_is_that_of_the_app(title: str, app: str) -> None:
    code = "\n".join(file.read_text(encoding="utf-8") for file in (EXAMPLES / app).glob("*.py"))
    assert [block for block in BLOCKS[title] if block not in code] == []
    assert f"`tests/examples/{app}/`" in PAGE
