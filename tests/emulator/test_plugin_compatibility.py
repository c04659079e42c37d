"""The fixture beside other plugins of pytest, and where a test freezes or moves the clock."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from forge_realtime import AsyncRealtimeClient, RealtimeClient, RetryPolicy, TimedOutError
from forge_realtime_emulator import Emulator
from forge_realtime_emulator._platform.clock import elapsed
from tests.emulator.test_pytest_plugin import run
from tests.support.fake_time import FAKES

INVOCATION = {"x-forge-invocation-id": "invocation-123"}
each_fake = pytest.mark.parametrize("fake", FAKES.values(), ids=FAKES)
Fake = Callable[[], AbstractContextManager[Any]]


@each_fake
def test_blocking_test_may_freeze_the_clock(fake: Fake, realtime_emulator: Emulator) -> None:
    with fake(), RealtimeClient() as realtime, realtime_emulator.subscribe("c") as page:
        live = realtime.for_invocation(INVOCATION)
        realtime_emulator.fail_next(status=503)
        realtime_emulator.fail_next(delay=0.05)
        live.publish("c", "x")
        assert page.receive().payload == "x"
        with pytest.raises(TimeoutError, match=r"within 0\.05 s"):
            page.receive(timeout=0.05)
        realtime_emulator.advance(7200)
        realtime_emulator.stop()
        realtime_emulator.start()


@each_fake
def test_asynchronous_test_may_freeze_the_clock(fake: Fake, realtime_emulator: Emulator) -> None:
    async def publish() -> None:
        async with AsyncRealtimeClient() as realtime, realtime_emulator.subscribe("c") as page:
            live = realtime.for_invocation(INVOCATION)
            realtime_emulator.fail_next(status=503)
            await live.publish("c", "x")
            assert (await page.areceive()).payload == "x"
            with pytest.raises(TimeoutError, match=r"within 0\.05 s"):
                await page.areceive(timeout=0.05)

    with fake():
        asyncio.run(publish())


@each_fake
def test_deadline_of_a_call_holds_beside_a_frozen_clock(fake: Fake, realtime_emulator: Emulator) -> None:
    realtime_emulator.fail_next(9, delay=60, optional=True)
    retry = RetryPolicy(deadline=0.4, attempt_timeout=0.3)
    with RealtimeClient(retry=retry) as realtime:
        began = elapsed()
        with fake(), pytest.raises(TimedOutError):
            realtime.for_invocation(INVOCATION).publish("c", "x")
        assert 0.29 <= elapsed() - began < 5


@each_fake
def test_deadline_of_an_asynchronous_call_holds_beside_a_frozen_clock(fake: Fake, realtime_emulator: Emulator) -> None:
    async def publish() -> None:
        async with AsyncRealtimeClient(retry=RetryPolicy(deadline=0.4, attempt_timeout=0.3)) as realtime:
            with pytest.raises(TimedOutError):
                await realtime.for_invocation(INVOCATION).publish("c", "x")

    realtime_emulator.fail_next(9, delay=60, optional=True)
    began = elapsed()
    with fake():
        asyncio.run(publish())
    assert 0.29 <= elapsed() - began < 5


@each_fake
def test_stream_ends_beside_a_frozen_clock(fake: Fake, realtime_emulator: Emulator) -> None:
    with fake(), RealtimeClient() as realtime:
        with realtime.for_invocation(INVOCATION).stream("c", interval=0.01) as stream:
            for word in ("Hel", "lo"):
                stream.send(word)
        [recorded] = realtime_emulator.streams
        assert (recorded.value, recorded.ended) == ("Hello", True)


WITHIN = """
import pytest
from {module} import {freeze}
from forge_realtime import RealtimeClient

@{freeze}("2040-01-01 00:00:00")
def test_decorated(realtime_emulator):
    with RealtimeClient() as realtime, realtime_emulator.subscribe("c") as page:
        live = realtime.for_invocation({{"x-forge-invocation-id": "i"}})
        token = live.sign_realtime_token("c", {{"team": "red"}})
        live.publish("c", "x")
        assert page.receive().payload == "x"

@pytest.fixture
def frozen():
    with {freeze}("2040-01-01 00:00:00"):
        yield

def test_started_within_and_stopped_within(frozen, realtime_emulator):
    test_decorated.__wrapped__(realtime_emulator)
    realtime_emulator.stop()
    realtime_emulator.start()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("module", "freeze"), [("freezegun", "freeze_time"), ("time_machine", "travel")])
@pytest.mark.parametrize("test", ["", "within"])
def test_emulator_starts_and_stops_while_the_clock_is_frozen(
    module: str, freeze: str, test: str, tmp_path: Path
) -> None:
    code = WITHIN.format(module=module, freeze=freeze)
    output = run(tmp_path, code, "-k", test)
    assert (" 1 passed" if test else " 2 passed") in output


ASYNCIO = """
import asyncio
import os
import pytest
import pytest_asyncio
from forge_realtime import AsyncRealtimeClient

@pytest_asyncio.fixture
async def realtime(realtime_emulator):
    async with AsyncRealtimeClient() as client:
        yield client.for_invocation({"x-forge-invocation-id": "i-1"})

@pytest_asyncio.fixture
async def page(realtime_emulator):
    async with realtime_emulator.subscribe("chat") as page:
        yield page

MARK
@pytest.mark.parametrize("number", range(3))
async def test_each_has_its_own_state(realtime, page, realtime_emulator, number):
    assert realtime_emulator.requests == []
    result, event = await asyncio.gather(realtime.publish("chat", str(number)), page.areceive())
    assert (event.payload, event.event_id) == (str(number), result.event_id)

MARK
@pytest.mark.every_reading
async def test_every_reading(realtime, page):
    await realtime.publish("chat", "x")
    async for event in page:
        assert event.payload == "x"
        break

MARK
@pytest.mark.realtime_emulator(limit=1)
async def test_marked(realtime_emulator):
    assert realtime_emulator._sidecar.settings.limit == 1

def test_blocking(realtime_emulator):
    with realtime_emulator.subscribe("chat") as page, pytest.raises(TimeoutError):
        page.receive(timeout=0.01)
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["strict", "auto"])
@pytest.mark.parametrize("scope", ["function", "session"])
def test_fixture_works_with_pytest_asyncio(mode: str, scope: str, tmp_path: Path) -> None:
    options = ["-p", "pytest_asyncio.plugin", "-o", f"asyncio_mode={mode}"]
    options += ["-o", f"asyncio_default_fixture_loop_scope={scope}", "-o", f"asyncio_default_test_loop_scope={scope}"]
    test = ASYNCIO.replace("MARK", "@pytest.mark.asyncio" if mode == "strict" else "")
    assert " 16 passed" in run(tmp_path, test, *options)


ANYIO = """
import pytest
from forge_realtime import AsyncRealtimeClient, UsageError

pytestmark = pytest.mark.anyio

@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param

@pytest.fixture
async def page(realtime_emulator):
    async with realtime_emulator.subscribe("chat") as page:
        yield page

async def test_page_hears(realtime_emulator, page, anyio_backend):
    client = AsyncRealtimeClient()
    live = client.for_invocation({"x-forge-invocation-id": "i-1"})
    if anyio_backend == "trio":
        with pytest.raises(UsageError, match="asyncio only"):
            await live.publish("chat", "x")
        return
    async with client:
        await live.publish("chat", "x")
        assert (await page.areceive()).payload == "x"
"""


@pytest.mark.slow
def test_fixture_works_with_anyio(tmp_path: Path) -> None:
    assert " 2 passed" in run(tmp_path, ANYIO, "-p", "anyio")


ORDER = """
import pytest
from forge_realtime import RealtimeClient

@pytest.mark.every_reading
@pytest.mark.parametrize("number", range(3))
def test_fresh(realtime_emulator, number, request):
    assert realtime_emulator.requests == []
    settings = realtime_emulator._sidecar.settings
    assert settings.errors_in_200 == ("errors_in_200=False" not in request.node.name)
    with RealtimeClient() as realtime, realtime_emulator.subscribe("chat") as page:
        realtime.for_invocation({"x-forge-invocation-id": "i-1"}).publish("chat", str(number))
        assert page.receive().payload == str(number)
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("workers", ["0", "2"])
def test_fixture_works_in_any_order_and_in_workers(seed: int, workers: str, tmp_path: Path) -> None:
    options = ["-p", "pytest_randomly", "-p", "xdist", "-n", workers, "-p", "no:cacheprovider"]
    output = run(tmp_path, ORDER, *options, f"--randomly-seed={seed}")
    assert f"--randomly-seed={seed}" in output
    assert " 33 passed" in output


READINGS = """
import unittest
import pytest
from forge_realtime import RealtimeClient, RejectedError

@pytest.fixture(scope="session")
def service(realtime_emulator_session):
    with RealtimeClient() as realtime:
        yield realtime.for_installation("i-1")

@pytest.mark.every_reading
def test_signs(service):
    service.sign_realtime_token("chat", {})

@pytest.mark.every_reading
@pytest.mark.realtime_emulator(limit=7, errors_in_200=True)
class TestClass:
    def test_of_a_class(self, realtime_emulator, request):
        settings = realtime_emulator._sidecar.settings
        assert settings.limit == 7
        assert settings.errors_in_200 == ("errors_in_200" not in request.node.name)

@pytest.mark.every_reading
def test_without_the_fixture(): pass

@pytest.mark.every_reading
class Case(unittest.TestCase):
    def test_of_unittest(self): pass
"""


@pytest.mark.slow
def test_marker_runs_a_test_under_each_reading(tmp_path: Path) -> None:
    output = run(tmp_path, READINGS, "--strict-markers", "-rA")
    assert " 1 failed, 21 passed, 2 errors" in output
    assert re.findall(r"^FAILED (\S+)", output, re.MULTILINE) == ["test_it.py::test_signs[token_by_installation=False]"]
    names = re.findall(r"^PASSED test_it.py::TestClass::test_of_a_class\[(.*)\]", output, re.MULTILINE)
    assert names == [
        "as-set",
        "token_lifetime=60",
        "invocation_lifetime=60",
        "token_by_installation=False",
        "errors_in_200=False",
        "overrides_in_order=True",
        "empty_overrides_are_global=True",
        "keep_unheard=True",
        "replay_retention=10",
        "limit_retry_after=1",
        "cold_start_after=900,cold_start_duration=300",
    ]
    needs = "The marker every_reading needs a test function with the fixture realtime_emulator or"
    assert output.count(needs) >= 2
