"""The processes of a run of many streams: the emulator, the senders, and a subscriber that receives as a browser does.

All clocks are `time.monotonic()`, which the processes of a machine share.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Literal

import attrs
from websockets.asyncio.client import ClientConnection, connect

from forge_realtime import AsyncRealtimeClient, ForgeRealtimeError, Quota, StreamError
from forge_realtime.redis import RedisStore
from forge_realtime_emulator import Emulator, Settings
from tests.benchmarks.emulator_load import questions

Kind = Literal["shared", "own", "naive", "nothing"]
Send = Callable[[int, str], Awaitable[object]]

_LETTERS = 'abcdefghijklmnopqrstuvwxyz      \n"\\éß漢🙂'
_LOOK = 0.25


@dataclass(frozen=True)
class Load:
    """The work of one sender.

    Attributes:
        kind: `shared`: streams with a shared quota. `own`: streams with a quota of each process. `naive`: one publish
            for each token. `nothing`: only make the tokens, to measure their cost.
        users: The numbers of the users. Each gets an answer of its own on a channel of its own.
        tokens: The number of tokens of each user.
        per_second: Tokens per second and user. 0: random pauses of at most 8 ms.
        begin: The time of the first tokens.
        drain: Seconds after the last token in which single publishes may still end.
        stream: Settings of the streams that differ from the defaults.
        quota: Settings of the quota that differ from the defaults.
    """

    kind: Kind
    users: tuple[int, ...]
    tokens: int
    per_second: float
    begin: float
    drain: float = 10.0
    stream: dict[str, Any] = field(default_factory=dict)
    quota: dict[str, Any] = field(default_factory=dict)


@dataclass
class Sent:
    """The record of one sender.

    Attributes:
        cpu: Seconds of processor time of all threads.
        reports: The reports of the streams, as dicts.
        failed: The number of errors that reached the app, by type.
        late: For each token, the seconds between the time it was due and the time it was made.
        said: The client's log records about the store of the quota.
    """

    cpu: float = 0.0
    reports: list[dict[str, int]] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    late: list[float] = field(default_factory=list)
    said: list[tuple[str, str]] = field(default_factory=list)


def channel(user: int) -> str:
    return f"answer-{user}"


def tokens(user: int, count: int) -> list[str]:
    """Return the answer for a user. It is the same in every process."""
    choice = random.Random(user)
    return ["".join(choice.choices(_LETTERS, k=choice.randint(1, 8))) for _ in range(count)]


# --- the emulator


def run_emulator(pipe: Connection, limit: int | None) -> None:
    """Serve. The question `faults` starts random faults. `record` returns time, status and fault of every call."""
    stopping = threading.Event()
    with Emulator(settings=Settings(limit=limit, errors_in_200=False)) as emulator:
        record = _Record(emulator)
        pipe.send(emulator.url)
        threads = []
        for (what,) in questions(pipe):
            if what == "faults":
                threads.append(threading.Thread(target=_let_fail, args=(emulator, stopping), daemon=True))
                threads[-1].start()
            pipe.send(record.take() if what == "record" else None)
        stopping.set()
        for thread in [*threads, record]:
            thread.join()


class _Record(threading.Thread):
    """Keeps all calls: the emulator itself remembers the last 10,000."""

    def __init__(self, emulator: Emulator) -> None:
        super().__init__(daemon=True)
        self._emulator = emulator
        self._ahead = time.time() - time.monotonic()
        self._last: object = None
        self._rows: list[tuple[float, int, bool]] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._over.wait(_LOOK):
            self._look()

    def join(self, timeout: float | None = None) -> None:
        self._over.set()
        super().join(timeout)

    def take(self) -> list[tuple[float, int, bool]]:
        self._look()
        with self._lock:
            return self._rows

    def _look(self) -> None:
        with self._lock:
            requests = self._emulator.requests
            new = len(requests)
            while new and requests[new - 1] is not self._last:
                new -= 1
            if self._last is not None and not new and requests:
                raise RuntimeError("The emulator dropped calls before they were recorded: the machine is too busy.")
            self._rows += [(one.at - self._ahead, one.status, one.fault) for one in requests[new:]]
            self._last = requests[-1] if requests else None


def _let_fail(emulator: Emulator, stopping: threading.Event) -> None:
    """Let about every third call fail, in every way but a timeout."""
    choice = random.Random(7)
    kinds: list[dict[str, Any]] = [
        *({"status": status} for status in (429, 500, 502, 504)),
        {"status": 503, "retry_after": 0},
        *({"status": 500, "delivered": True} for _ in range(3)),
        *(
            {"answer": answer, "delivered": delivered}
            for answer in ("reset", "truncated", "not-json")
            for delivered in (False, True)
        ),
        {"delay": 0.05},
        {"delay": 0.02, "answer": "reset", "delivered": True},
    ]
    added = 0
    while not stopping.wait(choice.random() / 50):
        if added <= len(emulator.requests) / 3:
            times = choice.choice((1, 1, 1, 2, 3))
            emulator.fail_next(times, **choice.choice(kinds))
            added += times


# --- the senders


def run_sender(pipe: Connection, url: str, store: str | None, replicas: int) -> None:
    """Send as asked."""
    pipe.send(None)
    for (load,) in questions(pipe):
        pipe.send(asyncio.run(_send_all(load, url, store, replicas)))


async def _send_all(load: Load, url: str, store: str | None, replicas: int) -> Sent:
    sent = Sent()
    _listen(sent, load.kind)
    quota = None
    if store is not None:
        quota = Quota(store=RedisStore(store, replicas=replicas), **load.quota)
    elif load.quota:
        quota = Quota(**load.quota)
    answers = {user: tokens(user, load.tokens) for user in load.users}
    async with AsyncRealtimeClient(url, quota=quota) as realtime:
        cpu = time.process_time()
        async with asyncio.TaskGroup() as group:
            for user in load.users:
                live = realtime.for_invocation({"x-forge-invocation-id": f"invocation-{user}"})
                group.create_task(_send(load, user, answers[user], live, sent))
        sent.cpu = time.process_time() - cpu
    return sent


async def _send(load: Load, user: int, answer: list[str], live: AsyncRealtimeClient, sent: Sent) -> None:
    if load.kind == "nothing":
        await _make_tokens(load, user, answer, sent, _forget)
    elif load.kind == "naive":

        async def publish(number: int, token: str) -> None:
            try:
                await live.publish(channel(user), {"n": number, "text": token})
            except ForgeRealtimeError as error:
                # An app would log it and go on.
                sent.failed[type(error).__name__] += 1

        end = (
            asyncio.get_running_loop().time()
            + load.begin
            - time.monotonic()
            + load.tokens / load.per_second
            + load.drain
        )
        with suppress(TimeoutError):
            async with asyncio.timeout_at(end):
                await _make_tokens(load, user, answer, sent, publish)
    else:
        stream = live.stream(channel(user), **load.stream)
        try:
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(stream)
                await _make_tokens(load, user, answer, sent, lambda _, token: stream.send(token))
        except StreamError as error:
            sent.failed[type(error).__name__] += 1
        sent.reports.append(attrs.asdict(stream.report))


async def _forget(number: int, token: str) -> None:
    pass


async def _make_tokens(load: Load, user: int, answer: list[str], sent: Sent, send: Send) -> None:
    pauses = random.Random(-1 - user)
    due = load.begin
    for number, token in enumerate(answer):
        due = load.begin + number / load.per_second if load.per_second else due + pauses.random() * 0.008
        if (wait := due - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        sent.late.append(time.monotonic() - due)
        await send(number, token)


def _listen(sent: Sent, kind: Kind) -> None:
    """Record the log messages about the store of the quota. The cost of logging is not measured."""
    logger = logging.getLogger("forge_realtime")
    handler = logging.Handler()

    def note(record: logging.LogRecord) -> None:
        if "store" in (message := record.getMessage()):
            sent.said.append((record.levelname, message))

    handler.emit = note  # type: ignore[method-assign]
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(logging.CRITICAL if kind == "naive" else logging.INFO)


# --- the subscriber


def run_subscriber(pipe: Connection, url: str, users: int) -> None:
    """Subscribe to the channels of all users. When asked, wait for a number of quiet seconds, and return the events."""

    async def run() -> None:
        received: list[list[tuple[float, str]]] = [[] for _ in range(users)]
        last = time.monotonic()

        async def receive(connection: ClientConnection, mine: list[tuple[float, str]]) -> None:
            nonlocal last
            async for message in connection:
                last = time.monotonic()
                mine.append((last, json.loads(message)["payload"]))

        address = f"ws{url.removeprefix('http')}/_emulator/subscribe"
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            tasks = []
            for user, mine in enumerate(received):
                connection = await stack.enter_async_context(
                    connect(address, proxy=None, compression=None, max_queue=None)
                )
                await connection.send(json.dumps({"channel": channel(user), "isGlobal": False}))
                if (answer := json.loads(await connection.recv()))["type"] != "subscribed":
                    raise RuntimeError(f"The emulator refused the subscription: {answer}.")
                tasks.append(group.create_task(receive(connection, mine)))
            pipe.send(None)
            asked = questions(pipe)
            # In a thread, so that the loop receives events.
            while (question := await asyncio.to_thread(next, asked, None)) is not None:
                [quiet], since = question, time.monotonic()
                while (left := max(last, since) + quiet - time.monotonic()) > 0:  # noqa: ASYNC110 (silence is no event)
                    await asyncio.sleep(left)
                pipe.send(received)
            for task in tasks:
                task.cancel()

    asyncio.run(run())
