"""`make bench ARGS=streams`: many streams under the platform's limit.

Twenty users of one installation each get an answer of 100 tokens a second for 30 seconds, from 1, 2 and 4 replicas. A
replica is a process with a client, and the users are divided among the replicas. The emulator with its limit of 50
operations in any second and the subscriber are processes of their own. The subscriber receives the events by
WebSocket and assembles the texts as a page does.

* *shared*: streams with a quota that is shared through a real Redis server.
* *own*: streams with a quota of each process.
* *naive*: one publish for each token, one after the other for each user, with the default retries. Failed tokens are
  left out. Tokens that are not sent 10 seconds after the last one do not arrive.

Then the same while the Redis server is gone for 10 seconds; 10,000 updates through random faults; and a simulation of
more users and replicas than a machine carries, in virtual time.
"""

from __future__ import annotations

import json
import math
import shutil
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from tests.benchmarks.emulator_load import Worker
from tests.benchmarks.machine import commit, machine
from tests.benchmarks.stream_simulation import simulate
from tests.benchmarks.stream_workers import Kind, Load, Sent, run_emulator, run_sender, run_subscriber, tokens
from tests.support.rates import most_in_a_second
from tests.support.redis_server import RedisServer

LIMIT = 50
"""Operations per second and installation, as documented."""

PACKAGES = ("redis", "aiohttp", "uvicorn", "websockets")
REPLICAS = (1, 2, 4)
KINDS: tuple[Kind, ...] = ("shared", "own", "naive")
_USERS, _PER_SECOND = 20, 100.0
_LEAD = 0.5
_QUIET = 0.5
_LATE = 0.1

Run = dict[str, Any]
Record = list[tuple[float, int, bool]]


@dataclass
class Reading:
    """One stream as a page shows it. Duplicates are dropped, as in streams.js.

    Attributes:
        text: The assembled text.
        grew: The time and the length of the text after each publish.
        publishes: The number of publishes without duplicates.
        duplicates: The number of dropped duplicates.
        gaps: The number of missing sequence numbers.
        ended: Whether an end mark without an error arrived.
    """

    text: str = ""
    grew: list[tuple[float, int]] = field(default_factory=list)
    publishes: int = 0
    duplicates: int = 0
    gaps: int = 0
    ended: bool = False

    def read(self, at: float, payload: str) -> None:
        envelope = json.loads(payload)
        if "seq" not in envelope:
            # Only a part of a snapshot.
            return
        seen = self.publishes + self.gaps
        if envelope["seq"] < seen:
            self.duplicates += 1
            return
        self.gaps += envelope["seq"] - seen
        self.publishes += 1
        self.text += envelope.get("data", "")
        self.grew.append((at, len(self.text)))
        self.ended = self.ended or (envelope["end"] and "error" not in envelope)


def measure(quick: bool) -> dict[str, Any]:
    """Run everything, in about 7 minutes, or 1 minute if `quick`."""
    if not shutil.which("redis-server"):
        raise SystemExit("The streams need a Redis server: apt-get install redis-server")
    began = time.monotonic()
    seconds = 3.0 if quick else 30.0
    results: dict[str, Any] = {**commit(), "quick": quick, "machine": machine(*PACKAGES)}
    results |= {"users": _USERS, "per second": _PER_SECOND, "seconds": seconds, "limit": LIMIT}
    results["runs"] = []
    for kind in KINDS:
        for replicas in REPLICAS:
            results["runs"].append(run(kind, replicas, _USERS, seconds))
            print(_line(results["runs"][-1]), flush=True)
    results["tokens alone"] = run_nothing(_USERS, seconds / 3)
    third = seconds / 3
    results["outage"] = run("shared", 2, _USERS, seconds, outage=(third, 2 * third))
    print(_line(results["outage"]), flush=True)
    results["faults"] = run_faults(1_000 if quick else 10_000)
    print(_faults_line(results["faults"]), flush=True)
    results["simulation"] = simulate(quick)
    results["minutes"] = round((time.monotonic() - began) / 60, 1)
    return results


def run(
    kind: Kind,
    replicas: int,
    users: int,
    seconds: float,
    outage: tuple[float, float] | None = None,
    drain: float = 10.0,
) -> Run:
    """Run the senders once.

    Args:
        kind: How tokens are sent.
        replicas: The number of sending processes.
        users: The number of users of all replicas.
        seconds: The seconds in which tokens come.
        outage: The seconds after which the Redis server is killed and restarted.
        drain: The seconds after the last token in which single publishes may end. Streams have their deadline of 10 s.
    """
    count = round(seconds * _PER_SECOND)
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer()) if kind == "shared" else None
        stage = _Stage(stack, replicas, users, LIMIT, None if redis is None else redis.url)
        begin = time.monotonic() + _LEAD
        stage.send(
            [
                Load(kind, tuple(range(users))[number::replicas], count, _PER_SECOND, begin, drain)
                for number in range(replicas)
            ]
        )
        if redis is not None and outage is not None:
            for at, change in zip(outage, (redis.kill, redis.start), strict=True):
                time.sleep(max(0.0, begin + at - time.monotonic()))
                change()
        sent, received, record = stage.finish()
    texts = {user: tokens(user, count) for user in range(users)}
    shown = {
        "kind": kind,
        "replicas": replicas,
        "outage": outage,
        **_operations(record, begin, seconds),
        **_of_senders(sent, count * users),
    }
    if kind == "naive":
        return shown | _arrived(texts, received, begin)
    return shown | _read(texts, [_reading(events) for events in received], begin)


def run_nothing(users: int, seconds: float) -> float:
    """Return the seconds of processor time for making 1,000 tokens, which is part of the time of every run."""
    with ExitStack() as stack:
        stage = _Stage(stack, 1, users, LIMIT, None)
        count = round(seconds * _PER_SECOND)
        stage.send([Load("nothing", tuple(range(users)), count, _PER_SECOND, time.monotonic() + _LEAD)])
        sent, _, _ = stage.finish()
    return float(_of_senders(sent, count * users)["cpu per 1000"])


def run_faults(updates: int) -> Run:
    """Send random updates on four streams through random faults, without a limit."""
    users = 4
    with ExitStack() as stack:
        stage = _Stage(stack, 1, users, None, None)
        stage.emulator.ask("faults")
        stage.emulator.answer()
        settings = {"interval": 0.02, "deadline": 60.0}
        quota = {"per_second": 1_000.0, "burst": 1_000}
        begin = time.monotonic() + _LEAD
        stage.send([Load("own", tuple(range(users)), updates // users, 0.0, begin, stream=settings, quota=quota)])
        sent, received, record = stage.finish()
    readings = [_reading(events) for events in received]
    whole = {user: "".join(tokens(user, updates // users)) for user in range(users)}
    return {
        "updates": updates // users * users,
        "exact": [reading.text for reading in readings] == [*whole.values()],
        "ended": all(reading.ended for reading in readings),
        "operations": len(record),
        "faults": sum(fault for _, _, fault in record),
        "answers": dict(Counter("reset" if status == 0 else str(status) for _, status, fault in record if fault)),
        "publishes": sum(reading.publishes for reading in readings),
        "duplicates": sum(reading.duplicates for reading in readings),
        "gaps": sum(reading.gaps for reading in readings),
        "failed": dict(sum((one.failed for one in sent), Counter())),
        "reports": [report for one in sent for report in one.reports],
    }


class _Stage:
    """The processes of one run. Each is new, for a quota learns."""

    def __init__(self, stack: ExitStack, replicas: int, users: int, limit: int | None, store: str | None) -> None:
        def start(*target: Any) -> Worker:
            worker = Worker(*target)
            stack.callback(worker.close)
            return worker

        self.emulator = start(run_emulator, limit)
        url = self.emulator.ready
        with ThreadPoolExecutor() as pool:
            subscriber = pool.submit(start, run_subscriber, url, users)
            senders = [pool.submit(start, run_sender, url, store, replicas) for _ in range(replicas)]
        self._subscriber = subscriber.result()
        self._senders = [sender.result() for sender in senders]

    def send(self, loads: Sequence[Load]) -> None:
        for sender, load in zip(self._senders, loads, strict=True):
            sender.ask(load)

    def finish(self) -> tuple[list[Sent], list[list[tuple[float, str]]], Record]:
        """Return the senders' records, the events of each user, and the emulator's record."""
        sent = [sender.answer() for sender in self._senders]
        self._subscriber.ask(_QUIET)
        received = self._subscriber.answer()
        self.emulator.ask("record")
        return sent, received, self.emulator.answer()


def _operations(record: Record, begin: float, seconds: float) -> Run:
    """Count the calls to the emulator, including refused ones."""
    times = [at for at, _, _ in record]
    accepted = [at for at, status, _ in record if status == 200]
    over = range(math.ceil(max(times) - begin) if times else 0)
    each = Counter(math.floor(at - begin) for at in times)
    return {
        "operations": len(times),
        "accepted": len(accepted),
        "refused": sum(status == 429 for _, status, _ in record),
        "otherwise": sum(status not in (200, 429) for _, status, _ in record),
        "most in a second": most_in_a_second(times),
        "most accepted in a second": most_in_a_second(accepted),
        "per second": sum(begin <= at < begin + seconds for at in accepted) / seconds,
        "by second": [each[second] for second in over],
    }


def _of_senders(sent: Sequence[Sent], updates: int) -> Run:
    late = sorted(seconds for one in sent for seconds in one.late)
    return {
        "updates": updates,
        "cpu per 1000": sum(one.cpu for one in sent) / updates * 1000,
        "late p99": _percentile(late, 0.99),
        "failed": dict(sum((one.failed for one in sent), Counter())),
        "said": [one.said for one in sent],
        "reports": [report for one in sent for report in one.reports],
    }


def _reading(events: list[tuple[float, str]]) -> Reading:
    reading = Reading()
    for at, payload in events:
        reading.read(at, payload)
    return reading


def _read(texts: dict[int, list[str]], readings: list[Reading], begin: float) -> Run:
    """Evaluate streams: the share of each text that was shown, and the time of each token."""
    waits: list[tuple[float, float]] = []
    length = arrived = 0
    exact = True
    for user, text in texts.items():
        reading = readings[user]
        whole = "".join(text)
        length += len(whole)
        exact = exact and reading.ended and reading.text == whole
        if not whole.startswith(reading.text):
            # After a gap, tokens cannot be told apart.
            continue
        arrived += len(reading.text)
        position, grew = 0, iter(reading.grew)
        at, shown = next(grew, (math.inf, 0))
        for number, token in enumerate(text):
            position += len(token)
            while shown < position and at < math.inf:
                at, shown = next(grew, (math.inf, 0))
            if at < math.inf:
                due = number / _PER_SECOND
                waits.append((due, at - begin - due))
    publishes = sum(reading.publishes for reading in readings)
    return {
        "arrived": arrived / length,
        "exact": exact,
        "merged": sum(map(len, texts.values())) / publishes if publishes else 0.0,
        "duplicates": sum(reading.duplicates for reading in readings),
        "gaps": sum(reading.gaps for reading in readings),
        **_waits(waits),
    }


def _arrived(texts: dict[int, list[str]], received: list[list[tuple[float, str]]], begin: float) -> Run:
    """Evaluate single publishes: the tokens that arrived at least once."""
    waits: list[tuple[float, float]] = []
    arrived = 0
    for user, events in enumerate(received):
        seen: set[int] = set()
        for at, payload in events:
            number = json.loads(payload)["n"]
            if number not in seen:
                seen.add(number)
                arrived += len(texts[user][number])
                due = number / _PER_SECOND
                waits.append((due, at - begin - due))
    length = sum(len(token) for text in texts.values() for token in text)
    return {"arrived": arrived / length, "exact": arrived == length, "merged": 1.0, **_waits(waits)}


def _waits(waits: list[tuple[float, float]]) -> Run:
    """Evaluate the seconds between the time a token was due and the time the subscriber had it."""
    by_second: dict[int, list[float]] = {}
    for due, wait in waits:
        by_second.setdefault(math.floor(due), []).append(wait)
    ordered = sorted(wait for _, wait in waits)
    return {
        "median": _percentile(ordered, 0.5),
        "p99": _percentile(ordered, 0.99),
        "longest": _percentile(ordered, 1.0),
        "median by second": [statistics.median(by_second[second]) for second in sorted(by_second)],
    }


def _percentile(ordered: Sequence[float], share: float) -> float | None:
    return ordered[min(len(ordered) - 1, math.floor(share * len(ordered)))] if ordered else None


def table(results: dict[str, Any]) -> Iterator[str]:
    """Return the lines that are printed at the end."""
    yield f"Making the tokens takes {results['tokens alone']:.3f} s of processor time per 1,000 of them."
    for name, said in enumerate(results["outage"]["said"]):
        yield f"Replica {name + 1} said in the outage: " + "; ".join(f"{level} {message}" for level, message in said)
    for row in results["simulation"]:
        yield (
            f"simulated {row['kind']:7} {row['replicas']:3} replicas, {row['users']:4} users: {row['arrived']:7.2%} "
            f"arrived, {row['refused']:5} of {row['operations']:6} refused, {row['most in a second']:3} in a second at "
            f"most, {row['median']:.2f} s median, {row['p99']:.2f} s p99"
        )


def _line(row: Run) -> str:
    name = f"{row['kind']}, {row['replicas']} replica{'s' if row['replicas'] > 1 else ''}"
    if row["outage"]:
        name += ", Redis gone meanwhile"
    waits = "nothing arrived" if row["median"] is None else f"{row['median']:6.2f} s median, {row['p99']:6.2f} s p99"
    return (
        f"{name:45} {row['arrived']:8.3%} arrived{', exactly' if row['exact'] else '':9}, {row['refused']:6,} refused, "
        f"{row['most in a second']:5,} in a second at most, {waits}, {row['merged']:5.1f} updates per publish, "
        f"{row['cpu per 1000']:.3f} CPU s per 1,000{disturbed(row)}"
    )


def disturbed(row: Run) -> str:
    """Describe disturbances of a run: a machine too busy to make tokens in time, or for Redis to respond."""
    said = []
    # A single publish delays the next token.
    if row["kind"] != "naive" and row["late p99"] > _LATE:
        said.append(f"the machine was busy, tokens came up to {row['late p99']:.2f} s late (99 %)")
    gone = sum(level == "WARNING" for one in row["said"] for level, _ in one)
    if gone and row["outage"] is None:
        said.append(f"times that Redis did not respond in time: {gone}")
    return "".join(f"; {one}" for one in said)


def _faults_line(row: Run) -> str:
    return (
        f"{row['updates']:,} updates, {row['faults']:,} faults in {row['operations']:,} operations, "
        f"{row['duplicates']:,} duplicates dropped: the text is {'exactly' if row['exact'] else 'NOT'} the text sent"
    )
