"""What a shared quota promises while its store fails: rows of the table in docs/limits.md, with a real Redis server."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis

from forge_realtime import Quota, RealtimeClient
from forge_realtime import redis as redis_module
from forge_realtime._core import clock
from forge_realtime._core.authorization import Authorization
from forge_realtime._quota.limiter import QuotaLimiter
from forge_realtime.redis import RedisStore, _SharedBucket
from tests.support.rates import most_in_a_second
from tests.support.redis_server import PASSWORD, RedisProxy, RedisServer

pytestmark = pytest.mark.slow

# The platform's.
LIMIT = 50
PROMISED = 44
PROCESSES = 4


@pytest.fixture(autouse=True)
def fresh_reservers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    redis_module._reserver_of.cache_clear()
    monkeypatch.setattr(redis_module, "_RETRY_PAUSE", 0.3)
    monkeypatch.setattr(redis_module, "_SETTLING", 0.6)
    yield
    redis_module._reserver_of.cache_clear()


@pytest.fixture
def proxy(server: RedisServer) -> Iterator[RedisProxy]:
    with RedisProxy(server) as proxy:
        yield proxy


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When each operation began, as its bucket decided."""
    times: list[float] = []
    take = _SharedBucket._take

    def record(bucket: _SharedBucket, now: float) -> None:
        times.append(now)
        take(bucket, now)

    monkeypatch.setattr(_SharedBucket, "_take", record)
    return times


@contextmanager
def operations(url: str | Callable[[], str], processes: int = PROCESSES) -> Iterator[None]:
    """Begin operations of one installation as fast as the quota allows, like so many processes."""
    end = threading.Event()

    def run(client: RealtimeClient, store: RedisStore) -> None:
        limiter = QuotaLimiter(Quota(store=store), "http://localhost", Authorization(installation_id="i"), stream=False)
        while not end.is_set():
            client._run(limiter.acquire(clock.monotonic() + 0.5))

    # Each store has a reserver and buckets of its own, as each process has.
    stores = [RedisStore(url, replicas=PROCESSES, timeout=0.4 + number / 1000) for number in range(processes)]
    with RealtimeClient("http://localhost") as client:
        threads = [threading.Thread(target=run, args=(client, store)) for store in stores for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            end.set()
            for thread in threads:
                thread.join()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wait_for(begun: list[float], operations: int) -> None:
    """Wait until so many more operations have begun."""
    until = len(begun) + operations
    wait_until(lambda: len(begun) >= until)


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.levelname for record in caplog.records if "quota store" in record.getMessage()]


def test_rate_is_shared_and_used(server: RedisServer, begun: list[float]) -> None:
    with operations(server.url):
        wait_for(begun, 120)
    assert most_in_a_second(begun) <= PROMISED
    assert begun[-1] - begun[0] <= 120 / 40 * 1.1 + 0.5


ERRORS = [
    "READONLY You can't write against a read only replica.",
    "LOADING Redis is loading the dataset in memory",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "NOAUTH Authentication required.",
    "NOPERM this user has no permissions to run the 'evalsha' command",
    "CLUSTERDOWN The cluster is down",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "MISCONF Redis is configured to save RDB snapshots",
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.split()[0])
def test_server_that_returns_errors_is_left_and_looked_up_anew(
    proxy: RedisProxy, begun: list[float], error: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "forge_realtime")
    with operations(proxy.url, processes=1):
        wait_for(begun, 20)
        before = proxy.connections
        proxy.error = error
        wait_until(lambda: messages(caplog) == ["WARNING"])
        gone = time.monotonic()
        # The share of a process: 10 per second.
        wait_for(begun, 8)
        assert time.monotonic() - gone >= 0.6
        proxy.error = None
        wait_until(lambda: messages(caplog) == ["WARNING", "INFO"])
        assert proxy.connections > before
        back = time.monotonic()
        wait_for(begun, 60)
        assert time.monotonic() - back < 6
    assert messages(caplog) == ["WARNING", "INFO"]
    assert most_in_a_second(begun) <= PROMISED


def test_address_that_leads_to_a_new_master_is_followed(
    server: RedisServer, begun: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "forge_realtime")
    with RedisServer() as other, RedisProxy(server) as proxy, operations(proxy.url):
        wait_for(begun, 40)
        proxy.server = other
        server.command("CONFIG", "SET", "masterauth", PASSWORD)
        server.command("REPLICAOF", "127.0.0.1", str(other.port))
        wait_until(lambda: messages(caplog).count("INFO") == PROCESSES)
        wait_for(begun, 80)
        assert other.command("EXISTS", "forge-realtime:{quota}:lost")
    assert messages(caplog).count("WARNING") == PROCESSES
    assert most_in_a_second(begun) <= LIMIT


def test_url_is_read_anew_after_a_rotation(
    server: RedisServer, begun: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "forge_realtime")
    passwords = [PASSWORD]
    with operations(lambda: server.url.replace(PASSWORD, passwords[-1]), processes=1):
        wait_for(begun, 20)
        with redis.Redis.from_url(server.url) as administrator:
            administrator.config_set("requirepass", "NEXT")
            administrator.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            wait_until(lambda: messages(caplog) == ["WARNING"])
            passwords.append("NEXT")
            wait_until(lambda: messages(caplog) == ["WARNING", "INFO"])
            wait_for(begun, 20)
            administrator.config_set("requirepass", PASSWORD)
    assert PASSWORD not in caplog.text
    assert "NEXT" not in caplog.text


def test_moved_keys_are_followed(
    server: RedisServer, proxy: RedisProxy, begun: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "forge_realtime")
    with RedisServer() as other, operations(proxy.url, processes=1):
        wait_for(begun, 20)
        proxy.error = f"MOVED 4242 127.0.0.1:{other.port}"
        wait_for(begun, 40)
        assert other.command("EXISTS", "forge-realtime:{quota}:lost")
        # And back, when that node is gone.
        proxy.error = None
        other.kill()
        wait_for(begun, 40)
    assert messages(caplog) == []
    assert most_in_a_second(begun) <= LIMIT


@pytest.mark.parametrize(
    "command",
    [("CLIENT", "KILL", "TYPE", "normal"), ("SCRIPT", "FLUSH")],
    ids=" ".join,
)
def test_closed_connection_and_lost_script_change_nothing(
    server: RedisServer, begun: list[float], command: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    with operations(server.url):
        for _ in range(4):
            wait_for(begun, 20)
            server.command(*command)
        wait_for(begun, 40)
    assert messages(caplog) == []
    assert most_in_a_second(begun) <= PROMISED
    assert begun[-1] - begun[0] <= 120 / 40 * 1.2 + 0.5


@pytest.fixture
def set_clock(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], object]:
    """Return a function that sets the server's clock ahead by so many seconds, for the script."""
    time = "redis.call('TIME')"
    script = redis_module._SCRIPT.replace(time, f"{time}; time[1] = time[1] + (redis.call('GET', 'ahead') or 0)")
    assert script != redis_module._SCRIPT
    monkeypatch.setattr(redis_module, "_SCRIPT", script)
    monkeypatch.setattr(redis_module, "_SHA", "0" * 40)
    return lambda seconds: server.command("SET", "ahead", str(seconds))


@pytest.mark.parametrize("step", [-3600.0, -0.15, -0.04, 0.04, 0.15, 3600.0])
def test_clock_of_the_server_may_step(
    server: RedisServer, begun: list[float], step: float, set_clock: Callable[[float], object], caplog: Any
) -> None:
    with operations(server.url):
        for number in range(3):
            wait_for(begun, 50)
            set_clock(step * (number + 1))
            stepped = time.monotonic()
            wait_for(begun, 20)
            assert time.monotonic() - stepped < 1.4
    assert messages(caplog) == []
    # A step forward lets the permits of 0.1 seconds begin twice. A step back, none.
    assert most_in_a_second(begun) <= (PROMISED if step < 0 else LIMIT)


def test_lost_data_let_nothing_begin_twice(
    server: RedisServer, begun: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    with operations(server.url):
        for _ in range(4):
            wait_for(begun, 25)
            server.command("FLUSHALL")
        wait_for(begun, 40)
    assert messages(caplog) == []
    assert most_in_a_second(begun) <= PROMISED


def restart(server: RedisServer) -> None:
    server.kill()
    server.start()


def stall(server: RedisServer) -> None:
    server.pause()
    time.sleep(0.7)
    server.go_on()


@pytest.mark.parametrize("fault", [restart, stall])
def test_processes_keep_the_limit_while_the_server_comes_back(
    server: RedisServer, begun: list[float], fault: Callable[[RedisServer], None]
) -> None:
    with operations(server.url):
        wait_for(begun, 60)
        fault(server)
        wait_for(begun, 100)
    assert most_in_a_second(begun) <= LIMIT


def test_one_process_keeps_the_quota_whatever_the_store_says(
    server: RedisServer, begun: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_module, "_SCRIPT", "return {{50, 0, 0}}")
    monkeypatch.setattr(redis_module, "_SHA", "0" * 40)
    with operations(server.url, processes=1):
        wait_for(begun, 100)
    assert most_in_a_second(begun) <= PROMISED
