"""The processes of a run of many streams: the emulator, those who send, and the one who receives, as a browser does.

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
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Literal

import attrs
from websockets.asyncio.client import ClientConnection, connect

from forge_realtime import AsyncRealtimeClient, ForgeRealtimeError, Quota, StreamError
from forge_realtime.redis import RedisStore
from forge_realtime_emulator import Emulator, Settings

Kind = Literal["shared", "own", "naive", "nothing"]
Send = Callable[[int, str], Awaitable[object]]

_LETTERS = 'abcdefghijklmnopqrstuvwxyz      \n"\\éß漢🙂'
_LOOK = 0.25


@dataclass(frozen=True)
class Load:
    """What one process sends.

    Attributes:
        kind: Streams with the quota of all processes, streams with each process's own, one publish for each token, or nothing,
            to know what the making of the tokens takes.
        users: Their numbers; each has an answer of its own, on a channel of its own.
        tokens: Of each user.
        per_second: Tokens per second and user; 0: as random pauses of 8 ms at most have it.
        begin: When the first ones come.
        drain: Seconds after the last one in which what was not published yet still can be, where each is published by itself.
        stream: Settings of the streams, where they are not the default ones.
        quota: Those of the quota, where they are not the default ones.
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
    """What became of it.

    Attributes:
        cpu: Seconds of processor time, of all threads.
        reports: Of the streams, as dicts.
        failed: How often which error reached the app.
        late: Seconds from when a token was due to when it was there, of each one.
        said: What the client logged of the quota's store.
    """

    cpu: float = 0.0
    reports: list[dict[str, int]] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    late: list[float] = field(default_factory=list)
    said: list[tuple[str, str]] = field(default_factory=list)


def channel(user: int) -> str:
    return f"answer-{user}"


def tokens(user: int, count: int) -> list[str]:
    """The answer that a user gets, the same in every process."""
    choice = random.Random(user)
    return ["".join(choice.choices(_LETTERS, k=choice.randint(1, 8))) for _ in range(count)]


def questions(pipe: Connection) -> Iterator[Any]:
    with suppress(EOFError):
        while True:
            yield pipe.recv()


# --- the emulator


def run_emulator(pipe: Connection, limit: int | None) -> None:
    """Serves. Asked for `faults`, it lets calls fail at random from then on; for its `record`, it gives when which calls were
    answered how, and whether a fault made the answer.
    """
    stopping = threading.Event()
    with Emulator(settings=Settings(limit=limit)) as emulator:
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
    """Keeps when calls were answered: the emulator itself remembers the last 10,000."""

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
                raise RuntimeError("The emulator forgot calls before they were recorded: the machine is too busy.")
            self._rows += [(one.at - self._ahead, one.status, one.fault) for one in requests[new:]]
            self._last = requests[-1] if requests else None


def _let_fail(emulator: Emulator, stopping: threading.Event) -> None:
    """About every third call, in every way there is but to be late for good."""
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


# --- those who send


def run_sender(pipe: Connection, url: str, store: str | None, replicas: int) -> None:
    """Sends what it is told to."""
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
                # An app would log it, and go on.
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
    """Notes what is said of the quota's store. What a logger costs is no matter of the measurement."""
    logger = logging.getLogger("forge_realtime")
    handler = logging.Handler()

    def note(record: logging.LogRecord) -> None:
        if "store" in (message := record.getMessage()):
            sent.said.append((record.levelname, message))

    handler.emit = note  # type: ignore[method-assign]
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(logging.CRITICAL if kind == "naive" else logging.INFO)


# --- the one who receives


def run_subscriber(pipe: Connection, url: str, users: int) -> None:
    """Subscribes to the channels of all users. Asked, it waits until nothing has come for so many seconds, and gives by user
    when what came.
    """

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
                    raise RuntimeError(f"The emulator answered {answer}.")
                tasks.append(group.create_task(receive(connection, mine)))
            pipe.send(None)
            asked = questions(pipe)
            # In a thread: events come meanwhile.
            while (question := await asyncio.to_thread(next, asked, None)) is not None:
                asked_at = time.monotonic()
                while (left := max(last, asked_at) + question[0] - time.monotonic()) > 0:
                    await asyncio.sleep(left)
                pipe.send(received)
            for task in tasks:
                task.cancel()

    asyncio.run(run())
