"""The pytest plugin: `forge_realtime` is an emulator that each test finds fresh, and that the code under test talks to.

    def test_the_board_hears_of_a_move(forge_realtime):
        with forge_realtime.subscribe("board-42") as subscription:
            move_card()
            assert subscription.receive().payload == "moved"

One emulator serves the whole session, and each worker of pytest-xdist has its own. Until a test asks for it nothing is
started, and nothing but this module imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from . import Emulator, Settings


@pytest.fixture(scope="session")
def forge_realtime_settings() -> Settings | None:
    """How the emulator behaves. Define a session fixture of this name to return `Settings` of your own."""
    return None


@pytest.fixture(scope="session")
def _forge_realtime_of_session(forge_realtime_settings: Settings | None) -> Iterator[Emulator]:
    try:
        from . import Emulator
    except ImportError as error:
        pytest.fail(f"The fixture forge_realtime: {error}", pytrace=False)
    with Emulator(settings=forge_realtime_settings) as emulator:
        yield emulator


@pytest.fixture
def forge_realtime(_forge_realtime_of_session: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """An `Emulator` as new, for this test, with `FORGE_EGRESS_PROXY_URL` set to its address."""
    emulator = _forge_realtime_of_session
    if not emulator.is_running:
        # A test before this one has stopped it.
        emulator.start()
    emulator.reset()
    monkeypatch.setenv("FORGE_EGRESS_PROXY_URL", emulator.url)
    return emulator
