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
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import httpx

from forge_realtime import AsyncRealtimeClient, Quota, RetryPolicy
from forge_realtime._quota import limiter as _quota
from forge_realtime.redis import RedisStore
from tests.benchmarks.costs import pair_row
from tests.support.redis_server import RedisProxy, RedisServer

INSTALLATIONS = (10, 200, 1000)
ROUND_TRIPS = (0.0, 0.001, 0.020)
WAITING = (100, 1_000, 4_000, 10_000)
MANY = 2_000
"""Installations of which the memory is measured."""
CPU_OF_A_CALL, RATE_USED, MEMORY = "quota, processor time of a call", "quota, rate used", "quota, memory"
STORES = ("in process", "Redis")
# Operations per second: of one of many installations, and of one with a raised limit.
_SLOW, _FAST = 5.0, 500.0
# As much time as the defaults have to catch up after the process was late: 1/8 s. A store has its own measure.
_FAST_BURST = 62
# With this rate, a bucket is idle 10 seconds after an operation.
_SLOWEST = 0.1
_PATIENT = RetryPolicy(deadline=600.0, attempt_timeout=60.0)


def quota(few: bool) -> Iterator[dict[str, Any]]:
    """Yield rows. `few` makes fewer pairs and leaves out the largest."""
    pairs = 2 if few else 3
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
                        for _ in range(2)
                    ],
                )
        for where, port in zip(STORES, (0, server.port), strict=True):
            for waiting in WAITING[1:]:
                both = [_pair_of(waiting, port, first=bool(number % 2)) for number in range(pairs)]
                name, reference = f"{waiting:,} waiting, {where}", f"{WAITING[0]} waiting"
                for place, what, unit in ((0, CPU_OF_A_CALL, "µs"), (1, RATE_USED, "")):
                    values = [[mine[place], theirs[place]] for mine, theirs in both]
                    yield pair_row(what, name, unit, reference, values)
            held, left = _in_a_process("memory", MANY, port, 0)
            for when, value in (("", held), (", 10 s after its last operation", left)):
                name = f"{MANY:,} installations, {where}, each{when}"
                yield {"group": MEMORY, "name": name, "unit": "KiB", "values": [value / 1024]}


def _pair_of(waiting: int, port: int, *, first: bool) -> list[list[float]]:
    """Measure so many calls that wait and the fewest, in this order or the other one."""
    both = [_in_a_process("waiting", number, port, 0) for number in ((waiting, WAITING[0])[:: 1 if first else -1])]
    return both if first else both[::-1]


def _in_a_process(what: str, number: int, port: int, round_trip: float) -> Any:
    server = RedisServer()
    server.port = port
    with RedisProxy(server) as proxy:
        proxy.delay = round_trip
        url = proxy.url if round_trip else server.url if port else ""
        command = [sys.executable, "-m", "tests.benchmarks.quota", what, str(number), url]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def _client(store: RedisStore | None, per_second: float, burst: int = 5) -> AsyncRealtimeClient:
    accepted = httpx.Response(200, json={"eventId": "event-1", "eventTimestamp": "0"})
    transport = httpx.MockTransport(lambda _: accepted)
    quota = Quota(per_second=per_second, store=store, burst=burst)
    return AsyncRealtimeClient("http://platform.test", transport=transport, quota=quota, retry=_PATIENT)


async def _operations_of(installations: int, store: RedisStore | None) -> float:
    """Return the operations per second when each installation always has calls that wait."""
    async with _client(store, _SLOW) as client:
        lives = [client.for_installation(f"i-{number}") for number in range(installations)]
        # The first ones need no wait in process.
        return (await _rate_of([live for live in lives for _ in range(3)], settle=3.0))[0]


async def _cost_of(waiting: int, store: RedisStore | None) -> tuple[float, float]:
    """Return the microseconds of processor time for each call, and the part of the rate that they used."""
    async with _client(store, _FAST, 5 if store else _FAST_BURST) as client:
        per_second, cpu = await _rate_of([client.for_installation("i")] * waiting, settle=1.0)
    return cpu * 1e6, per_second / _FAST


async def _rate_of(lives: list[AsyncRealtimeClient], settle: float) -> tuple[float, float]:
    """Publish with each client again and again; return the calls per second, and the CPU seconds of a call.

    They are measured `settle` seconds after all calls have begun, which takes a while and lets a burst accumulate.
    """
    count = 0

    async def publish(live: AsyncRealtimeClient) -> None:
        nonlocal count
        while True:
            await live.publish_global("c", "p")
            count += 1

    tasks = [asyncio.create_task(publish(live)) for live in lives]
    await asyncio.sleep(0)
    await asyncio.sleep(settle)
    began, cpu, before = time.perf_counter(), time.process_time(), count
    await asyncio.sleep(5)
    cpu = (time.process_time() - cpu) / (count - before)
    per_second = (count - before) / (time.perf_counter() - began)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return per_second, cpu


async def _memory_of(installations: int, store: RedisStore | None) -> tuple[float, float]:
    """Return the bytes that the quota holds for each installation: right after a call of each, and when all are idle.

    Raises:
        RuntimeError: The quota does not hold all installations, so that the bytes mean nothing.
    """

    async def publish(number: int) -> None:
        await client.for_installation(f"{number:036}").publish_global("c", "p")

    def held() -> float:
        gc.collect()
        return (tracemalloc.get_traced_memory()[0] - before) / installations

    async with _client(store, _SLOWEST) as client:
        await publish(0)
        tracemalloc.start()
        before = 0
        before = round(held() * installations)
        await asyncio.gather(*(publish(number) for number in range(1, installations + 1)))
        busy = held()
        if (found := len(_quota._state._buckets)) <= installations:
            raise RuntimeError(f"The quota holds {found} installations instead of {installations + 1}.")
        await asyncio.sleep(1 / _SLOWEST + 1)
        await publish(0)
        return busy, held()


def main() -> None:
    """Measure one thing in this process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["installations", "waiting", "memory"])
    parser.add_argument("number", type=int)
    parser.add_argument("url")
    options = parser.parse_args()
    store = RedisStore(options.url, replicas=1) if options.url else None
    run: dict[str, Callable[[int, RedisStore | None], Coroutine[Any, Any, Any]]] = {
        "installations": _operations_of,
        "waiting": _cost_of,
        "memory": _memory_of,
    }
    print(json.dumps(asyncio.run(run[options.what](options.number, store))))


if __name__ == "__main__":
    main()
