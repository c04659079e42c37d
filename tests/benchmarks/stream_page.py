"""The section of the page and the table of docs/performance.md about streams under the limit."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

from tests.benchmarks.charts import Bar, Series, bars, lines, table, timeline
from tests.benchmarks.stream_simulation import points
from tests.benchmarks.streams import disturbed
from tests.benchmarks.summary import Spread

Results = dict[str, Any]

_NAMES = {
    "shared": "streams, quota in Redis",
    "own": "streams, a whole `Quota()` in each",
    "naive": "a publish for each token",
}
_QUOTA = 40


def stream_section(results: Results) -> Iterator[str]:
    """Yield the section of the page as HTML."""
    users, per_second, seconds = results["users"], results["per second"], results["seconds"]
    on, runs = results["machine"], results["runs"]
    yield "<h2>Streams under the limit</h2>"
    if results["quick"]:
        yield '<p class="warning">A quick run, to try something: too short to rely on.</p>'
    changed = ", with uncommitted changes" if results["changed"] else ""
    yield (
        f"<p>Commit {escape(results['commit'][:10])}{changed}, {escape(results['date'])}; {on['processors']} "
        f"processors, Python {escape(on['python'])}; load average before the run: {on['load average']:.2f}. {users} "
        f"users of one installation, {per_second:g} tokens a second each, for {seconds:g} seconds, on the emulator "
        f"with its limit of {results['limit']} operations in any second. The replicas, the emulator and the subscriber "
        "are processes. The subscriber receives the events by WebSocket and assembles the texts as a page does. Times "
        "are from when a token was due until the subscriber had it, for all tokens that arrived. The emulator's record "
        "counts the operations, including refused ones. Processor time is that of the senders; of this, making 1,000 "
        f"tokens takes {results['tokens alone'] * 1000:.0f} ms.</p>"
    )
    yield _runs_table(runs)
    for row in (*runs, results["outage"]):
        if what := disturbed(row):
            yield f'<p class="warning">{escape(_label(row) + what)}.</p>'
    everything = [Bar(_label(row), _single(row["arrived"]), row["kind"] != "naive") for row in runs]
    yield "<h3>Share of the text that arrived</h3>" + bars("Share of the text that arrived", everything, "all")
    waits = [
        Bar(_label(row), Spread(row["median"], row["median"], row["p99"], 1), row["kind"] != "naive")
        for row in runs
        if row["median"] is not None
    ]
    yield "<h3>Seconds from token to browser: the median, and a line to the 99th percentile</h3>"
    yield bars("Seconds from token to browser", waits, "1 s")
    yield f"<p>{_why(users)}</p>"
    yield from _outage(results["outage"])
    yield _faults(results["faults"])
    yield from _simulation(results["simulation"])


def _why(users: int) -> str:
    each = _QUOTA / users
    cycle = max(0.25, 1 / each)
    return (
        f"The quota of {_QUOTA} a second leaves room for subscriptions. It allows {each:g} publishes a second for each "
        f"of {users} streams: one in {cycle:g} s, whatever the interval (0.25 s). A publish takes all updates so far "
        f"when its turn comes: a token waits {cycle / 2:g} s on average and {cycle:g} s at most if the turns come "
        "evenly. Fewer users wait for the interval only; see the simulation."
    )


def _runs_table(runs: list[Results]) -> str:
    cells = [
        [
            escape(_NAMES[row["kind"]]),
            str(row["replicas"]),
            f"{row['arrived']:.1%}" if not row["exact"] else "100 %",
            f"{row['operations']:,}",
            f"{row['refused']:,}",
            f"{row['most in a second']:,}",
            f"{row['per second']:.1f}",
            *(("", "") if row["median"] is None else (f"{row['median']:.2f} s", f"{row['p99']:.2f} s")),
            f"{row['merged']:.1f}",
            f"{row['cpu per 1000'] * 1000:.0f} ms",
        ]
        for row in runs
    ]
    head = ["", "replicas", "arrived", "calls", "429", "most/s", "taken/s", "median", "99 %", "merged", "CPU"]
    explained = (
        "<p>arrived: share of the text; 100 % means that every text is exactly the one sent. calls: all calls to the "
        "emulator. most/s: the most of these in any second. taken/s: average of accepted calls while tokens came. "
        "median, 99 %: from token to browser. merged: updates per publish. CPU: of the senders, for 1,000 updates.</p>"
    )
    return table(head, cells, numbers=tuple(range(1, len(head)))) + explained


def _label(row: Results) -> str:
    return f"{_NAMES[row['kind']]}, {row['replicas']} replica{'s' if row['replicas'] > 1 else ''}"


def _single(value: float) -> Spread:
    return Spread(value, value, value, 1)


def _outage(row: Results) -> Iterator[str]:
    start, end = row["outage"]
    warnings = [[level for level, _ in said].count("WARNING") for said in row["said"]]
    infos = [[level for level, _ in said].count("INFO") for said in row["said"]]
    whole = "nothing was lost" if row["exact"] else f"{row['arrived']:.3%} of the text arrived"
    yield f"<h3>Redis gone for {end - start:g} s, two replicas</h3>"
    yield (
        f"<p>Killed after {start:g} s and restarted after {end:g} s: {whole}, {row['refused']} calls were refused, "
        f"{row['most in a second']} operations in any second at most; {row['median']:.2f} s median, {row['p99']:.2f} s "
        f"at 99 %. Warnings of the replicas: {_listed(warnings)}; messages that the quota is shared again: "
        f"{_listed(infos)}. During the outage each replica keeps to its half of the quota.</p>"
    )
    operations = Series("operations", [(at + 0.5, value) for at, value in enumerate(row["by second"])])
    waits = Series("median wait", [(at + 0.5, value) for at, value in enumerate(row["median by second"])])
    yield timeline("Operations in each second", [operations], "seconds", "operations in each second", (start, end))
    yield timeline("From token to browser", [waits], "seconds", "seconds from token to browser", (start, end))


def _listed(counts: list[int]) -> str:
    return " and ".join(map(str, counts))


def _faults(row: Results) -> str:
    verdict = "exactly the text that was sent" if row["exact"] else "NOT the text that was sent"
    return (
        f"<h3>Random faults</h3><p>{row['updates']:,} random updates on four streams, {row['faults']:,} faults in "
        f"{row['operations']:,} operations (429, 5xx, resets, truncated and unreadable responses, some of them after "
        f"the call was carried out): {row['publishes']:,} publishes arrived, {row['duplicates']:,} duplicates were "
        f"dropped, {row['gaps']} are missing; the text is {verdict}.</p>"
    )


def _simulation(rows: list[Results]) -> Iterator[str]:
    yield (
        "<h3>In virtual time</h3><p>The client's own code with a virtual clock, a network of 5 ms and the emulator's "
        "limit: more users and replicas than a machine carries.</p>"
    )
    cells = [
        [
            escape(_NAMES[row["kind"]]),
            str(row["replicas"]),
            str(row["users"]),
            f"{row['arrived']:.1%}",
            f"{row['operations']:,}",
            f"{row['refused']:,}",
            str(row["most in a second"]),
            f"{row['median']:.2f}",
            f"{row['p99']:.2f}",
            f"{row['merged']:.0f}",
        ]
        for row in rows
    ]
    for over, fixed in (("users", {"replicas": 4}), ("replicas", {"users": 40})):
        found = [(kind, list(points(rows, kind, over, **fixed))) for kind in ("shared", "own")]
        series = [Series(_NAMES[kind], sorted(at)) for kind, at in found if len(at) > 1]
        if series:
            [(other, number)] = fixed.items()
            title = f"{number} {other}: median wait over the {over}"
            yield lines(title, series, over, f"seconds from token to browser, median; {number} {other}")
    head = ["", "replicas", "users", "arrived", "operations", "429", "most in any second", "median s", "99 % s"]
    numbers = table([*head, "updates per publish"], cells, numbers=tuple(range(1, 10)))
    yield f"<details><summary>Numbers</summary>{numbers}</details>"


def stream_table(results: Results) -> str:
    """Return the table for docs/performance.md."""
    found = [
        "| replicas | | text that arrives | 429 | operations in any second, at most | token to browser: median, 99 % |",
        "|---|---|---|---|---|---|",
    ]
    for row in results["runs"]:
        arrived = "100 %" if row["exact"] else f"{row['arrived']:.1%}".replace("%", " %")
        waits = "" if row["median"] is None else f"{row['median']:.2f} s, {row['p99']:.2f} s"
        cells = [
            str(row["replicas"]),
            _NAMES[row["kind"]],
            arrived,
            f"{row['refused']:,}",
            f"{row['most in a second']:,}",
            waits,
        ]
        found.append(f"| {' | '.join(cells)} |")
    return "\n".join(found) + "\n"
