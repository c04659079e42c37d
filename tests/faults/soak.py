"""`make soak`: minutes of random faults, in processes of their own for each kind of client. Prints a ledger.

Server, Redis and clocks fail at random while clients publish, stream, fork, and are cancelled and interrupted. The
server's own record is the judge of what each client was told about an event. Random streams in virtual time come last:
each reader has the text that was sent, or says what is missing. The exit code is 1 if anything was classed wrongly,
leaked or hung.
"""

from __future__ import annotations

import argparse
import json
import logging
import queue
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from statistics import median
from typing import Any, Final, NamedTuple

from tests.faults.soak_worker import KINDS
from tests.faults.streams import run_streams
from tests.faults.test_streams import weights
from tests.faults.test_ten_thousand import Chaos
from tests.support.fault_server import Connection, FaultServer, Received
from tests.support.rates import most_in_a_second
from tests.support.redis_server import RedisServer
from tests.support.streams import Reader

HANG: Final = 120.0  # seconds without a batch
# What a process may grow by after its first batches, in bytes.
GROWTH: Final = 12_000_000
# The number of idle connections varies as much.
MARGIN: Final = 10
OUTCOMES: Final = ("accepted", "rejected", "not sent", "unknown", "cancelled", "interrupted")


class Record:
    """What the server carried out. Takes the place of a FaultServer's list of requests."""

    def __init__(self) -> None:
        self.arrived: Counter[str] = Counter()
        self.limited: list[float] = []
        self.readers: defaultdict[str, Reader] = defaultdict(Reader)
        self.wrong: list[str] = []
        self.streamed = 0
        self._lock = threading.Lock()

    def append(self, received: Received) -> None:
        payload = json.loads(received.body)["payload"]
        with self._lock:
            if payload.startswith("{"):
                self.streamed += 1
                try:
                    self.readers[json.loads(payload)["stream"]].read(payload)
                except AssertionError as error:
                    self.wrong.append(f"stream: {error}")
                return
            self.arrived[payload] += 1
            if payload.startswith("quota"):
                self.limited.append(time.monotonic())


class Nowhere:
    """A list that keeps nothing, so that the server's memory stays flat."""

    def append(self, item: object) -> None:
        pass


class Outages(Chaos):
    """Random faults, and times in which each connection is reset."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.out = False
        self.requests = 0

    def __call__(self, connection: Connection) -> bool:
        self.requests += 1
        if self.out:
            connection.reset()
            return False
        return super().__call__(connection)


class Sample(NamedTuple):
    memory: int
    files: int
    threads: int


class Ledger:
    """Compares what clients were told with what the server did."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self.told: Counter[str] = Counter()
        self.arrived: Counter[str] = Counter()
        self.twice: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self.streams: Counter[str] = Counter()
        self.updates = 0
        self.problems: list[str] = []
        self.samples: defaultdict[str, list[Sample]] = defaultdict(list)

    def read(self, batch: dict[str, Any]) -> None:
        for name, outcome in batch["events"].items():
            self._event(name, outcome)
        for stream in batch["streams"]:
            self._stream(stream)
        self.samples[batch["kind"]].append(Sample(batch["memory"], batch["files"], batch["threads"]))

    def _event(self, name: str, outcome: str) -> None:
        times = self._record.arrived.pop(name, 0)
        outcome, _, detail = outcome.partition(":")
        self.told[outcome] += 1
        self.arrived[outcome] += times == 1
        self.twice[outcome] += times > 1
        wrong = (
            outcome not in OUTCOMES
            or (outcome == "accepted" and not times)
            or (outcome in ("not sent", "rejected") and times)
            or (name.startswith("most") and times > 1)
        )
        if wrong:
            self.wrong[outcome] += 1
            self.problems.append(f"{name} was told {outcome}{detail and ':'}{detail}, and arrived {times} times")

    def _stream(self, stream: dict[str, Any]) -> None:
        outcome = stream["outcome"]
        self.streams[outcome] += 1
        self.updates += stream["updates"]
        reader = self._record.readers.pop(stream["stream"], None)
        text = "".join(reader.data) if reader else ""
        numbers = [int(number) for number in text.split(";")[:-1]]
        known = sum(stream[part] for part in ("sent", "dropped", "rejected", "unknown"))
        right = stream["sent"] <= len(numbers) <= stream["sent"] + stream["unknown"] and known == stream["updates"]
        if outcome == "complete":
            right = right and numbers == list(range(stream["offered"])) and reader is not None and reader.ended
        else:
            # An update that was interrupted may have been taken.
            right = right and stream["updates"] in (stream["offered"], stream["offered"] + 1)
            right = right and numbers == sorted(set(numbers))
        if not right:
            self.problems.append(f"{stream}: the reader has {len(numbers)} updates")

    def grown(self) -> Iterator[str]:
        """Yield what leaked: memory, files or threads."""
        for kind, samples in self.samples.items():
            third = max(1, len(samples) // 3)
            before, after = samples[third : 2 * third] or samples, samples[-third:]
            if min(each.memory for each in after) > min(each.memory for each in before) + GROWTH:
                yield f"{kind}: memory grows"
            for what in ("files", "threads"):
                was, now = (median(getattr(each, what) for each in part) for part in (before, after))
                if now > was + MARGIN:
                    yield f"{kind}: the number of {what} grows"


class Misfortune(NamedTuple):
    name: str
    longest: float  # seconds
    begin: Callable[[], None]
    end: Callable[[], None]


def misfortunes(server: Outages, redis: RedisServer | None) -> Iterator[Misfortune]:
    def out(value: bool) -> None:
        server.out = value

    yield Misfortune("server resets every connection", 1.5, lambda: out(True), lambda: out(False))
    if redis is not None:
        yield Misfortune("Redis is killed", 5, redis.kill, redis.start)
        yield Misfortune("Redis hangs", 5, redis.pause, redis.go_on)
        yield Misfortune("the clock of Redis goes back", 5, lambda: redis.step_clock(-3600), lambda: None)
        yield Misfortune("the clock of Redis goes forward", 5, lambda: redis.step_clock(3600), lambda: None)


@contextmanager
def workers(arguments: list[str], batches: queue.Queue[str | None]) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Start one worker for each kind, and read what they print."""
    running: dict[str, subprocess.Popen[str]] = {}

    def read(process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            batches.put(line)
        batches.put(None)

    try:
        for kind in KINDS:
            command = [sys.executable, "-m", "tests.faults.soak_worker", kind, *arguments]
            running[kind] = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            threading.Thread(target=read, args=(running[kind],), daemon=True).start()
        yield running
    finally:
        for process in running.values():
            process.kill()
            process.wait()


class Soak:
    """One run: servers, workers, and what happens to them."""

    def __init__(self, seconds: float, seed: int) -> None:
        self._seed = seed
        self._chance = random.Random(seed)
        self._record = Record()
        self._ledger = Ledger(self._record)
        self._happened: Counter[str] = Counter()
        self._servers = [Outages(seed), Outages(seed + 1, weights())]
        self._began = time.monotonic()
        self._end = self._began + seconds
        self._undo: Callable[[], None] | None = None
        self._next = self._began + 1
        self._said = self._began

    def run(self) -> int:
        with ExitStack() as stack:
            urls = []
            for behaviour in self._servers:
                server: Any = FaultServer(then=behaviour)
                server.received, server.published = Nowhere(), self._record
                urls.append(stack.enter_context(server).url)
            redis = stack.enter_context(RedisServer()) if shutil.which("redis-server") else None
            batches: queue.Queue[str | None] = queue.Queue()
            arguments = [*urls, redis.url if redis else "-", str(self._seed), str(self._end)]
            running = stack.enter_context(workers(arguments, batches))
            self._watch(running, batches, redis)
            self._ledger.problems += [f"{kind}: exit code {it.wait(1)}" for kind, it in running.items() if it.poll()]
        return self._tell()

    def _watch(
        self, running: dict[str, subprocess.Popen[str]], batches: queue.Queue[str | None], redis: RedisServer | None
    ) -> None:
        heard = dict.fromkeys(running, time.monotonic())
        # A batch is read when the next one is there: late requests are on record by then.
        waiting: dict[str, dict[str, Any]] = {}
        ended = 0
        while ended < len(running):
            self._misfortune(redis)
            with suppress(queue.Empty):
                line = batches.get(timeout=0.1)
                if line is None:
                    ended += 1
                    continue
                batch = json.loads(line)
                heard[batch["kind"]] = time.monotonic()
                if before := waiting.get(batch["kind"]):
                    self._ledger.read(before)
                waiting[batch["kind"]] = batch
            silent = [kind for kind, at in heard.items() if time.monotonic() - at > HANG]
            if hanging := [kind for kind in silent if running[kind].poll() is None]:
                self._ledger.problems.append(f"no batch for {HANG:.0f} s: {', '.join(hanging)}")
                break
        if self._undo is not None:
            self._undo()
        for batch in waiting.values():
            self._ledger.read(batch)

    def _misfortune(self, redis: RedisServer | None) -> None:
        """Begin the next one, or end the one that is on, when it is time."""
        now = time.monotonic()
        if now - self._said > 10 and sys.stderr.isatty():
            self._said = now
            print(f"{now - self._began:.0f} s: {len(self._ledger.problems)} problems", file=sys.stderr)
        if now < self._next:
            return
        if self._undo is not None:
            self._undo()
            self._undo = None
            self._next = now + self._chance.uniform(0.5, 4)
        elif now < self._end:
            choice = self._chance.choice(list(misfortunes(self._chance.choice(self._servers), redis)))
            choice.begin()
            self._undo = choice.end
            self._happened[choice.name] += 1
            self._next = now + self._chance.uniform(0.1, choice.longest)

    def _tell(self) -> int:
        ledger = self._ledger
        seconds = time.monotonic() - self._began
        requests = sum(server.requests for server in self._servers)
        problems = [*ledger.problems, *self._record.wrong, *ledger.grown()]
        print(f"SEED={self._seed}, {seconds:.0f} s, {requests:,} requests\n")
        print(f"{'told':<14}{'events':>10}{'arrived once':>15}{'more often':>13}{'not arrived':>14}{'wrong':>8}")
        for outcome, count in sorted(ledger.told.items()):
            once, twice = ledger.arrived[outcome], ledger.twice[outcome]
            row = f"{outcome:<14}{count:>10,}{once:>15,}{twice:>13,}{count - once - twice:>14,}"
            print(f"{row}{ledger.wrong[outcome]:>8,}")
        streams = ", ".join(f"{count:,} {outcome}" for outcome, count in ledger.streams.most_common())
        print(f"\n{sum(ledger.streams.values()):,} streams ({streams}), {ledger.updates:,} updates, ", end="")
        print(f"{self._record.streamed:,} publishes")
        print(f"with the shared quota: at most {most_in_a_second(self._record.limited)} operations in any second\n")
        print(f"{'process':<16}{'batches':>9}{'memory, MB':>18}{'files':>12}{'threads':>12}")
        for kind, samples in ledger.samples.items():
            first, last = samples[min(2, len(samples) - 1)], samples[-1]
            print(
                f"{kind:<16}{len(samples):>9,}{first.memory / 1e6:>9.1f} → {last.memory / 1e6:<6.1f}"
                f"{first.files:>6} → {last.files:<3}{first.threads:>6} → {last.threads:<3}"
            )
        print()
        for name, count in self._happened.most_common():
            print(f"{count:>5} times: {name}")
        print(f"\n{len(problems)} problems")
        for problem in problems[:50]:
            print(f"  {problem}")
        return 1 if problems else 0


def tell_streams(count: int, seed: int) -> int:
    # Each fault is a warning in the log.
    logging.getLogger("forge_realtime").setLevel(logging.CRITICAL)
    began = time.monotonic()
    counts, problems = run_streams(count, seed)
    for name, number in sorted(counts.items()):
        print(f"{number:>8,} {name}")
    print(f"\n{count:,} random streams in {time.monotonic() - began:.0f} s, {len(problems)} problems")
    for problem in problems[:50]:
        print(f"  {problem}")
    return 1 if problems else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="0: only the random streams")
    parser.add_argument("--streams", type=int, default=1_000, help="random streams afterwards, in virtual time")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    arguments = parser.parse_args()
    failed = Soak(arguments.seconds, arguments.seed).run() if arguments.seconds else 0
    print()
    return failed | tell_streams(arguments.streams, arguments.seed)


if __name__ == "__main__":
    sys.exit(main())
