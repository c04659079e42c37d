"""A process of the soak: python -m tests.faults.soak_worker KIND PLAIN_URL STREAM_URL REDIS_URL|- SEED END.

It works in batches until END (of `time.monotonic()`, in seconds), and prints what it was told about each event of a
batch, as one line of JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import math
import os
import random
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from attrs import evolve

from forge_realtime import AsyncRealtimeClient, ForgeRealtimeError, Quota, RealtimeClient, RetryPolicy, StreamError
from tests.support.callers import INVOCATION, async_client

EVENTS = 600
THREADS = 16
TASKS = 64
STREAMS = 6
UPDATES = 300
QUOTA_EVENTS = 20
FORK_SECONDS = 30
POLICY = RetryPolicy(attempt_timeout=0.5, deadline=3, backoff_initial=0.001, backoff_max=0.01, budget=math.inf)
STREAM_POLICY = RetryPolicy(attempt_timeout=0.5, backoff_initial=0.001, backoff_max=0.05, budget=math.inf)
STREAM_OPTIONS: dict[str, Any] = {"merge": "append", "interval": 0, "max_bytes": 300, "deadline": 30}


class Interrupted(BaseException):
    """Raised by the signal handler at a random moment."""


@contextmanager
def interrupted_at_random(chance: random.Random, most: float) -> Iterator[None]:
    def handle(number: int, frame: object) -> NoReturn:
        raise Interrupted

    signal.signal(signal.SIGALRM, handle)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-5, most))
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except Interrupted:
        signal.setitimer(signal.ITIMER_REAL, 0)
        raise


def told(call: Callable[[], object]) -> str:
    """Return what the client says about the event of a call."""
    try:
        call()
    except ForgeRealtimeError as error:
        return error.delivery.value
    except Exception as error:  # noqa: BLE001  # The soak looks for them.
        return f"not ours: {error!r}"
    return "accepted"


class Worker:
    """What all kinds have in common: the names of events, the clients' settings, and the report of a batch."""

    def __init__(self, kind: str, plain: str, streams: str, redis: str, seed: str, end: str) -> None:
        self.kind, self.plain, self.streams = kind, plain, streams
        self.end = float(end)
        self.chance = random.Random(f"{seed} {kind}")
        self.quota = Quota(per_second=1000, burst=100)
        if redis != "-":
            from forge_realtime.redis import RedisStore

            self.quota = Quota(per_second=40, store=RedisStore(redis, replicas=5))
        self.events: dict[str, str] = {}
        self.sent: list[dict[str, object]] = []
        self._number = 0
        self._batch = 0

    def name(self, prefix: str) -> str:
        self._number += 1
        return f"{prefix}-{self.kind}-{os.getpid()}-{self._number}"

    def goes_on(self) -> bool:
        return time.monotonic() < self.end

    def report(self) -> None:
        """Print what became of this batch, and what the process holds."""
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self._batch += 1
        line = {
            "kind": self.kind,
            "batch": self._batch,
            "events": self.events,
            "streams": self.sent,
            "memory": pages * os.sysconf("SC_PAGE_SIZE"),
            "files": len(list(Path("/proc/self/fd").iterdir())),
            "threads": threading.active_count(),
        }
        print(json.dumps(line), flush=True)
        self.events, self.sent = {}, []

    def streamed(self, stream: Any, offered: int, outcome: str) -> None:
        report = stream.report
        self.sent.append(
            {
                "stream": stream._publisher.buffer.stream_id,
                "offered": offered,
                "outcome": outcome,
                **{name: getattr(report, name) for name in ("updates", "sent", "dropped", "rejected", "unknown")},
            }
        )


def policies() -> dict[str, RetryPolicy]:
    return {"least": POLICY, "most": evolve(POLICY, delivery="at_most_once")}


class Threads(Worker):
    """Publishes from threads, from the interrupted main thread, and from forks beside busy threads."""

    def run(self) -> None:
        with RealtimeClient(self.plain, retry=POLICY) as client, ThreadPoolExecutor(THREADS) as pool:
            lives = {name: client.with_options(retry=policy) for name, policy in policies().items()}
            limited = client.with_options(quota=self.quota).for_installation("installation-1")
            invoked = {name: live.for_invocation(INVOCATION) for name, live in lives.items()}
            while self.goes_on():
                names = [self.name(self.chance.choice(["least", "most"])) for _ in range(EVENTS)]
                calls = {
                    name: pool.submit(told, partial(invoked[name.partition("-")[0]].publish, "c", name))
                    for name in names
                }
                for name in [self.name("quota") for _ in range(QUOTA_EVENTS)]:
                    calls[name] = pool.submit(told, partial(limited.publish_global, "c", name))
                for _ in range(EVENTS // 10):
                    name = self.name("least")
                    self.events[name] = self._interrupted(invoked["least"], name)
                self._fork(invoked["most"])
                self.events |= {name: call.result() for name, call in calls.items()}
                self.report()

    def _interrupted(self, live: RealtimeClient, name: str) -> str:
        try:
            with interrupted_at_random(self.chance, 0.005):
                return told(partial(live.publish, "c", name))
        except Interrupted:
            return "interrupted"

    def _fork(self, live: RealtimeClient) -> None:
        names = [self.name("most") for _ in range(3)]
        receiver, sender = os.pipe()
        child = os.fork()
        if child == 0:
            outcomes = {name: told(partial(live.publish, "c", name)) for name in names}
            os.write(sender, json.dumps(outcomes).encode())
            os._exit(0)
        os.close(sender)
        readable, _, _ = select.select([receiver], [], [], FORK_SECONDS)
        if not readable:
            os.kill(child, signal.SIGKILL)
        text = os.read(receiver, 65536)
        os.close(receiver)
        os.waitpid(child, 0)
        self.events |= json.loads(text) if text else dict.fromkeys(names, "a fork hangs or died")


class Tasks(Worker):
    """Publishes from tasks, some of which are cancelled."""

    def run(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        async with async_client("aiohttp" if self.kind == "aiohttp" else "async", self.plain, retry=POLICY) as client:
            lives = {name: client.with_options(retry=policy) for name, policy in policies().items()}
            invoked = {name: live.for_invocation(INVOCATION) for name, live in lives.items()}
            limited = client.with_options(quota=self.quota).for_installation("installation-1")
            free = asyncio.Semaphore(TASKS)
            while self.goes_on():
                names = [self.name(self.chance.choice(["least", "most"])) for _ in range(EVENTS)]
                names += [self.name("quota") for _ in range(QUOTA_EVENTS)]
                await asyncio.gather(*(self._publish(invoked, limited, name, free) for name in names))
                self.report()

    async def _publish(
        self, invoked: dict[str, AsyncRealtimeClient], limited: AsyncRealtimeClient, name: str, free: asyncio.Semaphore
    ) -> None:
        kind = name.partition("-")[0]
        live = limited if kind == "quota" else invoked[kind]
        async with free:
            call = asyncio.create_task(self._told(live, name))
            if self.chance.random() < 0.1:
                await asyncio.wait([call], timeout=self.chance.uniform(0, 0.02))
                call.cancel()
            try:
                self.events[name] = await call
            except asyncio.CancelledError:
                self.events[name] = "cancelled"

    async def _told(self, live: AsyncRealtimeClient, name: str) -> str:
        try:
            await (live.publish_global if name.startswith("quota") else live.publish)("c", name)
        except ForgeRealtimeError as error:
            return error.delivery.value
        except Exception as error:  # noqa: BLE001  # The soak looks for them.
            return f"not ours: {error!r}"
        return "accepted"


class Streams(Worker):
    """Streams numbers from threads. The block of the main thread is interrupted."""

    def run(self) -> None:
        quota = Quota(per_second=1000, burst=100)
        with (
            RealtimeClient(self.streams, retry=STREAM_POLICY, quota=quota) as client,
            ThreadPoolExecutor(STREAMS) as pool,
        ):
            live = client.for_installation("installation-2")
            while self.goes_on():
                calls = [pool.submit(self._stream, live) for _ in range(STREAMS)]
                self._interrupted(live)
                for call in calls:
                    call.result()
                self.report()

    def _stream(self, live: RealtimeClient) -> None:
        stream = live.stream_global("c", **STREAM_OPTIONS)
        try:
            with stream:
                for number in range(UPDATES):
                    stream.send(f"{number};")
        except StreamError as error:
            self.streamed(stream, UPDATES, error.delivery.value)
        else:
            self.streamed(stream, UPDATES, "complete")

    def _interrupted(self, live: RealtimeClient) -> None:
        stream = live.stream_global("c", **STREAM_OPTIONS)
        number = 0
        try:
            with stream, interrupted_at_random(self.chance, 0.02):
                for number in range(UPDATES):
                    stream.send(f"{number};")
        except Interrupted:
            # Whether the update at hand was taken is not known.
            self.streamed(stream, number, "interrupted")
        except StreamError as error:
            self.streamed(stream, UPDATES, error.delivery.value)
        else:
            self.streamed(stream, UPDATES, "complete")


class AsyncStreams(Worker):
    """Streams numbers from tasks, one of which is cancelled."""

    def run(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        quota = Quota(per_second=1000, burst=100)
        async with AsyncRealtimeClient(self.streams, retry=STREAM_POLICY, quota=quota) as client:
            live = client.for_installation("installation-3")
            while self.goes_on():
                tasks = [asyncio.create_task(self._stream(live)) for _ in range(STREAMS)]
                await asyncio.wait(tasks, timeout=self.chance.uniform(0, 0.2))
                tasks[0].cancel()
                await asyncio.gather(*tasks)
                self.report()

    async def _stream(self, live: AsyncRealtimeClient) -> None:
        stream = live.stream_global("c", **STREAM_OPTIONS)
        number = 0
        try:
            async with stream:
                for number in range(UPDATES):
                    await stream.send(f"{number};")
        except asyncio.CancelledError:
            self.streamed(stream, number, "interrupted")
        except StreamError as error:
            self.streamed(stream, UPDATES, error.delivery.value)
        else:
            self.streamed(stream, UPDATES, "complete")


KINDS: dict[str, type[Threads | Tasks | Streams | AsyncStreams]] = {
    "sync": Threads,
    "async": Tasks,
    "aiohttp": Tasks,
    "streams": Streams,
    "async streams": AsyncStreams,
}

if __name__ == "__main__":
    KINDS[sys.argv[1]](*sys.argv[1:]).run()
