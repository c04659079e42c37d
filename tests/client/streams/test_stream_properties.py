"""Streams with random updates, options and faults: readers assemble what the report counts. Time is virtual."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import httpx
import pytest
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from forge_realtime import (
    AsyncRealtimeClient,
    AsyncStream,
    Quota,
    RetryPolicy,
    StreamError,
    StreamFullError,
    StreamReport,
)
from tests.support.callers import INVOCATION
from tests.support.streams import Reader, run_virtually

# Each client has its own address, and so its own quota.
ADDRESSES = (f"http://sidecar-{number}.test" for number in itertools.count())

FAULTS = ["connect", "429", "429 for long", "503", "500", "500 taken", "cut", "not JSON"]


@define
class Platform:
    """Accepts publishes. The first ones fail as `faults` says, one fault each."""

    faults: list[str]
    latency: float
    taken: list[str] = field(factory=list)
    # Start of the first attempt of each `seq`.
    began: dict[int, float] = field(factory=dict)
    operations: int = 0
    in_flight: int = 0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/context"):
            return httpx.Response(200, json={"app": {"installationId": request.url.host}})
        fault = self.faults.pop(0) if self.faults else ""
        payload = json.loads(request.content)["payload"]
        if (seq := json.loads(payload).get("seq")) is not None:
            self.began.setdefault(seq, asyncio.get_running_loop().time())
        if fault == "connect":
            raise httpx.ConnectError("refused")
        self.operations += 1
        assert self.in_flight == 0
        self.in_flight += 1
        try:
            await asyncio.sleep(self.latency)
        finally:
            # The attempt's time may be up before.
            self.in_flight -= 1
        if fault in ("", "500 taken", "cut", "not JSON"):
            self.taken.append(payload)
        if fault == "cut":
            raise httpx.ReadError("reset")
        if fault == "not JSON":
            return httpx.Response(200, content=b"<html>")
        if fault == "429 for long":
            return httpx.Response(429, headers={"Retry-After": "7"})
        return httpx.Response(int((fault or "200")[:3]), json={})

    @property
    def reader(self) -> Reader:
        return Reader(self.taken)


def client(platform: Platform, **options: Any) -> AsyncRealtimeClient:
    realtime = AsyncRealtimeClient(next(ADDRESSES), transport=httpx.MockTransport(platform), **options)
    return realtime.for_invocation(INVOCATION)


# Seconds that the sender waits after each update, or "flush".
pauses = st.lists(st.sampled_from([None, None, None, 0.0, 0.01, 0.2, 0.5, 3.0, "flush"]), min_size=0, max_size=60)
merges = st.sampled_from(["append", "latest", "batch", "reduce"])


@settings(deadline=None)
@given(
    merge=merges,
    pauses=pauses,
    faults=st.lists(st.sampled_from(["", "", *FAULTS]), max_size=30),
    interval=st.sampled_from([0.0, 0.25, 1.0]),
    latency=st.sampled_from([0.0, 0.02, 0.7]),
    max_bytes=st.sampled_from([1, 20, 16_384]),
    max_pending=st.sampled_from([1, 3, 1000]),
    overflow=st.sampled_from(["wait", "merge", "drop_oldest", "raise"]),
    attempts=st.sampled_from([1, 3]),
    delivery=st.sampled_from(["at_least_once", "at_most_once"]),
)
def test_readers_assemble_every_update_that_was_not_dropped(
    merge: Any,
    pauses: list[Any],
    faults: list[str],
    interval: float,
    latency: float,
    max_bytes: int,
    max_pending: int,
    overflow: Any,
    attempts: int,
    delivery: Any,
) -> None:
    platform = Platform(list(faults), latency)
    sent: list[int] = []

    async def run() -> StreamReport:
        async with client(platform, retry=RetryPolicy(max_attempts=attempts, delivery=delivery)) as live:
            stream = live.stream(
                "chat",
                merge=(lambda a, b: a + b) if merge == "reduce" else merge,
                interval=interval,
                max_bytes=max_bytes,
                max_pending=max_pending,
                overflow=overflow,
                deadline=3600.0,
            )
            async with stream:
                for number, pause in enumerate(pauses):
                    update = f"{number};" if merge == "append" else [number] if merge == "reduce" else number
                    try:
                        await stream.send(update)
                    except StreamFullError:
                        assert overflow == "raise"
                    else:
                        sent.append(number)
                    if pause == "flush":
                        await stream.flush()
                        assert stream.report.pending == 0
                    elif pause is not None:
                        await asyncio.sleep(pause)
                    report = stream.report
                    assert report.updates == len(sent)
                    assert report.updates == added_up(report)
            return stream.report

    report = run_virtually(run())
    reader = platform.reader
    assert reader.ended
    assert "error" not in reader.only[-1]
    # Every update is settled, as sent or dropped.
    assert report.updates == len(sent) == report.sent + report.dropped
    assert added_up(report) == report.updates
    assert (report.pending, report.rejected, report.unknown) == (0, 0, 0)
    assert report.dropped == 0 or overflow == "drop_oldest"
    assert reader.updates == report.sent
    assert report.merged == sum(max(0, envelope["updates"] - 1) for envelope in reader.only)
    assert report.operations == platform.operations
    assert {envelope["merge"] for envelope in reader.only} == {merge}

    if merge == "latest":
        # Each state is the newest of the updates that it replaces.
        assert reader.data == [sent[end - 1] for end in ends(reader)]
        return
    if merge == "append":
        arrived = [int(number) for number in reader.text.split(";")[:-1]]
    else:
        arrived = list(itertools.chain(*reader.data))
    assert len(arrived) == report.sent
    # In order, without duplicates.
    assert arrived == sorted(set(arrived))
    assert set(arrived) <= set(sent)


def ends(reader: Reader) -> list[int]:
    updates = [envelope["updates"] for envelope in reader.only if "data" in envelope]
    return list(itertools.accumulate(updates))


def added_up(report: StreamReport) -> int:
    return report.sent + report.dropped + report.rejected + report.unknown + report.pending


@settings(deadline=None)
@given(
    merge=st.sampled_from(["append", "batch"]),
    pauses=st.lists(st.sampled_from([0.0, 0.001, 0.1, 0.3, 2.0]), min_size=1, max_size=80),
    interval=st.sampled_from([0.1, 0.25, 1.0]),
    latency=st.sampled_from([0.0, 0.02, 0.7]),
    before=st.sampled_from([0.0, 5.0]),
)
def test_the_first_update_is_published_at_once_and_then_at_most_once_per_interval(
    merge: Any, pauses: list[float], interval: float, latency: float, before: float
) -> None:
    platform = Platform([], latency)

    async def run() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        async with client(platform) as live, live.stream("chat", merge=merge, interval=interval) as stream:
            await asyncio.sleep(before)
            first = loop.time()
            for pause in pauses:
                await stream.send("x")
                await asyncio.sleep(pause)
            return first, loop.time()

    first, end = run_virtually(run())
    times = list(platform.began.values())
    assert times[0] == first
    inside = [time for time in times if time < end]
    assert all(after - before >= interval - 1e-6 for before, after in itertools.pairwise(inside))
    # No update waits longer than the interval and the previous publish.
    assert all(after - before <= max(interval, latency) + 2.0 + 1e-6 for before, after in itertools.pairwise(times))
    # The end of the block does not wait for the interval.
    assert times[-1] <= end + latency + 1e-6
    assert platform.reader.updates == len(pauses)


@pytest.mark.parametrize(
    ("per_second", "reason"),
    [(0.2, "not everything was published 2 s after the end"), (0.01, "the quota of the installation is used up")],
)
def test_a_stream_waits_for_the_quota_until_the_deadline_of_its_end(per_second: float, reason: str) -> None:
    platform = Platform([], 0.0)

    async def block(stream: AsyncStream) -> None:
        async with stream:
            for update in "ab":
                await stream.send(update)
                await asyncio.sleep(1)

    async def run() -> StreamReport:
        async with client(platform, quota=Quota(per_second=per_second, burst=1)) as live:
            stream = live.stream("chat", deadline=2.0)
            with pytest.raises(StreamError, match=reason):
                await block(stream)
            return stream.report

    report = run_virtually(run())
    assert (report.sent, report.dropped, report.operations) == (1, 1, 1)
    assert platform.reader.data == ["a"]


@settings(deadline=None)
@given(
    updates=st.lists(st.text(max_size=30), max_size=40),
    max_bytes=st.integers(1, 200),
)
def test_only_a_single_update_may_exceed_max_bytes(updates: list[str], max_bytes: int) -> None:
    platform = Platform([], 0.0)

    async def run() -> None:
        async with (
            client(platform) as live,
            live.stream("chat", max_bytes=max_bytes, overflow="merge", max_pending=2, deadline=3600) as stream,
        ):
            for update in updates:
                await stream.send(update)

    run_virtually(run())
    assert "".join(platform.reader.data) == "".join(updates)
    for envelope in platform.reader.only:
        if envelope["updates"] > 1:
            assert len(json.dumps(envelope["data"], ensure_ascii=False).encode()) - 2 <= max_bytes


@settings(deadline=None)
@given(
    faults=st.lists(st.sampled_from([*FAULTS, "400"]), min_size=1, max_size=12),
    pauses=st.lists(st.sampled_from([None, 0.0, 0.1, 1.0]), max_size=20),
    latency=st.sampled_from([0.0, 0.5, 2.5]),
    end=st.sampled_from([None, "raise", "cancel"]),
    stays=st.booleans(),
)
def test_the_report_adds_up_after_every_kind_of_end(
    faults: list[str], pauses: list[float | None], latency: float, end: str | None, stays: bool
) -> None:
    """After long outages, refusals, deadlines and cancellations."""
    platform = Platform(faults * (40 if stays else 1), latency)
    sent = 0
    stream: Any = None

    async def block(live: AsyncRealtimeClient) -> None:
        nonlocal sent, stream
        async with live.stream("chat", merge="batch", max_pending=5, overflow="drop_oldest", deadline=2.0) as stream:
            for pause in pauses:
                await stream.send(sent)
                sent += 1
                if pause is not None:
                    await asyncio.sleep(pause)
            if end == "raise":
                raise KeyError("the block's own")
            if end == "cancel":
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                await asyncio.sleep(0)

    async def run() -> BaseException | None:
        async with client(platform) as live:
            task = asyncio.create_task(block(live))
            await asyncio.wait({task})
            await asyncio.sleep(0)
            assert asyncio.all_tasks() == {asyncio.current_task()}
            return asyncio.CancelledError() if task.cancelled() else task.exception()

    error = run_virtually(run())
    report: StreamReport = stream.report
    assert report.updates == sent == added_up(report)
    assert report.pending == 0
    if isinstance(error, StreamError):
        # It never replaces an exception of the block.
        assert end is None or report.rejected or report.unknown or report.dropped
    else:
        assert type(error) is {None: type(None), "raise": KeyError, "cancel": asyncio.CancelledError}[end]
    # Every `sent` update arrived, and no update arrived that is neither `sent` nor `unknown`.
    taken = platform.reader.updates if platform.taken else 0
    assert report.sent <= taken <= report.sent + report.unknown
    assert report.operations >= platform.operations
