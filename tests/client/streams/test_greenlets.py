"""gevent and eventlet, in processes of their own: everything works, or is refused at once."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.fault_server import PUBLISHED, Connection, FaultServer, stall
from tests.support.redis_server import RedisServer, require_redis
from tests.support.streams import Reader

# httpcore imports trio if it is installed, and trio cannot be imported where eventlet has patched socket.
BEGIN = """
import sys, warnings
sys.modules["trio"] = None
warnings.simplefilter("ignore")
"""
LIBRARIES = {
    "gevent": "from gevent import monkey, sleep, spawn\npatch = monkey.patch_all",
    "eventlet": "from eventlet import monkey_patch as patch, sleep, spawn",
}
PATCHED = {library: f"{BEGIN}{start}\npatch()\n" for library, start in LIBRARIES.items()}
LOADED = """
import asyncio, forge_realtime.asgi, forge_realtime.redis, forge_realtime._transports.pool
forge_realtime.Stream
"""
# The package and asyncio are loaded before everything is patched.
PATCHED_LATE = {library: f"{BEGIN}{LOADED}\n{start}\npatch()\n" for library, start in LIBRARIES.items()}
CLIENTS = """
import os, time
from forge_realtime import Delivery, ForgeRealtimeError, Quota, RealtimeClient, RetryPolicy, StreamError, UsageError

url = sys.argv[1]
quota = Quota(per_second=100_000, burst=1000)

def client(**options):
    return RealtimeClient(url, **{"quota": quota, **options}).for_installation("installation-1")

def run(*jobs):
    \"\"\"Run functions in greenlets until all are done, or exit.\"\"\"
    done = []
    for job in jobs:
        spawn(lambda job=job: (job(), done.append(job)))
    until = time.monotonic() + 40
    while len(done) < len(jobs):
        if time.monotonic() > until:
            print("it hangs", flush=True)
            os._exit(1)
        sleep(0.005)
"""


def run_program(program: str, *arguments: str) -> list[str]:
    command = [sys.executable, "-c", program, *arguments]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stderr) == (0, ""), run.stdout
    return run.stdout.split("\n")[:-1]


def texts(server: FaultServer) -> list[str]:
    payloads = [json.loads(request.body)["payload"] for request in server.published]
    streams = Reader(payload for payload in payloads if payload != "plain").envelopes.values()
    assert all(events[-1]["end"] for events in streams)
    return ["".join(event.get("data", "") for event in events) for events in streams]


SHORT_STREAMS = """
clients = [client() for _ in range(3)]

def job(live):
    for number in range(8):
        with live.stream_global("chat", interval=0, deadline=20) as stream:
            stream.send("a")
            stream.send("b")
            if number % 4 == 0:
                stream.flush()
        assert stream.report.sent == 2
        live.publish_global("chat", "plain")
        # The thread of the last stream is still ending.
        sleep(number % 3 * 0.001)

run(*[lambda live=live: job(live) for live in clients for _ in range(2)])
"""


@pytest.mark.parametrize("start", [*PATCHED.values(), *PATCHED_LATE.values()])
def test_greenlets_share_clients_and_open_streams_one_after_the_other(start: str) -> None:
    with FaultServer() as server:
        # By name, which is looked up in another greenlet.
        run_program(start + CLIENTS + SHORT_STREAMS, server.url.replace("127.0.0.1", "localhost"))
    assert texts(server) == ["ab"] * 48
    assert sum(b'"plain"' in request.body for request in server.published) == 48


OTHERS_RUN = """
import asyncio
live = client(retry=RetryPolicy(attempt_timeout=20))
seen = []

def other():
    # No loop of a stream is the running one here.
    seen.append(asyncio.run(asyncio.sleep(0.001, "ran")))

def streaming():
    with live.stream_global("chat", deadline=0.3) as stream:
        stream.send("a")
        run(other)
        began = time.monotonic()
        try:
            stream.flush()
        except StreamError as error:
            print(error.delivery.value, seen, 0.2 < time.monotonic() - began < 5)

try:
    streaming()
except StreamError as error:
    print(error.delivery.value, error.report.unknown)
"""


@pytest.mark.parametrize("start", PATCHED.values())
def test_deadline_of_a_stream_holds_and_other_greenlets_run_meanwhile(start: str) -> None:
    with FaultServer(then=stall) as server:
        assert run_program(start + CLIENTS + OTHERS_RUN, server.url) == ["unknown ['ran'] True", "unknown 1"]


PLAIN_DEADLINE = """
ticks = []

def tick():
    while True:
        ticks.append(1)
        sleep(0.01)

spawn(tick)
began = time.monotonic()
try:
    client(retry=RetryPolicy(deadline=0.5)).publish_global("chat", "plain")
except ForgeRealtimeError as error:
    print(error.delivery.value, 0.4 < time.monotonic() - began < 5, len(ticks) > 5, flush=True)
os._exit(0)
"""


@pytest.mark.parametrize("start", PATCHED.values())
def test_plain_publish_keeps_its_deadline_and_other_greenlets_run_meanwhile(start: str) -> None:
    with FaultServer(then=stall) as server:
        assert run_program(start + CLIENTS + PLAIN_DEADLINE, server.url) == ["unknown True True"]


MANY = """
stores = sys.argv[2:]
if stores:
    from forge_realtime.redis import RedisStore
    quota = Quota(store=RedisStore(stores[0], replicas=1))
live = client(retry=RetryPolicy(attempt_timeout=10, deadline=20))
number = 30 if stores else 150
sent = []
run(*[lambda: sent.append(live.publish_global("chat", "a").attempts) for _ in range(number)])
print(len(sent) == number, max(map(len, sent)))
"""


@pytest.mark.parametrize("start", [*PATCHED.values(), *PATCHED_LATE.values()])
def test_more_greenlets_publish_than_there_are_connections(start: str) -> None:
    def slowly(connection: Connection) -> bool:
        connection.stopping.wait(0.1)
        return PUBLISHED(connection)

    with FaultServer(then=slowly) as server:
        assert run_program(start + CLIENTS + MANY, server.url) == ["True 1"]


@pytest.mark.parametrize("start", [*PATCHED.values(), *PATCHED_LATE.values()])
def test_greenlets_share_a_quota_through_redis(start: str) -> None:
    require_redis()
    with FaultServer() as server, RedisServer() as redis:
        assert run_program(start + CLIENTS + MANY, server.url, redis.url) == ["True 1"]


BLOCKING_TRANSPORT = """
import httpx

class Transport(httpx.HTTPTransport):
    def handle_request(self, request):
        time.sleep(0.01)
        return super().handle_request(request)

lives = [client(transport=Transport()) for _ in range(2)]

def job(live):
    for _ in range(5):
        with live.stream_global("chat", interval=0, deadline=20) as stream:
            stream.send("a")

run(*[lambda live=live: job(live) for live in lives for _ in range(2)])
"""


@pytest.mark.parametrize("start", PATCHED.values())
def test_transport_of_the_user_may_wait(start: str) -> None:
    with FaultServer() as server:
        run_program(start + CLIENTS + BLOCKING_TRANSPORT, server.url)
    assert texts(server) == ["a"] * 20


FORKED = """
live = client()
with live.stream_global("chat", interval=0) as stream:
    stream.send("a")
    stream.flush()
    child = os.fork()
    if child == 0:
        sleep(0.05)
        with live.stream_global("chat") as own:
            own.send("child")
        os._exit(own.report.sent != 1)
    stream.send("b")
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        sleep(0.01)
"""


def test_child_of_a_fork_does_not_run_the_streams_of_its_parent() -> None:
    with FaultServer() as server:
        run_program(PATCHED["gevent"] + CLIENTS + FORKED, server.url)
    assert sorted(texts(server)) == ["ab", "child"]


REFUSED = """
live = client()
try:
    live.stream_global("chat")
except UsageError as error:
    print(error)
live.publish_global("chat", "plain")
"""


@pytest.mark.parametrize(
    ("library", "patch", "message"),
    [
        ("gevent", "monkey.patch_all(thread=False)", "has patched socket, select, time, but not thread"),
        ("gevent", "monkey.patch_socket()", "has patched socket, but not thread, select, time"),
        ("gevent", "monkey.patch_thread()", "has patched thread, but not socket, select, time"),
        ("gevent", "monkey.patch_all(select=False)", "has patched thread, socket, time, but not select"),
        ("eventlet", "patch(thread=False)", "has patched socket, select, time, but not thread"),
        ("eventlet", "patch(socket=True)", "has patched socket, but not thread, select, time"),
    ],
)
def test_stream_where_a_part_is_patched_is_refused_and_plain_publish_works(
    library: str, patch: str, message: str
) -> None:
    program = f"{BEGIN}{LIBRARIES[library]}\n{patch}\n{CLIENTS}{REFUSED}"
    with FaultServer() as server:
        [refusal] = run_program(program, server.url)
    assert message in refusal
    assert "gevent.monkey.patch_all() or eventlet.monkey_patch() without arguments" in refusal
    assert len(server.published) == 1


NOT_PATCHED = """
def job():
    with live.stream_global("chat") as stream:
        stream.send("a")

live = client()
run(job, job)
"""


@pytest.mark.parametrize("library", LIBRARIES)
def test_greenlets_without_patches(library: str) -> None:
    with FaultServer() as server:
        run_program(BEGIN + LIBRARIES[library] + CLIENTS + NOT_PATCHED, server.url)
    assert texts(server) == ["a"] * 2
