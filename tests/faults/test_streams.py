"""10,000 updates through random faults, and interrupted blocks: readers assemble exactly what was sent."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import random
import sys
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import pytest

from forge_realtime import AsyncRealtimeClient, Quota, RealtimeClient, RetryPolicy, StreamReport
from forge_realtime._core.hidden import Hidden
from forge_realtime._streams.buffer import Buffer, StreamOptions
from tests.faults.matrix import watched_for_leaks
from tests.faults.phases import Interrupts
from tests.faults.test_ten_thousand import PUBLISHING, REFUSING, Chaos, echo, seed
from tests.support.fault_server import FaultServer
from tests.support.streams import Reader

pytestmark = pytest.mark.slow

UPDATES = 10_000
STREAMS = 4
UNLIMITED = Quota(per_second=100_000, burst=1000)
POLICY = RetryPolicy(attempt_timeout=0.5, backoff_initial=0.001, backoff_max=0.002, budget=math.inf)

__all__ = ["seed"]


def weights() -> dict[Any, float]:
    """Weights of all faults but the two that end a stream, because no retry helps."""
    final = list(REFUSING)[-2:]
    passing = {fault: often for fault, often in {**PUBLISHING, **REFUSING}.items() if fault not in final}
    return {**passing, echo: 1000 - sum(passing.values())}


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("merge", ["append", "batch"])
def test_readers_assemble_ten_thousand_updates_through_random_faults(
    kind: Literal["sync", "async"], merge: Literal["append", "batch"], seed: int
) -> None:
    chance = random.Random(seed)
    sent = [chance.choices(["a", "é\n", '"\\', "", "token ", "\u2028"], k=chance.randrange(4)) for _ in range(UPDATES)]
    updates = [f"{number}:{''.join(parts)};" for number, parts in enumerate(sent)]
    streams = [updates[first::STREAMS] for first in range(STREAMS)]
    leaks: list[str] = []
    with watched_for_leaks(leaks), FaultServer(then=Chaos(seed, weights())) as server:
        send = send_in_threads if kind == "sync" else send_in_tasks
        reports = send(server.url, streams, merge)
        for thread in threading.enumerate():
            if thread.name == "forge-realtime-streams":
                thread.join(10)
    assert not leaks

    reader = Reader(json.loads(request.body)["payload"] for request in server.published)
    arrived = []
    for envelopes in reader.envelopes.values():
        assert envelopes[-1]["end"]
        arrived.append("".join("".join(envelope.get("data", "")) for envelope in envelopes))
    assert sorted(arrived) == sorted("".join(updates) for updates in streams)
    for report in reports:
        assert report.updates == report.sent == UPDATES // STREAMS
    publishes = sum(map(len, reader.envelopes.values()))
    assert sum(report.merged for report in reports) == UPDATES - sum(
        "data" in envelope for envelopes in reader.envelopes.values() for envelope in envelopes
    )
    # Some requests did not arrive completely.
    assert publishes < len(server.received) <= sum(report.operations for report in reports)
    # Otherwise the faults were too few to test anything.
    assert publishes > 500
    assert reader.duplicates > 20
    print(f"{kind} {merge}: {publishes} publishes, {len(server.received)} operations, {reader.duplicates} duplicates")


def send_in_threads(url: str, streams: list[list[str]], merge: Any) -> list[StreamReport]:
    def send(updates: Iterable[str]) -> StreamReport:
        with live.stream_global("chat", merge=merge, interval=0, max_bytes=100, max_pending=50, deadline=60) as stream:
            for update in updates:
                stream.send(update)
        return stream.report

    with RealtimeClient(url, retry=POLICY, quota=UNLIMITED) as client, ThreadPoolExecutor(STREAMS) as pool:
        live = client.for_installation("installation-1")
        return list(pool.map(send, streams))


def send_in_tasks(url: str, streams: list[list[str]], merge: Any) -> list[StreamReport]:
    async def run() -> list[StreamReport]:
        async def send(updates: Iterable[str]) -> StreamReport:
            async with live.stream_global(
                "chat", merge=merge, interval=0, max_bytes=100, max_pending=50, overflow="merge", deadline=60
            ) as stream:
                for update in updates:
                    await stream.send(update)
            return stream.report

        async with AsyncRealtimeClient(url, retry=POLICY, quota=UNLIMITED) as client:
            live = client.for_installation("installation-1")
            return await asyncio.gather(*map(send, streams))

    return asyncio.run(run())


@pytest.mark.timeout(60)
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_a_keyboard_interrupt_in_a_block_loses_no_update() -> None:
    interrupted = 0
    taken: dict[str, int] = {}
    with FaultServer(then=echo) as server, RealtimeClient(server.url, quota=UNLIMITED) as client:
        live = client.for_installation("installation-1")
        with Interrupts(0.01) as interrupts:
            for _ in range(300):
                stream = live.stream_global("chat", merge="batch", interval=0, max_pending=5)
                number = 0
                try:
                    with stream:
                        interrupts.inside = True
                        for number in range(100):
                            stream.send(number)
                        stream.flush()
                        interrupts.inside = False
                except KeyboardInterrupt:
                    interrupted += 1
                # The interrupted update may have been taken.
                report = stream.report
                assert report.updates == report.sent
                assert report.pending == 0
                taken[stream._publisher.buffer.stream_id] = report.sent
                assert report.sent in (number, number + 1)
    for worker in threading.enumerate():
        if worker.name == "forge-realtime-streams":
            worker.join(10)
            assert not worker.is_alive()
    assert interrupted > 30
    reader = Reader(json.loads(request.body)["payload"] for request in server.published)
    for id_, sent in taken.items():
        envelopes = reader.envelopes[id_]
        assert envelopes[-1]["end"]
        assert [number for envelope in envelopes for number in envelope.get("data", [])] == list(range(sent))


@pytest.mark.parametrize("overflow", ["merge", "drop_oldest"])
@pytest.mark.parametrize("merge", ["batch", "latest", "reduce"])
def test_an_interrupt_at_any_line_of_offer_loses_no_update(merge: str, overflow: Any) -> None:
    """The test above interrupts by chance; this one interrupts at each line."""
    how: Any = (lambda one, other: one + other) if merge == "reduce" else merge
    options = StreamOptions(merge=how, interval=0.0, max_bytes=10, max_pending=3, overflow=overflow, deadline=1.0)
    trace, line = sys.gettrace(), 0
    for line in itertools.count():
        buffer = Buffer(options)
        buffer.open(bool)
        for number in range(3):
            buffer.offer(buffer.encode(Hidden([number])))
        update = buffer.encode(Hidden([3]))
        left = [line]

        def interrupt(frame: Any, event: str, _: object, left: list[int] = left) -> Any:
            if frame.f_globals["__name__"] == "forge_realtime._streams.buffer" and event == "line":
                if not left[0]:
                    sys.settrace(None)
                    raise KeyboardInterrupt
                left[0] -= 1
            return interrupt

        interrupted = False
        sys.settrace(interrupt)
        try:
            buffer.offer(update)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            sys.settrace(trace)
        report = buffer.report
        arrived: list[int] = []
        while not buffer.is_empty:
            envelope = json.loads(buffer.take(ending=None, now=0.0).payload)
            arrived += (
                envelope["data"]
                if merge == "reduce"
                else itertools.chain(*envelope["data"])
                if merge == "batch"
                else envelope["data"]
            )
        assert report.updates in ((3, 4) if interrupted else (4,))
        sent = list(range(report.updates))
        assert arrived == (sent[-1:] if merge == "latest" else sent[report.dropped :])
        if not interrupted:
            break
    assert line > 5
