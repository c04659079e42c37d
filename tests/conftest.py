"""Fixtures of several folders, the order of the tests, and the last lines of a run."""

from __future__ import annotations

import gc
import shutil
from collections import Counter
from collections.abc import Generator

import pytest

from tests.support.callers import KINDS, Caller
from tests.support.shared import EXAMPLES

# Fixtures of long tests: an npm project with its bundles, and the cache of mypy.
EXPENSIVE = {"site", "mypy_cache"}


@pytest.fixture(params=KINDS)
def caller(request: pytest.FixtureRequest) -> Caller:
    return Caller(request.param)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect tests, but no garbage: looking for it takes a quarter of the time, and there is hardly any."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run long tests first, so that no worker begins one when the others have nothing left to do."""
    items.sort(key=lambda item: EXPENSIVE.isdisjoint(getattr(item, "fixturenames", ())))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Remove the packages from npm when all workers are done: 140 MB, and pytest keeps the folders of three runs."""
    if not hasattr(session.config, "workerinput"):
        factory: pytest.TempPathFactory = vars(session.config)["_tmp_path_factory"]
        shutil.rmtree(factory.getbasetemp() / EXAMPLES, ignore_errors=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List why tests were skipped. Each reason says how to run them."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    if reasons:
        terminalreporter.section("skipped tests, and how to run them")
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count:5} {reason}")
