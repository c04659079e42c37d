"""A few of the random streams of `make soak`."""

from __future__ import annotations

import json

import pytest

from tests.faults.streams import Page, run_streams


def test_random_streams_reach_each_reader_or_say_what_is_missing() -> None:
    counts, problems = run_streams(100, seed=1)
    assert problems == []
    assert counts["streams"] == 100
    assert counts["report: something missing"]
    assert counts["pages: complete"] > counts["pages: with gaps reported"] > 0
    assert counts["streams: final snapshot in parts"]


def test_reader_that_shows_something_else_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    deliver = Page.deliver

    def alter(self: Page, payload: str) -> None:
        envelope = json.loads(payload)
        if isinstance(envelope.get("data"), str):
            envelope["data"] += "."
        deliver(self, json.dumps(envelope))

    monkeypatch.setattr(Page, "deliver", alter)
    _, problems = run_streams(20, seed=1)
    assert len(problems) > 5
