"""Streams of both clients on real sockets, and how they end."""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from attrs import evolve

from forge_realtime import (
    AsyncRealtimeClient,
    AsyncStream,
    Attempt,
    Delivery,
    Invocation,
    NoInvocationError,
    NoResponseError,
    Quota,
    RealtimeClient,
    RetryPolicy,
    StreamError,
    StreamFullError,
    StreamReport,
    UsageError,
    current_invocation,
)
from forge_realtime._streams import stream as _stream
from forge_realtime._streams.stream import Stream
from forge_realtime_emulator import Emulator
from tests.support.callers import INVOCATION, QUICK
from tests.support.fault_server import PUBLISHED, FaultServer, Held, answer, refused_url, reset_after, stall
from tests.support.features import needs
from tests.support.streams import Reader, run_virtually

UNLIMITED = Quota(per_second=100_000, burst=1000)
REFUSED = answer(400, publishes=False)


def reader(server: FaultServer) -> Reader:
    return Reader(json.loads(request.body)["payload"] for request in server.published)


@contextmanager
def client(url: str, **options: Any) -> Iterator[RealtimeClient]:
    with RealtimeClient(url, **{"retry": QUICK, "quota": UNLIMITED, **options}) as realtime:
        yield realtime.for_installation("installation-1")


@asynccontextmanager
async def async_client(url: str, **options: Any) -> AsyncIterator[AsyncRealtimeClient]:
    async with AsyncRealtimeClient(url, **{"retry": QUICK, "quota": UNLIMITED, **options}) as realtime:
        yield realtime.for_installation("installation-1")


class Streamer:
    """Sends updates in a block of a stream, with either client, and flushes after each of the first `flushes`.

    Returns the report, and the exception of the block or of its end.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(
        self,
        url: str,
        *updates: Any,
        flushes: int = 0,
        error: BaseException | None = None,
        settings: Any = None,
        **options: Any,
    ) -> tuple[StreamReport, BaseException | None]:
        if self.kind == "async":
            return asyncio.run(self._run(url, updates, flushes, error, settings or {}, options))
        raised: BaseException | None = None
        with client(url, **(settings or {})) as live:
            stream = live.stream_global("chat", **options)
            try:
                send_all(stream, updates, flushes, error)
            except BaseException as caught:
                if isinstance(caught, AssertionError):
                    raise
                raised = caught
        return stream.report, raised

    async def _run(
        self,
        url: str,
        updates: tuple[Any, ...],
        flushes: int,
        error: BaseException | None,
        settings: dict[str, Any],
        options: dict[str, Any],
    ) -> tuple[StreamReport, BaseException | None]:
        raised: BaseException | None = None
        async with async_client(url, **settings) as live:
            stream = live.stream_global("chat", **options)
            try:
                await async_send_all(stream, updates, flushes, error)
            except BaseException as caught:
                if isinstance(caught, AssertionError):
                    raise
                raised = caught
        return stream.report, raised


def send_all(stream: Stream, updates: tuple[Any, ...], flushes: int, error: BaseException | None) -> None:
    with stream:
        for number, update in enumerate(updates):
            stream.send(update)
            if number < flushes:
                stream.flush()
        if error:
            raise error


async def async_send_all(
    stream: AsyncStream, updates: tuple[Any, ...], flushes: int, error: BaseException | None
) -> None:
    async with stream:
        for number, update in enumerate(updates):
            await stream.send(update)
            if number < flushes:
                await stream.flush()
        if error:
            raise error


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 (the server runs in a thread, and sets no asyncio.Event)
        await asyncio.sleep(0.001)


@pytest.fixture(params=["sync", "async"])
def streamer(request: pytest.FixtureRequest) -> Streamer:
    return Streamer(request.param)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    for thread in workers():
        thread.join(5)
    assert workers() == []


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "forge-realtime-streams"]


def test_the_envelope_is_as_documented(streamer: Streamer) -> None:
    with FaultServer() as server:
        streamer(server.url, "Hel", 'lo"\n\u2028é', flushes=3)
        streamer(server.url, error=ValueError("secret"))
    first, second, end, failed = [json.loads(request.body)["payload"] for request in server.received]
    stream = json.loads(first)["stream"]
    assert len(stream) == 32
    assert int(stream, 16)
    start = f'{{"forgeStream":2,"stream":"{stream}","merge":"append",'
    assert first == start + '"seq":0,"data":"Hel","updates":1,"end":false,"snapshotEvery":5}'
    assert second == start + '"seq":1,"data":"lo\\"\\n\u2028é","updates":1,"end":false,"snapshotEvery":5}'
    whole = '"snapshot":{"at":3,"updates":2,"part":0,"parts":1,"text":"Hello\\"\\n\u2028é"}'
    assert end == start + f'"seq":2,"updates":0,"end":true,"snapshotEvery":5,{whole}}}'
    nothing = '"snapshot":{"at":1,"updates":0,"part":0,"parts":1,"text":""}'
    assert failed.endswith(
        f'"seq":0,"updates":0,"end":true,"error":{{"type":"ValueError"}},"snapshotEvery":5,{nothing}}}'
    )
    assert stream not in failed


@pytest.mark.parametrize(
    ("merge", "updates", "data"),
    [
        ("append", ["", "a", "b\\"], "ab\\"),
        ("latest", [{"done": 1}, None, {"done": 2}], {"done": 2}),
        ("batch", [1, [2], {"three": "4"}], [1, [2], {"three": "4"}]),
        (lambda a, b: a + b, [1, 2, 3], 6),
    ],
)
def test_updates_are_merged(streamer: Streamer, merge: Any, updates: list[Any], data: Any) -> None:
    with FaultServer() as server:
        report, error = streamer(server.url, updates[0], *updates, merge=merge, interval=3600, flushes=1)
    assert error is None
    first, last = reader(server).only
    assert first["data"] == ([updates[0]] if merge == "batch" else updates[0])
    assert last["data"] == data
    assert last["updates"] == len(updates)
    assert report.updates == report.sent == len(updates) + 1
    assert report.operations == len(server.received)


def test_subscribers_receive_the_updates() -> None:
    with Emulator() as emulator, emulator.subscribe("chat") as page, RealtimeClient(emulator.url) as realtime:
        with realtime.for_invocation(INVOCATION).stream("chat", interval=0.02) as stream:
            for number in range(300):
                stream.send(f"token {number} ")
        events: list[str] = []
        while not (events and '"end":true' in events[-1]):
            events.append(page.receive(timeout=5).payload)
    assert Reader(events).text == "".join(f"token {number} " for number in range(300))
    assert stream.report.sent == 300
    assert len(events) == stream.report.operations < 100


def test_subscribers_receive_the_updates_of_an_async_stream() -> None:
    async def run() -> StreamReport:
        async with AsyncRealtimeClient(emulator.url) as realtime:
            live = realtime.for_installation("default-installation")
            async with live.stream_global("chat", merge="batch", interval=0.02) as stream:
                for number in range(300):
                    await stream.send({"number": number})
            return stream.report

    with Emulator() as emulator, emulator.subscribe("chat", is_global=True) as page:
        report = asyncio.run(run())
        events: list[str] = []
        while not (events and '"end":true' in events[-1]):
            events.append(page.receive(timeout=5).payload)
    assert [update["number"] for data in Reader(events).data for update in data] == list(range(300))
    assert report.sent == 300


@needs("context_overrides")
def test_each_event_has_the_token_and_the_context_overrides() -> None:
    with Emulator() as emulator, RealtimeClient(emulator.url) as realtime:
        live = realtime.for_invocation(INVOCATION)
        signed = live.sign_realtime_token("chat", {"team": "red"})
        with live.stream("chat", token=signed, context_overrides=["issue"]) as stream:
            stream.send("a")
            stream.flush()
        bodies = [request.body for request in emulator.requests if request.operation == "publish"]
    assert len(bodies) == 2
    assert all(
        isinstance(body, dict) and body["options"] == {"token": signed.token, "contextOverrides": ["issue"]}
        for body in bodies
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"merge": "join"}, "merge must be 'append', 'latest', 'batch' or a plain function"),
        ({"merge": asyncio.sleep}, "plain function"),
        ({"overflow": "block"}, "overflow must be"),
        ({"interval": -1}, "interval must be a number of seconds, 0 or more"),
        ({"interval": "1"}, "interval must be"),
        ({"deadline": 0}, "deadline must be a positive number"),
        ({"snapshot": "always"}, "snapshot must be True, False or a function"),
        ({"snapshot_interval": 0}, "snapshot_interval must be a positive number"),
        ({"max_bytes": 0}, "max_bytes must be a whole number of at least 1"),
        ({"max_pending": 1.5}, "max_pending must be"),
        ({"token": "x"}, "INVALID_TOKEN"),
    ],
)
@pytest.mark.parametrize("kind", [RealtimeClient, AsyncRealtimeClient])
def test_invalid_options_are_refused_at_once(kind: Any, options: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        kind("http://sidecar.test").for_invocation(INVOCATION).stream("chat", **options)


@pytest.mark.parametrize("kind", [RealtimeClient, AsyncRealtimeClient])
def test_a_client_that_cannot_publish_cannot_stream(kind: Any) -> None:
    realtime = kind("http://sidecar.test")
    with pytest.raises(NoInvocationError, match=r"^stream: no invocation is current"):
        realtime.stream("chat")
    with pytest.raises(UsageError, match="works only for an invocation"):
        realtime.for_installation("installation-1").stream("chat")
    with pytest.raises(UsageError, match="channel must be"):
        realtime.for_installation("installation-1").stream_global("")


@pytest.mark.parametrize(
    ("merge", "update", "message"),
    [
        ("append", 7, "merge='append' takes strings, and this update is of type int"),
        ("append", "\ud800", "lone surrogate"),
        ("latest", object(), "the update cannot be encoded as JSON"),
        ("batch", float("nan"), "the update cannot be encoded as JSON"),
        (lambda a, b: {a, b}, "b", "the return value of the function given as merge= cannot be encoded as JSON"),
    ],
)
def test_an_invalid_update_changes_nothing(streamer: Streamer, merge: Any, update: Any, message: str) -> None:
    with FaultServer() as server:
        report, error = streamer(server.url, "a", "a", update, merge=merge, interval=3600, flushes=1)
    assert isinstance(error, UsageError)
    assert message in str(error)
    assert report.updates == report.sent == reader(server).updates
    assert reader(server).only[-1]["error"] == {"type": "UsageError"}


def test_a_merge_function_gets_updates_as_they_were_sent() -> None:
    update = {"n": 0}
    with FaultServer() as server, client(server.url) as live:
        with live.stream_global("c", merge=lambda a, b: {"n": a["n"] + b["n"]}, interval=3600) as stream:
            stream.send(update)
            stream.flush()
            for update["n"] in (1, 10, 100):
                stream.send(update)
        assert reader(server).data == [{"n": 0}, {"n": 111}]


def test_send_raises_the_error_of_a_merge_function() -> None:
    def fail(before: int, after: int) -> int:
        raise LookupError

    async def run() -> StreamReport:
        transport = httpx.MockTransport(lambda request: httpx.Response(200, json={}))
        async with async_client("http://reducer.test", transport=transport) as live:
            async with live.stream_global("chat", merge=fail) as stream:
                await stream.send(0)
                await stream.flush()
                await stream.send(1)
                with pytest.raises(LookupError):
                    await stream.send(2)
            return stream.report

    assert run_virtually(run()).sent == 2


def test_later_changes_to_a_sent_object_have_no_effect() -> None:
    with FaultServer() as server, client(server.url) as live:
        state = {"done": 0}
        with live.stream_global("chat", merge="batch") as stream:
            for _ in range(3):
                stream.send(state)
                state["done"] += 1
    assert list(chain(*reader(server).data)) == [{"done": 0}, {"done": 1}, {"done": 2}]


def test_a_stream_is_open_only_in_its_block() -> None:
    with FaultServer() as server, client(server.url) as live:
        stream = live.stream_global("chat")
        with pytest.raises(UsageError, match="not open"):
            stream.send("a")
        with pytest.raises(UsageError, match="not open"):
            stream.flush()
        with stream:
            stream.send("a")
            with pytest.raises(UsageError, match="can be used once"):
                stream.__enter__()
        with pytest.raises(UsageError, match="ended with its block"):
            stream.send("a")
        with pytest.raises(UsageError, match="ended with its block"):
            stream.flush()
        with pytest.raises(UsageError, match="can be used once"):
            stream.__enter__()
    assert stream.report == StreamReport(updates=1, sent=1, operations=len(server.received))


def test_an_async_stream_is_open_only_in_its_block() -> None:
    async def run() -> None:
        async with async_client(server.url) as live:
            stream = live.stream_global("chat")
            with pytest.raises(UsageError, match="not open"):
                await stream.send("a")
            async with stream:
                with pytest.raises(UsageError, match="can be used once"):
                    await stream.__aenter__()
            with pytest.raises(UsageError, match="ended with its block"):
                await stream.flush()

    with FaultServer() as server:
        asyncio.run(run())


@pytest.mark.parametrize("error", [KeyError("secret"), KeyboardInterrupt(), SystemExit(3)])
def test_a_block_that_raises_publishes_its_updates_and_the_type_of_the_error(
    streamer: Streamer, error: BaseException
) -> None:
    if streamer.kind == "async" and not isinstance(error, Exception):
        pytest.skip("does not apply: KeyboardInterrupt and SystemExit end an event loop")
    with FaultServer() as server:
        report, raised = streamer(server.url, "a", "b", error=error)
    assert raised is error
    assert reader(server).text == "ab"
    assert reader(server).only[-1]["error"] == {"type": type(error).__name__}
    assert all(b"secret" not in request.body for request in server.received)
    assert report.sent == 2


def test_a_refused_event_ends_the_stream(streamer: Streamer) -> None:
    with FaultServer(PUBLISHED, then=REFUSED) as server:
        report, error = streamer(server.url, "a", "b", "c", flushes=3)
    assert isinstance(error, StreamError)
    # After the second flush nothing more was tried, not even the end of the stream.
    assert len(server.received) == 2
    assert error.report == report == StreamReport(updates=2, sent=1, rejected=1, operations=2)
    assert error.delivery is Delivery.REJECTED
    assert [attempt.status for attempt in error.attempts] == [400]
    assert "updates=2" in str(error)
    assert pickle.loads(pickle.dumps(error)).report == report


def test_a_refused_event_does_not_replace_the_error_of_the_block(
    streamer: Streamer, caplog: pytest.LogCaptureFixture
) -> None:
    ours = KeyError("secret")
    with caplog.at_level("DEBUG"), FaultServer(then=REFUSED) as server:
        report, error = streamer(server.url, "payload-1", error=ours)
    assert error is ours
    assert (report.sent, report.rejected) == (0, 1)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "rejected=1" in warnings[-1]
    assert "secret" not in caplog.text
    assert "payload-1" not in caplog.text


def test_send_and_flush_raise_after_a_refused_event() -> None:
    def block() -> None:
        with stream:
            stream.send("a")
            with suppress(StreamError):
                stream.flush()
            with pytest.raises(StreamError, match="ended before everything was published"):
                stream.send("b")
            with pytest.raises(StreamError, match="ended before everything was published"):
                stream.flush()

    with FaultServer(then=REFUSED) as server, client(server.url) as live:
        stream = live.stream_global("chat")
        with pytest.raises(StreamError) as at_the_end:
            block()
    assert at_the_end.value.report == StreamReport(updates=1, rejected=1, operations=1)


@pytest.mark.parametrize(
    ("behaviour", "name", "delivery"),
    [
        (answer(503, headers={"Retry-After": "3600"}, publishes=False), "rejected", Delivery.REJECTED),
        (reset_after, "unknown", Delivery.UNKNOWN),
    ],
)
def test_an_outage_at_the_end_is_rejected_or_unknown(
    streamer: Streamer, behaviour: Any, name: str, delivery: Delivery
) -> None:
    policy = evolve(QUICK, max_attempts=2)
    with FaultServer(then=behaviour) as server:
        report, error = streamer(server.url, "a", "b", "c", deadline=0.2, interval=3600, settings={"retry": policy})
    assert isinstance(error, StreamError)
    assert error.delivery is delivery
    assert report.updates == 3 == getattr(report, name) + report.dropped
    # An attempt that the end cut short counts, because it may have left.
    assert report.operations - len(server.received) in (0, 1)


def test_no_connection_at_the_end_is_not_sent(streamer: Streamer) -> None:
    report, error = streamer(refused_url(), "a", "b", deadline=0.1)
    assert isinstance(error, StreamError)
    assert error.delivery is Delivery.NOT_SENT
    assert report == StreamReport(updates=2, dropped=2, merged=report.merged)


def test_no_response_at_the_end_is_unknown(streamer: Streamer) -> None:
    began = time.monotonic()
    with FaultServer(then=stall) as server:
        report, error = streamer(server.url, "a", deadline=0.1, settings={"retry": RetryPolicy(attempt_timeout=60)})
    assert time.monotonic() - began < 5
    assert isinstance(error, StreamError)
    assert error.delivery is Delivery.UNKNOWN
    assert report == StreamReport(updates=1, unknown=1, operations=1)


def test_a_retry_has_the_same_seq(streamer: Streamer) -> None:
    with FaultServer(reset_after, answer(500), answer(429, publishes=False), then=PUBLISHED) as server:
        report, error = streamer(
            server.url, "a", "b", "c", flushes=3, settings={"retry": evolve(QUICK, delivery="at_most_once")}
        )
    assert error is None
    assert report.sent == 3
    assert reader(server).text == "abc"
    assert reader(server).duplicates == 2
    assert report.operations == len(server.received) == 7


def test_on_attempt_sees_the_attempts_of_a_stream(streamer: Streamer) -> None:
    seen: list[Attempt] = []
    with FaultServer(answer(500)) as server:
        streamer(server.url, "a", flushes=3, settings={"retry": evolve(QUICK, on_attempt=seen.append)})
    assert [attempt.status for attempt in seen] == [500, 200, 200]


def test_many_streams_share_one_thread() -> None:
    def use(number: int) -> StreamReport:
        sibling = live.for_installation(f"installation-{number}")
        with sibling.stream_global("chat", interval=0.01) as stream:
            stream.send("a")
            all_are_open.wait(20)
            counts.append(len(workers()))
            for _ in range(50):
                stream.send("b")
        return stream.report

    counts: list[int] = []
    all_are_open = threading.Barrier(25)
    with FaultServer() as server, client(server.url) as live, ThreadPoolExecutor(25) as pool:
        reports = list(pool.map(use, range(25)))
    assert set(counts) == {1}
    assert {report.sent for report in reports} == {51}
    texts = Reader(json.loads(request.body)["payload"] for request in server.published)
    assert len(texts.envelopes) == 25


def test_many_threads_send_to_one_stream() -> None:
    with (
        FaultServer() as server,
        client(server.url) as live,
        ThreadPoolExecutor(8) as pool,
        live.stream_global("chat", merge="batch", max_pending=20, interval=0.0) as stream,
    ):
        list(pool.map(stream.send, range(2000)))
    assert sorted(chain(*reader(server).data)) == list(range(2000))


def test_closing_the_client_ends_its_open_stream(streamer: Streamer) -> None:
    def block() -> None:
        with client(server.url) as live, live.stream_global("chat") as stream:
            stream.send("a")
            stream.flush()
            live.close()
            stream.send("b")

    async def async_block() -> None:
        async with async_client(server.url) as live, live.stream_global("chat") as stream:
            await stream.send("a")
            await stream.flush()
            await live.aclose()
            await stream.send("b")

    with FaultServer() as server, pytest.raises(StreamError, match="This client is closed") as caught:
        block() if streamer.kind == "sync" else asyncio.run(async_block())
    assert isinstance(caught.value.__cause__, UsageError)
    assert caught.value.report == StreamReport(updates=2, sent=1, dropped=1, operations=1)


def test_the_end_of_a_stream_without_a_response_is_unknown(streamer: Streamer) -> None:
    with FaultServer(PUBLISHED, then=stall) as server:
        settings = {"retry": RetryPolicy(attempt_timeout=60)}
        report, error = streamer(server.url, "a", flushes=1, deadline=0.7, settings=settings)
    assert reader(server).ended
    assert isinstance(error, StreamError)
    assert error.delivery is Delivery.UNKNOWN
    assert report == StreamReport(updates=1, sent=1, operations=2)


def test_a_flush_without_a_response_is_unknown(streamer: Streamer) -> None:
    with FaultServer(then=stall) as server:
        settings = {"retry": RetryPolicy(attempt_timeout=60)}
        _, error = streamer(server.url, "a", flushes=1, deadline=0.7, settings=settings)
    assert isinstance(error, StreamError)
    assert "it keeps trying" in str(error)
    assert error.delivery is Delivery.UNKNOWN


def test_send_waits_until_there_is_room() -> None:
    held = Held()
    with (
        FaultServer(held) as server,
        client(server.url) as live,
        live.stream_global("chat", max_pending=2, interval=0) as stream,
        ThreadPoolExecutor(1) as pool,
    ):
        stream.send("a")
        # "a" is on its way.
        while stream._publisher._current is None:
            time.sleep(0.001)
        stream.send("b")
        stream.send("c")
        waits = pool.submit(stream.send, "d")
        assert stream.report.updates == 3
        held.go_on.set()
        waits.result(20)
    assert reader(server).text == "abcd"


@pytest.mark.parametrize("overflow", ["wait", "raise"])
def test_send_without_room_raises_after_the_deadline_or_at_once(streamer: Streamer, overflow: Any) -> None:
    with FaultServer(then=answer(429, headers={"Retry-After": "3600"}, publishes=False)) as server:
        report, error = streamer(server.url, *"abcdef", overflow=overflow, max_pending=2, deadline=0.1, interval=3600)
    assert isinstance(error, StreamFullError)
    assert error.delivery is Delivery.NOT_SENT
    assert error.report.pending == error.report.updates
    assert 2 <= report.updates <= 4
    assert report.pending == 0


def test_a_flush_after_its_deadline_raises_and_the_stream_goes_on() -> None:
    async def run() -> StreamReport:
        answers = [httpx.Response(429, headers={"Retry-After": "100"}), *[httpx.Response(200, json={})] * 2]
        transport = httpx.MockTransport(lambda request: answers.pop(0))
        async with async_client("http://flush.test", transport=transport) as live:
            async with live.stream_global("chat") as stream:
                await stream.send("a")
                with pytest.raises(
                    StreamError, match=r"not everything was published in 10 s .*; it keeps trying"
                ) as caught:
                    await stream.flush()
                assert caught.value.report.pending == 1
                await asyncio.sleep(100)
                await stream.flush()
            return stream.report

    assert run_virtually(run()) == StreamReport(updates=1, sent=1, operations=3)


def test_updates_are_published_from_a_loop_that_never_waits() -> None:
    async def run() -> None:
        async with async_client(server.url) as live, live.stream_global("chat", merge="latest", interval=0) as stream:
            until = time.monotonic() + 20
            while not server.received and time.monotonic() < until:
                await stream.send("busy")
            assert server.received

    with FaultServer() as server:
        asyncio.run(run())


def test_publishes_run_in_the_context_of_the_block() -> None:
    """Log records and traces of the worker thread belong to the invocation."""
    seen: list[tuple[Invocation | None, str]] = []

    def publish(request: httpx.Request) -> httpx.Response:
        seen.append((current_invocation(), threading.current_thread().name))
        return httpx.Response(200, json={})

    invocation = Invocation("invocation-123")
    quota = Quota(installation_id="installation-1")
    realtime = RealtimeClient("http://sidecar.test", transport=httpx.MockTransport(publish), quota=quota)
    with realtime, invocation.active(), realtime.stream("chat") as stream:
        stream.send("a")
        stream.flush()
    assert seen == [(invocation, "forge-realtime-streams")] * 2


def test_the_worker_thread_refuses_to_wait_for_itself() -> None:
    caught: list[Exception] = []

    def hook(attempt: Attempt) -> None:
        for wait in (stream.flush, live.stream_global("other").__enter__):
            try:
                wait()
            except UsageError as error:
                caught.append(error)

    with FaultServer() as server, client(server.url, retry=evolve(QUICK, on_attempt=hook)) as live:
        stream = live.stream_global("chat")
        with stream:
            stream.send("a")
            stream.flush()
    assert "this call would wait for its own thread" in str(caught[0])
    # Both waits are refused in both attempts, also at the end of the stream.
    assert len(caught) == 4
    assert reader(server).text == "a"


def test_a_block_may_end_in_the_worker_thread() -> None:
    """For example when a forgotten generator is collected there."""

    def answering() -> Generator[None, None, None]:
        with live.stream_global("chat", snapshot=False) as stream:
            stream.send("a")
            stream.flush()
            yield

    with FaultServer() as server, client(server.url) as live:
        left = answering()
        next(left)
        closing = live.with_options(retry=evolve(QUICK, on_attempt=lambda _: left.close()))
        with closing.stream_global("other", snapshot=False) as other:
            other.send("b")
        for worker in workers():
            worker.join(5)
    ended = [envelopes[-1] for envelopes in reader(server).envelopes.values()]
    assert [envelope.get("error") for envelope in ended] == [{"type": "GeneratorExit"}, None]
    assert all(envelope["end"] for envelope in ended)


def test_a_generator_collected_during_a_send_does_not_block_it_forever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_stream, "_COLLECTED_SECONDS", 0.1)

    def tokens(live: RealtimeClient) -> Generator[str, None, None]:
        with live.stream_global("b") as stream:
            stream.send("b")
            yield "b"

    def send(stream: Stream, generator: Generator[str, None, None]) -> None:
        with stream._publisher.buffer._lock:
            stream.send("a")
            generator.close()

    with FaultServer() as server, client(server.url) as live:
        generator = tokens(live)
        next(generator)
        with live.stream_global("a") as stream:
            sending = threading.Thread(target=send, args=(stream, generator), daemon=True)
            sending.start()
            sending.join(10)
            assert not sending.is_alive()
    streams = reader(server).envelopes.values()
    assert sorted(("".join(event.get("data", "") for event in events), events[-1]["end"]) for events in streams) == [
        ("a", True),
        ("b", True),
    ]


def test_the_users_transport_gets_one_call_at_a_time() -> None:
    busy = threading.Lock()
    payloads: list[str] = []

    def publish(request: httpx.Request) -> httpx.Response:
        assert busy.acquire(blocking=False)
        payloads.append(json.loads(request.content)["payload"])
        time.sleep(0.001)
        busy.release()
        return httpx.Response(200, json={})

    def use(_: int) -> None:
        with live.stream_global("chat", interval=0) as stream:
            for _ in range(20):
                stream.send("a")

    with client("http://mock.test", transport=httpx.MockTransport(publish)) as live, ThreadPoolExecutor(4) as pool:
        list(pool.map(use, range(4)))
    assert len(Reader(payloads).envelopes) == 4


def test_a_stream_publishes_with_the_users_transport() -> None:
    transport = httpx.HTTPTransport(verify=False)
    with FaultServer() as server, client(server.url, transport=transport) as live, live.stream_global("chat") as stream:
        stream.send("a")
    assert reader(server).text == "a"


@pytest.mark.parametrize("error", [ValueError("secret"), SystemExit(3), KeyboardInterrupt()])
def test_an_exception_of_a_transport_ends_only_its_stream(error: BaseException) -> None:
    def publish(request: httpx.Request) -> httpx.Response:
        # Not only `bad`, which may occur in the random id of a stream.
        if b'"name":"bad"' in request.content:
            raise error
        return httpx.Response(200, json={})

    transport = httpx.MockTransport(publish)
    with client("http://mock.test", transport=transport) as live, live.stream_global("chat") as good:
        with pytest.raises(StreamError) as caught, live.stream_global("bad") as bad:
            bad.send("a")
        good.send("b")
    cause = caught.value.__cause__
    if isinstance(error, Exception):
        # The error of the call, and its cause.
        assert isinstance(cause, NoResponseError)
        cause = cause.__cause__
    assert cause is error
    assert caught.value.delivery is Delivery.UNKNOWN
    assert "secret" not in str(caught.value)
    assert caught.value.report == StreamReport(updates=1, unknown=1, operations=1)
    assert good.report.sent == 1


def test_a_thread_that_cannot_start_is_a_stream_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with FaultServer() as server, client(server.url) as live:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(StreamError, match=r"can't start new thread.*nothing was sent") as caught:
                live.stream_global("chat").__enter__()
        assert caught.value.delivery is Delivery.NOT_SENT
        with live.stream_global("chat") as stream:
            stream.send("a")
    assert stream.report.sent == 1


def test_updates_appear_in_no_log_and_no_report(streamer: Streamer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), FaultServer(answer(500), answer(429, publishes=False)) as server:
        report, _ = streamer(server.url, "payload-1", flushes=3)
    assert "sent=1" in caplog.text
    for hidden in ("payload-1", "installation-1", reader(server).only[0]["stream"]):
        assert hidden not in caplog.text
        assert hidden not in repr(report)


@pytest.mark.parametrize("stage", ["idle", "on its way", "waiting", "at the end"])
def test_a_cancelled_block_settles_every_update(stage: str) -> None:
    behaviour = {"on its way": stall, "waiting": answer(503, headers={"Retry-After": "30"}, publishes=False)}

    async def run() -> None:
        async with async_client(server.url, retry=RetryPolicy(attempt_timeout=60)) as live:
            stream = live.stream_global("chat")

            async def block() -> None:
                async with stream:
                    if stage != "idle":
                        await stream.send("a")
                    inside.set()
                    if stage != "at the end":
                        await asyncio.Event().wait()

            inside = asyncio.Event()
            task = asyncio.create_task(block())
            await inside.wait()
            await until(lambda: len(server.received) >= (stage in behaviour))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.sleep(0)
            assert asyncio.all_tasks() == {asyncio.current_task()}
            report = stream.report
            assert report.pending == 0
            assert report.updates == report.sent + report.dropped + report.rejected + report.unknown
            if stage == "idle":
                [mark] = reader(server).only
                assert mark["error"] == {"type": "CancelledError"}
            elif stage != "at the end":
                assert (report.unknown, report.rejected) == ((1, 0) if stage == "on its way" else (0, 1))

    began = time.monotonic()
    with FaultServer(then=behaviour.get(stage, PUBLISHED)) as server:
        asyncio.run(run())
    assert time.monotonic() - began < 5


async def send_a_and_b(live: AsyncRealtimeClient, inside: asyncio.Event, *, linger: bool) -> None:
    """Publish "a", and leave "b" to the end of the block. With `linger`, only a cancellation ends it."""
    async with live.stream_global("chat", interval=3600) as stream:
        await stream.send("a")
        await stream.flush()
        await stream.send("b")
        inside.set()
        if linger:
            await asyncio.Event().wait()


@pytest.mark.parametrize("how", ["a scope of anyio", "twice", "at the end"])
def test_a_cancelled_block_publishes_what_is_left_and_its_end(how: str, caplog: pytest.LogCaptureFixture) -> None:
    """anyio, which Starlette uses when a client goes away, cancels again and again. `at the end`: after the block."""
    held = Held()

    async def scoped(live: AsyncRealtimeClient, inside: asyncio.Event, scope: anyio.CancelScope) -> None:
        with scope:
            await send_a_and_b(live, inside, linger=how != "at the end")

    async def run() -> None:
        inside = asyncio.Event()
        async with async_client(server.url) as live:
            scope = anyio.CancelScope()
            task = asyncio.create_task(scoped(live, inside, scope))
            await inside.wait()
            cancel = scope.cancel if how == "a scope of anyio" else task.cancel
            cancel()
            await until(held.arrived.is_set)
            cancel()
            held.go_on.set()
            await asyncio.wait({task})
            assert task.cancelled() is (how != "a scope of anyio")

    with FaultServer(PUBLISHED, then=held) as server:
        asyncio.run(run())
    assert reader(server).text == "ab"
    assert reader(server).only[-1].get("error") == (None if how == "at the end" else {"type": "CancelledError"})
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("error", [None, KeyError("x")])
def test_the_end_of_a_cancelled_block_takes_one_second_at_most_and_logs_what_is_lost(
    error: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    async def block(live: AsyncRealtimeClient) -> None:
        async with live.stream_global("chat", deadline=60) as stream:
            await stream.send("secret")
            if error is not None:
                raise error

    async def run() -> float:
        async with async_client(server.url, retry=RetryPolicy(attempt_timeout=60)) as live:
            task = asyncio.create_task(block(live))
            await until(lambda: bool(server.received))
            began = time.monotonic()
            task.cancel()
            await asyncio.wait({task})
            assert task.cancelled()
            return time.monotonic() - began

    with FaultServer(then=stall) as server:
        assert 1 <= asyncio.run(run()) < 3
    assert "not everything was published 1 s after the block was cancelled" in caplog.text
    assert "unknown=1" in caplog.text
    assert "secret" not in caplog.text


def test_a_stream_publishes_its_end_when_the_loop_cancels_all_tasks() -> None:
    """As `asyncio.run` does when its main task is done."""

    async def begin() -> tuple[asyncio.Task[None], AsyncRealtimeClient]:
        live = AsyncRealtimeClient(server.url, quota=UNLIMITED).for_installation("installation-1")
        inside = asyncio.Event()
        task = asyncio.create_task(send_a_and_b(live, inside, linger=True))
        await inside.wait()
        return task, live

    with FaultServer() as server, asyncio.Runner() as runner:
        task, live = runner.run(begin())
        loop = runner.get_loop()
        for each in asyncio.all_tasks(loop):
            each.cancel()
        loop.run_until_complete(asyncio.wait({task}))
        runner.run(live.aclose())
    assert task.cancelled()
    assert reader(server).text == "ab"
    assert reader(server).only[-1]["error"] == {"type": "CancelledError"}


def run_program(program: str, url: str) -> None:
    command = [sys.executable, "-W", "error", "-c", program, url]
    run = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert (run.returncode, run.stderr) == (0, "")


BEGIN = """
import asyncio, ctypes, os, sys, threading, warnings
from forge_realtime import AsyncRealtimeClient, Quota, RealtimeClient, UsageError

quota = Quota(per_second=1000, burst=1000)
client = RealtimeClient(sys.argv[1], quota=quota)
live = client.for_installation("installation-1")
"""

FORK = (
    BEGIN
    + """
warnings.simplefilter("ignore", DeprecationWarning)
with live.stream_global("chat") as stream:
    stream.send("before ")
    stream.flush()
    # Another thread holds the locks.
    stream._publisher.buffer._lock.acquire()
    client._stream_worker._lock.acquire()
    # Another update waits for room.
    stream._wait_for(stream._publisher._queue.acquire())
    child = FORK()
    if child == 0:
        for use in (lambda: stream.send("not this"), stream.flush):
            try:
                use()
            except UsageError as error:
                assert "belongs to the parent process" in str(error)
            else:
                os._exit(1)
        stream.__exit__(None, None, None)
        with live.stream_global("chat") as own:
            own.send("child")
        assert own.report.sent == 1, own
        client.close()
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    client._stream_worker._lock.release()
    stream._publisher.buffer._lock.release()
    stream._publisher._queue.release()
    stream.send("after")
assert stream.report.sent == 2
client.close()
sys.exit(os.waitstatus_to_exitcode(status))
"""
)


# The second one, as in uWSGI, runs none of Python's hooks.
@pytest.mark.parametrize("fork", ["os.fork", "ctypes.PyDLL(None).fork"])
def test_a_forked_process_has_streams_of_its_own(fork: str) -> None:
    with FaultServer() as server:
        run_program(FORK.replace("FORK", fork), server.url)
    both = Reader(json.loads(request.body)["payload"] for request in server.published)
    texts = ["".join(event.get("data", "") for event in events) for events in both.envelopes.values()]
    assert sorted(texts) == ["before after", "child"]
    assert [events[-1]["end"] for events in both.envelopes.values()] == [True, True]


OPEN_AFTER_FORK = (
    BEGIN
    + """
with live.stream_global("chat") as stream:
    stream.send("parent")
    stream.flush()
    client._stream_worker._lock.acquire()
    child = ctypes.PyDLL(None).fork()
    if child == 0:
        with live.stream_global("chat") as own:
            own.send("child")
        os._exit(own.report.sent != 1)
    client._stream_worker._lock.release()
    status = os.waitpid(child, 0)[1]
sys.exit(os.waitstatus_to_exitcode(status))
"""
)


def test_a_stream_can_be_opened_first_after_a_fork_without_hooks() -> None:
    with FaultServer() as server:
        run_program(OPEN_AFTER_FORK, server.url)
    texts = [events[0]["data"] for events in reader(server).envelopes.values()]
    assert sorted(texts) == ["child", "parent"]


OUT_OF_FILES = (
    BEGIN
    + """
import contextlib, resource
from forge_realtime import Delivery, StreamError

with live.stream_global("chat", snapshot_interval=0.01) as stream:
    stream.send("everything is loaded")
for thread in threading.enumerate():
    if thread.name == "forge-realtime-streams":
        thread.join()
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
held = []
with contextlib.suppress(OSError):
    while True:
        held.append(os.open(os.devnull, os.O_RDONLY))
# An event loop opens three files.
for free in range(3):
    try:
        live.stream_global("chat").__enter__()
    except StreamError as error:
        assert error.delivery is Delivery.NOT_SENT
        assert isinstance(error.__cause__, OSError)
        assert "Too many open files" in str(error)
    else:
        sys.exit("The stream is open.")
    os.close(held.pop())
for each in held:
    os.close(each)
with live.stream_global("chat") as stream:
    stream.send("a")
assert stream.report.sent == 1
"""
)


def test_the_limit_of_open_files_is_a_stream_error_and_not_sent() -> None:
    with FaultServer() as server:
        run_program(OUT_OF_FILES, server.url)
        assert len(reader(server).envelopes) == 2


OPEN_AT_EXIT = BEGIN + "stream = live.stream_global('chat').__enter__()\nstream.send('a')\nstream.flush()\n"
BUSY_AT_EXIT = (
    BEGIN
    + """
stream = live.stream_global("chat").__enter__()
stream.send("a")
while not stream._publisher._may_have_left():
    pass
"""
)
OPEN_AT_EXIT_ASYNC = """
import asyncio, os, sys, warnings
from forge_realtime import AsyncRealtimeClient

async def main():
    async with AsyncRealtimeClient(sys.argv[1]) as client:
        stream = client.for_installation("installation-1").stream_global("chat")
        await stream.__aenter__()
        await stream.send("a")
        await stream.flush()

asyncio.run(main())
"""


ENDING_AT_EXIT = (
    BEGIN
    + """
import asyncio
with live.stream_global("chat") as stream:
    stream.send("a")
    connections = stream._thread.connections
    close = connections.aclose

    async def close_late():
        await asyncio.sleep(0.1)
        await close()

    connections.aclose = close_late
"""
)


@pytest.mark.parametrize("program", [OPEN_AT_EXIT, BUSY_AT_EXIT, ENDING_AT_EXIT, OPEN_AT_EXIT_ASYNC])
def test_the_interpreter_exits_cleanly_with_an_open_or_just_ended_stream(program: str) -> None:
    with FaultServer(then=stall if program is BUSY_AT_EXIT else PUBLISHED) as server:
        run_program(program, server.url)
        if program is not BUSY_AT_EXIT:
            assert reader(server).text == "a"


def test_streams_leave_no_open_files() -> None:
    def use() -> None:
        with live.stream_global("chat", snapshot_interval=0.01) as stream:
            stream.send("a")
        for thread in workers():
            thread.join()

    with FaultServer() as server, client(server.url) as live:
        use()
        server.wait_for_closed_connections()
        before = len(list(Path("/dev/fd").iterdir()))
        for _ in range(10):
            use()
        server.wait_for_closed_connections()
        assert len(list(Path("/dev/fd").iterdir())) == before


def test_the_repr_of_a_stream_is_its_report() -> None:
    stream: Any
    for stream, name in (
        (RealtimeClient("http://sidecar.test").for_invocation(INVOCATION).stream("secret"), "Stream"),
        (AsyncRealtimeClient("http://sidecar.test").for_invocation(INVOCATION).stream("secret"), "AsyncStream"),
    ):
        assert repr(stream) == f"<{name} {StreamReport()}>"


def test_updates_sent_while_waiting_for_the_quota_join_the_next_publish() -> None:
    events: list[tuple[float, str]] = []
    began = 0.0

    def publish(request: httpx.Request) -> httpx.Response:
        data = json.loads(json.loads(request.content)["payload"])["data"]
        events.append((round(time.monotonic() - began, 2), data))
        return httpx.Response(200, json={})

    async def run() -> None:
        nonlocal began
        began = time.monotonic()
        quota = Quota(per_second=1, burst=1)
        async with (
            async_client("http://busy.test", transport=httpx.MockTransport(publish), quota=quota) as live,
            live.stream_global("chat", interval=0.1) as stream,
        ):
            for update in "abcdefghi":
                await stream.send(update)
                await asyncio.sleep(0.15)
            await stream.send("j")

    run_virtually(run())
    assert events == [(0.0, "a"), (1.0, "bcdefg"), (2.0, "hij")]
