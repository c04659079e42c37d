"""`make bench-report`: the page about one run, or the comparison of two."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from tests.benchmarks.charts import Bar, Series, bars, lines, table
from tests.benchmarks.environments import HERE, ROOT
from tests.benchmarks.growth_page import growth_section, growth_table, is_of_growth
from tests.benchmarks.scenarios import scenarios
from tests.benchmarks.stream_page import stream_section, stream_table
from tests.benchmarks.summary import Row, Spread, found, is_throughput, key, own, own_unit, result
from tests.benchmarks.targets import Target, targets

Results = dict[str, Any]

_CHARTS = (
    ("sync", "Sync, one by one", "time of a call, in that of httpx.Client.post; less is better", "httpx"),
    ("async", "Async, one by one", "time of a call, in that of httpx.AsyncClient.post; less is better", "httpx"),
    ("ready", "Over a transport that is handed a ready request", "time of a call, in the transport's", "ready request"),
    ("threads", "32 threads on one client", "throughput, in httpx's; more is better", "httpx"),
    ("flight-5", "5 calls in flight", "throughput, in httpx's; more is better", "httpx"),
    ("flight-50", "50 calls in flight", "throughput, in httpx's; more is better", "httpx"),
    ("flight-500", "500 calls in flight", "throughput, in that of the same with 50", "50 in flight"),
    ("delay", "A server that takes 20 ms", "in httpx's; of one call the time, of many the throughput", "httpx"),
    ("payload", "Payloads of 10 kB and 1 MB", "time of a call, in httpx's; less is better", "httpx"),
)
_OF_IMPORTS = (
    "CPU time of the import in a fresh process, in that of import httpx; less is better. Of forge-realtime it is from "
    "forge_realtime import RealtimeClient, and async of AsyncRealtimeClient. make bench ARGS=imports measures only this"
)
_COSTS = (
    (
        "import",
        "Import",
        _OF_IMPORTS,
        "httpx",
    ),
    ("first answer", "From the start of the process to the first answer", "time, in httpx's; less is better", "httpx"),
    ("memory", "Memory after the import and one call", "in httpx's; less is better", "httpx"),
)
_GROWING = (
    *("httpx", "httpx async", "OpenAPI Generator", "OpenAPI Generator, aiohttp", "aiohttp"),
    *("forge-realtime", "forge-realtime async", "forge-realtime[aiohttp] async"),
)
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 900px; margin: 2rem auto; padding: 0 1rem; color: #171717 }
h1, h2, h3 { line-height: 1.2 } h2 { margin-top: 2.5rem } table { border-collapse: collapse; font-size: 14px }
th, td { text-align: left; padding: 2px 12px 2px 0; border-bottom: 1px solid #e5e5e5; vertical-align: top }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
svg { width: 100%; height: auto; font: 13px system-ui, sans-serif } .missed { color: #b91c1c; font-weight: 600 }
.met { color: #15803d } .warning { background: #fef3c7; padding: .5rem 1rem } details { margin: .5rem 0 }
"""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        description="Write the page about a run of the benchmark, or about the changes since another run."
    )
    parser.add_argument("results", type=Path, help="the results of `make bench`")
    parser.add_argument("--base", type=Path, metavar="FILE", help="the results of another commit, to compare with")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="default: tests/benchmarks/report for a whole run, .benchmarks/report for another one; with --base "
        ".benchmarks/comparison",
    )
    options = parser.parse_args(arguments)
    results = _read(options.results)
    if (beside := options.results.with_name("streams.json")).exists():
        results["streams"] = json.loads(beside.read_text(encoding="utf-8"))
    base = None if options.base is None else _read(options.base)
    is_whole = not results["quick"] and {row["group"] for row in results["rows"]} == scenarios().keys()
    place = HERE / "report" if is_whole else ROOT / ".benchmarks/report"
    folder: Path = options.output or (place if base is None else ROOT / ".benchmarks/comparison")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.html").write_text(page(results, base), encoding="utf-8")
    (folder / "results.json").write_text(json.dumps(results, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "table.md").write_text(markdown(results), encoding="utf-8")
    written = "index.html, results.json, table.md"
    if any(map(is_of_growth, results.get("costs", []))):
        (folder / "growth.md").write_text(growth_table(results["costs"]), encoding="utf-8")
        written += ", growth.md"
    if streams := results.get("streams"):
        (folder / "streams.md").write_text(stream_table(streams), encoding="utf-8")
        written += ", streams.md"
    print(f"{folder}: {written}")
    if base is not None:
        print("\n".join(_plain(changes(results, base))))
    return 0


def _read(path: Path) -> Results:
    try:
        results: Results = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        results = {}
    if isinstance(results, dict) and {"rows", "commit", "machine"} <= results.keys():
        return results
    raise SystemExit(f"{path} has no results of `make bench`. Run it first, or name another file.")


def page(results: Results, base: Results | None = None) -> str:
    """Return the page as self-contained HTML."""
    parts = ["<h1>The cost of a call: forge-realtime and its alternatives</h1>", *_about(results)]
    if base is not None:
        parts += _comparison(results, base)
    parts += ["<h2>Targets</h2>", _targets_table(list(targets(results)))]
    for group, title, what, reference in _CHARTS:
        if rows := [row for row in results["rows"] if row["group"] == group]:
            parts += _section(title, what, reference, rows)
    if costs := [row for row in results.get("costs", []) if not is_of_growth(row)]:
        parts += _costs(costs)
    parts += _growth(results)
    if emulator := results.get("emulator"):
        parts += ["<h2>The emulator</h2>", _emulator_table(emulator["rows"])]
    if streams := results.get("streams"):
        parts += stream_section(streams)
    parts += _versions(results)
    title = "forge-realtime: benchmarks"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
        f"<style>{_STYLE}</style>\n" + "\n".join(parts) + "\n</html>\n"
    )


def _about(results: Results) -> Iterator[str]:
    on = results["machine"]
    changed = ", with uncommitted changes" if results["changed"] else ""
    if results["quick"]:
        yield '<p class="warning">A quick run, to try something: too few pairs to rely on.</p>'
    yield (
        f"<p>Commit {escape(results['commit'][:10])} ({escape(results['subject'])}){changed}, "
        f"{escape(results['date'])}, in {results.get('minutes', 0):g} minutes. {on['processors']} processors, "
        f"{escape(on['processor'])}, {escape(on['system'])}, Python {escape(on['python'])}; "
        f"load average before the run: {on['load average']:.2f}.</p>"
    )
    yield (
        "<p>A server in C runs on one processor, and one contender at a time publishes on another one. Each block of "
        "calls has a block of the reference right before or after it, in alternating order. A figure is the <b>median "
        "of the ratios of all pairs [lower and upper quartile; number of pairs]</b>. All contenders send the same "
        "event with the same header, and read the event id from the response. forge-realtime has its defaults: "
        "retries, deadline, delivery classes and typed results.</p>"
    )
    yield f"<p>{_noise(results)}</p>"


def _noise(results: Results) -> str:
    said = []
    for group, name, what in (
        ("sync", "httpx", "sync"),
        ("async", "httpx async", "async one by one"),
        ("flight-50", "httpx async", "50 in flight"),
    ):
        if row := found(results, group, name):
            said.append(f"{what} {_figure(result(row))}")
    if not said:
        return ""
    return (
        f"Noise: httpx against itself is {', '.join(said)}; without noise it would be 1.00. A difference smaller than "
        "the distance of these quartiles is none. Noise changes times more than ratios, so compare times within a run "
        "only."
    )


def _targets_table(found_targets: Sequence[Target]) -> str:
    rows = []
    for target in found_targets:
        sign = "≤" if target.at_most else "≥"
        value = "" if target.value is None else _figure(target.value, target.digits)
        kind = "missed" if target.verdict == "missed" else "met" if target.verdict.startswith("met") else ""
        verdict = f'<span class="{kind}">{target.verdict}</span>'
        cells = [escape(target.name), f"{sign} {target.limit:.{target.digits}f}", value, escape(target.unit), verdict]
        rows.append(cells)
    return table(["", "target", "measured", "", ""], rows, numbers=(1, 2))


def _section(title: str, what: str, reference: str, rows: list[Row]) -> Iterator[str]:
    yield f"<h2>{escape(title)}</h2><p>{escape(what[0].upper() + what[1:])}.</p>"
    for load in dict.fromkeys(row["load"]["name"] for row in rows):
        here = [row for row in rows if row["load"]["name"] == load]
        measured = sorted((row for row in here if row["pairs"]), key=lambda row: result(row).middle)
        if is_throughput(here[0]):
            measured.reverse()
        if len({row["load"]["name"] for row in rows}) > 1:
            yield f"<h3>{escape(load)}</h3>"
        found_bars = [Bar(_label(row), result(row), row["contender"].startswith("forge")) for row in measured]
        if found_bars:
            yield bars(f"{title}, {load}", found_bars, reference)
        yield f"<details><summary>Numbers</summary>{_numbers(here)}</details>"


def _label(row: Row) -> str:
    against_itself = row["contender"] == row["reference"] and row["load"] == row["reference load"]
    return f"{row['contender']}, itself" if against_itself else str(row["contender"])


def _numbers(rows: list[Row]) -> str:
    cells = []
    for row in rows:
        if row["pairs"]:
            values = [_figure(result(row)), f"{own(row).middle:,.0f} {own_unit(row)}"]
        else:
            values = [f"failed: {escape(row['errors'][0])}", ""]
        cells.append([escape(row["contender"]), *values, escape(row["reference"])])
    return table(["", "ratio", "itself", "reference"], cells, numbers=(1, 2))


def _costs(costs: list[Row]) -> Iterator[str]:
    yield "<h2>Other costs</h2>"
    for group, title, what, reference in _COSTS:
        rows = [row for row in costs if row["group"] == group]
        if not rows:
            continue
        ordered = sorted(rows, key=lambda row: result(row).middle)
        yield f"<h3>{escape(title)}</h3><p>{escape(what[0].upper() + what[1:])}.</p>"
        yield bars(
            title, [Bar(row["name"], result(row), row["name"].startswith("forge")) for row in ordered], reference
        )
        cells = [[escape(row["name"]), _figure(result(row)), f"{own(row).middle:,.1f} {row['unit']}"] for row in rows]
        yield f"<details><summary>Numbers</summary>{table(['', 'ratio', 'itself'], cells, numbers=(1, 2))}</details>"
    rest = [row for row in costs if "values" in row]
    cells = [[f"{escape(row['group'])}: {escape(row['name'])}", _figure(own(row)), escape(row["unit"])] for row in rest]
    yield "<h3>Single values</h3>" + table(["", "measured", ""], cells, numbers=(1,))


def _growth(results: Results) -> Iterator[str]:
    of_quota_and_streams = list(growth_section(results.get("costs", [])))
    if not (results["rows"] or results.get("growth") or of_quota_and_streams):
        return
    yield "<h2>Growth</h2>"
    yield from of_quota_and_streams
    yield from _growth_of_calls(results["rows"])
    grown: list[Row] = results.get("growth", [])
    for over, what in dict.fromkeys((row["over"], row["what"]) for row in grown):
        rows = [row for row in grown if (row["over"], row["what"]) == (over, what)]
        series = [Series(row["name"], [(x, y) for x, y in row["points"]]) for row in rows]
        title = f"With the {over}: {what}"
        yield f"<h3>{escape(title)}</h3>" + lines(title, series, over, rows[0]["unit"])


def _growth_of_calls(rows: list[Row]) -> Iterator[str]:
    payload: dict[str, dict[float, float]] = {}
    flight: dict[str, dict[float, float]] = {}
    for row in rows:
        load = row["load"]
        if not row["pairs"] or load["delay"] or load["text"] or row["group"] in ("ready", "threads"):
            continue
        measured = {row["contender"]: own(row).middle}
        if row["reference"] != row["contender"]:
            measured[row["reference"]] = own(row, reference=True).middle
        for name, value in measured.items():
            if name not in _GROWING:
                continue
            if load["lanes"] == 1:
                payload.setdefault(name, {}).setdefault(load["size"], value)
            if load["name"].startswith("async") and load["size"] == 100:
                calls = value if load["lanes"] > 1 else 1e6 / value
                flight.setdefault(name, {}).setdefault(load["lanes"], calls)
    for title, x_name, y_name, found_points in (
        ("With the payload", "bytes of payload", "µs for one call", payload),
        ("With the calls in flight", "calls in flight", "calls per second", flight),
    ):
        series = [Series(name, sorted(points.items())) for name, points in found_points.items() if len(points) > 2]
        if series:
            yield f"<h3>{title}</h3>" + lines(title, series, x_name, y_name)


def _emulator_table(rows: list[Row]) -> str:
    cells = []
    for row in rows:
        values = sorted(row["values"])
        middle = values[len(values) // 2]
        spread_of = f"{middle:,.0f} [{values[0]:,.0f}, {values[-1]:,.0f}; {len(values)}]"
        cells.append([escape(row["name"]), spread_of, escape(row["unit"])])
    return table(["", "median [lowest, highest; number]", ""], cells, numbers=(1,))


def _versions(results: Results) -> Iterator[str]:
    yield "<h2>Versions</h2>"
    cells = [
        [escape(name), escape(", ".join(f"{package} {version}" for package, version in packages.items()))]
        for name, packages in results.get("versions", {}).items()
    ]
    yield table(["environment", "holds"], cells)
    yield "<p>Made with <code>make bench</code> and <code>make bench-report</code>.</p>"


def changes(results: Results, base: Results) -> list[tuple[str, Spread, Spread, str]]:
    """Compare the rows that both runs have: name, before, now, and the verdict if the quartiles do not overlap."""
    before = {key(row): row for row in _all_rows(base)}
    changed = []
    for row in _all_rows(results):
        if (old := before.get(key(row))) is not None:
            was, now = result(old), result(row)
            better = now.middle > was.middle if is_throughput(row) else now.middle < was.middle
            apart = now.low > was.high or now.high < was.low
            verdict = ("better" if better else "worse") if apart else ""
            changed.append((_name(row), was, now, verdict))
    return changed


def _name(row: Row) -> str:
    if "load" not in row:
        return f"{row['group']}: {row['name']}"
    of = f", over {row['reference']}" if row["group"] == "ready" else ""
    return f"{row['load']['name']}: {_label(row)}{of}"


def _all_rows(results: Results) -> Iterable[Row]:
    rows = [*results["rows"], *results.get("costs", [])]
    return (row for row in rows if row.get("pairs") or row.get("values"))


def _comparison(results: Results, base: Results) -> Iterator[str]:
    yield f"<h2>Since {escape(base['commit'][:10])} ({escape(base['subject'])}, {escape(base['date'])})</h2>"
    if base["machine"]["processor"] != results["machine"]["processor"]:
        yield '<p class="warning">The runs used different processors: compare ratios only.</p>'
    cells = []
    for name, was, now, verdict in changes(results, base):
        kind = {"better": "met", "worse": "missed"}.get(verdict, "")
        by = f"{now.middle / was.middle - 1:+.0%}" if was.middle else ""
        cells.append([escape(name), _figure(was), _figure(now), by, f'<span class="{kind}">{verdict}</span>'])
    yield (
        "<p>A row is better or worse only if the quartiles of the runs do not overlap. Other clients did not change, "
        "so they show the difference between two runs.</p>"
    )
    yield table(["", "before", "now", "", ""], cells, numbers=(1, 2, 3))


def _plain(found_changes: list[tuple[str, Spread, Spread, str]]) -> Iterator[str]:
    for name, was, now, verdict in found_changes:
        if verdict:
            yield f"{verdict:7}{name}: {_figure(was)} -> {_figure(now)}"


_README_ROWS = (
    ("**forge-realtime**", "forge-realtime", "forge-realtime async"),
    ("**forge-realtime[aiohttp]**", "", "forge-realtime[aiohttp] async"),
    ("httpx", "httpx", "httpx async"),
    ("OpenAPI Generator (urllib3; aiohttp)", "OpenAPI Generator", "OpenAPI Generator, aiohttp"),
    ("openapi-python-client", "openapi-python-client", "openapi-python-client async"),
    ("http.client; aiohttp, by hand", "http.client", "aiohttp"),
)


def markdown(results: Results) -> str:
    """Return the table for docs/performance.md, with ratios to httpx."""
    found_rows = [
        "| to httpx | sync, one by one: time | 32 threads: calls/s | async, one by one: time | 50 in flight: calls/s |",
        "|---|---|---|---|---|",
    ]
    for label, sync, asynchronous in _README_ROWS:
        cells = []
        for group, name, suffix in (
            ("sync", sync, ""),
            ("threads", sync, " times"),
            ("async", asynchronous, ""),
            ("flight-50", asynchronous, " times"),
        ):
            row = found(results, group, name) if name else None
            # The reference against itself is noise.
            measured = None if row is None else 1.0 if row["contender"] == row["reference"] else result(row).middle
            measured = 1.0 if name.startswith("httpx") else measured
            cells.append(
                "" if measured is None else f"{measured:.2f}{suffix}" if measured < 10 else f"{measured:.0f}{suffix}"
            )
        found_rows.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(found_rows) + "\n"


def _figure(value: Spread, digits: int = 2) -> str:
    shown = [f"{number:,.{digits if abs(number) < 1000 else 0}f}" for number in (value.middle, value.low, value.high)]
    return f"{shown[0]} [{shown[1]}, {shown[2]}; {value.count}]"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
