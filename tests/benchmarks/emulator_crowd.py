"""`python -m tests.benchmarks.emulator_crowd`: a long load of the emulator, with many subscribers and channels.

2,000 subscribers, each of a channel of its own, and a million events over 10,000 channels: every fifth event reaches
somebody. The events come in ten rounds. In the last half a console follows the feed. Each round prints the emulator's
memory, its processor time per event, how long the publishes took, and the longest processor time for which the event
loop was held, in milliseconds. Memory should stay flat after the first round, which fills the records, and no publish
should wait: least of all for the console. Other work on the machine makes publishes late, but does not hold the loop.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from urllib.parse import urlsplit

import websockets

from forge_realtime_emulator import Emulator, Settings
from tests.benchmarks import emulator_clients
from tests.benchmarks.emulator_load import Worker, allow_open_files, questions

_CONNECTIONS = 8
_ROUNDS = 10
_PAGE = 4096
_LEAST_PER_SECOND = 100
"""Events that even a busy machine carries. Fewer are an error."""
_TURN = 0.002
"""Seconds between two turns of the task that sees how long the loop is held. It takes at least so much for held."""


def run_emulator(pipe: Connection) -> None:
    """Serve, and answer with processor time and memory (MiB) in use, and how long the loop was held."""
    allow_open_files()
    held = 0.0
    watching: list[asyncio.Task[None]] = []

    async def watch() -> None:
        nonlocal held
        while True:
            before = time.thread_time()
            await asyncio.sleep(_TURN)
            held = max(held, time.thread_time() - before)

    with Emulator(settings=Settings(limit=None)) as emulator:
        emulator._in_loop(lambda: watching.append(asyncio.ensure_future(watch())))
        pipe.send(emulator.url)
        for _ in questions(pipe):
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
            pipe.send((time.process_time(), pages * _PAGE / 2**20, held * 1000))
            held = 0.0
        emulator._in_loop(watching[0].cancel)


def run_publisher(pipe: Connection, url: str, channels: int) -> None:
    """Publish as many events as asked for, and answer with the milliseconds that each publish took, sorted."""
    pipe.send(None)
    for (events,) in questions(pipe):
        pipe.send(asyncio.run(_publish(url, channels, events)))


async def _publish(url: str, channels: int, events: int) -> list[float]:
    parts = urlsplit(url)
    took: list[float] = []
    numbers = iter(range(events))

    async def publish_some() -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        head = (
            f"POST {emulator_clients.OPERATIONS['publish']} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            "forge-proxy-authorization: Forge as=app,id=invocation-123\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        )
        for number in numbers:
            body = json.dumps({"name": f"channel-{number % channels}", "payload": f"event {number}"})
            began = time.monotonic()
            writer.write(f"{head}{len(body)}\r\n\r\n{body}".encode())
            answer = await reader.readuntil(b"}")
            took.append((time.monotonic() - began) * 1000)
            if not answer.startswith(b"HTTP/1.1 200 "):
                raise RuntimeError(f"The response to a publish was {answer!r}.")
        writer.close()

    await asyncio.gather(*(publish_some() for _ in range(_CONNECTIONS)))
    return sorted(took)


def run_subscribers(pipe: Connection, url: str, count: int) -> None:
    """Subscribe to a channel each, and answer with the number of events received since the last question."""
    allow_open_files()
    asyncio.run(_listen(pipe, url, count))


async def _listen(pipe: Connection, url: str, count: int) -> None:
    subscribers = emulator_clients.Subscribers(url, count, is_global=False, own_channels=True)
    await subscribers.open()
    pipe.send(None)
    asked = questions(pipe)
    while (question := await asyncio.to_thread(next, asked, None)) is not None:
        pipe.send(await subscribers.count(*question))


def run_console(pipe: Connection, url: str) -> None:
    """Follow the feed as a console does, and answer with the number of messages read so far."""
    asyncio.run(_follow(pipe, url))


async def _follow(pipe: Connection, url: str) -> None:
    read = 0

    async def follow() -> None:
        nonlocal read
        async for frame in websocket:
            read += len([json.loads(line) for line in frame.splitlines()])

    address = f"ws{url.removeprefix('http')}/_emulator/feed"
    async with websockets.connect(address, max_size=None, proxy=None) as websocket:
        following = asyncio.create_task(follow())
        pipe.send(None)
        asked = questions(pipe)
        while await asyncio.to_thread(next, asked, None) is not None:
            pipe.send(read)
        following.cancel()


def main() -> None:
    parser = argparse.ArgumentParser(description="A long load of the emulator.")
    parser.add_argument("--subscribers", type=int, default=2_000)
    parser.add_argument("--channels", type=int, default=10_000)
    parser.add_argument("--events", type=int, default=1_000_000)
    options = parser.parse_args()
    events = options.events // _ROUNDS
    with ExitStack() as stack:
        emulator = Worker(run_emulator)
        stack.callback(emulator.close)
        publisher = Worker(run_publisher, emulator.ready, options.channels)
        stack.callback(publisher.close)
        subscribers = Worker(run_subscribers, emulator.ready, options.subscribers)
        stack.callback(subscribers.close)
        console: Worker | None = None
        names = ("events", "read", "MiB", "µs/event", "events/s", "ms: half", "99.9 %", "all", "held")
        print("".join(f"{name:>11}" for name in names))
        for number in range(_ROUNDS):
            if number == _ROUNDS // 2:
                console = Worker(run_console, emulator.ready)
                stack.callback(console.close)
            took, cpu, memory, held, seconds = _run_round(emulator, publisher, subscribers, events, options)
            read = ""
            if console is not None:
                console.ask()
                read = str(console.answer())
            columns = [
                f"{(number + 1) * events:,}",
                read,
                f"{memory:.0f}",
                f"{cpu / events * 1e6:.0f}",
                f"{events / seconds:,.0f}",
                *(f"{ms:.1f}" for ms in (took[len(took) // 2], took[-len(took) // 1000], took[-1], held)),
            ]
            print("".join(f"{column:>11}" for column in columns), flush=True)


def _run_round(
    emulator: Worker, publisher: Worker, subscribers: Worker, events: int, options: argparse.Namespace
) -> tuple[list[float], float, float, float, float]:
    emulator.ask()
    before, _, _ = emulator.answer()
    began = time.monotonic()
    heard = sum(number % options.channels < options.subscribers for number in range(events))
    subscribers.ask(heard)
    publisher.ask(events)
    longest = 60 + events / _LEAST_PER_SECOND
    took: list[float] = publisher.answer(longest)
    received: int = subscribers.answer(longest)
    seconds = time.monotonic() - began
    if received != heard:
        raise RuntimeError(f"{received} of {heard} events were received.")
    emulator.ask()
    after, memory, held = emulator.answer()
    return took, after - before, memory, held, seconds


if __name__ == "__main__":
    main()
