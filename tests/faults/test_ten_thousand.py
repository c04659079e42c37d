"""Thousands of publishes through random faults. The server's record shows whether the client told the truth."""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import pytest

from forge_realtime import Delivery, ForgeRealtimeError, PublishResult, RealtimeClient, RetryPolicy
from tests.faults.matrix import watched_for_leaks
from tests.support.callers import INVOCATION, KINDS, AsyncKind, Kind, async_client
from tests.support.fault_server import (
    Behaviour,
    Connection,
    FaultServer,
    answer,
    close_after,
    close_unread,
    garbage,
    http,
    raw,
    reset_after,
    reset_in_answer,
    reset_in_headers,
    stall,
    truncated,
)

pytestmark = pytest.mark.slow

EVENTS = 2_000
"""Number of events of each client under each policy: 12,000 in all."""
AT_ONCE = 24


def echo(connection: Connection) -> bool:
    """Publish, and respond with the event's own id."""
    connection.send(http(200, json.dumps({"eventId": event_id(connection.read().body)}).encode()))
    return True


# How often each occurs in 1,000 requests.
PUBLISHING: dict[Behaviour, float] = {
    reset_after: 15,
    close_after: 15,
    reset_in_answer: 10,
    truncated: 10,
    garbage: 10,
    answer(500): 20,
    answer(502, b"<html>"): 10,
    answer(503): 10,
    answer(504): 10,
    answer(200, b"<html>"): 10,
    answer(200): 10,
    answer(200, b"x", {"Content-Encoding": "gzip"}): 5,
    raw(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"eve\r\nzz'): 5,
    stall: 0.5,
}
REFUSING: dict[Behaviour, float] = {
    reset_in_headers: 15,
    close_unread: 15,
    answer(429, publishes=False): 15,
    answer(429, headers={"Retry-After": "0.001"}, publishes=False): 10,
    answer(503, headers={"Retry-After": "0"}, publishes=False): 15,
    answer(400, publishes=False): 15,
    answer(200, {"errors": [{"code": "TOKEN_EXPIRED"}]}, publishes=False): 10,
}
WEIGHTS = {**PUBLISHING, **REFUSING}
WEIGHTS[echo] = 1000 - sum(WEIGHTS.values())


class Chaos:
    """Runs a random behaviour for each request, and sometimes resets the connection before one."""

    on_accept = True

    def __init__(self, seed: int, weights: dict[Behaviour, float] = WEIGHTS) -> None:
        self._weights = weights
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    def __call__(self, connection: Connection) -> bool:
        with self._lock:
            reset = self._random.random() < 0.02
            [behaviour] = self._random.choices(list(self._weights), list(self._weights.values()))
        if reset:
            connection.reset()
            return False
        return connection.wait_for_request() and behaviour(connection)


@pytest.fixture
def seed() -> int:
    """The seed of the faults. pytest shows it when a test fails; FAULT_SEED repeats them."""
    seed = int(os.environ.get("FAULT_SEED") or random.SystemRandom().randrange(2**32))
    print(f"FAULT_SEED={seed}")
    return seed


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("delivery", ["at_least_once", "at_most_once"])
def test_ten_thousand(kind: Kind, delivery: Literal["at_least_once", "at_most_once"], seed: int) -> None:
    policy = RetryPolicy(
        delivery=delivery, attempt_timeout=0.5, backoff_initial=0.001, backoff_max=0.002, budget=math.inf
    )
    events = [f"event-{number}" for number in range(EVENTS)]
    leaks: list[str] = []
    with watched_for_leaks(leaks), FaultServer(then=Chaos(seed)) as server:
        if kind == "sync":
            came_of = publish_in_threads(server.url, events, policy)
        else:
            came_of = publish_in_tasks(kind, server.url, events, policy)
        outcomes = dict(zip(events, came_of, strict=True))
    assert not leaks

    record = Counter(event_id(received.body) for received in server.published)
    returned = {event for event, outcome in outcomes.items() if isinstance(outcome, PublishResult)}
    raised = {event: outcome.delivery for event, outcome in outcomes.items() if isinstance(outcome, ForgeRealtimeError)}

    # No event is lost or counted twice, and each got its own response.
    counts = Counter(raised.values())
    assert len(returned) + counts[Delivery.NOT_SENT] + counts[Delivery.REJECTED] + counts[Delivery.UNKNOWN] == len(
        events
    )
    assert record.keys() <= outcomes.keys()
    assert [event for event in returned if outcomes[event].event_id != event] == []

    assert [event for event in returned if not record[event]] == []
    refused = [event for event, delivery in raised.items() if delivery is not Delivery.UNKNOWN]
    assert [event for event in refused if record[event]] == []
    twice = [event for event, times in record.items() if times > 1]
    unknown = [event for event, delivery in raised.items() if delivery is Delivery.UNKNOWN]
    if delivery == "at_most_once":
        assert twice == []
        # Some unknown events arrived, some did not.
        assert {bool(record[event]) for event in unknown} == {False, True}
    else:
        # Otherwise the test would prove nothing.
        assert twice
        assert len(unknown) < len(events) / 20
    print(f"{kind} {delivery}: {len(returned)} returned, {dict(counts)}, {len(twice)} published twice")


def publish_in_threads(url: str, events: list[str], policy: RetryPolicy) -> list[Any]:
    with RealtimeClient(url, retry=policy) as client, ThreadPoolExecutor(AT_ONCE) as pool:
        live = client.for_invocation(INVOCATION)

        def publish(event: str) -> Any:
            try:
                return live.publish("board-42", event)
            except ForgeRealtimeError as error:
                return error

        return list(pool.map(publish, events))


def publish_in_tasks(kind: AsyncKind, url: str, events: list[str], policy: RetryPolicy) -> list[Any]:
    async def run() -> list[Any]:
        async with async_client(kind, url, retry=policy) as client:
            live = client.for_invocation(INVOCATION)
            free = asyncio.Semaphore(AT_ONCE)

            async def publish(event: str) -> Any:
                async with free:
                    try:
                        return await live.publish("board-42", event)
                    except ForgeRealtimeError as error:
                        return error

            return await asyncio.gather(*map(publish, events))

    return asyncio.run(run())


def event_id(body: bytes) -> str:
    return str(json.loads(body)["payload"])
