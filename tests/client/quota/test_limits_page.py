"""docs/limits.md: its examples run, and its numbers are those of the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from forge_realtime import Quota
from forge_realtime.redis import RedisStore

PAGE = (Path(__file__).parents[3] / "docs/limits.md").read_text(encoding="utf-8")


def test_examples_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere:6379/0")
    [example] = re.findall(r"```python\n(.+?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(example, names)
    store = names["realtime"].quota.store
    assert isinstance(store, RedisStore)
    assert callable(store.url)
    assert store.url() == "redis://elsewhere:6379/0"


def test_numbers_are_those_of_the_code() -> None:
    assert f"The defaults, {Quota().per_second:g} and {Quota().burst}," in PAGE
    timeout = RedisStore("redis://localhost", replicas=1).timeout
    assert f"longer than `timeout` ({timeout:g} seconds by default)" in PAGE
