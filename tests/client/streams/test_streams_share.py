"""Streams that share a quota with plain calls, or an httpx client of the user; and overflow on the wire."""

from __future__ import annotations

import asyncio
import json
import statistics
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from forge_realtime import (
    AsyncRealtimeClient,
    Quota,
    RealtimeClient,
    RetryPolicy,
    StreamFullError,
    StreamReport,
)
from forge_realtime_emulator import Emulator
from tests.support.fault_server import FaultServer, Held
from tests.support.rates import most_in_a_second
from tests.support.streams import Reader

pytestmark = pytest.mark.slow

PATIENT = RetryPolicy(attempt_timeout=30.0, deadline=60.0)
UNLIMITED = Quota(per_second=100_000, burst=1000)
# Below the limit of 50, because a busy machine delays requests into the next second.
CAUTIOUS = Quota(per_second=35, burst=1)
STREAMS = 20


def stream_in_threads(emulator: Emulator, plain: Callable[[Callable[[], object]], None]) -> list[StreamReport]:
    def stream(number: int) -> StreamReport:
        with live.stream_global("chat", deadline=60) as stream:
            while not enough.is_set():
                for token in range(20):
                    stream.send(f"{number}:{token} ")
                enough.wait(0.01)
        return stream.report

    enough = threading.Event()
    with RealtimeClient(emulator.url, retry=PATIENT, quota=CAUTIOUS) as client, ThreadPoolExecutor(STREAMS) as pool:
        live = client.for_installation("installation-1")
        reports = [pool.submit(stream, number) for number in range(STREAMS)]
        try:
            plain(lambda: live.publish_global("plain", "p"))
        finally:
            enough.set()
        return [report.result() for report in reports]


def stream_in_tasks(emulator: Emulator, plain: Callable[[Callable[[], object]], None]) -> list[StreamReport]:
    async def stream(live: AsyncRealtimeClient, number: int, enough: asyncio.Event) -> StreamReport:
        async with live.stream_global("chat", deadline=60) as stream:
            while not enough.is_set():
                for token in range(20):
                    await stream.send(f"{number}:{token} ")
                await asyncio.sleep(0.01)
        return stream.report

    async def run() -> list[StreamReport]:
        loop = asyncio.get_running_loop()
        enough = asyncio.Event()

        def publish() -> object:
            return asyncio.run_coroutine_threadsafe(live.publish_global("plain", "p"), loop).result()

        async with AsyncRealtimeClient(emulator.url, retry=PATIENT, quota=CAUTIOUS) as client:
            live = client.for_installation("installation-1")
            reports = [asyncio.create_task(stream(live, number, enough)) for number in range(STREAMS)]
            try:
                await asyncio.to_thread(plain, publish)
            finally:
                enough.set()
            return await asyncio.gather(*reports)

    return asyncio.run(run())


@pytest.mark.parametrize("stream", [stream_in_threads, stream_in_tasks], ids=["sync", "async"])
def test_plain_calls_go_before_streams_within_the_platforms_limit(stream: Any) -> None:
    overtaken: list[int] = []

    def plain(publish: Callable[[], object]) -> None:
        while len(emulator.requests) < 100:
            # Before that, the burst is not used up.
            before = len(emulator.requests)
            publish()
            if before > 40:
                overtaken.append(len(emulator.requests) - before - 1)

    with Emulator() as emulator:
        reports = stream(emulator, plain)
        requests, streams = emulator.requests, emulator.streams
    assert {(request.status, request.code) for request in requests} == {(200, None)}
    assert most_in_a_second([request.at for request in requests]) <= 50
    # In order of arrival, all the waiting streams would go first.
    assert statistics.median(overtaken) <= STREAMS / 3
    assert len(streams) == STREAMS
    for each in streams:
        tokens = each.value.split()
        assert [int(token.partition(":")[2]) for token in tokens] == [n % 20 for n in range(len(tokens))]
        assert each.ended
        assert not each.gaps
    assert sorted(each.updates for each in streams) == sorted(report.sent for report in reports)
    assert all(report.sent == report.updates for report in reports)
    # Plain calls in a row do not starve a stream.
    assert all(report.operations >= 2 for report in reports)


def test_streams_of_a_client_without_a_quota_keep_to_the_default_quota() -> None:
    with Emulator() as emulator, RealtimeClient(emulator.url, retry=PATIENT) as client:
        live = client.for_installation("installation-1")
        emulator.change(limit=None)
        with live.stream_global("chat", merge="batch", interval=0, max_bytes=1, deadline=60) as stream:
            for number in range(60):
                stream.send(number)
            for _ in range(60):
                live.publish_global("plain", "p")
        plain = [request for request in emulator.requests if request.body["name"] == "plain"]
        # Without the publish that only ends the stream, which there is if the plain calls took longer.
        times = [request.at for request in emulator.requests if '"updates":1' in request.body["payload"]]
    assert len(times) == 60
    # The burst, then the rate. The first publish may have arrived late.
    assert times[-1] - times[0] >= (59 - Quota().burst) / Quota().per_second - 0.3
    assert len(plain) == 60


# Expected for "0" to "9", with "0" on its way and room for three.
OVERFLOWING: dict[str, tuple[str, dict[str, int]]] = {
    "drop_oldest": ("0789", {"sent": 4, "dropped": 6}),
    "merge": ("0123456789", {"sent": 10, "dropped": 0}),
    "raise": ("0123", {"sent": 4, "dropped": 0}),
}


@pytest.mark.parametrize("overflow", OVERFLOWING)
def test_overflow_with_blocking_io(overflow: Any) -> None:
    text, counts = OVERFLOWING[overflow]
    held = Held()
    full: list[StreamReport] = []
    with FaultServer(held) as server, RealtimeClient(server.url, retry=PATIENT, quota=UNLIMITED) as client:
        live = client.for_installation("i")
        with live.stream_global("chat", overflow=overflow, max_pending=3, deadline=60) as stream:
            stream.send("0")
            assert held.arrived.wait(30)
            for number in range(1, 10):
                try:
                    stream.send(str(number))
                except StreamFullError as error:
                    full.append(error.report)
            held.go_on.set()
        reader = Reader(json.loads(request.body)["payload"] for request in server.published)
    assert reader.text == text
    report = stream.report
    assert {name: getattr(report, name) for name in counts} == counts
    assert report.updates == report.sent + report.dropped == 10 - len(full)
    assert [each.pending for each in full] == ([4] * 6 if overflow == "raise" else [])


def test_overflow_with_asyncio() -> None:
    async def run(url: str, overflow: Any) -> StreamReport:
        async with AsyncRealtimeClient(url, retry=PATIENT, quota=UNLIMITED) as client:
            live = client.for_installation("i")
            async with live.stream_global("chat", overflow=overflow, max_pending=3, deadline=60) as stream:
                await stream.send("0")
                await asyncio.to_thread(held.arrived.wait, 30)
                for number in range(1, 10):
                    await stream.send(str(number))
                held.go_on.set()
            return stream.report

    for overflow in ("drop_oldest", "merge"):
        text, counts = OVERFLOWING[overflow]
        held = Held()
        with FaultServer(held) as server:
            report = asyncio.run(run(server.url, overflow))
        assert Reader(json.loads(request.body)["payload"] for request in server.published).text == text
        assert {name: getattr(report, name) for name in counts} == counts


def test_a_stream_publishes_with_the_users_httpx_client() -> None:
    seen: list[httpx.Request] = []
    with (
        FaultServer() as server,
        httpx.Client(headers={"x-team": "red"}, event_hooks={"request": [seen.append]}) as http_client,
        RealtimeClient(server.url, http_client=http_client, quota=UNLIMITED) as client,
    ):
        live = client.for_installation("i")
        with live.stream_global("chat") as stream, live.stream_global("chat") as other:
            for token in "abc":
                stream.send(token)
                other.send(token)
        # The user closes it.
        assert not http_client.is_closed
    readers = Reader(json.loads(request.body)["payload"] for request in server.published).envelopes
    assert ["".join(each.get("data", "") for each in envelopes) for envelopes in readers.values()] == ["abc"] * 2
    assert {request.headers["x-team"] for request in server.received} == {"red"}
    assert len(seen) == len(server.received) == stream.report.operations + other.report.operations


def test_an_async_stream_publishes_with_the_users_httpx_client() -> None:
    seen: list[httpx.Request] = []

    async def see(request: httpx.Request) -> None:
        seen.append(request)

    async def run(url: str) -> StreamReport:
        hooks: Any = {"request": [see]}
        async with (
            httpx.AsyncClient(headers={"x-team": "red"}, event_hooks=hooks) as http_client,
            AsyncRealtimeClient(url, http_client=http_client, quota=UNLIMITED) as client,
        ):
            async with client.for_installation("i").stream_global("chat") as stream:
                for token in "abc":
                    await stream.send(token)
            assert not http_client.is_closed
            return stream.report

    with FaultServer() as server:
        report = asyncio.run(run(server.url))
    assert Reader(json.loads(request.body)["payload"] for request in server.published).text == "abc"
    assert {request.headers["x-team"] for request in server.received} == {"red"}
    assert len(seen) == len(server.received) == report.operations
