"""Threads, event loops, forks, and the end of a client."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
from attrs import evolve

from forge_realtime import Quota, RealtimeClient, RetryPolicy, UsageError
from tests.support.callers import ASYNC_KINDS, INVOCATION, KINDS, AsyncKind, Caller, Kind, async_client
from tests.support.fault_server import PUBLISHED, Behaviour, Connection, FaultServer, Held, answer
from tests.support.garbage import collect
from tests.support.moments import in_the_midst

# Enough for a busy machine.
PATIENT = RetryPolicy(attempt_timeout=30.0, deadline=30.0)


def payloads(server: FaultServer) -> list[str]:
    return sorted(json.loads(request.body)["payload"] for request in server.received)


def test_many_threads_share_a_client() -> None:
    with FaultServer() as server, RealtimeClient(server.url, retry=PATIENT) as client:
        live = client.for_invocation(INVOCATION)
        with ThreadPoolExecutor(32) as pool:
            results = list(pool.map(lambda number: live.publish("c", str(number)), range(640)))
        assert payloads(server) == sorted(map(str, range(640)))
        assert all(len(result.attempts) == 1 for result in results)
        assert server.connections <= 32


@pytest.mark.parametrize("kind", ASYNC_KINDS)
def test_many_tasks_share_a_client(kind: AsyncKind) -> None:
    async def run() -> None:
        async with async_client(kind, server.url, retry=PATIENT) as client:
            live = client.for_invocation(INVOCATION)
            await asyncio.gather(*[live.publish("c", str(number)) for number in range(640)])

    with FaultServer() as server:
        asyncio.run(run())
    assert payloads(server) == sorted(map(str, range(640)))
    # The other calls wait for a connection.
    assert server.connections <= 100


@pytest.mark.parametrize("kind", ASYNC_KINDS)
def test_client_works_in_one_event_loop_after_another(kind: AsyncKind) -> None:
    with FaultServer() as server:
        client = async_client(kind, server.url)
        live = client.for_invocation(INVOCATION)
        for _ in range(3):
            asyncio.run(live.publish("c", "p"))
        asyncio.run(client.aclose())
        del client, live
        collect()
    assert len(server.received) == server.connections == 3


@pytest.mark.parametrize("kind", ASYNC_KINDS)
def test_event_loop_left_open_does_not_block_the_next_one(kind: AsyncKind) -> None:
    with FaultServer() as server:
        client = async_client(kind, server.url)
        live = client.for_invocation(INVOCATION)
        first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
        try:
            for loop in (first, second, first):
                loop.run_until_complete(live.publish("c", "p"))
            first.run_until_complete(client.aclose())
            second.run_until_complete(client.aclose())
        finally:
            first.close()
            second.close()
    assert len(server.received) == 3
    assert server.connections == 2


def test_publish_starts_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.12 refuses new threads at exit."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    held = Held()
    with (
        FaultServer(PUBLISHED, held) as server,
        RealtimeClient(server.url, retry=PATIENT) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        live = client.for_invocation(INVOCATION)
        # Starts the worker of the pool and a thread of the server.
        live.publish("c", "p")
        pool.submit(int).result()
        before = set(threading.enumerate())
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            call = pool.submit(live.publish, "c", "p")
            held.arrived.wait()
            assert not set(threading.enumerate()) - before
            held.go_on.set()
            assert call.result().event_id == "event-1"


def test_signal_handler_can_make_a_call_during_a_call() -> None:
    body = {"token": "a.b.c", "expiresAt": 4_000_000_000}
    plenty = Quota(per_second=1e6, burst=1_000_000)
    with (
        FaultServer(then=answer(200, body)) as server,
        RealtimeClient(server.url, cache_tokens=True, quota=plenty, retry=PATIENT) as client,
    ):
        live = client.for_installation("installation-1")
        moments = in_the_midst(
            lambda: live.sign_realtime_token("c", {}), lambda number: live.sign_realtime_token(f"c{number}", {})
        )
        assert len(server.received) == moments + 1


@pytest.mark.parametrize("fork", ["os", "libc"])
def test_fork_shares_no_socket(fork: str) -> None:
    with FaultServer() as server:
        command = [sys.executable, "-W", "ignore", "-m", "tests.support.fork", server.url, fork]
        subprocess.run(command, check=True, timeout=20)
    assert payloads(server) == ["before", "child", "parent"]
    # One for the child; the parent keeps using its own.
    assert server.connections == 2


ASYNC_FORK = """
import asyncio, gc, os, sys
from forge_realtime import AsyncRealtimeClient
from tests.support.fork import fork

client = AsyncRealtimeClient(sys.argv[1], transport=sys.argv[2])
live = client.for_invocation({"x-forge-invocation-id": "invocation-123"})
loop = asyncio.new_event_loop()
loop.run_until_complete(live.publish("c", "before"))
child = fork(sys.argv[3])
if child == 0:
    asyncio.run(live.publish("c", "child"))
    # As a process does that ends in order.
    del client, live
    gc.collect()
    os._exit(0)
status = os.waitpid(child, 0)[1]
loop.run_until_complete(live.publish("c", "parent"))
loop.run_until_complete(client.aclose())
loop.close()
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.parametrize("fork", ["os", "libc"])
@pytest.mark.parametrize("transport", ["httpx", "aiohttp"])
def test_fork_shares_no_socket_with_asyncio(transport: str, fork: str) -> None:
    with FaultServer() as server:
        command = [sys.executable, "-W", "ignore", "-c", ASYNC_FORK, server.url, transport, fork]
        subprocess.run(command, check=True, timeout=20)
    assert payloads(server) == ["before", "child", "parent"]
    assert server.connections == 2


def test_closing_lets_calls_in_flight_end() -> None:
    held = Held()
    with FaultServer(then=held) as server, ThreadPoolExecutor(1) as pool:
        client = RealtimeClient(server.url)
        live = client.for_invocation(INVOCATION)
        future = pool.submit(live.publish, "c", "p")
        held.arrived.wait()
        client.close()
        held.go_on.set()
        assert future.result().event_id == "event-1"
        with pytest.raises(UsageError, match="This client is closed"):
            live.publish("c", "p")
        server.wait_for_closed_connections()


@pytest.mark.parametrize("kind", ASYNC_KINDS)
def test_closing_lets_tasks_in_flight_end(kind: AsyncKind) -> None:
    held = Held()

    async def run() -> None:
        client = async_client(kind, server.url)
        live = client.for_invocation(INVOCATION)
        task = asyncio.create_task(live.publish("c", "p"))
        await asyncio.to_thread(held.arrived.wait)
        await client.aclose()
        held.go_on.set()
        assert (await task).event_id == "event-1"
        with pytest.raises(UsageError, match="This client is closed"):
            await live.publish("c", "p")
        await asyncio.to_thread(server.wait_for_closed_connections)

    with FaultServer(then=held) as server:
        asyncio.run(run())


@pytest.mark.parametrize("kind", KINDS)
def test_closing_lets_a_call_go_on_that_waits_for_a_retry(kind: Kind) -> None:
    waiting = threading.Event()
    retry = evolve(PATIENT, on_attempt=lambda attempt: waiting.set() if attempt.wait else None)
    again = answer(429, headers={"Retry-After": "0.1"})

    def run_in_threads() -> None:
        with ThreadPoolExecutor(1) as pool, RealtimeClient(server.url, retry=retry) as client:
            future = pool.submit(client.for_invocation(INVOCATION).publish, "c", "p")
            waiting.wait()
            client.close()
            assert future.result().event_id == "event-1"

    async def run(kind: AsyncKind) -> None:
        async with async_client(kind, server.url, retry=retry) as client:
            task = asyncio.create_task(client.for_invocation(INVOCATION).publish("c", "p"))
            await asyncio.to_thread(waiting.wait)
            await client.aclose()
            assert (await task).event_id == "event-1"
            await asyncio.to_thread(server.wait_for_closed_connections)

    with FaultServer(again) as server:
        run_in_threads() if kind == "sync" else asyncio.run(run(kind))
        server.wait_for_closed_connections()


def test_client_can_be_closed_twice_and_through_a_sibling() -> None:
    with FaultServer() as server:
        client = RealtimeClient(server.url)
        with client.for_invocation(INVOCATION) as live:
            live.publish("c", "p")
        client.close()
        server.wait_for_closed_connections()
        with pytest.raises(UsageError, match="This client is closed"):
            client.for_invocation(INVOCATION).publish("c", "p")


UNCLOSED = """
import asyncio, gc, sys
from forge_realtime import AsyncRealtimeClient

client = AsyncRealtimeClient(sys.argv[1], transport=sys.argv[2])
live = client.for_invocation({"x-forge-invocation-id": "invocation-123"})
for _ in range(2):
    asyncio.run(live.publish("c", "p"))
# Another one is garbage. Python finalizes its parts in any order.
another = AsyncRealtimeClient(sys.argv[1], transport=sys.argv[2])
cycle = [another.for_invocation({"x-forge-invocation-id": "invocation-123"})]
cycle.append(cycle)
asyncio.run(cycle[0].publish("c", "p"))
del another, cycle
gc.collect()
"""


@pytest.mark.parametrize("transport", ["httpx", "aiohttp"])
def test_script_that_does_not_close_its_client_prints_nothing(transport: str) -> None:
    with FaultServer() as server:
        command = [sys.executable, "-c", UNCLOSED, server.url, transport]
        run = subprocess.run(command, check=True, timeout=20, capture_output=True, text=True)
    assert run.stdout + run.stderr == ""


def use(url: str, close: bool) -> None:
    client = RealtimeClient(url)
    client.for_invocation(INVOCATION).publish("c", "p")
    if close:
        client.close()


async def use_async(kind: AsyncKind, url: str, close: bool) -> None:
    client = async_client(kind, url)
    await client.for_invocation(INVOCATION).publish("c", "p")
    if close:
        await client.aclose()


@pytest.mark.parametrize("close", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_unclosed_blocking_client_is_a_resource_warning(kind: Kind, close: bool) -> None:
    """Not with asyncio: nobody can close a client in the event loop of each test, or of each job."""
    with FaultServer() as server, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # Garbage of other tests.
        collect()
        caught.clear()
        if kind == "sync":
            use(server.url, close)
        else:
            asyncio.run(use_async(kind, server.url, close))
        collect()
        warned = any(warning.category is ResourceWarning for warning in caught)
        assert warned is (kind == "sync" and not close)


def test_idle_connection_is_closed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2)

    def answer_together(connection: Connection) -> bool:
        both.wait()
        return PUBLISHED(connection)

    script: list[Behaviour] = [answer_together, answer_together]
    with FaultServer(*script) as server, RealtimeClient(server.url) as client, ThreadPoolExecutor(2) as pool:
        live = client.for_invocation(INVOCATION)
        list(pool.map(lambda payload: live.publish("c", payload), "ab"))
        monkeypatch.setattr("forge_realtime._transports.pool.IDLE_SECONDS", 0.0)
        live.publish("c", "p")
        server.wait_for_closed_connections()
    assert server.connections == 2


def test_idle_connection_is_closed_after_a_while_with_asyncio(monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2)

    def answer_together(connection: Connection) -> bool:
        both.wait()
        return PUBLISHED(connection)

    async def run() -> None:
        async with async_client("async", server.url) as client:
            live = client.for_invocation(INVOCATION)
            await asyncio.gather(live.publish("c", "a"), live.publish("c", "b"))
            monkeypatch.setattr("forge_realtime._transports.pool.IDLE_SECONDS", 0.0)
            await live.publish("c", "p")
            await asyncio.to_thread(server.wait_for_closed_connections)

    with FaultServer(answer_together, answer_together) as server:
        asyncio.run(run())
        assert server.connections == 2


def test_idle_connection_of_aiohttp_is_closed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with async_client("aiohttp", server.url) as client:
            await client.for_invocation(INVOCATION).publish("c", "p")
            # Before the client is closed, and without another call.
            await asyncio.to_thread(server.wait_for_closed_connections)

    monkeypatch.setattr("forge_realtime._transports.async_pool.IDLE_SECONDS", 0.05)
    with FaultServer() as server:
        asyncio.run(run())


def test_publish_works_with_queues_that_gevent_and_eventlet_patch() -> None:
    program = """
import queue, sys
queue.SimpleQueue = queue._PySimpleQueue
from forge_realtime import RealtimeClient
with RealtimeClient(sys.argv[1]) as client:
    live = client.for_invocation({"x-forge-invocation-id": "invocation-123"})
    print(live.publish("c", "p").event_id)
"""
    with FaultServer() as server:
        run = subprocess.run(
            [sys.executable, "-c", program, server.url], capture_output=True, text=True, check=False, timeout=60
        )
    assert (run.returncode, run.stdout) == (0, "event-1\n"), run.stderr


@pytest.mark.parametrize(("size", "together"), [(0, True), (1_000, True), (1_000_000, False)])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_head_and_body_of_a_request_leave_together_unless_the_body_is_large(
    kind: Kind, size: int, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads: list[bytes] = []

    def send(self: socket.socket, data: memoryview) -> int:
        if bytes(data[:5]) == b"POST ":
            heads.append(bytes(data))
        return super(socket.socket, self).send(data)

    with FaultServer() as server:
        monkeypatch.setattr(socket.socket, "send", send)
        Caller(kind)(server.url, *[lambda live: live.publish("c", "p" * size)] * 2)
        assert [json.loads(request.body)["payload"] for request in server.received] == ["p" * size] * 2
    assert [head.endswith(b"}") for head in heads] == [together] * 2
