"""The fault matrix: every fault, the outcome that the client must report, and the code that runs them.

The server's own record is the judge: the client must never contradict it.
"""

from __future__ import annotations

import asyncio
import gc
import gzip
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from attrs import evolve

from forge_realtime import (
    Attempt,
    Delivery,
    ForgeRealtimeError,
    NoResponseError,
    RateLimitedError,
    RealtimeClient,
    RejectedError,
    ResponseError,
    RetryPolicy,
    ServerError,
    TimedOutError,
    UnexpectedResponseError,
)
from tests.support.callers import INVOCATION, AsyncKind, Kind, async_client
from tests.support.fault_server import (
    Behaviour,
    Connection,
    FaultServer,
    answer,
    close_after,
    close_in_body,
    close_unread,
    garbage,
    http,
    never_read,
    raw,
    read_slowly,
    refuse_early,
    refused_url,
    reset_after,
    reset_before,
    reset_in_answer,
    reset_in_body,
    reset_in_headers,
    slowly,
    stall,
    stall_in_body,
    stall_in_headers,
    then_close,
    trickled,
    truncated,
)

ACCEPTED, NOT_SENT, REJECTED, UNKNOWN = Delivery.ACCEPTED, Delivery.NOT_SENT, Delivery.REJECTED, Delivery.UNKNOWN
EITHER = (NOT_SENT, UNKNOWN)

MAX_ATTEMPTS = 2
# Attempts, if every one meets the fault: publishing at_least_once, publishing at_most_once, signing a token.
AGAIN = (2, 2, 2)
IF_HARMLESS = (2, 1, 2)
NEVER = (1, 1, 1)
# The number depends on how the first attempt ended, which is a matter of timing.
DEPENDS = None

MARGIN = 0.25  # seconds
PATIENT = RetryPolicy(
    deadline=20, attempt_timeout=10, max_attempts=MAX_ATTEMPTS, backoff_initial=0.001, backoff_max=0.001
)
# The second attempt gets the rest of the deadline.
TIMED = evolve(PATIENT, deadline=0.6, attempt_timeout=0.3)
POLICIES: tuple[Literal["at_least_once", "at_most_once"], ...] = ("at_least_once", "at_most_once", "at_most_once")

# A success of both operations.
FIELDS = {
    "eventId": "event-1",
    "eventTimestamp": "1767225600000",
    "token": "header.payload.signature",
    "expiresAt": 4102444800,
}
GOOD = answer(200, FIELDS)
GOOD_AND_CLOSE = then_close(GOOD)
BODY = b'{"eventId": "event-1", "eventTimestamp": "1767225600000", "token": "a.b.c", "expiresAt": 4102444800}'
NOON = "Mon, 23 Nov 2026 12:00:00 GMT"
ALMOST_NOON = "Mon, 23 Nov 2026 11:59:59 GMT"
HALF_A_MINUTE_LATER = "Mon, 23 Nov 2026 12:00:30 GMT"
HOUR_EARLIER = "Mon, 23 Nov 2026 11:00:00 GMT"
TEN_MEGABYTES = 10_000_000
ERRORS = {"errors": [{"code": "TOKEN_EXPIRED"}]}
GZIP = {"Content-Encoding": "gzip"}
FOREIGN_DATE = f"Sun, 1{'9' * 40}h2020s"
# A second response to a request. The next call must not take it for its own.
STALE = http(400, b"{}")
# More than the socket buffers of both sides hold.
LARGE = 20_000_000


@dataclass(frozen=True)
class Fault:
    """One row.

    Attributes:
        name: The name in the table.
        behaviour: The server's behaviour for every request. `None`: nothing listens.
        delivery: The delivery that the client must report, or several if it is a matter of timing.
        error: The error that the client must raise. `None`: it must succeed.
        attempts: AGAIN, IF_HARMLESS, NEVER or DEPENDS.
        record: Whether the server records each attempt as a complete request.
        delivery_async: The delivery with asyncio, if it differs: asyncio does not tell whether written data was sent.
        attempts_async: The attempts with asyncio, if they differ.
        wait: The seconds that the server asks the client to wait before the second attempt.
        first: The server's behaviour for an earlier request on the same connection. That request must succeed.
        large: Whether the request is larger than the buffers of both sides.
        timed: Whether only the deadline ends the attempts.
        deaf: Whether connecting hangs.
        aiohttp: Other values of these attributes for aiohttp.
    """

    name: str
    behaviour: Behaviour | None
    delivery: Delivery | tuple[Delivery, ...]
    error: type[ForgeRealtimeError] | None
    attempts: tuple[int, ...] | None
    record: Literal["must", "may", "never"]
    delivery_async: Delivery | tuple[Delivery, ...] | None = None
    attempts_async: tuple[int, ...] | None = None
    wait: float | None = None
    first: Behaviour | None = None
    large: bool = False
    timed: bool = False
    deaf: bool = False
    aiohttp: dict[str, Any] | None = None


def status(code: int, **headers: str) -> Behaviour:
    return answer(code, b"{}", _fields(headers))


def refusal(code: int, **headers: str) -> Behaviour:
    return answer(code, b"{}", _fields(headers), publishes=False)


def _fields(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def head(*fields: str, code: int = 200) -> bytes:
    return "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {code} Whatever", *fields, "")).encode("latin-1")


def sent(*packets: bytes) -> Behaviour:
    """Read the request, send these packets, and keep the connection."""

    def behave(connection: Connection) -> bool:
        connection.read()
        for packet in packets:
            connection.send(packet)
            connection.stopping.wait(0.02)
        return True

    return behave


EMPTY = "Content-Length: 0"
# raw() closes. Without this header, the next attempt might already be sending.
CLOSE = "Connection: close"
LENGTH = f"Content-Length: {len(BODY)}"
LONG = "Content-Length: 10000"
CHUNKED = head("Transfer-Encoding: chunked")
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n"

no_connection = partial(Fault, delivery=NOT_SENT, error=NoResponseError, attempts=AGAIN, record="never")
incomplete = partial(Fault, delivery=EITHER, error=NoResponseError, attempts=DEPENDS, record="never")
incomplete_large = partial(
    Fault,
    delivery=NOT_SENT,
    error=NoResponseError,
    attempts=AGAIN,
    record="never",
    delivery_async=UNKNOWN,
    attempts_async=IF_HARMLESS,
    large=True,
)
no_answer = partial(Fault, delivery=UNKNOWN, error=NoResponseError, attempts=IF_HARMLESS, record="must")
too_slow = partial(Fault, delivery=UNKNOWN, error=TimedOutError, attempts=IF_HARMLESS, record="must", timed=True)
failed = partial(Fault, delivery=UNKNOWN, error=ServerError, attempts=IF_HARMLESS, record="must")
unreadable = partial(Fault, delivery=UNKNOWN, error=UnexpectedResponseError, attempts=IF_HARMLESS, record="must")
throttled = partial(Fault, delivery=REJECTED, error=RateLimitedError, attempts=AGAIN, record="must")
refused = partial(Fault, delivery=REJECTED, error=RejectedError, attempts=NEVER, record="must")
accepted = partial(Fault, delivery=ACCEPTED, error=None, attempts=NEVER, record="must")

# aiohttp refuses some responses that are not quite HTTP.
NO_ANSWER: dict[str, Any] = {"delivery": UNKNOWN, "error": NoResponseError, "attempts": IF_HARMLESS}

FAULTS = (
    # No connection.
    no_connection("nothing listens", None),
    no_connection("no connection comes about", GOOD, error=TimedOutError, deaf=True, timed=True),
    # The connection breaks before the request is complete.
    incomplete("reset before the request", reset_before),
    incomplete_large("reset before a large request", reset_before, delivery_async=EITHER, attempts_async=DEPENDS),
    incomplete("reset within the headers", reset_in_headers),
    incomplete_large("reset within a large body", reset_in_body),
    incomplete_large("closed within a large body", close_in_body),
    too_slow("never reads", never_read, record="never"),
    incomplete_large("never reads a large request", never_read, error=TimedOutError, timed=True),
    incomplete_large("reads a large request byte by byte", read_slowly, error=TimedOutError, timed=True),
    refused("413 before it has read a large request", refuse_early, record="never", large=True),
    # A connection kept alive.
    accepted("closed idle, before the write", GOOD_AND_CLOSE, first=GOOD_AND_CLOSE),
    incomplete("closed idle, as the client writes", close_unread, first=GOOD),
    # The connection breaks after the request.
    no_answer("reset after the request", reset_after),
    no_answer("closed after the request", close_after),
    no_answer("closed within the status line", raw(b"HTTP/1.1 20")),
    no_answer("closed within the headers", raw(b"HTTP/1.1 200 OK\r\nContent-Le")),
    no_answer("closed after the headers", raw(head(LENGTH))),
    no_answer("closed after 103", raw(HINTS)),
    no_answer("reset within the answer", reset_in_answer),
    no_answer("body cut short", truncated),
    unreadable("body of no stated length cut short", raw(head() + BODY[:-5])),
    no_answer("chunks cut short", raw(CHUNKED + b'5\r\n{"eve\r\n')),
    no_answer("chunks broken in the middle", raw(CHUNKED + b'5\r\n{"eve\r\nzz\r\n')),
    # Too slow.
    too_slow("stalls before the answer", stall),
    too_slow("stalls in the headers", stall_in_headers),
    too_slow("stalls in the body", stall_in_body),
    too_slow("byte by byte from the first", slowly(b"", head("X: " + "x" * 10_000))),
    too_slow("byte by byte in the headers", slowly(head()[:-2], b"X: " + b"x" * 10_000)),
    too_slow("byte by byte in the body", trickled),
    too_slow("a whole body of no stated length, then byte by byte", slowly(head() + BODY, b" " * 10_000)),
    too_slow("byte by byte in chunks", slowly(CHUNKED, b"1\r\nx\r\n" * 10_000)),
    too_slow("103 for ever", slowly(b"", HINTS * 10_000, 0.0001)),
    # Refusals with a Retry-After.
    throttled("429", refusal(429)),
    throttled("429, Retry-After: 0", refusal(429, Retry_After="0"), wait=0),
    throttled("429, Retry-After: 0.05", refusal(429, Retry_After="0.05"), wait=0.05),
    throttled("429, Retry-After: 3600", refusal(429, Retry_After="3600"), attempts=NEVER),
    throttled("429, Retry-After: 10**400", refusal(429, Retry_After=str(10**400)), attempts=NEVER),
    throttled("429, Retry-After: -5", refusal(429, Retry_After="-5")),
    throttled("429, Retry-After: soon", refusal(429, Retry_After="soon")),
    throttled("429, Retry-After: \\xff", raw(head("Retry-After: \xff", CLOSE, EMPTY, code=429), publishes=False)),
    throttled(
        "429, two Retry-After", raw(head("Retry-After: 1", "Retry-After: 2", CLOSE, EMPTY, code=429), publishes=False)
    ),
    throttled("429, a date in 1 s", refusal(429, Retry_After=NOON, Date=ALMOST_NOON), wait=1),
    throttled("429, a date in 30 s", refusal(429, Retry_After=HALF_A_MINUTE_LATER, Date=NOON), attempts=NEVER),
    throttled("429, a date that is past", refusal(429, Retry_After=HOUR_EARLIER, Date=NOON), wait=0),
    throttled(
        "429, a date in the year 9999", refusal(429, Retry_After="Fri, 31 Dec 9999 23:59:59 GMT"), attempts=NEVER
    ),
    throttled("429, a date in the year 99999", refusal(429, Retry_After="Fri, 31 Dec 99999 23:59:59 GMT")),
    throttled("429, a date that is none", refusal(429, Retry_After="Mon, 99 Nov 2026 12:00:00 GMT")),
    throttled("429, a date in no time zone", refusal(429, Retry_After="Mon, 23 Nov 2026 11:00:00 +9999", Date=NOON)),
    throttled("429, a date in zone XYZ", refusal(429, Retry_After="Mon, 23 Nov 2026 11:00:00 XYZ", Date=NOON)),
    throttled("429, a date that breaks dateutil", refusal(429, Retry_After=FOREIGN_DATE)),
    throttled("429 in gzip", answer(429, gzip.compress(b"{}"), GZIP, publishes=False)),
    refused("503, Retry-After: 0.05", refusal(503, Retry_After="0.05"), attempts=AGAIN, wait=0.05),
    refused("503, Retry-After: 10**400", refusal(503, Retry_After=str(10**400))),
    refused("503, a date that is past", refusal(503, Retry_After=HOUR_EARLIER, Date=NOON), attempts=AGAIN, wait=0),
    # Other refusals.
    refused("400", refusal(400)),
    refused("400, byte by byte in the body", slowly(head(LONG, code=400), b" " * 10_000, publishes=False), timed=True),
    refused("errors in a 200", answer(200, ERRORS, publishes=False)),
    refused("400 in gzip", answer(400, gzip.compress(b"{}"), GZIP, publishes=False)),
    # Failures after which the event may have been published.
    failed("500", status(500)),
    failed("502", status(502)),
    failed("503", status(503)),
    failed("503, Retry-After: -5", status(503, Retry_After="-5")),
    failed("503, Retry-After: soon", status(503, Retry_After="soon")),
    failed("503, a date that breaks dateutil", status(503, Retry_After=FOREIGN_DATE)),
    failed("504", status(504)),
    failed("520", status(520)),
    failed("502 with 10 MB of HTML", answer(502, b"<html>" + b"x" * TEN_MEGABYTES)),
    failed("502 with 20 MB of HTML", answer(502, b"<html>" + b"x" * LARGE)),
    # Unreadable responses.
    no_answer("garbage", garbage),
    no_answer("10 MB of garbage", raw(b"x" * TEN_MEGABYTES)),
    no_answer("headers of 200 KB", raw(head("X: " + "x" * 200_000, LENGTH) + BODY)),
    no_answer("two lengths that differ", raw(head(LENGTH, "Content-Length: 5") + BODY)),
    no_answer("a length below zero", raw(head("Content-Length: -5") + BODY)),
    no_answer("a length of 10**400", raw(head(f"Content-Length: {10**400}") + BODY)),
    no_answer("a JSON answer of 20 MB", answer(200, {**FIELDS, "unknown": "x" * LARGE})),
    no_answer(
        "101",
        raw(head("Upgrade: websocket", "Connection: upgrade", code=101)),
        aiohttp={"error": UnexpectedResponseError, "attempts": NEVER},
    ),
    unreadable("an HTML page", answer(200, b"<!doctype html><p>Log in", {"Content-Type": "text/html"})),
    unreadable("an empty 200", answer(200)),
    unreadable("gzip that is none", answer(200, BODY, GZIP)),
    unreadable("gzip", answer(200, gzip.compress(BODY), GZIP)),
    unreadable("gzip in gzip", answer(200, gzip.compress(gzip.compress(BODY)), {"Content-Encoding": "gzip, gzip"})),
    unreadable("invalid UTF-8", answer(200, b'{"eventId": "\xff\xfe"}')),
    unreadable("10 MB of opening brackets", answer(200, b"[" * TEN_MEGABYTES)),
    unreadable("a number of 10,000 digits", answer(200, b'{"n": ' + b"9" * 10_000 + b"}")),
    unreadable("two answers in one body", answer(200, BODY + BODY)),
    Fault("204", raw(head(CLOSE, code=204)), UNKNOWN, UnexpectedResponseError, NEVER, "must"),
    Fault("errors in a 201", answer(201, ERRORS), UNKNOWN, UnexpectedResponseError, NEVER, "must"),
    Fault("302", status(302, Location="/elsewhere"), UNKNOWN, UnexpectedResponseError, NEVER, "must"),
    # Unusual, but successful.
    accepted("a property of 10 MB", answer(200, {**FIELDS, "unknown": "x" * TEN_MEGABYTES})),
    accepted("two lengths that agree", raw(head(LENGTH, LENGTH) + BODY), aiohttp=NO_ANSWER),
    accepted("invalid UTF-8 in a header", raw(head("X: \xff\xfe", LENGTH) + BODY)),
    accepted("100 and 103 before the answer", raw(b"HTTP/1.1 100 Continue\r\n\r\n" + HINTS, HINTS + http(200, BODY))),
    accepted("byte by byte, but in time", slowly(b"", http(200, BODY), 0.0001)),
    accepted("HTTP/1.0, no stated length", raw(b"HTTP/1.0 200 OK\r\n\r\n" + BODY)),
    accepted("two answers to the request before", GOOD, first=sent(http(200, BODY) + STALE)),
    accepted(
        "the end of the answer before, and a second one", GOOD, first=sent(http(200, BODY)[:-3], BODY[-3:] + STALE)
    ),
    accepted("bytes behind the answer before", GOOD, first=sent(http(200, BODY) + b"\r\n")),
    accepted("garbage after the answer", raw(http(200, BODY) + b"\x00\xff"), aiohttp=NO_ANSWER),
)


@dataclass
class Row:
    """The outcome of a fault for one client, with an entry for each of the three calls of AGAIN."""

    fault: Fault
    kind: Kind
    deliveries: list[Delivery] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    attempts: list[int] = field(default_factory=list)
    saw: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    # Problems that a busy machine can cause.
    late: list[str] = field(default_factory=list)


def run(fault: Fault, kind: Kind) -> Row:
    """Run a fault against a client. Late problems count only if they occur three times in a row."""
    row = _run_once(fault, kind)
    for _ in range(2):
        if row.late and not row.problems:
            row = _run_once(fault, kind)
    row.problems += row.late
    return row


def _run_once(fault: Fault, kind: Kind) -> Row:
    row = Row(replace(fault, **fault.aiohttp) if fault.aiohttp and kind == "aiohttp" else fault, kind)
    with watched_for_leaks(row.problems):
        for mode in range(3):
            _run_mode(row, mode)
    return row


def _run_mode(row: Row, mode: int) -> None:
    fault = row.fault
    policy = evolve(TIMED if fault.timed else PATIENT, delivery=POLICIES[mode])
    first = (fault.first,) if fault.first else ()
    with FaultServer(*first, then=fault.behaviour or GOOD, deaf=fault.deaf) as server:
        url = server.url if fault.behaviour else refused_url()
        if row.kind == "sync":
            outcome, seconds = _sync(row, server, url, mode, policy)
        else:
            outcome, seconds = _async(row, row.kind, server, url, mode, policy)
    # The record is complete only now: the server notices later than the client.
    received, published = len(server.received) - len(first), len(server.published) - len(first)
    _judge(row, mode, policy, outcome, seconds, received, published)


def _sync(row: Row, server: FaultServer, url: str, mode: int, policy: RetryPolicy) -> tuple[Any, float]:
    with RealtimeClient(url, retry=policy) as client:
        live = client.for_invocation(INVOCATION)
        if row.fault.first:
            live.publish("board-42", "first")
        if row.fault.first is GOOD_AND_CLOSE:
            server.wait_for_closed_connections()
        began = time.monotonic()
        try:
            outcome = _call(live, mode, large=row.fault.large)
        except Exception as error:  # noqa: BLE001 (it is what _judge finds wrong)
            outcome = error
        return outcome, time.monotonic() - began


def _async(
    row: Row, kind: AsyncKind, server: FaultServer, url: str, mode: int, policy: RetryPolicy
) -> tuple[Any, float]:
    async def run() -> tuple[Any, float]:
        async with async_client(kind, url, retry=policy) as client:
            live = client.for_invocation(INVOCATION)
            if row.fault.first:
                await live.publish("board-42", "first")
            if row.fault.first is GOOD_AND_CLOSE:
                await asyncio.to_thread(server.wait_for_closed_connections)
            began = time.monotonic()
            try:
                outcome = await _call(live, mode, large=row.fault.large)
            except Exception as error:  # noqa: BLE001 (it is what _judge finds wrong)
                outcome = error
            seconds = time.monotonic() - began
        # The loop needs some turns to finalize a body that was given up.
        for _ in range(10):
            await asyncio.sleep(0)
        if tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            row.problems.append(f"left {len(tasks)} tasks")
        return outcome, seconds

    return asyncio.run(run())


def _call(live: Any, mode: int, *, large: bool) -> Any:
    text = "x" * (LARGE if large else 10)
    if mode == 2:
        return live.sign_realtime_token("board-42", {"team": text})
    return live.publish("board-42", text)


def _judge(
    row: Row, mode: int, policy: RetryPolicy, outcome: Any, seconds: float, received: int, published: int
) -> None:
    fault, asynchronous = row.fault, row.kind != "sync"
    call = ("at least once", "at most once", "token")[mode]
    if isinstance(outcome, Exception) and not isinstance(outcome, ForgeRealtimeError):
        row.problems.append(f"{call}: {outcome!r} is not a ForgeRealtimeError")
        return
    error = outcome if isinstance(outcome, ForgeRealtimeError) else None
    delivery = error.delivery if error else ACCEPTED
    attempts: tuple[Attempt, ...] = outcome.attempts
    name = type(error).__name__ if error else "-"
    row.deliveries.append(delivery)
    row.errors.append(name)
    row.attempts.append(len(attempts))
    row.saw.append(received)
    row.seconds.append(seconds)

    def expect(holds: bool, problem: str, problems: list[str] = row.problems) -> None:
        if not holds:
            problems.append(f"{call}: {problem}")

    allowed = fault.delivery if fault.delivery_async is None or not asynchronous else fault.delivery_async
    allowed = allowed if isinstance(allowed, tuple) else (allowed,)
    # A busy machine may not even begin to send within a short attempt.
    timing = row.late if fault.timed else row.problems
    expect(delivery in allowed, f"delivery is {delivery.name}", timing)
    expect((type(error) if error else None) is fault.error, f"it raised {name}", timing)

    tries = fault.attempts if not (fault.delivery_async and asynchronous) else fault.attempts_async
    deliveries = [attempt.delivery for attempt in attempts]
    if tries is None:
        tries = AGAIN if attempts[0].delivery is NOT_SENT else IF_HARMLESS
    expect(len(attempts) == tries[mode], f"{len(attempts)} attempts", timing)
    if mode == 1:
        expect(UNKNOWN not in deliveries[:-1], "retried although it may have arrived")
        expect(published <= 1, f"published {published} times")
    if UNKNOWN in deliveries:
        expect(delivery in (UNKNOWN, ACCEPTED), f"{delivery.name} although an attempt ended UNKNOWN")
    if fault.wait is not None and len(attempts) > 1:
        expect(attempts[0].wait == fault.wait, f"waited {attempts[0].wait} s")
        expect(seconds >= fault.wait, "did not wait")

    _judge_record(expect, fault, delivery, attempts, received, published, timing)

    over = seconds - policy.deadline
    # A busy machine takes long to encode a large request.
    expect(over <= MARGIN * (4 if fault.large else 1), f"{over:.2f} s over the deadline", row.late)
    if isinstance(error, ResponseError):
        expect(len(error.body) <= 64 * 1024, f"keeps {len(error.body)} bytes")


def _judge_record(
    expect: Callable[..., None],
    fault: Fault,
    delivery: Delivery,
    attempts: tuple[Attempt, ...],
    received: int,
    published: int,
    timing: list[str],
) -> None:
    """Compare the client's word with the server's own record."""
    if delivery is NOT_SENT:
        expect(received == 0, "NOT_SENT, and the server received it")
    if delivery is REJECTED:
        expect(published == 0, "REJECTED, and the server published it")
    if delivery is ACCEPTED:
        expect(published >= 1, "ACCEPTED, and the server did not publish it")
    if fault.record == "must":
        expect(received == len(attempts), f"the server received {received} of {len(attempts)}", timing)
    expect(received == 0 or fault.record != "never", f"the server received {received}")
    expect(received <= len(attempts), f"the server received {received} of {len(attempts)}")


@contextmanager
def watched_for_leaks(problems: list[str]) -> Iterator[None]:
    """Notes new file descriptors that are still there afterwards."""
    before = open_files()
    yield
    # The server's threads may still be closing theirs.
    until = time.monotonic() + 2
    while (left := open_files() - before) > 0 and time.monotonic() < until:
        gc.collect()
        time.sleep(0.01)
    if left > 0:
        problems.append(f"left {left} open files")


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def table(rows: list[Row]) -> Iterator[str]:
    """Return the rows as lines of text."""
    heads = ("fault", "client", "delivery", "error", "attempts", "server saw", "seconds")
    lines = [heads, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        if line is heads:
            yield "  ".join("-" * width for width in widths)


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.fault.name,
        row.kind,
        "/".join(dict.fromkeys(delivery.name for delivery in row.deliveries)),
        "/".join(dict.fromkeys(row.errors)),
        " ".join(map(str, row.attempts)),
        " ".join(map(str, row.saw)),
        f"{max(row.seconds, default=0):.2f}",
    )
