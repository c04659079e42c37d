"""Snapshots: when a stream repeats its value, and for how much. Time is virtual, except where threads are tested."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from forge_realtime import AsyncRealtimeClient, AsyncStream, Delivery, Quota, RealtimeClient, RetryPolicy, StreamError
from forge_realtime._streams.snapshots import cut_escaped
from forge_realtime._streams.worker import StreamWorker
from forge_realtime_emulator import StreamReader
from tests.support.callers import QUICK
from tests.support.fault_server import PUBLISHED, FaultServer, answer
from tests.support.streams import Reader, run_virtually

UNLIMITED = Quota(per_second=100_000, burst=1000)
ADDRESSES = (f"http://snapshots-{number}.test" for number in itertools.count())


@define(eq=False)
class Platform:
    """Accepts publishes, with `eventId` while somebody is subscribed."""

    heard: bool = True
    respond: Callable[[dict[str, Any]], httpx.Response | None] = lambda _: None
    payloads: list[str] = field(factory=list)
    times: list[float] = field(factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        payload = json.loads(request.content)["payload"]
        if response := self.respond(json.loads(payload)):
            return response
        self.payloads.append(payload)
        self.times.append(asyncio.get_running_loop().time() - 1000)
        return httpx.Response(200, json={"eventId": "1" if self.heard else None, "eventTimestamp": None})

    def client(self, **options: Any) -> AsyncRealtimeClient:
        options = {"retry": RetryPolicy(), "quota": UNLIMITED, **options}
        realtime = AsyncRealtimeClient(next(ADDRESSES), transport=httpx.MockTransport(self), **options)
        return realtime.for_installation("installation-1")

    @property
    def envelopes(self) -> list[dict[str, Any]]:
        # Checks each snapshot, too.
        Reader(self.payloads)
        return [json.loads(payload) for payload in self.payloads]

    @property
    def snapshots(self) -> list[tuple[float, int | None, int]]:
        """Time, number of the update and place of each part of a snapshot."""
        pairs = zip(self.times, self.envelopes, strict=True)
        return [
            (round(time, 2), envelope.get("seq"), envelope["snapshot"]["at"])
            for time, envelope in pairs
            if "snapshot" in envelope
        ]


async def send(stream: AsyncStream, count: int, pause: float) -> None:
    for number in range(count):
        await stream.send(f"{number};")
        await asyncio.sleep(pause)


def test_snapshots_travel_with_updates_once_per_interval_and_with_the_end() -> None:
    async def run() -> None:
        async with platform.client().stream_global("chat", interval=0.25) as stream:
            await send(stream, 120, 0.1)

    platform = Platform()
    run_virtually(run())
    # The first update is the whole value.
    assert [time for time, _, _ in platform.snapshots] == [5.0, 10.0, 12.0]
    assert all(at == seq + 1 for _, seq, at in platform.snapshots if seq is not None)
    assert all("seq" in envelope for envelope in platform.envelopes)
    assert {envelope["snapshotEvery"] for envelope in platform.envelopes} == {5}


def test_value_is_repeated_once_in_a_pause_and_then_nothing_happens() -> None:
    async def run() -> None:
        async with platform.client().stream_global("chat") as stream:
            await send(stream, 3, 1)
            await asyncio.sleep(1000)
            # Nothing of the stream waits for a time.
            assert not [timer for timer in loop()._scheduled if not timer.cancelled()]
            await stream.send("after the pause")
            await asyncio.sleep(1)
            await stream.send("at the end")

    def loop() -> Any:
        return asyncio.get_running_loop()

    platform = Platform()
    run_virtually(run())
    assert platform.snapshots == [(5.5, None, 3), (1003, 3, 4), (1004, 5, 6)]


def test_snapshot_that_was_asked_for_goes_with_the_next_update_or_alone() -> None:
    async def run() -> None:
        stream = platform.client().stream_global("chat")
        async with stream:
            await send(stream, 1, 1)
            stream.send_snapshot()
            await send(stream, 1, 10)
            stream.send_snapshot()
            await asyncio.sleep(10)
        with suppress(Exception):
            stream.send_snapshot()

    platform = Platform()
    run_virtually(run())
    assert platform.snapshots == [(1, 1, 2), (11.5, None, 2), (21, 2, 3)]


def test_snapshots_that_are_asked_for_are_a_second_apart() -> None:
    async def run() -> None:
        async with platform.client().stream_global("chat", interval=0, snapshot_interval=3600) as stream:
            for _ in range(40):
                await send(stream, 1, 0.1)
                stream.send_snapshot()

    platform = Platform()
    run_virtually(run())
    *times, _end = [time for time, _, _ in platform.snapshots]
    assert times == [1, 2, 3]


def test_page_that_subscribes_later_gets_a_snapshot_with_the_next_update() -> None:
    async def run() -> None:
        async with platform.client().stream_global("chat", snapshot_interval=3600) as stream:
            for platform.heard in (False, False, True, True, False, True, True):
                await send(stream, 1, 0.4)

    platform = Platform()
    run_virtually(run())
    # The platform says so in the response to the update before.
    assert [seq for _, seq, _ in platform.snapshots] == [3, 6, 7]


@pytest.mark.parametrize("merge", ["append", "batch"])
@pytest.mark.parametrize("max_bytes", [1_024, 16_384])
def test_large_value_is_cut_into_parts_that_fit(max_bytes: int, merge: Any) -> None:
    async def run() -> None:
        stream = platform.client().stream_global("chat", merge=merge, max_bytes=max_bytes, snapshot_interval=2)
        async with stream:
            for number in range(40):
                await stream.send(f'{number}"\n🙂\\' + "é" * (max_bytes // 20))
                await asyncio.sleep(0.5)
            assert stream.report.operations <= 40 * 1.25 + 1
        assert stream.report.operations == len(platform.payloads)

    platform = Platform()
    run_virtually(run())
    for envelope in platform.envelopes:
        size = len(json.dumps(envelope.get("data", ""), ensure_ascii=False, separators=(",", ":")).encode()) - 2
        part = len(json.dumps(envelope.get("snapshot", {}).get("text", ""), ensure_ascii=False).encode()) - 2
        assert size + part <= max_bytes
    assert platform.envelopes[-1]["end"]
    whole = Reader(platform.payloads).snapshots.popitem()[1]
    assert len(whole) > 3
    assert whole[-1] == 41
    # A page that is there only for the end.
    page = StreamReader()
    for payload in platform.payloads[-len([each for each in platform.envelopes if each["end"]]) :]:
        page.read(payload)
    assert len(page.ended) == 1
    value = (
        "".join(Reader(platform.payloads).data)
        if merge == "append"
        else [*itertools.chain(*Reader(platform.payloads).data)]
    )
    assert [*page.values.values()] == [value]


def test_stream_that_outgrows_its_memory_goes_on_without_snapshots() -> None:
    async def run() -> None:
        stream = platform.client().stream_global("chat", max_bytes=1_024)
        async with stream:
            for _ in range(40):
                await stream.send("x" * 500)
                await asyncio.sleep(1)
            assert stream._publisher.buffer._snapshots is not None
            assert stream._publisher.buffer._snapshots._pieces is None
        await asyncio.sleep(100)

    platform = Platform()
    run_virtually(run())
    assert "snapshotEvery" in platform.envelopes[0]
    assert "snapshotEvery" not in platform.envelopes[-1]
    assert "snapshot" not in platform.envelopes[-1]
    assert sum(envelope.get("updates", 0) for envelope in platform.envelopes) == 40


def test_without_snapshots_nothing_is_repeated() -> None:
    async def run() -> None:
        async with platform.client().stream_global("chat", snapshot=False) as stream:
            await send(stream, 3, 10)
            stream.send_snapshot()
        await asyncio.sleep(100)

    platform = Platform()
    run_virtually(run())
    assert len(platform.envelopes) == 4
    assert not any("snapshot" in envelope or "snapshotEvery" in envelope for envelope in platform.envelopes)


def test_final_snapshot_is_repeated_once_in_the_background() -> None:
    async def run() -> None:
        stream = platform.client().stream_global("chat")
        async with stream:
            await stream.send("a")
        assert len(platform.payloads) == stream.report.operations == 2
        assert asyncio.all_tasks() == {asyncio.current_task()}
        await asyncio.sleep(100)
        assert stream.report.operations == 2

    platform = Platform()
    run_virtually(run())
    *_, last, again = platform.envelopes
    assert platform.times[-1] - platform.times[-2] == 5
    assert "seq" not in again
    assert (last["snapshot"], last["end"]) == (again["snapshot"], again["end"])


def test_stop_after_the_end_changes_nothing() -> None:
    async def run() -> None:
        async with platform.client().stream_global("chat") as stream:
            await stream.send("a")
        stream.stop("late")
        await asyncio.sleep(100)

    platform = Platform()
    run_virtually(run())
    assert len([envelope for envelope in platform.envelopes if envelope["end"]]) == 2
    assert not any("stopped" in envelope for envelope in platform.envelopes)


def test_end_that_nobody_heard_is_repeated_soon_too() -> None:
    """The page that asked for the stream may be about to subscribe."""

    async def run() -> None:
        async with platform.client().stream_global("chat") as stream:
            await stream.send("a")
        await asyncio.sleep(100)

    platform = Platform(heard=False)
    run_virtually(run())
    end = platform.times[-3]
    assert [time - end for time in platform.times[-2:]] == [1, 5]
    assert len({platform.payloads[-1], platform.payloads[-2]}) == 1


@pytest.mark.parametrize(
    ("status", "error", "delivery"),
    [(400, None, Delivery.REJECTED), (500, {"type": "StreamError"}, Delivery.UNKNOWN)],
)
def test_failed_stream_repeats_only_what_may_have_been_published(status: int, error: Any, delivery: Delivery) -> None:
    def respond(envelope: dict[str, Any]) -> httpx.Response | None:
        return httpx.Response(status, json={}) if envelope.get("seq") == 1 else None

    async def run() -> None:
        with pytest.raises(StreamError) as caught:
            async with platform.client(retry=QUICK).stream_global("chat", interval=1, deadline=1) as stream:
                await send(stream, 3, 0)
        assert caught.value.delivery is delivery
        await asyncio.sleep(100)

    platform = Platform(respond=respond)
    run_virtually(run())
    first, *again = [json.loads(payload) for payload in platform.payloads]
    assert first["seq"] == 0
    if error is None:
        assert again == []
        return
    [repeated] = again
    assert (repeated["end"], repeated["error"]) == (True, error)
    assert repeated["snapshot"]["text"] == "0;1;2;"


@pytest.mark.parametrize("fault", ["rejected", "unknown", "quota"])
def test_snapshot_that_cannot_be_published_loses_no_update(fault: str, caplog: pytest.LogCaptureFixture) -> None:
    def respond(envelope: dict[str, Any]) -> httpx.Response | None:
        if "seq" in envelope or fault == "quota":
            return None
        return httpx.Response(400 if fault == "rejected" else 500, json={})

    async def run() -> None:
        quota = Quota(per_second=0.05, burst=1) if fault == "quota" else UNLIMITED
        async with platform.client(quota=quota).stream_global("chat", deadline=100) as stream:
            await send(stream, 2, 20)
            stream.send_snapshot()
            await asyncio.sleep(5)
            await stream.send("c")
        assert (stream.report.sent, stream.report.updates) == (3, 3)

    platform = Platform(respond=respond)
    run_virtually(run())
    assert Reader(platform.payloads).text == "0;1;c"
    assert Reader(platform.payloads).ended
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_rest_of_a_snapshot_that_lost_a_part_is_not_published() -> None:
    def respond(envelope: dict[str, Any]) -> httpx.Response | None:
        if "seq" in envelope or refused:
            return None
        refused.append(len(platform.payloads))
        return httpx.Response(500, json={})

    async def run() -> None:
        async with platform.client().stream_global("chat", max_bytes=1_024, snapshot_interval=2) as stream:
            for _ in range(5):
                await stream.send("x" * 700)
                await asyncio.sleep(0.3)
            await asyncio.sleep(10)

    refused: list[int] = []
    platform = Platform(respond=respond)
    run_virtually(run())
    later = [envelope["snapshot"]["part"] for envelope in platform.envelopes[refused[0] :] if "seq" not in envelope]
    assert later[0] == 0


def test_end_of_the_block_does_not_wait_for_a_snapshot() -> None:
    async def stall(request: httpx.Request) -> httpx.Response:
        if "seq" not in json.loads(json.loads(request.content)["payload"]):
            await asyncio.sleep(3600)
        return httpx.Response(200, json={})

    async def run() -> float:
        transport = httpx.MockTransport(stall)
        live = AsyncRealtimeClient(next(ADDRESSES), transport=transport, quota=UNLIMITED).for_installation("i")
        loop = asyncio.get_running_loop()
        async with live.stream_global("chat") as stream:
            await send(stream, 2, 1)
            stream.send_snapshot()
            await asyncio.sleep(1)
            await stream.send("c")
            ended = loop.time()
        # Its request left, so it counts.
        assert stream.report.operations == 4
        return loop.time() - ended

    assert run_virtually(run()) < 0.1


def test_merge_function_makes_the_value_of_its_snapshots() -> None:
    async def run(merge: Any) -> None:
        async with platform.client().stream_global("chat", merge=merge, interval=0) as stream:
            for number in range(100):
                await stream.send({"n": number})
                await asyncio.sleep(0.01)

    platform = Platform()
    run_virtually(run(lambda one, other: {"n": one["n"] + other["n"]}))
    assert json.loads(platform.envelopes[-1]["snapshot"]["text"]) == {"n": sum(range(100))}
    platform = Platform()
    # Fails only for the states of two publishes.
    run_virtually(run(lambda one, other: one["m"]))
    assert "snapshot" not in platform.envelopes[-1]
    assert "snapshotEvery" not in platform.envelopes[-1]
    assert sum(envelope.get("updates", 0) for envelope in platform.envelopes) == 100


class Store:
    """The app's own store, with a function of either kind."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, str], Any] = {}
        self.threads: set[str] = set()

    def keep(self, stream: str, digest: str, value: Any) -> None:
        self.threads.add(threading.current_thread().name)
        self.values[stream, digest] = value

    async def async_keep(self, stream: str, digest: str, value: Any) -> None:
        await asyncio.sleep(0)
        self.keep(stream, digest, value)


@pytest.mark.parametrize("name", ["keep", "async_keep"])
@pytest.mark.parametrize(("merge", "update"), [("append", "é" * 900), ("batch", {"tool": "x" * 900})])
def test_app_keeps_values_that_do_not_fit(name: str, merge: Any, update: Any) -> None:
    async def run() -> None:
        options = {"merge": merge, "max_bytes": 2_000, "snapshot": getattr(store, name), "snapshot_interval": 2}
        async with platform.client().stream_global("chat", **options) as stream:
            for _ in range(40):
                await stream.send(update)
                await asyncio.sleep(0.5)

    store, platform = Store(), Platform()
    run_virtually(run())
    page = StreamReader(lambda stream, digest: store.values[stream, digest])
    for payload in platform.payloads[-1:]:
        page.read(payload)
    value: Any = update * 40 if merge == "append" else [update] * 40
    assert [*page.values.values()] == [value]
    text = value if merge == "append" else json.dumps(value, separators=(",", ":"))
    assert platform.envelopes[-1]["snapshot"]["digest"] == hashlib.sha256(text.encode()).hexdigest()


def test_store_that_hangs_holds_up_no_text() -> None:
    async def keep(stream: str, digest: str, value: Any) -> None:
        await asyncio.Event().wait()

    async def run() -> None:
        options: Any = {"max_bytes": 2_000, "snapshot": keep, "snapshot_interval": 2}
        async with platform.client().stream_global("chat", **options) as stream:
            for _ in range(40):
                await stream.send("x" * 900)
                await asyncio.sleep(0.5)

    platform = Platform()
    run_virtually(run())
    assert sum(envelope.get("updates", 0) for envelope in platform.envelopes) == 40
    assert platform.envelopes[-1]["end"] is True


def test_function_of_a_blocking_stream_does_not_run_in_its_event_loop(caplog: pytest.LogCaptureFixture) -> None:
    def fail(stream: str, digest: str, value: Any) -> None:
        store.keep(stream, digest, value)
        raise LookupError("secret")

    store = Store()
    with FaultServer() as server, RealtimeClient(server.url, quota=UNLIMITED) as client:
        live = client.for_installation("installation-1")
        with live.stream_global("chat", max_bytes=1_024, snapshot=fail) as stream:
            for _ in range(3):
                stream.send("x" * 900)
    assert stream.report.sent == 3
    assert set(store.values.values()) == {"x" * 2_700}
    assert not store.threads & {"forge-realtime-streams", "MainThread"}
    assert "the function given as snapshot= raised LookupError" in caplog.text
    assert "secret" not in caplog.text


@given(
    st.lists(st.sampled_from(["a", "é", "🙂", '"', "\\", "\n", "\0", "\u2028", "x" * 40]), max_size=300),
    st.integers(6, 60),
)
def test_parts_are_cut_between_characters_and_escapes(pieces: list[str], size: int) -> None:
    text = "".join(pieces)
    parts = cut_escaped(json.dumps(text, ensure_ascii=False)[1:-1].encode(), size)
    assert "".join(json.loads(b'"' + part + b'"') for part in parts) == text
    assert all(0 < len(part) <= size for part in parts)


# In real time.


@pytest.fixture
def workers() -> Iterator[Callable[[], list[threading.Thread]]]:
    def alive() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "forge-realtime-streams"]

    yield alive
    for thread in alive():
        thread.join(5)
    assert alive() == []


def test_blocking_stream_repeats_its_final_snapshot_and_then_ends_its_thread(workers: Any) -> None:
    with FaultServer() as server, RealtimeClient(server.url, quota=UNLIMITED) as client:
        live = client.for_installation("installation-1")
        with live.stream_global("chat", snapshot_interval=0.05) as stream:
            stream.send("a")
        # The next stream uses the same thread.
        [worker] = workers()
        with live.stream_global("chat", snapshot_interval=0.05):
            assert workers() == [worker]
        worker.join(5)
        assert not worker.is_alive()
    payloads = [json.loads(request.body)["payload"] for request in server.published]
    again = Reader(payloads).alone
    assert sorted(envelope["snapshot"]["text"] for envelope in again) == ["", "a"]


def test_client_that_is_closed_repeats_nothing(workers: Any) -> None:
    with FaultServer() as server, RealtimeClient(server.url, quota=UNLIMITED) as client:
        with client.for_installation("installation-1").stream_global("chat", snapshot_interval=3600) as stream:
            stream.send("a")
        [worker] = workers()
        began = time.monotonic()
        client.close()
        worker.join(5)
        assert time.monotonic() - began < 1
        assert len(server.received) == 2


def test_thread_that_dies_before_the_repetition_breaks_nothing(workers: Any) -> None:
    with FaultServer() as server, RealtimeClient(server.url, quota=UNLIMITED, retry=QUICK) as client:
        live = client.for_installation("installation-1")
        with live.stream_global("chat", snapshot_interval=3600) as stream:
            stream.send("a")
        [worker] = workers()
        selector = worker.loop._selector
        select = selector.select

        def fail_once(timeout: float | None = None) -> Any:
            selector.select = select
            raise OSError(9, "Bad file descriptor")

        selector.select = fail_once
        worker.loop.call_soon_threadsafe(lambda: None)
        worker.join(5)
        with live.stream_global("chat") as other:
            other.send("b")
        assert (stream.report.sent, other.report.sent) == (1, 1)


def test_rejected_repetition_is_silent(workers: Any, caplog: pytest.LogCaptureFixture) -> None:
    refused = answer(400, publishes=False)
    with (
        FaultServer(PUBLISHED, PUBLISHED, then=refused) as server,
        RealtimeClient(server.url, quota=UNLIMITED) as client,
    ):
        with client.for_installation("installation-1").stream_global("chat", snapshot_interval=0.05) as stream:
            stream.send("a")
        for worker in workers():
            worker.join(5)
    assert len(server.received) == 3
    assert stream.report.operations == 2
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("line", range(40))
def test_signal_handler_may_open_a_stream_while_another_one_is_opened(line: int, workers: Any) -> None:
    """At each line of `StreamWorker.join`."""
    import sys

    opened: list[str] = []

    def handle(*_: object) -> None:
        with live.stream_global("in the handler", snapshot=False, deadline=5) as inner:
            inner.send("b")
        opened.append("inner")

    left = [line]

    def trace(frame: Any, event: str, _: object) -> Any:
        if frame.f_code is not StreamWorker.join.__code__:
            return trace if event == "call" else None
        if event == "line":
            if left[0] == 0:
                sys.settrace(None)
                signal.raise_signal(signal.SIGUSR1)
            left[0] -= 1
        return trace

    with FaultServer() as server, RealtimeClient(server.url, quota=UNLIMITED) as client:
        live = client.for_installation("installation-1")
        former, tracing = signal.signal(signal.SIGUSR1, handle), sys.gettrace()
        began = time.monotonic()
        try:
            stream = live.stream_global("chat", snapshot=False, deadline=5)
            sys.settrace(trace)
            stream.__enter__()
        finally:
            sys.settrace(tracing)
            signal.signal(signal.SIGUSR1, former)
        stream.send("a")
        stream.__exit__(None, None, None)
        assert time.monotonic() - began < 4
        assert stream.report.sent == 1
    assert opened == ([] if left[0] >= 0 else ["inner"])
