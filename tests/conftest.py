"""Fixtures of several folders, the order of the tests, and the last lines of a run."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.support.callers import KINDS, Caller

# Session fixtures that take long to make or to warm up: an npm project with its bundles, and the cache of mypy.
EXPENSIVE = {"site", "mypy_cache"}


@pytest.fixture(params=KINDS)
def caller(request: pytest.FixtureRequest) -> Caller:
    return Caller(request.param)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests of expensive fixtures first: one process runs them all, and builds each fixture once."""
    items.sort(key=lambda item: EXPENSIVE.isdisjoint(getattr(item, "fixturenames", ())))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List why tests were skipped. Each reason says how to run them."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    if reasons:
        terminalreporter.section("skipped tests, and how to run them")
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count:5} {reason}")
