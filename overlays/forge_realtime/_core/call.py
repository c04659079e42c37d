"""One call of a generated operation, from its first attempt to its result. Decides everything and does no I/O.

`call_flow` is a generator: it yields attempts to send and waits, and the clients carry them out, one with blocking I/O
and one with asyncio.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from . import clock
from .errors import Delivery, ForgeRealtimeError, OverQuotaError, RateLimitedError
from .http import httpx
from .log import failure_level, log, sending
from .responses import Failure, M, Operation, P, Response, T, classify_transport_error, read_response

if TYPE_CHECKING:
    from .attempts import Attempt, StreamReport
    from .policy import RetryPolicy
    from .retry import RetryBudget


class TrackedBody(httpx.ByteStream):
    """A request body that knows whether the platform may have received all of it.

    With blocking I/O, a transport asks for more only after it has written what it got: a body whose end was never asked
    for has not left completely. With asyncio, whatever was handed over may leave at any later time.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.content = content
        self.sent = False
        self.times = 0

    def __iter__(self) -> Iterator[bytes]:
        self.times += 1
        yield self.content
        self.sent = True

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.sent = True
        self.times += 1
        yield self.content


class PreparedRequest:
    """A request, of which each attempt makes an `httpx.Request` of its own.

    Attributes:
        name: Name of the operation in messages.
        base_url: Address of the sidecar in messages.
        show_response: Whether the message of an error quotes the response.
    """

    __slots__ = ("base_url", "content", "headers", "method", "name", "show_response", "url")

    def __init__(
        self, name: str, method: str, url: httpx.URL, headers: httpx.Headers, content: bytes, *, base_url: str
    ) -> None:
        self.name = name
        self.method = method
        self.url = url
        self.headers = headers
        self.content = content
        self.base_url = base_url
        self.show_response = False

    def request(self, body: TrackedBody) -> httpx.Request:
        """Make the request of one attempt."""
        return httpx.Request(self.method, self.url, headers=self.headers, stream=body)


class Send:
    """Ask the client to send `request` and read the whole response within `timeout` seconds."""

    __slots__ = ("request", "timeout")

    def __init__(self, request: httpx.Request, timeout: float) -> None:
        self.request = request
        self.timeout = timeout


class Waker:
    """Ends a wait of a flow early. Thread-safe."""

    __slots__ = ("_notify", "_woken")

    def __init__(self) -> None:
        self._notify: Callable[[], object] | None = None
        self._woken = False

    def begin(self, notify: Callable[[], object]) -> bool:
        """Begin a wait that `notify` ends, called from any thread. Return False if there is nothing to wait for."""
        self._notify = notify
        return not self._woken

    def end(self) -> None:
        """End the wait."""
        self._notify = None
        self._woken = False

    def wake(self) -> None:
        """End the current wait, or the next one at its beginning."""
        self._woken = True
        if (notify := self._notify) is not None:
            # Its event loop is closed: nobody waits.
            with suppress(RuntimeError):
                notify()


class Sleep:
    """Ask the client to wait for so many seconds, or until `waker` wakes it."""

    __slots__ = ("seconds", "waker")

    def __init__(self, seconds: float, waker: Waker | None = None) -> None:
        self.seconds = seconds
        self.waker = waker


# A Send is answered with what came of it, a Sleep with None.
Flow: TypeAlias = Generator[Send | Sleep, Response | Exception | None, T]


class RateLimiter(Protocol):
    """Decides when each attempt of a call may start."""

    def acquire(self, until: float) -> Flow[bool]:
        """Wait until an attempt may start; False if none may before `until`, in seconds of `clock.monotonic()`."""
        ...

    def slow_down(self, retry_after: float | None) -> None:
        """Learn that the platform's rate limit was hit, and the seconds that it asks to wait."""
        ...


class Instrument(Protocol):
    """Observer of calls and streams, such as `forge_realtime.otel.Instrumentation`."""

    def call_flow(
        self,
        make: Callable[..., Flow[T]],
        prepared: PreparedRequest,
        *,
        policy: RetryPolicy,
        limiter: RateLimiter | None,
    ) -> Flow[T]:
        """Make a call and observe it. `make` takes `policy` and `limiter`, and makes the call as `call_flow` does."""
        ...

    def wait_for_quota(self, flow: Flow[bool]) -> Flow[bool]:
        """Carry out a stream's wait for the quota, and observe it."""
        ...

    def stream_ended(self, report: StreamReport) -> None:
        """Learn what became of a stream. Must not raise."""
        ...


# Characters of a response that a message quotes at most.
_SHOWN: Final = 1_000
# The header and the payload of a token are JSON objects, which begin so in base64.
_TOKEN: Final = re.compile(r"\bey[\w-]+\.ey[\w-]*(\.[\w-]*)?")
_OVER_QUOTA = Failure(
    kind=OverQuotaError,
    message="the quota of the installation is used up: send less often, or with a later deadline",
    delivery=Delivery.NOT_SENT,
    retryable=True,
)


def call_flow(
    operation: Operation[P, M],
    prepared: PreparedRequest,
    convert: Callable[[M, tuple[Attempt, ...], Response], T],
    *,
    policy: RetryPolicy,
    budget: RetryBudget,
    duplicate_harmless: bool,
    started: float,
    limiter: RateLimiter | None = None,
) -> Flow[T]:
    """Make a call: send `prepared` until it succeeds or a retry makes no sense, and return its result.

    Args:
        operation: The generated operation, which parses the responses.
        prepared: What to send.
        convert: See `read_response`.
        policy: When to retry.
        budget: Retries left, shared by all calls of a client and its siblings.
        duplicate_harmless: Whether the request may be repeated although an earlier one may have been carried out.
        started: Start of the call, in seconds of `clock.monotonic()`.
        limiter: Asked before every attempt.

    Raises:
        ForgeRealtimeError: The last attempt's error, with all attempts.
    """
    from .attempts import Attempt

    name = prepared.name
    deadline = started + policy.deadline
    budget.deposit(policy.budget)
    attempts: list[Attempt] = []
    failure: Failure | None = None
    outcome: Response | Exception | None = None
    while True:
        if limiter is not None and not (yield from limiter.acquire(deadline)):
            failure = failure or _OVER_QUOTA
            reason = f"waiting for the quota would pass the deadline of {policy.deadline:g} s (RetryPolicy.deadline)"
            break
        number = len(attempts) + 1
        began = clock.monotonic()
        body = TrackedBody(prepared.content)
        timeout = max(0.001, min(policy.attempt_timeout, deadline - began))
        outcome = yield from attempt_to_send(prepared.request(body), timeout)
        now = clock.monotonic()

        if isinstance(outcome, Response):
            status: int | None = outcome.status_code
            accepted = Attempt(number, Delivery.ACCEPTED, status, None, now - began, None)
            result = read_response(operation, outcome, convert, (*attempts, accepted))
            if not isinstance(result, Failure):
                log(logging.DEBUG, "%s: attempt %d: accepted (%d)", name, number, status)
                _notify(name, policy, accepted)
                return result
            failure, cause = result, result.kind.__name__
        else:
            assert outcome is not None
            status = None
            failure, cause = classify_transport_error(outcome, sent=body.sent), type(outcome).__name__

        if limiter is not None and issubclass(failure.kind, RateLimitedError):
            limiter.slow_down(failure.retry_after)
        wait, reason = _next_wait(
            failure, number, deadline - now, policy, budget, duplicate_harmless=duplicate_harmless
        )
        attempts.append(Attempt(number, failure.delivery, status, cause, now - began, wait))
        known = failure.delivery.value
        log(logging.DEBUG, "%s: attempt %d: %s (%s)", name, number, known, cause)
        _notify(name, policy, attempts[-1])
        if wait is None:
            break
        log(logging.INFO, "%s: attempt %d: %s (%s); retrying in %.3f s", name, number, known, cause, wait)
        if wait > 0:
            yield Sleep(wait)
        if clock.monotonic() >= deadline:
            # The hook took its time, or the machine is busy.
            reason = f"the deadline of {policy.deadline:g} s has passed (RetryPolicy.deadline)"
            break
    error = _final_error(failure, attempts, prepared, reason, clock.monotonic() - started)
    # Crash reporters show variables, and an error may quote what was sent.
    outcome = None
    log(failure_level.get(), "%s", error)
    raise error


def attempt_to_send(request: httpx.Request, timeout: float) -> Flow[Response | Exception | None]:
    """Send a request within `timeout` seconds. Meanwhile the app's handlers of the logs below cannot break it."""
    former = sending.get()
    try:
        sending.set(True)
        return (yield Send(request, timeout))
    finally:
        # Not by a token, which raises where an abandoned call is collected in another context.
        sending.set(former)


def operation_name(operation: object) -> str:
    """The operation's name in messages: that of its module."""
    return str(getattr(operation, "__name__", operation)).rpartition(".")[2]


def _next_wait(
    failure: Failure, number: int, left: float, policy: RetryPolicy, budget: RetryBudget, *, duplicate_harmless: bool
) -> tuple[float | None, str]:
    """Seconds until the next attempt; or None, and the reason why there is none."""
    if not failure.retryable:
        return None, ""
    if failure.delivery is Delivery.UNKNOWN and policy.delivery == "at_most_once" and not duplicate_harmless:
        return None, "not retried, as RetryPolicy.delivery is 'at_most_once'"
    if number >= policy.max_attempts:
        return None, f"RetryPolicy.max_attempts is {policy.max_attempts}"
    asked = failure.retry_after
    wait = policy.backoff(number) if asked is None else asked
    if wait >= left:
        who = "backing off" if asked is None else "the wait that the server asks for"
        return None, f"{who}, {wait:.3g} s, would pass the deadline of {policy.deadline:g} s (RetryPolicy.deadline)"
    if policy.budget != math.inf and not budget.withdraw():
        return None, "the client's retry budget is spent (RetryPolicy.budget)"
    return wait, ""


def _final_error(
    failure: Failure, attempts: list[Attempt], prepared: PreparedRequest, reason: str, elapsed: float
) -> ForgeRealtimeError:
    if attempts and attempts[-1].wait is not None:
        from attrs import evolve

        attempts[-1] = evolve(attempts[-1], wait=None)
    unknown = any(attempt.delivery is Delivery.UNKNOWN for attempt in attempts)
    delivery = Delivery.UNKNOWN if unknown else failure.delivery
    known = {
        Delivery.NOT_SENT: "it was not sent",
        Delivery.REJECTED: "it was not carried out",
        Delivery.UNKNOWN: "it may have been carried out",
    }[delivery]
    count = len(attempts)
    parts = [f"{prepared.name}: {failure.message}", known]
    parts.append(f"{count} attempt{'' if count == 1 else 's'} in {elapsed:.2f} s")
    if reason:
        parts.append(reason)
    response = failure.response
    if response is not None and response.content:
        parts.append(_quote(response, show=prepared.show_response))
    if isinstance(failure.cause, httpx.ConnectError | httpx.ConnectTimeout) or (
        response is not None and response.status_code in (404, 405)
    ):
        parts.append(
            f"is {prepared.base_url} the right address (FORGE_EGRESS_PROXY_URL or base_url), and does the sidecar "
            "listen there?"
        )
    return failure.error("; ".join(parts), delivery, tuple(attempts))


def _quote(response: Response, *, show: bool) -> str:
    if not show:
        return "the platform's own words are in the error's body"
    text = response.text
    # On one line, as logs and terminals need it.
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[:_SHOWN])
    # A response that cannot be used may still hold a valid token.
    shown = _TOKEN.sub("(token)", shown)
    return f"the platform said: {shown}{'…' if len(text) > _SHOWN else ''}"


def _notify(name: str, policy: RetryPolicy, attempt: Attempt) -> None:
    if policy.on_attempt is None:
        return
    try:
        policy.on_attempt(attempt)
    except Exception:  # noqa: BLE001 (the app's hook may raise anything, and must not hide what became of the event)
        log(logging.ERROR, "%s: RetryPolicy.on_attempt failed", name, exc_info=True)
