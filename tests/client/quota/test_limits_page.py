"""docs/limits.md: its numbers are those of the code."""

from __future__ import annotations

from pathlib import Path

from forge_realtime import Quota
from forge_realtime.redis import RedisStore

PAGE = (Path(__file__).parents[3] / "docs/limits.md").read_text(encoding="utf-8")


def test_numbers_are_those_of_the_code() -> None:
    assert f"The defaults, {Quota().per_second:g} and {Quota().burst}," in PAGE
    timeout = RedisStore("redis://localhost", replicas=1).timeout
    assert f"longer than `timeout` ({timeout:g} seconds by default)" in PAGE
