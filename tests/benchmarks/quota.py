"""The quota as it grows: installations through a store at some distance, calls that wait, and memory.

Each result is compared with the same work in its simplest form: in process, or with few calls. Pairs alternate.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import httpx

from forge_realtime import AsyncRealtimeClient, Quota, RetryPolicy
from forge_realtime._quota import limiter as _quota
from forge_realtime.redis import RedisStore
from tests.benchmarks.costs import pair_row
from tests.support.redis_server import RedisProxy, RedisServer

INSTALLATIONS = (10, 200, 1000)
ROUND_TRIPS = (0.0, 0.001, 0.020)
WAITING = (100, 1000, 10_000)
# Operations per second: of one of many installations, and of one with a raised limit.
_SLOW, _FAST = 5.0, 500.0
_PATIENT = RetryPolicy(deadline=600.0, attempt_timeout=60.0)


def quota(few: bool) -> Iterator[dict[str, Any]]:
    """Yield rows. `few` makes fewer pairs and leaves out the largest."""
    pairs = 2 if few else 5
    with RedisServer() as server:
        for installations in INSTALLATIONS[:-1] if few else INSTALLATIONS:
            for round_trip in ROUND_TRIPS:
                yield pair_row(
                    "quota, operations",
                    f"{installations} installations, Redis at {round_trip * 1000:g} ms",
                    "per second",
                    "in process",
                    [
                        [
                            _in_a_process("installations", installations, server.port, round_trip),
                            _in_a_process("installations", installations, 0, 0),
                        ]
                        for _ in range(pairs)
                    ],
                )
        for where, port in (("in process", 0), ("Redis", server.port)):
            for waiting in WAITING[1:]:
                both = [
                    [_in_a_process("waiting", number, port, 0) for number in (waiting, WAITING[0])]
                    for _ in range(pairs)
                ]
                name, reference = f"{waiting:,} waiting, {where}", f"{WAITING[0]} waiting"
                for place, what, unit in ((0, "quota, processor time of a call", "µs"), (1, "quota, rate used", "")):
                    values = [[mine[place], theirs[place]] for mine, theirs in both]
                    yield pair_row(what, name, unit, reference, values)


def _in_a_process(what: str, number: int, port: int, round_trip: float) -> Any:
    server = RedisServer()
    server.port = port
    with RedisProxy(server) as proxy:
        proxy.delay = round_trip
        url = proxy.url if round_trip else server.url if port else ""
        command = [sys.executable, "-m", "tests.benchmarks.quota", what, str(number), url]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def _client(store: RedisStore | None, per_second: float) -> AsyncRealtimeClient:
    accepted = httpx.Response(200, json={"eventId": "event-1", "eventTimestamp": "0"})
    transport = httpx.MockTransport(lambda _: accepted)
    quota = Quota(per_second=per_second, store=store)
    return AsyncRealtimeClient("http://platform.test", transport=transport, quota=quota, retry=_PATIENT)


async def _operations_of(installations: int, store: RedisStore | None) -> float:
    """Return the operations per second when each installation always has calls that wait."""
    count = 0

    async def publish(live: AsyncRealtimeClient) -> None:
        nonlocal count
        while True:
            await live.publish_global("c", "p")
            count += 1

    async with _client(store, _SLOW) as client:
        lives = [client.for_installation(f"i-{number}") for number in range(installations)]
        tasks = [asyncio.create_task(publish(live)) for live in lives for _ in range(3)]
        # The first ones need no wait in process.
        await asyncio.sleep(3)
        began, before = time.perf_counter(), count
        await asyncio.sleep(5)
        found = (count - before) / (time.perf_counter() - began)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return found


async def _cost_of(waiting: int, store: RedisStore | None) -> tuple[float, float]:
    """Return the microseconds of processor time for each call, and the part of the rate that they used."""
    times: list[float] = []

    async def publish() -> None:
        await live.publish_global("c", "p")
        times.append(time.perf_counter())

    async with _client(store, _FAST) as client:
        live = client.for_installation("i")
        for _ in range(10):
            await live.publish_global("c", "p")
        # At least a second, so that few calls are measured as exactly as many.
        rounds = max(1, round(1000 / waiting))
        cpu = time.process_time()
        began = time.perf_counter()
        for _ in range(rounds):
            await asyncio.gather(*[publish() for _ in range(waiting)])
        cpu = time.process_time() - cpu
    return cpu / len(times) * 1e6, len(times) / (times[-1] - began) / _FAST


def memory_of(installations: int, store: RedisStore | None) -> float:
    """Return the bytes that the quota of one installation holds."""
    tracemalloc.start()
    _quota._state.reset_after_fork()
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(installations):
        _quota._state.bucket(Quota(store=store), "http://platform.test", f"{number:036}")
    gc.collect()
    found = (tracemalloc.get_traced_memory()[0] - before) / installations
    tracemalloc.stop()
    return found


def main() -> None:
    """Measure one thing in this process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["installations", "waiting"])
    parser.add_argument("number", type=int)
    parser.add_argument("url")
    options = parser.parse_args()
    store = RedisStore(options.url, replicas=1) if options.url else None
    run = _operations_of if options.what == "installations" else _cost_of
    print(json.dumps(asyncio.run(run(options.number, store))))


if __name__ == "__main__":
    main()
