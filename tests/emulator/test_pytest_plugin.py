"""The pytest plugin: once in this run, then in runs of its own."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from forge_realtime import RealtimeClient
from forge_realtime_emulator import Emulator, Settings

pytestmark = pytest.mark.slow

EXTRA = ["click", "jwt", "openapi_schema_validator", "starlette", "uvicorn", "websockets"]


def run(folder: Path, test: str, *arguments: str, missing: tuple[str, ...] = ()) -> str:
    """Run a test file with this plugin, loaded as its entry point, and with no others than those given."""
    folder.joinpath("test_it.py").write_text(test, encoding="utf-8")
    # A module that is None in sys.modules cannot be imported.
    code = f"import sys; sys.modules.update(dict.fromkeys({missing!r})); import pytest; sys.exit(pytest.main())"
    command = [sys.executable, "-c", code, "-p", "forge_realtime", "-W", "error", "--color=no", *arguments]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
    environment.pop("PYTEST_XDIST_WORKER", None)
    done = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr


def test_published_event_arrives(realtime_emulator: Emulator) -> None:
    with RealtimeClient() as realtime, realtime_emulator.subscribe("board-42") as subscription:
        realtime_emulator.fail_next(status=503)
        live = realtime.for_invocation({"x-forge-invocation-id": "invocation-123"})
        live.publish("board-42", {"moved": 7})
        assert subscription.receive().payload == '{"moved":7}'
    assert [request.status for request in realtime_emulator.requests] == [503, 200]
    assert [event.delivered for event in realtime_emulator.events] == [1]


FRESH = """
import os
import pytest

seen = []

@pytest.mark.parametrize("round", range(3))
def test_fresh(realtime_emulator, round):
    assert os.environ["FORGE_EGRESS_PROXY_URL"] == realtime_emulator.url
    assert realtime_emulator.requests == realtime_emulator.events == []
    seen.append(realtime_emulator)
    assert len({id(emulator) for emulator in seen}) == 1
    realtime_emulator.fail_next(status=503, times=5, optional=True)
    realtime_emulator.change(limit=None, strict=True)
    if round == 1:
        realtime_emulator.stop()

def test_the_variable_is_as_before():
    assert os.environ["FORGE_EGRESS_PROXY_URL"] == "http://before.example"
"""


def test_each_test_gets_a_fresh_emulator_and_the_variable_is_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORGE_EGRESS_PROXY_URL", "http://before.example")
    assert " 4 passed" in run(tmp_path, FRESH)


LEFT_OVER = """
from forge_realtime import RealtimeClient

INVOCATION = {"x-forge-invocation-id": "invocation-123"}
realtime = RealtimeClient()
last = []

def test_stream(realtime_emulator):
    with realtime.for_invocation(INVOCATION).stream("chat") as stream:
        stream.send("Hel")
        stream.flush()
        stream.send("lo")
    last.extend(event.payload for event in realtime_emulator.events[1:])
    assert [stream.value for stream in realtime_emulator.streams] == ["Hello"]

def test_left_over_publish_is_not_noticed(realtime_emulator):
    live = realtime.for_invocation(INVOCATION)
    realtime_emulator.change(limit=2)
    with realtime_emulator.subscribe("chat") as page:
        realtime_emulator.fail_next(status=503)
        # As the client repeats the final snapshot, seconds after the end.
        assert [live.publish("chat", payload).event_id for payload in last * 3] == [None] * 3
        assert realtime_emulator.requests == realtime_emulator.events == realtime_emulator.streams == []
        live.publish("chat", "mine")
        assert page.receive().payload == "mine"
    assert [request.status for request in realtime_emulator.requests] == [503, 200]
    with live.stream("chat") as stream:
        stream.send("another")
    assert [stream.value for stream in realtime_emulator.streams] == ["another"]
"""


def test_publish_of_an_earlier_tests_stream_is_not_noticed(tmp_path: Path) -> None:
    assert " 2 passed" in run(tmp_path, LEFT_OVER)


SETTINGS = """
import pytest
from forge_realtime_emulator import Settings

@pytest.fixture(scope="session")
def realtime_emulator_settings():
    return Settings(strict=True)

def test_strict(realtime_emulator):
    import httpx
    headers = {"forge-proxy-authorization": "Forge id=i"}
    assert httpx.get(realtime_emulator.url + "/invocation/context", headers=headers).status_code == 401
"""


def test_settings_fixture_can_be_overridden(tmp_path: Path) -> None:
    assert " 1 passed" in run(tmp_path, SETTINGS)


def test_settings_that_come_too_late_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "test_before.py").write_text("def test_it(realtime_emulator): pass", encoding="utf-8")
    output = run(tmp_path, SETTINGS)
    assert " 1 passed, 1 error" in output
    assert "Define realtime_emulator_settings in the top-level conftest.py" in output
    assert "Traceback" not in output


def test_settings_of_another_type_are_an_error(tmp_path: Path) -> None:
    output = run(tmp_path, SETTINGS.replace("Settings(strict=True)", "{'strict': True}"))
    assert (
        "The fixture realtime_emulator_settings: settings: takes Settings(...), such as Settings(limit=2); this is of "
        "the type dict" in output
    )
    assert "Traceback" not in output


WORKERS = """
import os
import pytest

@pytest.mark.parametrize("number", range(8))
def test_of_a_worker(realtime_emulator, number):
    assert realtime_emulator.requests == []
    with realtime_emulator.subscribe("x") as subscription, pytest.raises(TimeoutError):
        subscription.receive(timeout=0)
    print(os.environ["PYTEST_XDIST_WORKER"], realtime_emulator.url)
"""


def test_each_xdist_worker_has_its_own_emulator(tmp_path: Path) -> None:
    output = run(tmp_path, WORKERS, "-p", "xdist", "-n", "2", "--dist", "each", "-rP")
    assert " 16 passed" in output
    urls = dict(re.findall(r"^(gw\d) (http://127.0.0.1:\d+)$", output, re.MULTILINE))
    assert set(urls) == {"gw0", "gw1"}
    assert len(set(urls.values())) == 2


UNUSED = f"""
import sys
import threading

def test_nothing_was_imported():
    names = {{name for name in sys.modules if name.startswith("forge_realtime")}}
    assert names == {{"forge_realtime_emulator", "forge_realtime_emulator.pytest_plugin"}}
    assert not {{name for name in {EXTRA} if sys.modules.get(name)}}
    assert threading.active_count() == 1
"""


def test_run_without_the_fixture_imports_and_starts_nothing(tmp_path: Path) -> None:
    assert " 1 passed" in run(tmp_path, UNUSED)


def test_without_the_extra_other_tests_run(tmp_path: Path) -> None:
    assert " 1 passed" in run(tmp_path, UNUSED, missing=(*EXTRA, "httpx", "attr", "attrs"))


@pytest.mark.parametrize("missing", [name for name in EXTRA if name != "click"])
def test_without_the_extra_the_fixture_says_what_to_install(tmp_path: Path, missing: str) -> None:
    output = run(tmp_path, "def test_it(realtime_emulator): pass\ndef test_other(): pass\n", missing=(missing,))
    assert " 1 passed, 1 error" in output
    assert "needs the emulator extra: pip install 'forge-realtime[emulator]'" in output
    assert "Traceback" not in output


def test_fixtures_are_described_in_the_help(tmp_path: Path) -> None:
    output = run(tmp_path, "", "--fixtures")
    assert re.search(r"^realtime_emulator -- .*\n    A fresh `Emulator` for this test", output, re.MULTILINE)
    assert re.search(r"^realtime_emulator_settings \[session scope\]", output, re.MULTILINE)


def test_missing_event_is_explained(tmp_path: Path) -> None:
    test = "with realtime_emulator.subscribe('board-42') as subscription: subscription.receive(timeout=0.01)"
    output = run(tmp_path, f"def test_it(realtime_emulator):\n    {test}\n")
    assert re.search(r"^E +TimeoutError: No event on channel .board-42. within 0.01 s\.$", output, re.MULTILINE)
    assert re.search(r"^E +Since the subscription began, nothing was published", output, re.MULTILINE)


UNUSED_FAULTS = """
import httpx
import pytest

def call(emulator):
    headers = {"forge-proxy-authorization": "Forge id=i"}
    body = {"name": "c", "payload": "x"}
    return httpx.post(emulator.url + "/forge/realtime/v1/publish", json=body, headers=headers)

def test_uses_it(realtime_emulator):
    realtime_emulator.fail_next(status=503)
    assert call(realtime_emulator).status_code == 503

def test_leaves_it(realtime_emulator):
    realtime_emulator.fail_next(status=503, channel="other\\x1b")
    call(realtime_emulator)

def test_leaves_half_of_it(realtime_emulator):
    realtime_emulator.fail_next(2, status=503)
    call(realtime_emulator)

def test_may_leave_it(realtime_emulator):
    realtime_emulator.fail_next(9, status=503, optional=True)

def test_fails_by_itself(realtime_emulator):
    realtime_emulator.fail_next(status=503)
    assert "its own"[0] == "reason"

def test_leaves_one_with_a_probability(realtime_emulator):
    realtime_emulator.fail_next(status=503, probability=0.1)

@pytest.mark.xfail
def test_is_expected_to_fail(realtime_emulator):
    realtime_emulator.fail_next(status=503)
    raise LookupError
"""


def test_unused_fault_fails_the_test_unless_it_is_optional(tmp_path: Path) -> None:
    output = run(tmp_path, UNUSED_FAULTS, "-p", "no:randomly")
    assert re.findall(r"^FAILED test_it.py::(\w+)", output, re.MULTILINE) == [
        "test_leaves_it",
        "test_leaves_half_of_it",
        "test_fails_by_itself",
    ]
    assert " 3 failed, 3 passed, 1 xfailed" in output
    said = r"^Faults were added that no call used\. Make the calls, or add the faults with optional=True:\n(.*)$"
    assert re.findall(said, output, re.MULTILINE) == [
        r"{'times': 1, 'status': 503, 'channel': 'other\x1b'}",
        "{'times': 1, 'status': 503}",
    ]


MARKED = """
import pytest

pytestmark = pytest.mark.realtime_emulator(strict=True, limit=7)

@pytest.mark.realtime_emulator(limit=None)
def test_marked(realtime_emulator):
    settings = realtime_emulator._sidecar.settings
    assert (settings.strict, settings.limit) == (True, None)

def test_of_the_module(realtime_emulator):
    assert realtime_emulator._sidecar.settings.limit == 7

@pytest.mark.realtime_emulator(limt=3)
def test_typing_error(realtime_emulator): pass

@pytest.mark.realtime_emulator("limit")
def test_without_a_name(realtime_emulator): pass

@pytest.mark.realtime_emulator(limit=0)
def test_out_of_range(realtime_emulator): pass
"""


def test_marker_changes_settings_for_a_test(tmp_path: Path) -> None:
    output = run(tmp_path, MARKED, "--strict-markers")
    assert " 2 passed, 3 errors" in output
    known = ", ".join(field.name for field in dataclasses.fields(Settings))
    for problem in (
        f"there is no setting limt, but there is limit. Settings: {known}.",
        f"it takes settings by name, such as limit=None. Settings: {known}.",
        "limit must be a whole number of at least 1 or None.",
    ):
        assert f"@pytest.mark.realtime_emulator: {problem}\n" in output
    assert "Traceback" not in output


SESSION = """
import os
import httpx
import pytest

@pytest.fixture(scope="session")
def service(realtime_emulator_session):
    return os.environ["FORGE_EGRESS_PROXY_URL"]

def call(service):
    headers = {"forge-proxy-authorization": "Forge id=i"}
    return httpx.post(service + "/forge/realtime/v1/publish", json={"name": "c", "payload": "x"}, headers=headers)

@pytest.mark.parametrize("round", range(3))
def test_each_starts_anew(service, realtime_emulator_session, round):
    assert service == realtime_emulator_session.url
    assert realtime_emulator_session.requests == []
    assert call(service).status_code == 200

def test_both_are_one(service, realtime_emulator, realtime_emulator_session):
    assert realtime_emulator is realtime_emulator_session
    assert call(service).status_code == 200
    assert len(realtime_emulator.requests) == 1

@pytest.mark.realtime_emulator(limit=1)
def test_marked(service):
    assert [call(service).json().get("errors") for _ in range(2)] == [None, [{"message": "RATE_LIMIT_EXCEEDED"}]]

def test_fails(service):
    call(service)
    assert False
"""


def test_emulator_of_the_session_is_reset_before_each_test(tmp_path: Path) -> None:
    for test in ("", "test_marked"):
        output = run(tmp_path, SESSION, "-k", test)
        assert (" 1 failed, 5 passed" if not test else " 1 passed") in output
        assert ("publish on 'c', answered 200" in output) == (not test)


ASYNCHRONOUS = """
import asyncio
import pytest
from forge_realtime import AsyncRealtimeClient
from forge_realtime_emulator import EmulatorError

@pytest.mark.asyncio
async def test_the_page_hears(realtime_emulator):
    async with AsyncRealtimeClient() as realtime, realtime_emulator.subscribe("chat") as page:
        live = realtime.for_invocation({"x-forge-invocation-id": "i-1"})
        async with live.stream("chat") as stream:
            await stream.send("Hello")
            assert "Hello" in (await page.areceive()).payload
        with pytest.raises(EmulatorError, match="areceive"):
            page.receive()
"""


def test_asynchronous_test_awaits_its_events(tmp_path: Path) -> None:
    options = ["-p", "pytest_asyncio.plugin", "-o", "asyncio_default_fixture_loop_scope=function"]
    assert " 1 passed" in run(tmp_path, ASYNCHRONOUS, *options)


FROZEN = """
import pytest
from freezegun import freeze_time
from forge_realtime import RealtimeClient

@pytest.mark.parametrize("tick", [True, False])
def test_frozen(realtime_emulator, tick):
    with freeze_time("2040-01-01", tick=tick), RealtimeClient() as realtime:
        with realtime_emulator.subscribe("chat") as page:
            live = realtime.for_invocation({"x-forge-invocation-id": "i-1"})
            live.publish("chat", "x")
            assert page.receive().payload == "x"
            with pytest.raises(TimeoutError):
                page.receive(timeout=0.1)
            realtime_emulator.reset()
"""


def test_frozen_clock_ends_neither_test_nor_session_late(tmp_path: Path) -> None:
    assert " 2 passed" in run(tmp_path, FROZEN)


FAILING = """
import httpx
import pytest

def publish(emulator, **body):
    headers = {"forge-proxy-authorization": "Forge as=user,accountId=secret-account,installationId=secret-id"}
    httpx.post(emulator.url + "/forge/realtime/v1/publish", json={"payload": "secret", **body}, headers=headers)

@pytest.fixture
def board(realtime_emulator):
    for number in range(21):
        publish(realtime_emulator, name=f"board-{number}")
    return realtime_emulator

def test_fails(board):
    publish(board)
    assert False

@pytest.fixture
def broken(realtime_emulator):
    publish(realtime_emulator, name="of-the-setup")
    raise LookupError

def test_of_a_broken_fixture(broken): pass
def test_passes(board): pass
def test_without_it(): assert False
def test_without_calls(realtime_emulator): assert False
"""


def test_failed_test_reports_last_calls_and_why_they_were_refused(tmp_path: Path) -> None:
    output = run(tmp_path, FAILING, "--tb=short")
    assert " 3 failed, 1 passed, 1 error" in output
    # One section for the error in a fixture, one for the failed test. pytest's next rule ends a section.
    sections = re.findall(r"^-+ Last calls of realtime_emulator -+\n(.*?)\n[=_]{3}", output, re.DOTALL | re.MULTILINE)
    [broken], [before, *calls, last] = (section.splitlines() for section in sections)
    refused = "answered 200: Unauthorized request: publish needs the id of an invocation"
    assert broken.startswith(f"publish on 'of-the-setup', {refused}")
    assert before == "(2 calls before)"
    assert [line.partition(", ")[0] for line in calls] == [f"publish on 'board-{n}'" for n in range(2, 21)]
    assert refused in calls[0]
    assert last.startswith("publish, answered 400: INVALID_REQUEST: ")
    assert "secret" not in "".join(sections)
