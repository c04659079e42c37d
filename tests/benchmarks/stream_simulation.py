"""Streams of more users and replicas than a machine carries, in virtual time.

Everything that takes time is simulated: the clock, the network (5 ms there and back), and the Redis server (in memory,
0.5 ms). All else is the real code. All replicas are in one process, each with its own client and
bucket. The emulator's limit refuses calls.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator
from typing import Any, Literal

import httpx

from forge_realtime import AsyncRealtimeClient, Quota
from forge_realtime._quota import limiter as _quota
from forge_realtime.redis import _HORIZON, RedisStore, _Reserver, _Server, _SharedBucket
from forge_realtime_emulator._platform.limit import Limit
from tests.support.rates import most_in_a_second
from tests.support.streams import run_virtually

LIMIT = 50
_NETWORK, _REDIS = 0.005, 0.0005
_PER_SECOND = 100.0

Simulated = dict[str, Any]


def simulate(quick: bool) -> list[Simulated]:
    """More users, and then more replicas."""
    seconds = 3.0 if quick else 20.0
    cases = [(4, users) for users in (5, 10, 20, 50, 100)] + [(replicas, 40) for replicas in (1, 2, 4, 8, 16, 32)]
    if quick:
        cases = [(4, 5), (4, 20), (1, 40), (8, 40)]
    return [
        simulated(kind, replicas, users, seconds)
        for kind in ("shared", "own")
        for replicas, users in dict.fromkeys(cases)
    ]


def simulated(
    kind: Literal["shared", "own"], replicas: int, users: int, seconds: float, busy: int | None = None
) -> Simulated:
    """One case; as the real run, but for the sockets. `busy`: how many of the replicas have users; all, by default."""
    platform = _Platform()
    count = round(seconds * _PER_SECOND)

    async def run() -> None:
        last: dict[str, float] = {}
        async with asyncio.TaskGroup() as group:
            for replica in range(busy or replicas):
                store = _VirtualStore(replicas, last) if kind == "shared" else None
                group.create_task(_replica(platform, replica, store, range(replica, users, busy or replicas), count))

    # Simulated time begins anew.
    _quota._state.reset_after_fork()
    run_virtually(run())
    _quota._state.reset_after_fork()
    waits = sorted(platform.waits)
    return {
        "kind": kind,
        "replicas": replicas,
        "users": users,
        "arrived": len(waits) / (users * count),
        "operations": len(platform.times),
        "refused": platform.refused,
        "most in a second": most_in_a_second(platform.times),
        "merged": len(waits) / max(1, len(platform.times) - platform.refused),
        "median": waits[len(waits) // 2],
        "p99": waits[math.floor(0.99 * len(waits))],
    }


class _Platform:
    """Counts, and shows each text at once."""

    def __init__(self) -> None:
        self._limit = Limit(1.0)
        self.times: list[float] = []
        self.refused = 0
        self.waits: list[float] = []
        # When the tokens were sent that were not shown yet.
        self.due: dict[str, list[float]] = {}

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(_NETWORK / 2)
        if request.url.path.endswith("/context"):
            return httpx.Response(200, json={"app": {"installationId": "installation-1"}})
        self.times.append(loop.time())
        if not self._limit.count("installation-1", loop.time(), LIMIT):
            self.refused += 1
            await asyncio.sleep(_NETWORK / 2)
            return httpx.Response(429, json={"code": "RATE_LIMIT_EXCEEDED"})
        body = json.loads(request.content)
        due = self.due[body["name"]]
        # Each token is one letter.
        shown = len(json.loads(body["payload"]).get("data", ""))
        self.waits += [loop.time() + _NETWORK / 2 - at for at in due[:shown]]
        del due[:shown]
        await asyncio.sleep(_NETWORK / 2)
        return httpx.Response(200, json={"eventId": "event-1", "eventTimestamp": "0"})


class _VirtualServer(_Server):
    """A Redis server, in memory, that does what the script does. Its clock is the local one."""

    def __init__(self, replicas: int, last: dict[str, float]) -> None:
        super().__init__(RedisStore("redis://simulated", replicas=replicas))
        self._replicas = replicas
        self._last = last

    def reserve(self, wanted: list[tuple[str, float, int, int]]) -> list[tuple[int, float, float]]:
        now = asyncio.get_running_loop().time()
        replies = []
        for key, rate, permits, held in wanted:
            share = max(0, math.ceil(rate * _HORIZON / self._replicas) - held)
            first = free = max(now, self._last.get(key, -math.inf) + 1 / rate)
            granted = 0
            while granted < permits and free <= now + _HORIZON:
                if free > now + _HORIZON / 2:
                    if share <= 0:
                        break
                    share -= 1
                granted += 1
                self._last[key] = free
                free += 1 / rate
            replies.append((granted, first - now, free - now))
        return replies


class _VirtualStore:
    """The store of one replica."""

    def __init__(self, replicas: int, last: dict[str, float]) -> None:
        self._replicas = replicas
        self._reserver = _VirtualReserver(replicas, last)

    def new_bucket(self, per_second: float, installation: str | None, now: float) -> _SharedBucket:
        assert installation is not None
        return _SharedBucket(installation, per_second, self._replicas, self._reserver, now)


class _VirtualReserver(_Reserver):
    """Reserves permits when the thread would."""

    def __init__(self, replicas: int, last: dict[str, float]) -> None:
        super().__init__(RedisStore("redis://simulated", replicas=replicas))
        self._server = _VirtualServer(replicas, last)

    def request(self, bucket: _SharedBucket) -> None:
        if not bucket.asked:
            bucket.asked = True
            self._request_later(bucket, max(bucket.ask_at, asyncio.get_running_loop().time()))

    def _request_later(self, bucket: _SharedBucket, due: float) -> None:
        asyncio.get_running_loop().call_at(due + _REDIS, self._reserve, [bucket])


async def _replica(platform: _Platform, number: int, store: _VirtualStore | None, users: range, count: int) -> None:
    # An address of its own: what a process knows of an installation is kept by address.
    client = AsyncRealtimeClient(
        f"http://replica-{number}.test", transport=httpx.MockTransport(platform), quota=Quota(store=store)
    )
    async with client, asyncio.TaskGroup() as group:
        for user in users:
            live = client.for_invocation({"x-forge-invocation-id": f"invocation-{user}"})
            group.create_task(_answer(platform, live, f"answer-{user}", count))


async def _answer(platform: _Platform, live: AsyncRealtimeClient, channel: str, count: int) -> None:
    loop = asyncio.get_running_loop()
    due = platform.due[channel] = []
    begin = loop.time()
    async with live.stream(channel) as stream:
        for number in range(count):
            if (wait := begin + number / _PER_SECOND - loop.time()) > 0:
                await asyncio.sleep(wait)
            due.append(loop.time())
            await stream.send("x")


def points(rows: list[Simulated], kind: str, over: str, **fixed: int) -> Iterator[tuple[float, float]]:
    """Of the cases of a kind: the median wait over the number of `users` or `replicas`."""
    for row in rows:
        if row["kind"] == kind and all(row[name] == value for name, value in fixed.items()):
            yield row[over], row["median"]
