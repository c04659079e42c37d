"""A quota shared through a real Redis server, which is paused, killed and started again."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from forge_realtime import Quota, RealtimeClient, UsageError
from forge_realtime import redis as redis_module
from forge_realtime._quota import limiter as _quota
from forge_realtime._quota.bucket import Waiter
from forge_realtime.redis import RedisStore
from forge_realtime_emulator import Emulator
from tests.client.quota.test_quota import PATIENT
from tests.support.fault_server import FaultServer, refused_url
from tests.support.rates import most_in_a_second
from tests.support.redis_server import PASSWORD, RedisServer

pytestmark = pytest.mark.slow

# Publishes from a few threads, and prints its log and the attempts of each call.
PUBLISHER = """
import json, logging, sys
from concurrent.futures import ThreadPoolExecutor
from forge_realtime import Quota, RealtimeClient, RetryPolicy
from forge_realtime.redis import RedisStore

address, store, replicas, calls = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
log = []
handler = logging.Handler()
handler.emit = lambda record: log.append([record.levelname, record.getMessage()])
logging.getLogger("forge_realtime").addHandler(handler)
logging.getLogger("forge_realtime").setLevel(logging.INFO)
# The machine may be busy.
quota = Quota(per_second=30, store=RedisStore(store, replicas=replicas, timeout=0.5))
with RealtimeClient(address, quota=quota, retry=RetryPolicy(deadline=100, attempt_timeout=30)) as client:
    live = client.for_installation("installation-1")
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda number: live.publish_global("c", number), range(calls)))
print(json.dumps({"log": log, "attempts": [len(result.attempts) for result in results]}))
"""


@pytest.fixture(autouse=True)
def fresh_reservers() -> Iterator[None]:
    redis_module._reserver_of.cache_clear()
    yield
    redis_module._reserver_of.cache_clear()


def publishers(emulator: Emulator, store: str, number: int, calls: int) -> list[subprocess.Popen[str]]:
    command = [sys.executable, "-c", PUBLISHER, emulator.url, store, str(number), str(calls)]
    return [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(number)]


def finish(processes: list[subprocess.Popen[str]]) -> list[dict[str, Any]]:
    try:
        return [json.loads(process.communicate(timeout=60)[0]) for process in processes]
    finally:
        for process in processes:
            process.kill()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_processes_share_the_quota(server: RedisServer) -> None:
    with Emulator() as emulator:
        outputs = finish(publishers(emulator, server.url, 3, 25))
        times = [request.at for request in emulator.requests]
        assert [(request.status, request.code) for request in emulator.requests] == [(200, None)] * 75
    # At most 33 begin in a second; a busy machine delays some.
    assert most_in_a_second(times) <= 45
    assert max(times) - min(times) >= 75 / 30 - 0.3
    assert [output["log"] for output in outputs] == [[]] * 3
    assert [output["attempts"] for output in outputs] == [[1] * 25] * 3


FAULTS: dict[str, tuple[Callable[[RedisServer], None], Callable[[RedisServer], None]]] = {
    "killed": (RedisServer.kill, RedisServer.start),
    "paused": (RedisServer.pause, RedisServer.go_on),
}


@pytest.mark.parametrize(("fail", "mend"), FAULTS.values(), ids=FAULTS)
def test_processes_use_their_shares_while_the_server_is_gone(
    server: RedisServer, fail: Callable[[RedisServer], None], mend: Callable[[RedisServer], None]
) -> None:
    with Emulator() as emulator:
        processes = publishers(emulator, server.url, 2, 55)
        wait_until(lambda: len(emulator.requests) >= 20)
        fail(server)
        # The shares together allow 25 operations in about a second.
        wait_until(lambda: len(emulator.requests) >= 45)
        mend(server)
        outputs = finish(processes)
        times = [request.at for request in emulator.requests]
        assert [(request.status, request.code) for request in emulator.requests] == [(200, None)] * 110
    assert most_in_a_second(times) <= 50
    for output in outputs:
        assert output["attempts"] == [1] * 55
        assert [level for level, _ in output["log"]] == ["WARNING", "INFO"]
        [(_, gone), (_, back)] = output["log"]
        assert "Until it is back, this process uses its share of the quota, 1/2" in gone
        assert "the quota is shared again" in back
        assert PASSWORD not in gone + back


def test_unreachable_server_leaves_the_share_of_the_process(caplog: pytest.LogCaptureFixture) -> None:
    store = RedisStore(refused_url().replace("http://", f"redis://:{PASSWORD}@"), replicas=2)
    with FaultServer() as platform, RealtimeClient(platform.url, quota=Quota(store=store), retry=PATIENT) as client:
        live = client.for_installation("i")
        began = time.monotonic()
        for _ in range(21):
            live.publish_global("c", "p")
        assert time.monotonic() - began >= 20 / 20
    [record] = [record for record in caplog.records if "store" in record.getMessage()]
    assert record.getMessage() == (
        "the quota store failed (ConnectionError): check its address, password and database. "
        "Until it is back, this process uses its share of the quota, 1/2"
    )


def test_wrong_password_is_not_logged(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    store = RedisStore(server.url.replace(PASSWORD, "WR0NG"), replicas=1)
    with FaultServer() as platform, RealtimeClient(platform.url, quota=Quota(store=store)) as client:
        client.for_installation("S3CRET-installation").publish_global("c", "p")
        wait_until(lambda: "AuthenticationError" in caplog.text)
    assert "WR0NG" not in caplog.text
    assert "S3CRET" not in caplog.text


def test_settings_are_checked_and_picklable_and_hide_the_password() -> None:
    store = RedisStore(f"redis://user:{PASSWORD}@localhost:6379/0", replicas=4)
    assert PASSWORD not in repr(Quota(store=store))
    copy = pickle.loads(pickle.dumps(Quota(store=store)))
    assert copy == Quota(store=store)
    assert redis_module._reserver_of(copy.store) is redis_module._reserver_of(store)
    for url in ("rediss://localhost", "unix:///tmp/redis.sock", "valkey://localhost", "valkeys://localhost:7000/1"):
        RedisStore(url, replicas=1)
    wrong: Any
    for wrong in (
        f"http://:{PASSWORD}@localhost",
        f"redis://:{PASSWORD}@localhost:port",
        "",
        None,
        b"redis://localhost",
    ):
        with pytest.raises(UsageError, match="url must be an address") as caught:
            RedisStore(wrong, replicas=1)
        assert PASSWORD not in repr(caught.value.__context__) + str(caught.value)
    for wrong in (0, 1.5, True, "4"):
        with pytest.raises(UsageError, match="replicas"):
            RedisStore("redis://localhost", replicas=wrong)
    for wrong in (0, -1, math.nan, 60, "1", True):
        with pytest.raises(UsageError, match="timeout"):
            RedisStore("redis://localhost", replicas=1, timeout=wrong)


def test_valkey_scheme_works(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    store = RedisStore(server.url.replace("redis://", "valkey://"), replicas=1)
    with FaultServer() as platform, RealtimeClient(platform.url, quota=Quota(store=store)) as client:
        for _ in range(3):
            client.for_installation("S3CRET").publish_global("c", "p")
    keys = redis.Redis.from_url(server.url).keys("*forge-realtime:*")
    assert isinstance(keys, list)
    # The server never sees the id of an installation. In a cluster, one node has all keys.
    names = ("lost", hashlib.sha256(b"S3CRET").hexdigest()[:32])
    assert {key.decode() for key in keys} == {f"forge-realtime:{{quota}}:{name}" for name in names}
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_one_round_trip_reserves_several_permits(server: RedisServer) -> None:
    store = RedisStore(server.url, replicas=1)
    with FaultServer() as platform, RealtimeClient(platform.url, quota=Quota(store=store), retry=PATIENT) as client:
        live = client.for_installation("i")
        live.publish_global("c", "p")
        watched = redis.Redis.from_url(server.url)
        before: Any = watched.info("commandstats")
        with ThreadPoolExecutor(40) as pool:
            list(pool.map(lambda _: live.publish_global("c", "p"), range(40)))
        after: Any = watched.info("commandstats")
    reservations = after["cmdstat_evalsha"]["calls"] - before["cmdstat_evalsha"]["calls"]
    # One for each 25 to 50 ms of a second.
    assert reservations <= 30


def test_plain_call_goes_before_streams_with_a_store(server: RedisServer) -> None:
    quota = Quota(per_second=10, store=RedisStore(server.url, replicas=1))
    with FaultServer() as platform, RealtimeClient(platform.url, quota=quota, retry=PATIENT) as client:
        live = client.for_installation("i")

        def publish(name: str) -> None:
            if name == "stream":
                client._run(live._global_stream_slots("c", None)().publish(name, client.retry))
            else:
                live.publish_global("c", name)

        with ThreadPoolExecutor(12) as pool:
            streams = [pool.submit(publish, "stream") for _ in range(10)]
            wait_until(lambda: len(platform.received) >= 2)
            pool.submit(publish, "plain").result()
            assert sum(stream.done() for stream in streams) < 8
            for stream in streams:
                stream.result()


def test_idle_thread_ends(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_module, "_IDLE", 0.05)
    store = RedisStore(server.url, replicas=1)
    with FaultServer() as platform, RealtimeClient(platform.url, quota=Quota(store=store)) as client:
        for _ in range(2):
            client.for_installation("i").publish_global("c", "p")
            wait_until(lambda: redis_module._reserver_of(store)._thread is None)


def test_nothing_is_reserved_for_expired_waiters(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_module, "_IDLE", 0.05)
    store = RedisStore(server.url, replicas=1)
    bucket = _quota._state.bucket(Quota(store=store), "http://localhost", "i")
    for _ in range(100):
        bucket.request(Waiter(False, time.monotonic() + 0.5), time.monotonic())
    wait_until(lambda: redis_module._reserver_of(store)._thread is None)


def test_thread_that_cannot_start_leaves_the_share_of_the_process(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: Any) -> None:
        raise RuntimeError("can't start new thread")

    store = RedisStore(server.url, replicas=1)
    with FaultServer() as platform, RealtimeClient(platform.url, quota=Quota(store=store), retry=PATIENT) as client:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            reserver = redis_module._reserver_of(store)
            bucket = _quota._state.bucket(client.quota or Quota(), platform.url, "i")
            reserver.request(bucket)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
            assert not reserver.is_available(time.monotonic())
        client.for_installation("i").publish_global("c", "p")
        wait_until(lambda: reserver.is_available(time.monotonic()))
    levels = [record.levelname for record in caplog.records if "store" in record.getMessage()]
    assert levels[0] == "WARNING"


def test_stuck_thread_leaves_the_share_of_the_process() -> None:
    reserver = redis_module._Reserver(RedisStore("redis://localhost", replicas=1))
    assert reserver.is_available(1.0)
    reserver._busy_since = 1.0
    assert reserver.is_available(1.4)
    assert not reserver.is_available(1.6)


def test_signal_handler_may_publish_while_its_thread_holds_the_locks(server: RedisServer) -> None:
    store = RedisStore(server.url, replicas=1)
    reserver = redis_module._reserver_of(store)
    with _quota._state._lock, reserver._lock:
        bucket = _quota._state.bucket(Quota(store=store), "http://localhost", "i")
        assert bucket.request(Waiter(False, time.monotonic() + 30), time.monotonic()) > 0
    assert reserver._thread is not None
    assert reserver._thread.is_alive()


FORK = """
import ctypes, os, sys
from forge_realtime import Quota, RealtimeClient
from forge_realtime.redis import RedisStore

def publish(*payloads):
    # A client of its own: this is about the quota, not about connections.
    with RealtimeClient(sys.argv[1], quota=Quota(store=RedisStore(sys.argv[2], replicas=2))) as client:
        for payload in payloads:
            client.for_installation("i").publish_global("c", payload)

publish("before")
child = {"os.fork": os.fork, "libc": ctypes.PyDLL(None).fork}[sys.argv[3]]()
if child == 0:
    try:
        publish("0", "1", "2", "3", "4")
    except BaseException as error:
        print(type(error), file=sys.stderr)
        os._exit(1)
    os._exit(0)
publish("0", "1", "2", "3", "4")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


# libc's fork runs none of Python's hooks, as uWSGI's.
@pytest.mark.parametrize("fork", ["os.fork", "libc"])
def test_forked_process_reserves_on_its_own(server: RedisServer, fork: str) -> None:
    with FaultServer() as platform:
        command = [sys.executable, "-W", "ignore", "-c", FORK, platform.url, server.url, fork]
        run = subprocess.run(command, check=True, timeout=30, capture_output=True, text=True)
    assert len(platform.received) == 11
    assert run.stderr == ""


def test_import_without_the_extra_names_it() -> None:
    program = "import sys; sys.modules['redis'] = None; import forge_realtime.redis"
    run = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert run.returncode == 1
    assert "pip install 'forge-realtime[redis]'" in run.stderr


def test_unknown_installation_leaves_the_share_of_the_process() -> None:
    store = RedisStore("redis://localhost", replicas=4)
    bucket = _quota._state.bucket(Quota(store=store), "http://localhost", None)
    assert (bucket._per_second, bucket._burst) == (10, 1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_call_does_not_hang_when_the_thread_died(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    reserve = redis_module._Server.reserve
    died: list[threading.Thread] = []

    def die(self: Any, wanted: Any) -> Any:
        monkeypatch.setattr(redis_module._Server, "reserve", reserve)
        died.append(threading.current_thread())
        # As gevent ends a greenlet: no Exception.
        raise SystemExit

    monkeypatch.setattr(redis_module._Server, "reserve", die)
    store = RedisStore(server.url, replicas=1)
    with FaultServer() as platform, RealtimeClient(platform.url, quota=Quota(store=store), retry=PATIENT) as client:
        began = time.monotonic()
        client.for_installation("i").publish_global("c", "p")
        assert time.monotonic() - began < 10
    assert len(died) == 1


AT_EXIT = """
import atexit, sys, threading

def publish():
    client.for_installation("i").publish_global("c", "p")
    print("published", threading.active_count())

atexit.register(publish)
from forge_realtime import Quota, RealtimeClient
from forge_realtime.redis import RedisStore
client = RealtimeClient(sys.argv[1], quota=Quota(store=RedisStore(sys.argv[2], replicas=1)))
publish()
"""


def test_thread_ends_before_the_interpreter(server: RedisServer) -> None:
    with FaultServer() as platform:
        command = [sys.executable, "-c", AT_EXIT, platform.url, server.url]
        run = subprocess.run(command, check=True, timeout=30, capture_output=True, text=True)
    assert (run.stdout.splitlines(), run.stderr) == (["published 2", "published 1"], "")


SUBINTERPRETER = """
import sys
try:
    import _interpreters as interpreters
    interpreter = interpreters.create("legacy")
except ImportError:
    import _xxsubinterpreters as interpreters
    interpreter = interpreters.create(isolated=False)
program = '''
from forge_realtime import Quota, RealtimeClient
from forge_realtime.redis import RedisStore
with RealtimeClient({url!r}, quota=Quota(store=RedisStore({store!r}, replicas=1))) as client:
    client.for_installation("i").publish_global("c", "p")
'''
interpreters.run_string(interpreter, program.format(url=sys.argv[1], store=sys.argv[2]))
interpreters.destroy(interpreter)
print("destroyed")
"""


def test_subinterpreter_starts_no_thread_and_uses_the_share(server: RedisServer) -> None:
    with FaultServer() as platform:
        command = [sys.executable, "-c", SUBINTERPRETER, platform.url, server.url]
        run = subprocess.run(command, check=False, timeout=30, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "destroyed\n"), run.stderr
    assert len(platform.received) == 1


def test_store_without_calls_starts_no_thread() -> None:
    store = RedisStore("redis://localhost", replicas=1)
    with RealtimeClient("http://localhost:1", quota=Quota(store=store)):
        assert redis_module._reserver_of(store)._thread is None
