"""pytest plugin: the fixture `realtime_emulator` gives each test a fresh emulator and its address to the tested code.

    def test_move_reaches_the_board(realtime_emulator):
        with realtime_emulator.subscribe("board-42") as subscription:
            move_card()
            assert subscription.receive().payload == "moved"

One emulator serves the whole session; each pytest-xdist worker has its own. It is imported and started when the first
test requests it. When a test with the fixture fails, the report shows the last calls, with the reason of each refusal.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from . import Emulator, Settings


_EMULATOR: pytest.StashKey[Emulator] = pytest.StashKey()
"""Key of the emulator in the stash of a test that requested it."""


@pytest.fixture(scope="session")
def realtime_emulator_settings() -> Settings | None:
    """Settings of the emulator. To set your own, define a session fixture with this name in conftest.py.

    `Settings.from_file("platform.json")` has those that `forge-realtime probe` found.
    """
    return None


@pytest.fixture(scope="session")
def _realtime_emulator_of_session(
    realtime_emulator_settings: Settings | None,
) -> Iterator[tuple[Emulator, Settings | None]]:
    try:
        from . import Emulator
    except ImportError as error:
        pytest.fail(f"The fixture realtime_emulator: {error}", pytrace=False)
    with Emulator(settings=realtime_emulator_settings) as emulator:
        yield emulator, realtime_emulator_settings


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Add the last calls to the report of a failed test."""
    report = (yield).get_result()
    emulator = item.stash.get(_EMULATOR, None)
    if report.failed and emulator is not None and emulator.requests:
        from ._platform.why_not import last_calls

        report.sections.append(("Last calls of realtime_emulator", last_calls(emulator.requests)))


@pytest.fixture
def realtime_emulator(
    _realtime_emulator_of_session: tuple[Emulator, Settings | None],
    realtime_emulator_settings: Settings | None,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Emulator:
    """A fresh `Emulator` for this test, with `FORGE_EGRESS_PROXY_URL` set to its address."""
    emulator, settings = _realtime_emulator_of_session
    if realtime_emulator_settings != settings:
        pytest.fail(
            "The fixture realtime_emulator: the emulator of this session already runs with other settings. Define"
            " realtime_emulator_settings in the top-level conftest.py, or change a setting in a test with"
            " realtime_emulator.change().",
            pytrace=False,
        )
    if not emulator.is_running:
        # An earlier test stopped it.
        emulator.start()
    emulator.reset()
    request.node.stash[_EMULATOR] = emulator
    monkeypatch.setenv("FORGE_EGRESS_PROXY_URL", emulator.url)
    return emulator
