"""Text of spec/source.toml."""

from __future__ import annotations

import tomllib
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from generator.spec.source import source_text

text = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.dictionaries(st.sampled_from(["sha256", "page", "etag", "version"]), text | st.none()), text)
def test_text_parses_to_same_values(known: dict[str, str | None], name: str) -> None:
    moment = datetime(2026, 11, 23, 10, 20, 30, tzinfo=UTC)
    written = source_text({"document": "d.json", **known, "file": name, "obtained": moment})
    present = {key: value for key, value in known.items() if value is not None}
    assert tomllib.loads(written) == {"document": "d.json", **present, "file": name, "obtained": moment}


def test_text_explains_itself() -> None:
    assert source_text({"document": "d.json", "sha256": "1", "etag": None, "address": "https://a/?b=1"}) == (
        "# Where spec/d.json comes from. Written by `make pull`.\n"
        'document = "d.json"\n'
        "# Of this repository's file: the published document in canonical form.\n"
        'sha256 = "1"\n'
        'address = "https://a/?b=1"\n'
    )
