"""Reused connections that the server closes, the number of connections, and the deadline of connecting."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from forge_realtime import (
    Delivery,
    ForgeRealtimeError,
    PublishResult,
    RealtimeClient,
    RetryPolicy,
    TimedOutError,
)
from tests.faults.matrix import GOOD, GOOD_AND_CLOSE, watched_for_leaks
from tests.faults.phases import CONNECTIONS, NUMBERS, Calls, use_all_connections_async
from tests.support.callers import ASYNC_KINDS, INVOCATION, AsyncKind, Caller, async_client
from tests.support.fault_server import Connection, FaultServer, answer

ONCE = RetryPolicy(delivery="at_most_once", max_attempts=1)


def publish(live: Any) -> Any:
    return live.publish("board-42", "x")


def test_server_closes_while_the_client_writes(caller: Caller) -> None:
    go = threading.Event()
    pause = 0.0

    def close_on_signal(connection: Connection) -> bool:
        GOOD(connection)
        go.wait(10)
        end = time.perf_counter() + pause
        while time.perf_counter() < end:
            pass
        return False

    def publish_at_the_same_time(live: Any) -> Any:
        go.set()
        return publish(live)

    seen: set[tuple[Delivery, int]] = set()
    leaks: list[str] = []
    with watched_for_leaks(leaks):
        for number in range(100):
            pause = number % 50 * 0.00002
            go.clear()
            with FaultServer(close_on_signal) as server:
                first, outcome = caller(server.url, publish, publish_at_the_same_time, retry=ONCE)
            assert isinstance(first, PublishResult)
            delivery = Delivery.ACCEPTED if isinstance(outcome, PublishResult) else outcome.delivery
            received = len(server.received) - 1
            # The server never reads a second request on that connection. What it received came on another one.
            assert received == (delivery is Delivery.ACCEPTED)
            seen.add((delivery, server.connections))
    assert not leaks
    assert seen
    assert seen <= {(Delivery.ACCEPTED, 2), (Delivery.UNKNOWN, 1), (Delivery.NOT_SENT, 1)}


def test_server_closes_on_a_request_that_it_does_not_read(caller: Caller) -> None:
    """The other outcome of the race, which the test above may not meet."""

    def close_unread(connection: Connection) -> bool:
        connection.peer.recv(1)
        return False

    with FaultServer(GOOD, close_unread) as server:
        first, outcome = caller(server.url, publish, publish, retry=ONCE)
        assert server.connections == 1
    assert isinstance(first, PublishResult)
    assert outcome.delivery in (Delivery.UNKNOWN, Delivery.NOT_SENT)
    assert len(server.received) == 1
    with FaultServer(GOOD, close_unread) as server:
        first, second = caller(server.url, publish, publish)
        assert server.connections == 2
    assert isinstance(second, PublishResult)
    assert len(second.attempts) == len(server.received) == 2


def test_closed_connections_are_not_used(caller: Caller) -> None:
    def publish_when_closed(live: Any) -> Any:
        # This does not let the event loop run, so it has not seen the end either.
        server.wait_for_closed_connections()
        return publish(live)

    times = 200
    with FaultServer(then=GOOD_AND_CLOSE) as server:
        outcomes = caller(server.url, *[publish_when_closed] * times, retry=ONCE)
        assert server.connections == times
    assert {type(outcome) for outcome in outcomes} == {PublishResult}
    assert len(server.received) == times


@pytest.mark.parametrize("kind", ASYNC_KINDS)
def test_closed_connections_are_not_used_by_many_tasks(kind: AsyncKind) -> None:
    def close_a_little_later(connection: Connection) -> bool:
        GOOD(connection)
        # The calls have their responses by then, and the event loop is blocked.
        connection.stopping.wait(0.02)
        return False

    async def run() -> None:
        async with async_client(kind, server.url, retry=ONCE) as client:
            live = client.for_invocation(INVOCATION)
            for _ in range(10):
                results = await asyncio.gather(*[publish(live) for _ in range(20)])
                assert {len(result.attempts) for result in results} == {1}
                server.wait_for_closed_connections()

    with FaultServer(then=close_a_little_later) as server:
        asyncio.run(run())
        assert len(server.received) == 200


@pytest.mark.parametrize("kind", ASYNC_KINDS)
def test_there_are_at_most_100_connections(kind: AsyncKind) -> None:
    calls = Calls("waiting for the response")

    async def run() -> None:
        async with async_client(kind, server.url, retry=calls.policy) as client:
            live = client.for_invocation(INVOCATION)
            tasks = [asyncio.create_task(live.publish("board-42", number)) for number in NUMBERS]
            await calls.await_(CONNECTIONS)
            with pytest.raises(TimedOutError, match="PoolTimeout: all 100 connections are in use") as caught:
                await live.with_options(retry=RetryPolicy(attempt_timeout=0.1, max_attempts=1)).publish("board-42", "x")
            assert caught.value.delivery is Delivery.NOT_SENT
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert server.connections == len(server.received) == CONNECTIONS
            await use_all_connections_async(live, server)

    with calls.watching(), calls.server(times=CONNECTIONS) as server:
        asyncio.run(run())


def test_waiting_for_a_connection_and_connecting_share_a_deadline() -> None:
    """100 calls hang while connecting. The next one gets the place of one of them, and hangs too."""
    calls = Calls("connecting")
    with (
        calls.watching(),
        calls.server() as server,
        RealtimeClient(server.url, retry=RetryPolicy(attempt_timeout=1.6, max_attempts=1)) as client,
        ThreadPoolExecutor(CONNECTIONS) as pool,
    ):
        live = client.for_invocation(INVOCATION)
        hanging = [pool.submit(publish, live) for _ in range(CONNECTIONS)]
        calls.wait(CONNECTIONS)
        began = time.monotonic()
        with pytest.raises(TimedOutError):
            publish(live.with_options(retry=RetryPolicy(attempt_timeout=1.8, deadline=1.8, max_attempts=1)))
        # With a time limit for each of the two, it would be more than 2.6 seconds.
        assert time.monotonic() - began < 2.6
        assert all(isinstance(call.exception(), TimedOutError) for call in hanging)


def test_no_attempt_begins_after_the_deadline(caller: Caller) -> None:
    def dawdle(attempt: object) -> None:
        time.sleep(0.25)

    with FaultServer(then=answer(500)) as server:
        [error] = caller(server.url, publish, retry=RetryPolicy(deadline=0.2, backoff_initial=0, on_attempt=dawdle))
    assert isinstance(error, ForgeRealtimeError)
    assert len(server.received) == 1
