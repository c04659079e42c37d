"""Random streams with faults, cancellations, late readers and lost events, in virtual time: `make soak`.

Each stream is judged by what the platform accepted and what each reader was delivered: the text of a reader is the text
that was sent, or the reader's gaps and the stream's report say exactly what is missing.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import traceback
from collections import Counter
from typing import Any

import httpx
from attrs import define, field

from forge_realtime import AsyncRealtimeClient, AsyncStream, Quota, RetryPolicy, StreamError
from forge_realtime_emulator import StreamReader
from tests.support.callers import INVOCATION
from tests.support.streams import Reader, run_virtually

FAULTS = ["connect", "429", "503", "500", "500 taken", "cut", "400"]
# Each client has its own address, and so its own quota.
_ADDRESSES = (f"http://sidecar-{number}.test" for number in itertools.count())


@define(eq=False)
class Page:
    """A page that subscribes at a time, and to which each event is delivered late, twice or not at all."""

    chance: random.Random
    since: float
    loss: float
    jitter: float
    reader: StreamReader = field(init=False)
    delivered: list[dict[str, Any]] = field(factory=list)
    lost: int = 0

    def __attrs_post_init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.reader = StreamReader(clock=loop.time)

    def publish(self, payload: str) -> None:
        loop = asyncio.get_running_loop()
        if self.chance.random() < self.loss:
            self.lost += 1
            return
        for _ in range(2 if self.chance.random() < 0.05 else 1):
            loop.call_later(self.chance.random() * self.jitter, self.deliver, payload)

    def deliver(self, payload: str) -> None:
        self.delivered.append(json.loads(payload))
        self.reader.read(payload)
        self.wait()

    def wait(self) -> None:
        at = self.reader.next_at
        if at is not None:
            asyncio.get_running_loop().call_at(at, self.advance)

    def advance(self) -> None:
        self.reader.advance()
        at = self.reader.next_at
        if at is not None and at > asyncio.get_running_loop().time():
            self.wait()


@define(eq=False)
class Platform:
    """Accepts publishes and delivers them to the pages. `faults` come with this probability."""

    chance: random.Random
    pages: list[Page]
    faults: float
    latency: float
    taken: list[str] = field(factory=list)
    # When each of them was.
    times: list[float] = field(factory=list)
    operations: int = 0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/context"):
            return httpx.Response(200, json={"app": {"installationId": request.url.host}})
        fault = self.chance.choice(FAULTS) if self.chance.random() < self.faults else ""
        if fault == "400" and self.chance.random() < 0.8:
            fault = ""
        payload = json.loads(request.content)["payload"]
        if fault == "connect":
            raise httpx.ConnectError("refused")
        self.operations += 1
        await asyncio.sleep(self.latency)
        heard = False
        if fault in ("", "500 taken", "cut"):
            now = asyncio.get_running_loop().time()
            self.taken.append(payload)
            self.times.append(now)
            present = [page for page in self.pages if page.since <= now]
            heard = bool(present)
            for page in present:
                page.publish(payload)
        if fault == "cut":
            raise httpx.ReadError("reset")
        accepted = {"eventId": "1", "eventTimestamp": "1"} if heard else {"eventId": None, "eventTimestamp": None}
        return httpx.Response(int((fault or "200")[:3]), json={} if fault else accepted)


@define(eq=False)
class Case:
    """One random stream, and what became of it."""

    seed: int
    problems: list[str] = field(factory=list)
    counts: Counter[str] = field(factory=Counter)

    def run(self) -> None:
        """Run the stream in virtual time, and judge it."""
        try:
            run_virtually(self._run())
        except (AssertionError, ValueError) as error:
            self.problems.append(f"seed {self.seed}: {str(error) or traceback.format_exc()}")

    async def _run(self) -> None:
        chance = random.Random(self.seed)
        loop = asyncio.get_running_loop()
        start = loop.time()
        merge: Any = chance.choice(["append", "append", "batch", "latest"])
        interval = chance.choice([0.0, 0.1, 0.25, 1.0])
        every = chance.choice([2.0, 5.0])
        max_bytes = chance.choice([64, 1_024, 16_384, 16_384])
        long = chance.choice([3, 30, 400, 4_000])
        loss = chance.choice([0.0, 0.0, 0.05, 0.3])
        length = chance.randrange(1, 60)
        pauses = [chance.choice([0.0, 0.0, 0.02, 0.1, 0.3, 4.0]) for _ in range(length)]
        total = sum(pauses)
        pages = [
            Page(
                random.Random(chance.random()),
                start + (0.0 if number == 0 else chance.random() * (total + every)),
                loss if number else 0.0,
                chance.choice([0.0, 0.0, 0.3]),
            )
            for number in range(chance.randrange(1, 5))
        ]
        platform = Platform(random.Random(chance.random()), pages, chance.choice([0.0, 0.0, 0.1, 0.4]), 0.02)
        sent: list[Any] = []
        how = chance.choice(["end", "end", "end", "raise", "cancel"])
        after = chance.random() * total
        retry = RetryPolicy(max_attempts=chance.choice([1, 3]))
        quota = Quota(per_second=chance.choice([2.0, 40.0, 1_000.0, 1_000.0]))
        live = AsyncRealtimeClient(
            next(_ADDRESSES), transport=httpx.MockTransport(platform), retry=retry, quota=quota
        ).for_invocation(INVOCATION)
        stream = live.stream(
            "chat",
            merge=merge,
            interval=interval,
            max_bytes=max_bytes,
            snapshot_interval=every,
            overflow=chance.choice(["wait", "merge"]),
            deadline=chance.choice([3.0, 30.0]),
        )

        async def block(stream: AsyncStream) -> None:
            async with stream:
                for number, pause in enumerate(pauses):
                    text = f"{number}:{chance.choice('aß🙂' + chr(10) + chr(34) + chr(92)) * chance.randrange(long)};"
                    sent.append(text)
                    await stream.send(text)
                    if chance.random() < 0.03:
                        stream.send_snapshot()
                    await asyncio.sleep(pause)
                if how == "raise":
                    raise KeyError("the block's own")

        task = asyncio.create_task(block(stream))
        if how == "cancel":
            loop.call_later(after, task.cancel)
        await asyncio.wait({task})
        error = None if task.cancelled() else task.exception()
        assert error is None or isinstance(error, StreamError | KeyError), repr(error)
        await asyncio.sleep(200)
        await live.aclose()
        # With less, a snapshot in many parts may take longer than pages wait.
        self._judge(stream, merge, sent, platform, in_time=quota.per_second > 2)
        if platform.taken and not platform.faults and quota.per_second > 2 and how != "cancel":
            self._judge_end(platform)

    def _judge(
        self,
        stream: AsyncStream,
        merge: str,
        sent: list[str],
        platform: Platform,
        *,
        in_time: bool,
    ) -> None:
        report = stream.report
        assert report.pending == 0
        assert report.updates == report.sent + report.dropped + report.rejected + report.unknown
        # The last one may have been refused, or interrupted after it was taken.
        assert len(sent) - 1 <= report.updates <= len(sent)
        # The reader of the tests also compares each snapshot with the updates that it covers.
        published = Reader(platform.taken)
        self.counts["streams"] += 1
        self.counts[f"report: {'all sent' if report.sent == report.updates else 'something missing'}"] += 1
        if not platform.taken:
            assert report.sent == 0
            return
        value, taken = _value(merge, published.data), published.updates
        if published.beyond:
            [text] = published.beyond.values()
            value = text if merge == "append" else json.loads(text)
            taken = json.loads(platform.taken[-1])["snapshot"]["updates"]
        # The updates are published from the first one on, so the report says what is missing.
        assert report.sent <= taken <= report.sent + report.unknown
        assert value == _sent(merge, sent[:taken]), "the text published is not the text sent"
        for page in platform.pages:
            self._judge_page(page, merge, value, published)
            at = _last_whole_at(platform)
            if in_time and page.lost == 0 and at is not None and page.since < at:
                assert page.reader.values.get(self._id(published)) == value, "a page without losses is incomplete"

    def _judge_end(self, platform: Platform) -> None:
        """Without faults, the final snapshot is published, and once more."""
        last = [json.loads(payload) for payload in platform.taken if json.loads(payload)["end"]]
        if "snapshotEvery" not in last[0]:
            self.counts["streams: outgrown"] += 1
            return
        parts = [envelope["snapshot"] for envelope in last if "snapshot" in envelope]
        assert len(parts) == 2 * parts[0]["parts"], "the final snapshot is not there twice"
        self.counts[f"streams: final snapshot {'in parts' if parts[0]['parts'] > 1 else 'whole'}"] += 1

    def _judge_page(self, page: Page, merge: str, value: Any, published: Reader) -> None:
        stream = self._id(published)
        reader = page.reader
        shown: Any = None
        pieces: list[Any] = []
        gaps: list[tuple[int, int]] = []
        for name, event in reader.calls:
            if name == "onGap":
                gaps.append((event["from"], event["to"]))
            elif name == "onUpdate":
                whole = event.get("whole", False)
                if whole:
                    gaps = []
                pieces = [event["data"]] if whole or merge == "latest" else [*pieces, event["data"]]
        shown = _value(merge, pieces)
        assert shown == reader.values.get(stream), "the updates do not add up to the value"
        ends = [envelope for envelope in page.delivered if envelope["end"]]
        self.counts["pages"] += 1
        if stream not in reader.ended:
            assert not [end for end in ends if "seq" in end], "a page has the end mark and shows no end"
            self.counts["pages: without the end"] += 1
            last = max((gap[1] for gap in gaps), default=-1)
            if not gaps and merge != "latest":
                assert shown is None or value[: len(shown)] == shown, "a text without gaps is not a beginning"
            assert last < len(published.only)
            return
        if not gaps:
            assert shown == value, "a page that lacks nothing shows something else"
            self.counts["pages: complete"] += 1
            return
        missing = {seq for first, last in gaps for seq in range(first, last + 1)}
        kept = [event["data"] for event in published.only if event["seq"] not in missing and "data" in event]
        assert merge == "latest" or shown == _value(merge, kept), "the gaps do not say what is missing"
        self.counts["pages: with gaps reported"] += 1

    def _id(self, published: Reader) -> str:
        [stream] = published.envelopes
        return stream


def _last_whole_at(platform: Platform) -> float | None:
    """Return when the first part of the last whole snapshot was published, if it covers everything."""
    parts: dict[int, float] = {}
    for payload, at in reversed([*zip(platform.taken, platform.times, strict=True)]):
        envelope = json.loads(payload)
        if "snapshot" not in envelope or not envelope["end"]:
            continue
        parts[envelope["snapshot"]["part"]] = at
        if len(parts) == envelope["snapshot"]["parts"]:
            return at
    return None


def _value(merge: str, data: list[Any]) -> Any:
    if not data:
        return None
    if merge == "append":
        return "".join(data)
    return list(itertools.chain(*data)) if merge == "batch" else data[-1]


def _sent(merge: str, updates: list[str]) -> Any:
    return _value(merge, [updates] if merge == "batch" and updates else updates)


def run_streams(count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Run random streams; return how many there were of each kind, and what is not as expected."""
    counts, problems = Counter[str](), []
    for number in range(count):
        case = Case(seed * 1_000_000 + number)
        case.run()
        counts += case.counts
        problems += case.problems
    return counts, problems
