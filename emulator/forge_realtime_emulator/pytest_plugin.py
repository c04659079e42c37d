"""pytest plugin: the fixture `realtime_emulator` gives each test a fresh emulator and its address to the tested code.

    def test_move_reaches_the_board(realtime_emulator):
        with realtime_emulator.subscribe("board-42") as subscription:
            move_card()
            assert subscription.receive().payload == "moved"

One emulator serves the whole session; each pytest-xdist worker has its own. It is imported and started when the first
test requests it. When a test with the fixture fails, the report shows the last calls, with the reason of each refusal.
A test that leaves a fault unused fails, unless the fault is `optional`.

    @pytest.mark.realtime_emulator(limit=None)  # settings for this test
    @pytest.mark.every_reading  # once for each reading of what Atlassian leaves unknown
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from . import Emulator, Settings


_EMULATOR: pytest.StashKey[Emulator] = pytest.StashKey()
"""Key of the emulator in the stash of the session, and of a test that requested it."""

_MARKER = "realtime_emulator"
_OF_SESSION = "realtime_emulator_session"
_EVERY_READING = "every_reading"
_READING = "_realtime_emulator_reading"


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers."""
    config.addinivalue_line("markers", f"{_MARKER}(**settings): settings of the emulator, such as limit=None.")
    config.addinivalue_line(
        "markers", f"{_EVERY_READING}: run the test once for each reading of what Atlassian leaves unknown."
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test with the marker `every_reading` once for each reading."""
    has_fixture = {_MARKER, _OF_SESSION} & {*metafunc.fixturenames}
    if not has_fixture or metafunc.definition.get_closest_marker(_EVERY_READING) is None:
        return
    from ._platform.settings import READINGS

    metafunc.fixturenames.append(_READING)
    ids = [",".join(f"{name}={value}" for name, value in reading.items()) or "as-set" for reading in READINGS]
    metafunc.parametrize(_READING, READINGS, ids=ids, indirect=True)


@pytest.fixture(name=_READING)
def _reading() -> None:
    """Carry the reading of a test; `_prepare` applies it before the test's fixtures."""


@pytest.fixture(scope="session")
def realtime_emulator_settings() -> Settings | None:
    """Settings of the emulator. To set your own, define a session fixture with this name in conftest.py.

    `Settings.from_file("platform.json")` has those that `forge-realtime probe` found.
    """
    return None


@pytest.fixture(scope="session")
def _realtime_emulator_of_session(
    realtime_emulator_settings: Settings | None, request: pytest.FixtureRequest
) -> Iterator[tuple[Emulator, Settings | None]]:
    try:
        from . import Emulator
    except ImportError as error:
        pytest.fail(f"The fixture realtime_emulator: {error}", pytrace=False)
    try:
        emulator = Emulator(settings=realtime_emulator_settings)
    except TypeError as error:
        pytest.fail(f"The fixture realtime_emulator_settings: {error}", pytrace=False)
    with emulator:
        request.session.stash[_EMULATOR] = emulator
        yield emulator, realtime_emulator_settings


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    """Prepare the emulator of the session for a test that uses it."""
    for marker in item.iter_markers(_MARKER):
        _check_marker(marker)
    if item.get_closest_marker(_EVERY_READING) is not None and _reading_of(item) is None:
        pytest.fail(
            f"The marker {_EVERY_READING} needs a test function with the fixture {_MARKER} or {_OF_SESSION}.",
            pytrace=False,
        )
    if _OF_SESSION not in getattr(item, "fixturenames", ()):
        yield
        return
    # Before its fixtures, so that they can register contexts; the first test's fixtures start the emulator.
    if emulator := item.session.stash.get(_EMULATOR, None):
        _prepare(emulator, item)
    yield
    if emulator := item.session.stash.get(_EMULATOR, None):
        _prepare(emulator, item)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Fail a test that left a fault unused, and add the last calls to the report of a failed test."""
    report = (yield).get_result()
    emulator = item.stash.get(_EMULATOR, None)
    if emulator is None:
        return
    if report.when == "call" and report.passed and (unused := emulator.unused_faults):
        report.outcome = "failed"
        report.longrepr = "\n".join(
            [
                "Faults were added that no call used. Make the calls, or add the faults with optional=True:",
                *map(str, unused),
            ]
        )
    if report.failed and emulator.requests:
        from ._platform.why_not import last_calls

        report.sections.append(("Last calls of realtime_emulator", last_calls(emulator.requests)))


@pytest.fixture(scope="session")
def realtime_emulator_session(
    _realtime_emulator_of_session: tuple[Emulator, Settings | None],
) -> Iterator[Emulator]:
    """The `Emulator` for fixtures of the session, such as a service that is started once. Reset before each test.

    `FORGE_EGRESS_PROXY_URL` is set to its address until the session ends.
    """
    emulator, _ = _realtime_emulator_of_session
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("FORGE_EGRESS_PROXY_URL", emulator.url)
        yield emulator


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
            " realtime_emulator_settings in the top-level conftest.py, or change a setting for a test with"
            " @pytest.mark.realtime_emulator(...).",
            pytrace=False,
        )
    _prepare(emulator, request.node)
    monkeypatch.setenv("FORGE_EGRESS_PROXY_URL", emulator.url)
    return emulator


def _prepare(emulator: Emulator, item: pytest.Item) -> None:
    """Give a test the emulator in a fresh state and with the settings of its markers, once."""
    if _EMULATOR in item.stash:
        return
    if not emulator.is_running:
        # An earlier test stopped it.
        emulator.start()
    emulator.reset()
    # From the module's marker to that of the test.
    for marker in reversed([*item.iter_markers(_MARKER)]):
        emulator.change(**marker.kwargs)
    emulator.change(**(_reading_of(item) or {}))
    item.stash[_EMULATOR] = emulator


def _check_marker(marker: pytest.Mark) -> None:
    from . import Settings

    known = [field.name for field in dataclasses.fields(Settings)]
    unknown = [name for name in marker.kwargs if name not in known]
    if not (marker.args or unknown):
        try:
            Settings(**marker.kwargs)
        except ValueError as error:
            pytest.fail(f"@pytest.mark.{_MARKER}: {error}", pytrace=False)
        return
    problem = "it takes settings by name, such as limit=None"
    if unknown:
        problem = f"there is no setting {unknown[0]}"
        if close := difflib.get_close_matches(unknown[0], known, 1):
            problem += f", but there is {close[0]}"
    pytest.fail(f"@pytest.mark.{_MARKER}: {problem}. Settings: {', '.join(known)}.", pytrace=False)


def _reading_of(item: pytest.Item) -> dict[str, Any] | None:
    callspec = getattr(item, "callspec", None)
    return None if callspec is None else callspec.params.get(_READING)
