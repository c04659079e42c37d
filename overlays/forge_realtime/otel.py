"""Traces and metrics with OpenTelemetry. They need the extra `otel`, which is OpenTelemetry's API.

    from forge_realtime.otel import Instrumentation

    client = RealtimeClient(instrument=Instrumentation())

Each call is one span, which is current while the call's requests are sent: the spans of
`opentelemetry-instrumentation-httpx` are its children. Those of a Realtime stream are children of the span that was
current where the stream was opened.

Spans and metrics never contain bodies, tokens, claims or accounts, and Realtime's channels only on request.
Source: https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from attrs import evolve

from ._core import clock
from ._core.attempts import Attempt, StreamReport
from ._core.call import Flow, PreparedRequest, RateLimiter, Send, TrackedBody
from ._core.errors import Delivery, ForgeRealtimeError
from ._core.log import log
from ._core.policy import RetryPolicy
from ._version import __version__

try:
    from opentelemetry import context, metrics, trace
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{__name__} needs OpenTelemetry's API: pip install opentelemetry-api, or the extra otel", name=error.name
    ) from None

if TYPE_CHECKING:
    from contextvars import Token

T = TypeVar("T")

_PACKAGE: Final = "forge_realtime"
# The operations that send a message, for the conventions about messaging.
_PUBLISHING: Final = frozenset({"publish", "publish_global"})


class Instrumentation:
    """Traces and measures calls. Pass it to clients as `instrument`; several clients can share it.

    Spans are named after the operation and have the kind `CLIENT`, or `PRODUCER` if it publishes to Realtime. Each
    attempt is an event `attempt` of the span, and waiting for the quota an event `quota`.

    Metrics:

    * `forge_realtime.calls`: calls, by operation and delivery.
    * `forge_realtime.attempts`: attempts of calls, by operation, delivery and status.

    And of Realtime:

    * `forge_realtime.quota.wait`: histogram of the seconds that calls and streams waited for the quota. Those that did
      not wait are not in it.
    * `forge_realtime.stream.updates`: updates of streams that have ended, by outcome as in `StreamReport`.
    * `forge_realtime.stream.operations`: operations of streams that have ended.
    * `messaging.client.operation.duration`: histogram of the seconds that publishing took, with all attempts and waits.

    An exception in a tracer or meter is logged once, and changes nothing.

    Args:
        tracer_provider: Provider of the tracer; by default the global one.
        meter_provider: Provider of the meter; by default the global one.
        channel_names: Add the name of the Realtime channel to spans, as `messaging.destination.name` and in the span's
            name. Channel names may contain ids of your users' things.
    """

    def __init__(
        self,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
        channel_names: bool = False,
    ) -> None:
        self.channel_names = channel_names
        self.tracer = trace.get_tracer(_PACKAGE, __version__, tracer_provider)
        meter = metrics.get_meter(_PACKAGE, __version__, meter_provider)
        self.calls = meter.create_counter(f"{_PACKAGE}.calls", "{call}", "Calls by delivery")
        self.attempts = meter.create_counter(f"{_PACKAGE}.attempts", "{attempt}", "Attempts of calls by delivery")
        self.quota_wait = meter.create_histogram(f"{_PACKAGE}.quota.wait", "s", "Time waited for the quota")
        self.updates = meter.create_counter(f"{_PACKAGE}.stream.updates", "{update}", "Updates of streams by outcome")
        self.operations = meter.create_counter(f"{_PACKAGE}.stream.operations", "{operation}", "Operations of streams")
        self.duration = meter.create_histogram(
            "messaging.client.operation.duration",
            "s",
            "Duration of messaging operation initiated by a producer or consumer client.",
        )
        self._failed = False

    def call_flow(
        self,
        make: Callable[..., Flow[T]],
        prepared: PreparedRequest,
        *,
        policy: RetryPolicy,
        limiter: RateLimiter | None,
    ) -> Flow[T]:
        """Make a call in a span. `make` takes `policy` and `limiter`."""
        call = _Call(self, prepared, policy.on_attempt)
        flow = make(
            policy=evolve(policy, on_attempt=call.see),
            limiter=None if limiter is None else _TimedLimiter(limiter, self, call),
        )
        try:
            self.safely(call.begin)
            step = next(flow)
            while True:
                call.body = step.request.stream if isinstance(step, Send) else None
                step = flow.send((yield step))
        except StopIteration as end:
            self.safely(call.succeed, end.value)
            return cast("T", end.value)
        except GeneratorExit as end:
            # The driver closes the flow while it handles what interrupted the call.
            self.safely(call.fail, end.__context__ or end)
            raise
        except BaseException as error:
            self.safely(call.fail, error)
            raise
        finally:
            flow.close()
            self.safely(call.detach)
            self.safely(call.end)
            self.safely(call.measure)

    def wait_for_quota(self, flow: Flow[bool]) -> Flow[bool]:
        """Carry out a wait for the quota, and measure it."""
        return self.time_wait(flow, lambda _: None)

    def time_wait(self, flow: Flow[bool], notify: Callable[[float], None]) -> Flow[bool]:
        """Carry out a wait for the quota, measure it, and call `notify` with its seconds."""
        began = clock.monotonic()
        waited = False
        try:
            step = next(flow)
            waited = True
            while True:
                step = flow.send((yield step))
        except StopIteration as end:
            return bool(end.value)
        finally:
            flow.close()
            if waited:
                seconds = clock.monotonic() - began
                self.safely(self.quota_wait.record, seconds)
                self.safely(notify, seconds)

    def stream_ended(self, report: StreamReport) -> None:
        """Count the updates and operations of a stream."""
        for outcome in ("sent", "merged", "dropped", "rejected", "unknown", "pending"):
            if count := getattr(report, outcome):
                self.safely(self.updates.add, count, {f"{_PACKAGE}.outcome": outcome})
        self.safely(self.operations.add, report.operations)

    def safely(self, action: Callable[..., object], *args: object) -> None:
        """Do something with a tracer or meter. If it raises, log that once and go on."""
        try:
            action(*args)
        except Exception:  # noqa: BLE001 (the app's tracer may raise anything)
            if not self._failed:
                self._failed = True
                message = "OpenTelemetry failed: spans and metrics may be incomplete. This is logged only once."
                log(logging.ERROR, message, exc_info=True)


class _Call:
    """The span of one call."""

    def __init__(
        self,
        instrumentation: Instrumentation,
        prepared: PreparedRequest,
        hook: Callable[[Attempt], object] | None,
    ) -> None:
        # The body of the request that is being sent.
        self.body: object = None
        self._instrumentation = instrumentation
        self._prepared = prepared
        self._hook = hook
        self._began = clock.monotonic()
        self._attempts: list[Attempt] = []
        self._span: trace.Span = trace.INVALID_SPAN
        self._token: Token[context.Context] | None = None
        self._delivery = Delivery.ACCEPTED
        self._error: dict[str, str] = {}

    def begin(self) -> None:
        url, name = self._prepared.url, self._prepared.name
        publishes = name in _PUBLISHING
        attributes: dict[str, str | int] = {
            f"{_PACKAGE}.operation": name,
            "server.address": url.host,
            "server.port": url.port or (443 if url.scheme == "https" else 80),
        }
        if publishes:
            attributes |= self._messaging() | {"messaging.operation.type": "send"}
            if self._instrumentation.channel_names:
                channel = attributes["messaging.destination.name"] = json.loads(self._prepared.content)["name"]
                name = f"{name} {channel}"
        kind = trace.SpanKind.PRODUCER if publishes else trace.SpanKind.CLIENT
        self._span = self._instrumentation.tracer.start_span(name, kind=kind, attributes=attributes)
        self._token = context.attach(trace.set_span_in_context(self._span))

    def see(self, attempt: Attempt) -> None:
        """Note an attempt, and call the hook of the policy."""
        self.body = None
        self._attempts.append(attempt)
        self._instrumentation.safely(self._see, attempt)
        if self._hook is not None:
            self._hook(attempt)

    def _see(self, attempt: Attempt) -> None:
        attributes: dict[str, str | int] = {f"{_PACKAGE}.delivery": _text(attempt.delivery)}
        if attempt.status is not None:
            attributes["http.response.status_code"] = attempt.status
        if attempt.error is not None:
            attributes["error.type"] = attempt.error
        details: dict[str, Any] = {f"{_PACKAGE}.attempt.number": attempt.number}
        if attempt.wait is not None:
            details[f"{_PACKAGE}.attempt.wait"] = attempt.wait
        self._span.add_event("attempt", attributes | details)
        self._instrumentation.attempts.add(1, attributes | {f"{_PACKAGE}.operation": self._prepared.name})

    def wait(self, seconds: float) -> None:
        """Note a wait for the quota."""
        self._span.add_event("quota", {f"{_PACKAGE}.quota.wait": seconds})

    def succeed(self, result: object) -> None:
        event_id = getattr(result, "event_id", None)
        if self._prepared.name in _PUBLISHING and isinstance(event_id, str):
            self._span.set_attribute("messaging.message.id", event_id)

    def fail(self, error: BaseException) -> None:
        kind = type(error)
        self._error = {"error.type": kind.__name__}
        event = {"exception.type": f"{kind.__module__}.{kind.__qualname__}"}
        description = kind.__name__
        if isinstance(error, ForgeRealtimeError):
            self._delivery = error.delivery
            description = event["exception.message"] = str(error)
        else:
            self._delivery = self._delivery_if_cut_short()
        # Not record_exception(): the stack trace has the messages of other exceptions, which may show anything.
        self._span.add_event("exception", event)
        self._span.set_status(trace.StatusCode.ERROR, description)

    def detach(self) -> None:
        # An abandoned call may be collected in another context, where there is nothing to detach.
        if self._token is not None and trace.get_current_span() is self._span:
            context.detach(self._token)

    def end(self) -> None:
        try:
            self._span.set_attributes(self._outcome() | {f"{_PACKAGE}.attempts": len(self._attempts)})
        finally:
            self._span.end()

    def measure(self) -> None:
        name, outcome = self._prepared.name, self._outcome()
        self._instrumentation.calls.add(1, outcome | {f"{_PACKAGE}.operation": name})
        if name in _PUBLISHING:
            seconds = clock.monotonic() - self._began
            self._instrumentation.duration.record(seconds, outcome | self._messaging())

    def _outcome(self) -> dict[str, str | int]:
        return {f"{_PACKAGE}.delivery": _text(self._delivery), **self._error}

    def _messaging(self) -> dict[str, str | int]:
        return {"messaging.system": _PACKAGE, "messaging.operation.name": self._prepared.name}

    def _delivery_if_cut_short(self) -> Delivery:
        deliveries = [attempt.delivery for attempt in self._attempts]
        if Delivery.UNKNOWN in deliveries or (isinstance(self.body, TrackedBody) and self.body.sent):
            return Delivery.UNKNOWN
        return deliveries[-1] if deliveries else Delivery.NOT_SENT


class _TimedLimiter:
    """A rate limiter whose waits are events of a span."""

    def __init__(self, limiter: RateLimiter, instrumentation: Instrumentation, call: _Call) -> None:
        self._limiter = limiter
        self._instrumentation = instrumentation
        self._call = call

    def acquire(self, until: float) -> Flow[bool]:
        return self._instrumentation.time_wait(self._limiter.acquire(until), self._call.wait)

    def slow_down(self, retry_after: float | None) -> None:
        self._limiter.slow_down(retry_after)


def _text(delivery: Delivery) -> str:
    return delivery.name.lower()
