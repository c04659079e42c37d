"""Streams whose thread died, whose waits are long, whose process ends, or whose app raises in a function of its own."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
from attrs import evolve

from forge_realtime import (
    AsyncRealtimeClient,
    Attempt,
    Delivery,
    Quota,
    RealtimeClient,
    RejectedError,
    RetryPolicy,
    StreamError,
    StreamReport,
    TimedOutError,
    UsageError,
)
from forge_realtime._streams import stream as _stream
from forge_realtime._streams.stream import Stream
from forge_realtime.otel import Instrumentation
from tests.support.callers import QUICK
from tests.support.fault_server import PUBLISHED, FaultServer, answer, stall
from tests.support.streams import Reader, run_virtually

UNLIMITED = Quota(per_second=100_000, burst=1000)
MAINTENANCE = {"Retry-After": "3600"}


def reader(server: FaultServer) -> Reader:
    return Reader(json.loads(request.body)["payload"] for request in server.published)


_clients: list[RealtimeClient] = []


def client(url: str, **options: Any) -> RealtimeClient:
    realtime = RealtimeClient(url, **{"retry": QUICK, "quota": UNLIMITED, **options})
    _clients.append(realtime)
    return realtime.for_installation("installation-1")


def async_client(url: str, handler: Callable[[httpx.Request], httpx.Response], **options: Any) -> AsyncRealtimeClient:
    transport = httpx.MockTransport(handler)
    options = {"retry": RetryPolicy(), "quota": UNLIMITED, **options}
    return AsyncRealtimeClient(url, transport=transport, **options).for_installation("installation-1")


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    while _clients:
        _clients.pop().close()
    for thread in threading.enumerate():
        if thread.name == "forge-realtime-streams":
            thread.join(5)
            assert not thread.is_alive()


def kill(stream: Stream) -> None:
    """Let the thread of a stream die, as it does when the app closes all files of the process."""

    def fail_once(timeout: float | None = None) -> Any:
        loop._selector.select = select
        raise OSError(9, "Bad file descriptor")

    assert stream._thread is not None
    loop: Any = stream._thread.loop
    select = loop._selector.select
    loop._selector.select = fail_once
    loop.call_soon_threadsafe(lambda: None)


@pytest.mark.parametrize(("behaviour", "delivery"), [(PUBLISHED, Delivery.NOT_SENT), (stall, Delivery.UNKNOWN)])
def test_thread_that_died_fails_all_who_wait(behaviour: Any, delivery: Delivery) -> None:
    with FaultServer(then=behaviour) as server:
        live = client(server.url, retry=RetryPolicy(attempt_timeout=60))
        stream, other = live.stream_global("chat", interval=3600), live.stream_global("chat")
        stream.__enter__()
        other.__enter__()
        stream.send("a")
        while not server.received:
            time.sleep(0.001)
        if behaviour is PUBLISHED:
            stream.flush()
            stream.send("b")
        began = time.monotonic()
        kill(stream)
        with pytest.raises(StreamError, match=r"the worker thread has ended") as caught:
            stream.flush()
        assert caught.value.delivery is delivery
        assert caught.value.retryable
        with pytest.raises(StreamError, match="the worker thread has ended"):
            stream.send("c")
        with pytest.raises(StreamError) as at_the_end:
            stream.__exit__(None, None, None)
        assert at_the_end.value.delivery is delivery
        report = at_the_end.value.report
        assert (report.pending, report.updates) == (0, report.sent + report.dropped + report.unknown)
        assert report.unknown == (delivery is Delivery.UNKNOWN)
        with pytest.raises(StreamError):
            other.__exit__(None, None, None)
        # The error of a block is not replaced.
        other.__exit__(ValueError, ValueError(), None)
        assert time.monotonic() - began < 5
        if behaviour is PUBLISHED:
            with live.stream_global("chat") as again:
                again.send("d")
            assert again.report.sent == 1


class Ends(Instrumentation):
    def __init__(self) -> None:
        super().__init__()
        self.reports: list[StreamReport] = []

    def stream_ended(self, report: StreamReport) -> None:
        self.reports.append(report)


def test_stream_whose_thread_died_is_measured_once() -> None:
    ends = Ends()
    with FaultServer() as server:
        stream = client(server.url, instrument=ends).stream_global("chat", interval=3600)
        stream.__enter__()
        kill(stream)
        with pytest.raises(StreamError):
            stream.flush()
        with pytest.raises(StreamError):
            stream.__exit__(None, None, None)
    assert ends.reports == [StreamReport()]


def test_thread_that_does_not_respond_fails_the_end_after_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_stream, "_LATE_SECONDS", 0.1)
    go_on = threading.Event()

    def publish(request: httpx.Request) -> httpx.Response:
        go_on.wait(20)
        return httpx.Response(200, json={})

    live = client("http://stuck.test", transport=httpx.MockTransport(publish))
    began = time.monotonic()
    try:
        with (
            pytest.raises(StreamError, match="the worker thread did not respond") as caught,
            live.stream_global("chat", deadline=0.2) as stream,
        ):
            stream.send("a")
        assert time.monotonic() - began < 5
    finally:
        go_on.set()
    assert caught.value.delivery is Delivery.UNKNOWN
    assert caught.value.report == StreamReport(updates=1, unknown=1, operations=1)


FIRST_STREAM_WITHOUT_FILES = """
import contextlib, os, resource, sys
from forge_realtime import Delivery, RealtimeClient, StreamError

live = RealtimeClient(sys.argv[1]).for_installation("installation-1")
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
held = []
with contextlib.suppress(OSError):
    while True:
        held.append(os.open(os.devnull, os.O_RDONLY))
try:
    with live.stream_global("chat") as stream:
        stream.send("a")
except StreamError as error:
    assert error.delivery is Delivery.NOT_SENT
    assert "cannot start" in str(error)
else:
    sys.exit("It was sent.")
for each in held:
    os.close(each)
with live.stream_global("chat") as stream:
    stream.send("a")
assert stream.report.sent == 1
"""


def run_program(program: str, url: str) -> str:
    command = [sys.executable, "-W", "error", "-c", program, url]
    run = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    return run.stdout


def test_first_stream_at_the_limit_of_open_files_is_not_sent() -> None:
    """Its modules cannot be read."""
    with FaultServer() as server:
        run_program(FIRST_STREAM_WITHOUT_FILES, server.url)
        assert reader(server).text == "a"


class Maintenance:
    """Responds with 503 and `Retry-After: 3600` until the time `up`, then with success."""

    def __init__(self, up: float) -> None:
        self.began = time.monotonic()
        self.up = up
        self.calls: list[float] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        now = time.monotonic() - self.began
        self.calls.append(round(now, 1))
        return httpx.Response(200, json={}) if now >= self.up else httpx.Response(503, headers=MAINTENANCE)


# With the second policy, a call waits itself.
@pytest.mark.parametrize("retry", [RetryPolicy(), RetryPolicy(deadline=7200)])
def test_wait_of_a_stream_takes_ten_seconds_at_most(retry: RetryPolicy) -> None:
    async def run() -> tuple[StreamReport, list[float]]:
        sidecar = Maintenance(up=15)
        async with async_client("http://maintenance.test", sidecar, retry=retry).stream_global("chat") as stream:
            for _ in range(30):
                await stream.send("a")
                await asyncio.sleep(1)
            assert stream.report.sent > 25
        return stream.report, sidecar.calls

    report, calls = run_virtually(run())
    assert report.sent == 30
    assert calls[:3] == [0, 10, 20]


@pytest.mark.parametrize("retry", [RetryPolicy(), RetryPolicy(deadline=7200)])
@pytest.mark.parametrize("up", [2, 5, 3600])
def test_end_of_the_block_makes_a_last_attempt(up: float, retry: RetryPolicy) -> None:
    async def run() -> tuple[StreamReport, list[float], StreamError | None]:
        sidecar = Maintenance(up)
        stream = async_client("http://maintenance.test", sidecar, retry=retry).stream_global("chat", deadline=5)
        failure = None
        try:
            async with stream:
                await stream.send("a")
                await asyncio.sleep(3)
        except StreamError as error:
            failure = error
        return stream.report, sidecar.calls, failure

    report, calls, failure = run_virtually(run())
    assert calls[:2] == [0, 3]
    if up == 2:
        assert (failure, report.sent) == (None, 1)
        return
    assert failure is not None
    assert failure.delivery is Delivery.REJECTED
    assert report == failure.report == StreamReport(updates=1, rejected=1, operations=2)
    # Only settings of the user or of the stream.
    assert "60 s" not in str(failure)
    if retry.deadline == 5:
        assert isinstance(failure.__cause__, RejectedError)
        assert "RetryPolicy.deadline" in str(failure)
    else:
        assert isinstance(failure.__cause__, TimedOutError)
        assert "5 s after the end of the block (deadline)" in str(failure)


# With a short interval, the block ends while the stream waits for the quota with its next envelope.
@pytest.mark.parametrize("interval", [0.25, 3600])
def test_end_of_the_block_makes_a_last_attempt_while_the_quota_is_held(interval: float) -> None:
    async def run() -> tuple[StreamReport, list[float]]:
        began = time.monotonic()
        calls: list[float] = []

        def publish(request: httpx.Request) -> httpx.Response:
            calls.append(round(time.monotonic() - began, 1))
            return httpx.Response(429, headers=MAINTENANCE) if len(calls) == 1 else httpx.Response(200, json={})

        live = async_client("http://busy.test", publish, quota=Quota(installation_id=f"held-{interval}"))
        stream = live.stream_global("chat", deadline=5, interval=interval)
        with suppress(StreamError):
            async with stream:
                await stream.send("a")
                await asyncio.sleep(3)
                await stream.send("b")
        return stream.report, calls

    report, calls = run_virtually(run())
    assert report.sent == report.updates == 2
    assert calls[0] < calls[1] <= 4


def test_quota_that_other_calls_use_up_is_not_skipped_at_the_end_of_the_block() -> None:
    async def run() -> tuple[StreamReport, int]:
        calls: list[object] = []

        def publish(request: httpx.Request) -> httpx.Response:
            calls.append(request)
            return httpx.Response(200, json={})

        live = async_client("http://busy.test", publish, quota=Quota(per_second=0.01, burst=1))
        live = live.for_installation("busy")
        await live.publish_global("chat", "x")
        stream = live.stream_global("chat", deadline=5)
        with suppress(StreamError):
            async with stream:
                await stream.send("a")
        return stream.report, len(calls)

    report, calls = run_virtually(run())
    assert (report.dropped, calls) == (1, 1)


def test_error_after_the_deadline_holds_the_last_attempts() -> None:
    async def run() -> StreamError:
        def publish(request: httpx.Request) -> httpx.Response:
            return httpx.Response(429, headers={"Retry-After": "1"})

        live = async_client("http://busy.test", publish, retry=RetryPolicy(max_attempts=2))
        with pytest.raises(StreamError) as caught:
            async with live.stream_global("chat", deadline=30.5) as stream:
                await stream.send("a")
        return caught.value

    error = run_virtually(run())
    assert error.delivery is Delivery.REJECTED
    assert error.retryable
    assert error.attempts


AFTER_MAIN_THREAD = """
import atexit, sys, threading, time
from forge_realtime import RealtimeClient

live = RealtimeClient(sys.argv[1]).for_installation("installation-1")

def stream(text):
    with live.stream_global("chat") as stream:
        stream.send(text)
    assert stream.report.sent == 1

def job():
    threading.main_thread().join()
    stream("after the main thread")

threading.Thread(target=job).start()
atexit.register(stream, "at exit")
"""


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_streams_after_the_main_thread_and_at_exit_are_sent(name: str) -> None:
    with FaultServer() as server:
        run_program(AFTER_MAIN_THREAD, server.url.replace("127.0.0.1", name))
    texts = [events[0]["data"] for events in reader(server).envelopes.values()]
    assert texts == ["after the main thread", "at exit"]


# The end of a program whose stream is open at exit, in a thread that never ends.
OPEN_STREAM = """
ready = threading.Event()

def job():
    global stream
    stream = live.stream_global("chat", interval=3600).__enter__()
    stream.send("a")
    stream.flush()
    stream.send("b")
    ready.set()
    threading.Event().wait()

threading.Thread(target=job, daemon=True).start()
ready.wait()
"""

LEFT_OPEN = """
import atexit, sys, threading
from forge_realtime import Delivery, StreamError

def late():
    try:
        stream.send("lost")
    except StreamError as error:
        print(error.delivery.value, error)
    stream.__exit__(None, None, None)
    print(stream.report.sent)

# Before the client is imported, so it runs after the last thread.
atexit.register(late)
from forge_realtime import RealtimeClient

live = RealtimeClient(sys.argv[1]).for_installation("installation-1")
"""


def test_stream_that_is_open_at_exit_publishes_what_is_left_and_its_end() -> None:
    with FaultServer() as server:
        refused, sent = run_program(LEFT_OPEN + OPEN_STREAM, server.url).splitlines()
    assert reader(server).text == "ab"
    assert reader(server).only[-1]["error"] == {"type": "SystemExit"}
    assert refused.startswith("not sent stream: the interpreter exits; the update was not sent")
    assert sent == "2"


CLOSED_AT_EXIT = """
import atexit, sys, threading
from forge_realtime import RealtimeClient

client = RealtimeClient(sys.argv[1])
atexit.register(client.close)
live = client.for_installation("installation-1")
"""


def test_client_that_is_closed_at_exit_ends_its_open_streams_first() -> None:
    with FaultServer() as server:
        run_program(CLOSED_AT_EXIT + OPEN_STREAM, server.url)
    assert reader(server).text == "ab"
    assert reader(server).only[-1]["error"] == {"type": "SystemExit"}


def test_merge_function_that_changes_its_arguments_and_raises_changes_nothing() -> None:
    def merge(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
        before["n"] += after["n"]
        if after["n"] == 10:
            raise LookupError
        return before

    with FaultServer() as server:
        with client(server.url).stream_global("c", merge=merge, interval=3600) as stream:
            stream.send({"n": 0})
            stream.flush()
            stream.send({"n": 1})
            with pytest.raises(LookupError):
                stream.send({"n": 10})
            stream.send({"n": 100})
        assert reader(server).data == [{"n": 0}, {"n": 101}]
    assert stream.report == StreamReport(updates=3, sent=3, merged=1, operations=2)


def test_merge_function_gets_what_it_returned_as_json() -> None:
    seen: list[Any] = []

    def merge(before: Any, after: Any) -> Any:
        seen.append(before)
        return (*before, *after)

    with FaultServer() as server:
        with client(server.url).stream_global("c", merge=merge, interval=3600) as stream:
            stream.send([0])
            stream.flush()
            for number in (1, 2, 3):
                stream.send((number,))
        assert reader(server).data == [[0], [1, 2, 3]]
    # The last one is the final snapshot.
    assert seen == [[1], [1, 2], [0]]


def test_merge_function_that_sends_to_its_own_stream_is_refused() -> None:
    def merge(before: Any, after: Any) -> Any:
        stream.send(after)

    with FaultServer() as server, client(server.url).stream_global("c", merge=merge, interval=3600) as stream:
        stream.send(0)
        stream.flush()
        stream.send(1)
        with pytest.raises(UsageError, match="must not send to its own stream"):
            stream.send(2)
    assert stream.report.sent == 2


@pytest.mark.parametrize("error", [LookupError("secret"), SystemExit(3)])
@pytest.mark.parametrize("status", [200, 400])
def test_hook_that_raises_does_not_change_the_report(
    error: BaseException, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception is logged. Anything else ends the stream."""

    def hook(attempt: Attempt) -> None:
        raise error

    live: RealtimeClient
    with FaultServer(then=PUBLISHED if status == 200 else answer(400, publishes=False)) as server:
        live = client(server.url, retry=evolve(QUICK, on_attempt=hook))
        stream = live.stream_global("chat")
        failure: StreamError | None = None
        try:
            with stream:
                stream.send("a")
        except StreamError as caught:
            failure = caught
    report = stream.report
    assert (report.sent, report.rejected, report.pending) == ((1, 0, 0) if status == 200 else (0, 1, 0))
    if failure is None:
        assert (status, isinstance(error, Exception)) == (200, True)
    else:
        assert failure.delivery is (Delivery.NOT_SENT if status == 200 else Delivery.REJECTED)
        assert "secret" not in str(failure)
    hooks = [record for record in caplog.records if "on_attempt failed" in record.getMessage()]
    assert len(hooks) == (len(server.received) if isinstance(error, Exception) else 0)
