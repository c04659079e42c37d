"""`forge_realtime.otel`: spans as in `otel_spans.json`, metrics, parents, and what happens if a tracer fails."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import opentelemetry.semconv._incubating.metrics.messaging_metrics as metric_names
import pytest
from attrs import define, evolve
from opentelemetry import trace
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import messaging_attributes as messaging
from opentelemetry.semconv.attributes import error_attributes, exception_attributes, http_attributes, server_attributes

from forge_realtime import AsyncRealtimeClient, ForgeRealtimeError, PublishResult, Quota, RealtimeClient, UsageError
from forge_realtime._core.hidden import Hidden
from forge_realtime.otel import Instrumentation
from tests.support.callers import INVOCATION, QUICK
from tests.support.fault_server import Connection, FaultServer, answer, refused_url, reset_after
from tests.support.garbage import collect
from tests.support.tokens import token

GOLDEN = Path(__file__).with_name("otel_spans.json")
INSTALLATION = "e3c5b0c6-98a8-4d4e-9b4c-2f6f2f0b7d11"
TOKEN = answer(200, {"token": "header.payload.signature", "expiresAt": 1767225600})
AT_MOST_ONCE = evolve(QUICK, delivery="at_most_once", max_attempts=2)


@define
class Telemetry:
    """An OpenTelemetry SDK that keeps everything in memory."""

    tracers: TracerProvider
    exporter: InMemorySpanExporter
    meters: MeterProvider
    reader: InMemoryMetricReader

    def instrumentation(self, **settings: Any) -> Instrumentation:
        return Instrumentation(tracer_provider=self.tracers, meter_provider=self.meters, **settings)

    def span(self, name: str) -> Any:
        return self.tracers.get_tracer("tests").start_as_current_span(name)

    def spans(self, name: str = "publish") -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def parents(self, name: str = "publish") -> list[str]:
        names = {span.context.span_id: span.name for span in self.exporter.get_finished_spans() if span.context}
        return [names[span.parent.span_id] if span.parent else "" for span in self.spans(name)]

    def metric(self, name: str) -> dict[str, float]:
        """Values by the attributes other than the operation; of a histogram, its counts."""
        data = self.reader.get_metrics_data()
        points: list[Any] = [
            point
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]
        return {
            " ".join(str(value) for _, value in sorted(point.attributes.items())): (
                point.value if hasattr(point, "value") else point.count
            )
            for point in points
        }


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    tracers, exporter, reader = TracerProvider(), InMemorySpanExporter(), InMemoryMetricReader()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    meters = MeterProvider([reader])
    yield Telemetry(tracers, exporter, meters, reader)
    HTTPXClientInstrumentor().uninstrument()
    tracers.shutdown()
    meters.shutdown()


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run(kind: str, url: str, *calls: Callable[[Any], Any], **settings: Any) -> list[Any]:
    """Makes calls with one client, and returns the result or error of each."""
    outcomes: list[Any] = []
    settings.setdefault("retry", QUICK)
    if kind == "sync":
        with RealtimeClient(url, **settings) as client:
            for call in calls:
                try:
                    outcomes.append(call(client.for_invocation(INVOCATION)))
                except ForgeRealtimeError as error:
                    outcomes.append(error)
        return outcomes

    async def main() -> None:
        async with AsyncRealtimeClient(url, transport="httpx", **settings) as client:
            for call in calls:
                try:
                    outcomes.append(await call(client.for_invocation(INVOCATION)))
                except ForgeRealtimeError as error:
                    outcomes.append(error)

    asyncio.run(main())
    return outcomes


def publish(live: Any) -> Any:
    return live.publish("board-42", {"moved": 7})


def sign(live: Any) -> Any:
    return live.sign_realtime_token("board-42", {"team": "red"})


def in_stream(*updates: str) -> Callable[[Any], Any]:
    """Sends the updates in a stream, each as one publish."""

    def call(live: Any) -> Any:
        if isinstance(live, RealtimeClient):
            with live.stream("board-42", interval=0) as stream:
                for update in updates:
                    stream.send(update)
                    stream.flush()
            return None

        async def main() -> None:
            async with live.stream("board-42", interval=0) as stream:
                for update in updates:
                    await stream.send(update)
                    await stream.flush()

        return main()

    return call


def described(spans: Sequence[ReadableSpan]) -> list[dict[str, Any]]:
    """The spans without what differs from run to run."""

    def plain(value: object) -> object:
        if isinstance(value, float):
            return "<seconds>"
        if isinstance(value, str):
            return re.sub(r"\d+\.\d\d s\b", "<seconds>", re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:<port>", value))
        return value

    def attributes(of: Any) -> dict[str, object]:
        found = {name: plain(value) for name, value in sorted((of.attributes or {}).items())}
        return found | {"server.port": "<port>"} if "server.port" in found else found

    names = {span.context.span_id: span.name for span in spans if span.context}
    return [
        {
            "name": span.name,
            "kind": span.kind.name,
            "parent": names[span.parent.span_id] if span.parent else None,
            "attributes": attributes(span),
            "events": [{"name": event.name, **attributes(event)} for event in span.events],
            "status": {"code": span.status.status_code.name, "description": plain(span.status.description)},
        }
        for span in spans
    ]


def test_spans_are_those_of_the_golden_file(kind: str, telemetry: Telemetry) -> None:
    plain, named = telemetry.instrumentation(), telemetry.instrumentation(channel_names=True)
    # 5 operations per second: the second call waits.
    quota = Quota(per_second=5, burst=1, installation_id=INSTALLATION)
    with telemetry.span("request"):
        with FaultServer(answer(429, headers={"Retry-After": "0"})) as server:
            run(kind, server.url, publish, instrument=plain)
        with FaultServer() as server:
            run(kind, server.url, publish, publish, quota=quota, instrument=plain)
        with FaultServer() as server:
            run(kind, server.url, in_stream("a", "b"), instrument=plain)
            run(kind, server.url, publish, instrument=named)
        with FaultServer(then=TOKEN) as server:
            run(kind, server.url, sign, instrument=plain)
        with FaultServer(reset_after) as server:
            run(kind, server.url, publish, retry=AT_MOST_ONCE, instrument=plain)
        with FaultServer(then=answer(400, {"code": "TOKEN_EXPIRED"})) as server:
            run(kind, server.url, publish, instrument=plain)
    found = json.dumps(described(telemetry.exporter.get_finished_spans()), indent=1) + "\n"
    assert found == GOLDEN.read_text(encoding="utf-8")


def test_refused_connection_is_an_error_that_was_not_sent(kind: str, telemetry: Telemetry) -> None:
    [error] = run(kind, refused_url(), publish, retry=AT_MOST_ONCE, instrument=telemetry.instrumentation())
    [span] = telemetry.spans()
    assert span.status.status_code is trace.StatusCode.ERROR
    assert span.status.description == str(error)
    assert (span.attributes or {})["forge_realtime.delivery"] == "not_sent"
    assert (span.attributes or {})["error.type"] == "NoResponseError"
    events = [(event.name, (event.attributes or {}).get("error.type")) for event in span.events]
    assert events == [("attempt", "ConnectError"), ("attempt", "ConnectError"), ("exception", None)]


def test_metrics_count_calls_attempts_waits_and_streams(kind: str, telemetry: Telemetry) -> None:
    instrument = telemetry.instrumentation()
    quota = Quota(per_second=5, burst=1, installation_id=INSTALLATION)
    with FaultServer(answer(429, headers={"Retry-After": "0"}), then=answer(200, {"eventId": "e"})) as server:
        run(kind, server.url, publish, instrument=instrument)
        run(kind, server.url, publish, publish, quota=quota, instrument=instrument)
        run(kind, server.url, in_stream("a", "b"), instrument=instrument)
    with FaultServer(then=answer(400)) as server:
        run(kind, server.url, publish, instrument=instrument)
    assert telemetry.metric("forge_realtime.calls") == {"accepted publish": 6, "RejectedError rejected publish": 1}
    assert telemetry.metric("forge_realtime.attempts") == {
        "RateLimitedError rejected publish 429": 1,
        "accepted publish 200": 6,
        "RejectedError rejected publish 400": 1,
    }
    assert telemetry.metric("forge_realtime.quota.wait")[""] >= 1
    assert telemetry.metric("forge_realtime.stream.updates") == {"sent": 2}
    assert telemetry.metric("forge_realtime.stream.operations") == {"": 3}
    assert telemetry.metric("messaging.client.operation.duration") == {
        "accepted publish forge_realtime": 6,
        "RejectedError rejected publish forge_realtime": 1,
    }


def test_spans_of_httpx_are_children_of_the_call(kind: str, telemetry: Telemetry) -> None:
    HTTPXClientInstrumentor().instrument(tracer_provider=telemetry.tracers)
    with FaultServer(answer(429)) as server, telemetry.span("request"):
        run(kind, server.url, publish, in_stream("a"), instrument=telemetry.instrumentation())
    assert telemetry.parents("POST") == ["publish"] * 4
    assert telemetry.parents() == ["request"] * 3
    # The stream looks its installation up.
    posts = [request for request in server.received if request.method == "POST"]
    for post, request in zip(telemetry.spans("POST"), posts, strict=True):
        assert post.context
        assert request.headers["traceparent"].split("-")[2] == f"{post.context.span_id:016x}"


def test_calls_of_threads_have_the_parents_of_their_threads(telemetry: Telemetry) -> None:
    def call(number: int) -> None:
        with telemetry.span(f"request {number}"):
            publish(live)
            publish(live)
            assert trace.get_current_span().name == f"request {number}"  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]

    with FaultServer() as server, RealtimeClient(server.url, instrument=telemetry.instrumentation()) as client:
        live = client.for_invocation(INVOCATION)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(call, range(8)))
    assert sorted(telemetry.parents()) == sorted(f"request {number}" for number in range(8) for _ in range(2))


def test_calls_of_tasks_have_the_parents_of_their_tasks(telemetry: Telemetry) -> None:
    async def call(live: AsyncRealtimeClient, number: int) -> None:
        with telemetry.span(f"request {number}"):
            await asyncio.gather(publish(live), publish(live))

    async def main() -> None:
        async with AsyncRealtimeClient(server.url, instrument=telemetry.instrumentation()) as client:
            live = client.for_invocation(INVOCATION)
            await asyncio.gather(*[call(live, number) for number in range(8)])

    with FaultServer() as server:
        asyncio.run(main())
    assert sorted(telemetry.parents()) == sorted(f"request {number}" for number in range(8) for _ in range(2))


def test_publishes_of_a_stream_are_children_of_the_span_that_opened_it(telemetry: Telemetry) -> None:
    def send(stream: Any) -> None:
        with telemetry.span("other thread"):
            stream.send("b")
            stream.flush()

    with FaultServer() as server, RealtimeClient(server.url, instrument=telemetry.instrumentation()) as client:
        live = client.for_invocation(INVOCATION)
        with telemetry.span("opening"), live.stream("board-42", interval=0) as stream, telemetry.span("inner"):
            stream.send("a")
            stream.flush()
            thread = threading.Thread(target=send, args=(stream,))
            thread.start()
            thread.join()
    assert telemetry.parents() == ["opening"] * 3


def test_publishes_of_an_asynchronous_stream_are_children_of_the_span_that_opened_it(telemetry: Telemetry) -> None:
    async def send(stream: Any) -> None:
        with telemetry.span("other task"):
            await stream.send("b")
            await stream.flush()

    async def main() -> None:
        async with AsyncRealtimeClient(server.url, instrument=telemetry.instrumentation()) as client:
            live = client.for_invocation(INVOCATION)
            with telemetry.span("opening"):
                async with live.stream("board-42", interval=0) as stream:
                    with telemetry.span("inner"):
                        await stream.send("a")
                        await stream.flush()
                        await asyncio.create_task(send(stream))

    with FaultServer() as server:
        asyncio.run(main())
    assert telemetry.parents() == ["opening"] * 3


def test_cancelled_call_is_unknown_and_leaves_no_span_current(telemetry: Telemetry) -> None:
    async def main() -> None:
        async with AsyncRealtimeClient(server.url, instrument=telemetry.instrumentation()) as client:
            task = asyncio.create_task(call(client))
            await asyncio.to_thread(arrived.wait, 10)
            task.cancel()
            await asyncio.wait([task])

    def hold(connection: Connection) -> bool:
        connection.read()
        arrived.set()
        connection.stall()
        return False

    async def call(client: AsyncRealtimeClient) -> None:
        try:
            await publish(client.for_invocation(INVOCATION))
        finally:
            assert trace.get_current_span() is trace.INVALID_SPAN

    arrived = threading.Event()
    with FaultServer(then=hold) as server:
        asyncio.run(main())
    [span] = telemetry.spans()
    assert span.attributes
    assert span.attributes["forge_realtime.delivery"] == "unknown"
    assert span.attributes["error.type"] == "CancelledError"
    assert [dict(event.attributes or {}) for event in span.events] == [
        {"exception.type": "asyncio.exceptions.CancelledError"}
    ]


def test_call_that_is_abandoned_ends_its_span_without_a_complaint(
    telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    with FaultServer() as server, RealtimeClient(server.url, instrument=telemetry.instrumentation()) as client:
        live = client.for_invocation(INVOCATION)
        flows = [live._publish_flow("board-42", Hidden("p"), Hidden(None), None)]
        # A thread has a context of its own.
        thread = threading.Thread(target=next, args=flows)
        thread.start()
        thread.join()
        flows.clear()
        del thread
        collect()
    assert [dict(span.attributes or {})["error.type"] for span in telemetry.spans()] == ["GeneratorExit"]
    assert caplog.records == []


def test_hook_of_the_policy_is_called_too(kind: str, telemetry: Telemetry) -> None:
    seen: list[int | None] = []
    retry = evolve(QUICK, on_attempt=lambda attempt: seen.append(attempt.status))
    with FaultServer(answer(429)) as server:
        run(kind, server.url, publish, retry=retry, instrument=telemetry.instrumentation())
    assert seen == [429, 200]


def test_nothing_secret_is_in_spans_and_metrics(kind: str, telemetry: Telemetry) -> None:
    signed = token("SECRET-channel")

    def call(live: Any) -> Any:
        user = live.for_invocation(INVOCATION, as_="user", account_id="SECRET-account")
        return user.publish("SECRET-channel", {"SECRET": 1}, token=signed)

    def signing(live: Any) -> Any:
        return live.sign_realtime_token("SECRET-channel", {"SECRET": 1})

    echo = answer(400, {"message": "SECRET", "code": "TOKEN_EXPIRED"}, {"X-Header": "SECRET"})
    with FaultServer(answer(200, {"eventId": "e"}), echo, then=answer(500, b"SECRET")) as server:
        run(kind, server.url, call, call, call, signing, retry=AT_MOST_ONCE, instrument=telemetry.instrumentation())
    run(kind, refused_url(), call, signing, retry=AT_MOST_ONCE, instrument=telemetry.instrumentation())
    spans = telemetry.exporter.get_finished_spans()
    assert len(spans) == 6
    data = telemetry.reader.get_metrics_data()
    assert data
    assert not re.search(f"SECRET|invocation-123|{signed}", "".join(span.to_json() for span in spans) + data.to_json())


class Broken(SpanProcessor):
    """A processor that fails, as an app's own may."""

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        raise ValueError("the processor is broken")

    def on_end(self, span: ReadableSpan) -> None:
        raise ValueError("the processor is broken")


class BrokenSpan:
    """A span of which every method fails."""

    def __getattr__(self, name: str) -> Any:
        raise ValueError("the span is broken")


class BrokenTracer:
    def start_span(self, *args: object, **kwargs: object) -> BrokenSpan:
        return BrokenSpan()


class BrokenMeter:
    def add(self, *args: object) -> None:
        raise ValueError("the meter is broken")

    record = add


def broken(telemetry: Telemetry, what: str) -> Instrumentation:
    instrument = telemetry.instrumentation()
    if what == "processor":
        telemetry.tracers.add_span_processor(Broken())
    elif what == "span":
        vars(instrument)["tracer"] = BrokenTracer()
    else:
        names = ("calls", "attempts", "quota_wait", "updates", "operations", "duration")
        vars(instrument).update(dict.fromkeys(names, BrokenMeter()))
    return instrument


@pytest.mark.parametrize("what", ["processor", "span", "meter"])
def test_broken_tracer_changes_nothing_and_is_logged_once(
    kind: str, telemetry: Telemetry, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    instrument = broken(telemetry, what)
    quota = Quota(per_second=5, burst=1, installation_id=INSTALLATION)
    with FaultServer(answer(429, headers={"Retry-After": "0"})) as server:
        results = run(kind, server.url, publish, publish, in_stream("a"), quota=quota, instrument=instrument)
    with FaultServer(then=answer(400)) as server:
        [error] = run(kind, server.url, publish, instrument=instrument)
    assert [result.event_id for result in results[:2] if isinstance(result, PublishResult)] == ["event-1"] * 2
    assert [attempt.status for attempt in results[0].attempts] == [429, 200]
    assert results[2] is None
    assert (error.status, len(error.attempts)) == (400, 1)
    failed = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.name for record in failed] == ["forge_realtime"]
    assert failed[0].getMessage().startswith("OpenTelemetry failed")
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_siblings_are_instrumented(telemetry: Telemetry) -> None:
    with FaultServer() as server, RealtimeClient(server.url, instrument=telemetry.instrumentation()) as client:
        publish(client.with_options(retry=QUICK).for_invocation(INVOCATION))
    assert len(telemetry.spans()) == 1


@pytest.mark.parametrize("other", [True, Instrumentation])
@pytest.mark.parametrize("client", [RealtimeClient, AsyncRealtimeClient])
def test_other_instruments_are_refused(client: Any, other: object) -> None:
    with pytest.raises(UsageError, match=r"instrument takes an Instrumentation, for example forge_realtime\.otel"):
        client("http://sidecar.test", instrument=other)


def test_global_providers_are_the_default() -> None:
    """Without an SDK, they do nothing."""
    with FaultServer() as server:
        assert run("sync", server.url, publish, instrument=Instrumentation())[0].event_id == "event-1"


def test_names_are_those_of_the_semantic_conventions() -> None:
    used = set(
        re.findall(r"[\"'`]((?:messaging|server|http|error|exception)\.[\w.]+)", GOLDEN.read_text(encoding="utf-8"))
    )
    known = {
        value
        for module in (messaging, error_attributes, exception_attributes, http_attributes, server_attributes)
        for name, value in vars(module).items()
        if name.isupper()
    }
    assert used
    assert used <= known
    assert metric_names.MESSAGING_CLIENT_OPERATION_DURATION == "messaging.client.operation.duration"
    assert messaging.MessagingOperationTypeValues.SEND.value == "send"


@pytest.mark.parametrize("hidden", [False, True])
def test_opentelemetry_is_imported_only_by_its_module(hidden: bool) -> None:
    program = f"""
import sys
if {hidden}:
    sys.modules["opentelemetry"] = None
from forge_realtime import *
RealtimeClient("http://sidecar.test")
AsyncRealtimeClient("http://sidecar.test")
print("forge_realtime.otel" in sys.modules, bool(sys.modules.get("opentelemetry")))
try:
    import forge_realtime.otel
    print("imported")
except ModuleNotFoundError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    missing = "forge_realtime.otel needs OpenTelemetry's API: pip install opentelemetry-api, or the extra otel"
    assert run.stdout.splitlines() == ["False False", missing if hidden else "imported"]
