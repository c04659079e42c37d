"""What the emulator carries: `make bench`, or `python -m tests.benchmarks.emulator_load`.

Three processes on one machine: the emulator with its limit off and its log silent, a publisher, and the subscribers. Every
event is published by the document's operation over HTTP, and received over a WebSocket by every subscriber; that each came
once, in order and with the id that was answered is checked before a number is stated.

* *1 subscriber*: eight kept connections publish, each the next event when the last is answered. Events per second, from
  the first call to the last receipt.
* *1,000 subscribers* of one channel: the same over two connections; deliveries are events times subscribers. *One by one*
  is one publish at a time: milliseconds from before the call is sent until the last subscriber has the event.

Each row has the median, the lowest and the highest of its repetitions, and the processor time of each process: per event in
microseconds, which other work on the machine changes little, and as a share of the elapsed time, which it changes much. An
emulator at about 100 % is the bottleneck; one at less had to wait for the others, or for the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from forge_realtime_emulator import Emulator, Settings
from tests.benchmarks.emulator_clients import Published, Received, Subscribers, publish
from tests.benchmarks.machine import machine

_TIMEOUT = 120.0
"""Seconds for one repetition: a hang is an error, and no number."""

PROCESSES = ("emulator", "publisher", "subscribers")
PACKAGES = ("uvicorn", "httptools", "starlette", "websockets", "jsonschema")


class Worker:
    """A process that answers one question at a time. The first thing that it says is that it is ready.

    Args:
        target: What runs in it, with the other end of the pipe and the arguments.
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

    def answer(self) -> Any:
        """Waits for the answer.

        Raises:
            TimeoutError: There is none.
            EOFError: The process has ended; its traceback says why.
        """
        if not self._pipe.poll(_TIMEOUT):
            raise TimeoutError(f"A process of the benchmark gave no answer within {_TIMEOUT:g} s.")
        return self._pipe.recv()

    def close(self) -> None:
        self._pipe.close()
        self._process.join(5)
        self._process.kill()
        self._process.join()


def run_emulator(pipe: Connection) -> None:
    """Serves, and answers with the processor time taken so far."""
    _allow_open_files()
    with Emulator(settings=Settings(limit=None)) as emulator:
        pipe.send(emulator.url)
        for _ in _questions(pipe):
            pipe.send(time.process_time())


def run_publisher(pipe: Connection, url: str) -> None:
    """Publishes what it is told to."""
    pipe.send(None)
    for operation, events, connections in _questions(pipe):
        pipe.send(asyncio.run(publish(url, operation, events, connections)))


def run_subscribers(pipe: Connection, url: str, count: int, is_global: bool) -> None:
    """Subscribes so often, and answers when all have got as many events as it is told."""
    _allow_open_files()

    async def run() -> None:
        subscribers = Subscribers(url, count, is_global=is_global)
        await subscribers.open()
        pipe.send(None)
        questions = _questions(pipe)
        # In a thread: the emulator's pings have to be answered meanwhile.
        while (question := await asyncio.to_thread(next, questions, None)) is not None:
            pipe.send(await subscribers.receive(*question))
        subscribers.close()

    asyncio.run(run())


def _allow_open_files() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _questions(pipe: Connection) -> Iterator[Any]:
    while True:
        try:
            yield pipe.recv()
        except EOFError:
            return


class Load:
    """The emulator, a publisher and the subscribers of one channel."""

    def __init__(self, emulator: Worker, publisher: Worker, subscribers: Worker) -> None:
        self._emulator = emulator
        self._publisher = publisher
        self._subscribers = subscribers

    def run(self, operation: str, events: int, connections: int) -> dict[str, float]:
        """Publishes and receives so many events, and checks that each subscriber got each once and in order.

        Returns:
            `seconds` from the first call to the last receipt, and the seconds of processor time of each process.

        Raises:
            RuntimeError: An event was lost, came twice or out of order.
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
        # On each connection in order; those of different connections have no order of their own.
        if position != positions[number] or event["eventId"] != published.ids[number][position]:
            raise RuntimeError(
                f"The event {event} is out of order, or a duplicate, or has another id than was answered."
            )
        positions[number] += 1
    if positions != [len(ids) for ids in published.ids]:
        raise RuntimeError("Events were lost.")


@contextmanager
def load(emulator: Worker, publisher: Worker, subscribers: int, *, is_global: bool = False) -> Iterator[Load]:
    """Subscribers of one channel, for the length of a with statement."""
    with ExitStack() as stack:
        worker = Worker(run_subscribers, emulator.ready, subscribers, is_global)
        stack.callback(worker.close)
        yield Load(emulator, publisher, worker)


def measure(repetitions: int, events: int, subscribers: int, fan_out: int) -> list[dict[str, Any]]:
    """Runs everything, each repetition after one that is not counted.

    Args:
        repetitions: How often.
        events: Events of one repetition to one subscriber.
        subscribers: Subscribers of the one channel.
        fan_out: Events of one repetition to all of them.
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
    """The lines that are printed."""
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


def main() -> int:
    parser = argparse.ArgumentParser(description="What the emulator carries.")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--events", type=int, default=20_000, help="per repetition, to one subscriber")
    parser.add_argument("--subscribers", type=int, default=1000)
    parser.add_argument("--fan-out", type=int, default=100, help="events per repetition to all subscribers")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    options = parser.parse_args()
    on = machine(*PACKAGES)
    print(", ".join(f"{name} {value}" for name, value in on.items()), end="\n\n")
    rows = measure(options.repetitions, options.events, options.subscribers, options.fan_out)
    for line in table(rows):
        print(line)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"machine": on, "rows": rows}, indent=2) + "\n", encoding="utf-8")
        print(f"\nIn {options.json} as JSON.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
