"""The pytest plugin: `realtime_emulator` is an emulator that each test finds fresh, and that the code under test talks to.

    def test_the_board_hears_of_a_move(realtime_emulator):
        with realtime_emulator.subscribe("board-42") as subscription:
            move_card()
            assert subscription.receive().payload == "moved"

One emulator serves the whole session, and each worker of pytest-xdist has its own. Until a test asks for it nothing is
started, and nothing but this module imported. When a test that asked for it fails, the report says what was called last, with
the reason of each refusal.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from . import Emulator, Settings


_EMULATOR: pytest.StashKey[Emulator] = pytest.StashKey()
"""Where a test that has asked for the emulator keeps it."""


@pytest.fixture(scope="session")
def realtime_emulator_settings() -> Settings | None:
    """How the emulator behaves. Define a session fixture of this name, in conftest.py, to return `Settings` of your own.

    `Settings.from_file("platform.json")` are those that `forge-realtime probe` found.
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
    """Adds the last calls to the report of a test that failed with the emulator."""
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
    """An `Emulator` as new, for this test, with `FORGE_EGRESS_PROXY_URL` set to its address."""
    emulator, settings = _realtime_emulator_of_session
    if realtime_emulator_settings != settings:
        pytest.fail(
            "The fixture realtime_emulator: the emulator of this session runs with other settings already. Define "
            "realtime_emulator_settings in the conftest.py at the top, or change a setting in a test by realtime_emulator.change().",
            pytrace=False,
        )
    if not emulator.is_running:
        # A test before this one has stopped it.
        emulator.start()
    emulator.reset()
    request.node.stash[_EMULATOR] = emulator
    monkeypatch.setenv("FORGE_EGRESS_PROXY_URL", emulator.url)
    return emulator
