"""`make bench ARGS=emulator`: the load that the emulator carries.

Three processes on one machine: the emulator without its limit and without a log, a publisher, and the subscribers.
Every event is published over HTTP and received by every subscriber over a WebSocket. A number counts only if every
event arrived once, in order and with the id of the response.

* *1 subscriber*: eight connections publish, each its next event after the last response. Events per second, from the
  first call to the last receipt.
* *1,000 subscribers* of one channel: the same over two connections. Deliveries are events times subscribers. *One by
  one* is one publish at a time: milliseconds from the call to the receipt by the last subscriber.

Each row has the median, the lowest and the highest of its repetitions, and the processor time of each process.
Microseconds per event hardly depend on other work on the machine; the share of the elapsed time does. An emulator at
about 100 % is the bottleneck.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any

from forge_realtime_emulator import Emulator, Settings
from tests.benchmarks.emulator_clients import Published, Received, Subscribers, publish

_TIMEOUT = 120.0
"""Seconds for one repetition."""

PROCESSES = ("emulator", "publisher", "subscribers")
PACKAGES = ("uvicorn", "httptools", "starlette", "websockets", "jsonschema")


class Worker:
    """A process that answers one question at a time. Its first message says that it is ready.

    Args:
        target: The function that runs in it, with the other end of the pipe and the arguments.
    """

    def __init__(self, target: Callable[..., None], *args: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=target, args=(theirs, *args), daemon=True)
        self._process.start()
        theirs.close()
        self.ready = self.answer()

    def ask(self, *question: Any) -> None:
        self._pipe.send(question)

    def answer(self, timeout: float = _TIMEOUT) -> Any:
        """Wait for the answer, for so many seconds.

        Raises:
            TimeoutError: No answer came in time.
            EOFError: The process ended. Its traceback says why.
        """
        if not self._pipe.poll(timeout):
            raise TimeoutError(f"A process of the benchmark gave no answer within {timeout:g} s.")
        return self._pipe.recv()

    def close(self) -> None:
        self._pipe.close()
        self._process.join(5)
        self._process.kill()
        self._process.join()


def run_emulator(pipe: Connection) -> None:
    """Serve, and answer with the processor time used so far."""
    allow_open_files()
    with Emulator(settings=Settings(limit=None)) as emulator:
        pipe.send(emulator.url)
        for _ in questions(pipe):
            pipe.send(time.process_time())


def run_publisher(pipe: Connection, url: str) -> None:
    """Publish as asked."""
    pipe.send(None)
    for operation, events, connections in questions(pipe):
        pipe.send(asyncio.run(publish(url, operation, events, connections)))


def run_subscribers(pipe: Connection, url: str, count: int, is_global: bool) -> None:
    """Subscribe, and answer when all subscribers have received the number of events asked for."""
    allow_open_files()

    async def run() -> None:
        subscribers = Subscribers(url, count, is_global=is_global)
        await subscribers.open()
        pipe.send(None)
        asked = questions(pipe)
        # In a thread, so that the loop answers the emulator's pings.
        while (question := await asyncio.to_thread(next, asked, None)) is not None:
            pipe.send(await subscribers.receive(*question))
        subscribers.close()

    asyncio.run(run())


def allow_open_files() -> None:
    """Allow this process as many open files as the system lets it have."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def questions(pipe: Connection) -> Iterator[Any]:
    """Yield the questions of a `Worker` until it closes."""
    with suppress(EOFError):
        while True:
            yield pipe.recv()


class Load:
    """The emulator, a publisher and the subscribers of one channel."""

    def __init__(self, emulator: Worker, publisher: Worker, subscribers: Worker) -> None:
        self._emulator = emulator
        self._publisher = publisher
        self._subscribers = subscribers

    def run(self, operation: str, events: int, connections: int) -> dict[str, float]:
        """Publish and receive events, and check that each subscriber received each event once and in order.

        Returns:
            `seconds` from the first call to the last receipt, and the seconds of processor time of each process.

        Raises:
            RuntimeError: An event was lost, duplicated or out of order.
        """
        before = self._cpu()
        self._subscribers.ask(events)
        self._publisher.ask(operation, events, connections)
        published: Published = self._publisher.answer()
        received: Received = self._subscribers.answer()
        cpu = self._cpu() - before
        _check(published, received)
        seconds = received.ended - published.began
        return {"seconds": seconds, "emulator": cpu, "publisher": published.cpu, "subscribers": received.cpu}

    def _cpu(self) -> float:
        self._emulator.ask()
        seconds: float = self._emulator.answer()
        return seconds


def _check(published: Published, received: Received) -> None:
    positions = [0] * len(published.ids)
    for event in received.events:
        number, position = map(int, event["payload"].split())
        # Only the events of one connection have an order.
        if position != positions[number] or event["eventId"] != published.ids[number][position]:
            raise RuntimeError(f"The event {event} is out of order, a duplicate, or has another id than the response.")
        positions[number] += 1
    if positions != [len(ids) for ids in published.ids]:
        raise RuntimeError("Events were lost.")


@contextmanager
def load(emulator: Worker, publisher: Worker, subscribers: int, *, is_global: bool = False) -> Iterator[Load]:
    """Subscribe to one channel for the length of the block."""
    with ExitStack() as stack:
        worker = Worker(run_subscribers, emulator.ready, subscribers, is_global)
        stack.callback(worker.close)
        yield Load(emulator, publisher, worker)


def measure(repetitions: int, events: int, subscribers: int, fan_out: int) -> list[dict[str, Any]]:
    """Run everything, after one repetition that is not counted.

    Args:
        repetitions: The number of repetitions.
        events: Events of one repetition for one subscriber.
        subscribers: Subscribers of one channel.
        fan_out: Events of one repetition for all subscribers.
    """
    rows: list[dict[str, Any]] = []

    def add(name: str, unit: str, runs: list[dict[str, float]], count: int, value: Callable[[float], float]) -> None:
        row: dict[str, Any] = {"name": name, "unit": unit, "values": [value(run["seconds"]) for run in runs]}
        for process in PROCESSES:
            row[process] = {
                "microseconds per event": statistics.median(run[process] / count * 1e6 for run in runs),
                "share": statistics.median(run[process] / run["seconds"] for run in runs),
            }
        rows.append(row)

    with ExitStack() as stack:
        emulator = Worker(run_emulator)
        stack.callback(emulator.close)
        publisher = Worker(run_publisher, emulator.ready)
        stack.callback(publisher.close)
        for operation in ("publish", "publish_global"):
            with load(emulator, publisher, 1, is_global=operation == "publish_global") as one:
                one.run(operation, events // 4, 8)
                runs = [one.run(operation, events, 8) for _ in range(repetitions)]
            add(f"{operation}, 1 subscriber", "events/s", runs, events, lambda seconds: events / seconds)
        with load(emulator, publisher, subscribers) as many:
            many.run("publish", fan_out, 2)
            runs = [many.run("publish", fan_out, 2) for _ in range(repetitions)]
            name = f"publish, {subscribers:,} subscribers"
            add(name, "events/s", runs, fan_out, lambda seconds: fan_out / seconds)
            add(name, "deliveries/s", runs, fan_out, lambda seconds: fan_out * subscribers / seconds)
            runs = [many.run("publish", 1, 1) for _ in range(5 * repetitions)]
            add(f"{name}, one by one", "ms to the last", runs, 1, lambda seconds: seconds * 1000)
    return rows


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Return the rows as lines of text."""
    of_processes = "".join(f"{process:>20}" for process in PROCESSES)
    yield f"{'':52}{'median':>8}{'lowest':>8}{'highest':>8}{'n':>4}{of_processes}"
    for row in rows:
        values = row["values"]
        numbers = "".join(f"{value:8,.0f}" for value in (statistics.median(values), min(values), max(values)))
        of_processes = ""
        for process in PROCESSES:
            used = row[process]
            of_processes += f"{used['microseconds per event']:9,.0f} µs = {used['share']:4.0%}"
        yield f"{row['name'] + ': ' + row['unit']:52}{numbers}{len(values):4}{of_processes}"
