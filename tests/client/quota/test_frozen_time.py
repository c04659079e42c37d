"""No permit of the quota rests on a clock that the tests of an app freeze or move."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from forge_realtime import AsyncRealtimeClient, OverQuotaError, Quota, RealtimeClient, RetryPolicy
from forge_realtime import redis as redis_module
from forge_realtime._core import clock
from forge_realtime.redis import RedisStore
from tests.support.fake_time import FAKES
from tests.support.fault_server import FaultServer
from tests.support.redis_server import RedisServer, require_redis

PATIENT = RetryPolicy(deadline=30.0, attempt_timeout=20.0)


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.slow)], ids=["in process", "Redis"])
def quota(request: pytest.FixtureRequest) -> Iterator[Quota]:
    redis_module._reserver_of.cache_clear()
    if not request.param:
        yield Quota(per_second=10, burst=1)
        return
    require_redis()
    with RedisServer() as server:
        yield Quota(per_second=10, store=RedisStore(server.url, replicas=1, timeout=0.5))
    redis_module._reserver_of.cache_clear()


@pytest.mark.parametrize("fake", FAKES.values(), ids=FAKES)
def test_calls_wait_for_the_quota_in_real_time(quota: Quota, fake: Callable[[], AbstractContextManager[Any]]) -> None:
    with FaultServer() as server, RealtimeClient(server.url, quota=quota, retry=PATIENT) as client:
        began = clock.monotonic()
        with fake():
            for _ in range(4):
                client.for_installation("i").publish_global("c", "p")
        assert 0.28 <= clock.monotonic() - began < 10


@pytest.mark.parametrize("fake", FAKES.values(), ids=FAKES)
def test_tasks_wait_for_the_quota_in_real_time(quota: Quota, fake: Callable[[], AbstractContextManager[Any]]) -> None:
    async def publish(url: str) -> None:
        async with AsyncRealtimeClient(url, quota=quota, retry=PATIENT) as client:
            live = client.for_installation("i")
            await asyncio.gather(*[live.publish_global("c", "p") for _ in range(4)])

    with FaultServer() as server:
        began = clock.monotonic()
        with fake():
            asyncio.run(publish(server.url))
        assert 0.28 <= clock.monotonic() - began < 10
    assert len(server.received) == 4


@pytest.mark.parametrize("fake", FAKES.values(), ids=FAKES)
def test_time_that_jumps_neither_gives_permits_nor_ends_waits(fake: Callable[[], AbstractContextManager[Any]]) -> None:
    quota = Quota(per_second=0.05, burst=1)
    brief = RetryPolicy(deadline=0.5)
    with FaultServer() as server, RealtimeClient(server.url, quota=quota, retry=brief) as client:
        live = client.for_installation("i")
        live.publish_global("c", "p")
        with fake(), pytest.raises(OverQuotaError):
            live.publish_global("c", "p")
        with pytest.raises(OverQuotaError):
            live.publish_global("c", "p")
    assert len(server.received) == 1


PROGRAM = """
import freezegun
with freezegun.freeze_time("2030-01-01"):
    from forge_realtime import Quota, RealtimeClient
    with RealtimeClient({url!r}, quota=Quota(per_second=10, burst=1)) as client:
        for _ in range(3):
            client.for_installation("i").publish_global("c", "p")
"""


def test_client_may_be_imported_while_time_is_frozen() -> None:
    with FaultServer() as server:
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", PROGRAM.format(url=server.url)], check=True, timeout=30)
        assert time.monotonic() - began >= 0.2
    assert len(server.received) == 3
