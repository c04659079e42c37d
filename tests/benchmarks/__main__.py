"""`make bench`: the client against the alternatives that a user has."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks import emulator_load, streams
from tests.benchmarks.blocks import Comparison, Stage, compare
from tests.benchmarks.costs import costs, imports
from tests.benchmarks.environments import ENVIRONMENTS, ROOT, versions
from tests.benchmarks.growth import growth
from tests.benchmarks.machine import commit, machine
from tests.benchmarks.open_streams import open_streams
from tests.benchmarks.parts import parts
from tests.benchmarks.quota import quota
from tests.benchmarks.scenarios import DELAYS, quick, scenarios
from tests.benchmarks.summary import is_throughput, own, own_unit, result

RESULTS = ROOT / ".benchmarks/results.json"
OTHERS = ("imports", "parts", "costs", "growth", "quota", "open-streams", "emulator", "streams")


def main() -> int:
    groups = scenarios()
    parser = argparse.ArgumentParser(
        description="Measure publishing against other clients.",
        epilog="Run nothing else at the same time. Then write the report: make bench-report.",
    )
    names = [*groups, *OTHERS]
    parser.add_argument("scenarios", nargs="*", help=f"{', '.join(names)}; default: all")
    parser.add_argument("--quick", action="store_true", help="few pairs, to try something")
    parser.add_argument("--only", metavar="TEXT", help="only contenders with this text in their name")
    parser.add_argument("--json", type=Path, metavar="FILE", default=RESULTS, help="the file for the results")
    options = parser.parse_args()
    if unknown := set(options.scenarios) - set(names):
        parser.error(f"unknown scenarios: {', '.join(sorted(unknown))}; choose from {', '.join(names)}")
    chosen = options.scenarios or names
    if "streams" in chosen:
        # A file of its own, so that the other scenarios do not overwrite it.
        _write(options.json.with_name("streams.json"), _streams(options.quick))
        if chosen == ["streams"]:
            return 0
    began = time.monotonic()
    results: dict[str, Any] = {**commit(), "quick": options.quick, "machine": machine()}
    results["rows"] = list(_rows({name: groups[name] for name in groups if name in chosen}, options))
    for name, run, kept_as in (
        ("imports", imports, "costs"),
        ("parts", parts, "costs"),
        ("costs", costs, "costs"),
        ("growth", growth, "growth"),
        ("quota", quota, "costs"),
        ("open-streams", open_streams, "costs"),
    ):
        if name in chosen:
            rows = results.setdefault(kept_as, [])
            for row in run(options.quick):
                rows.append(row)
                print(_cost_line(row), flush=True)
    if "emulator" in chosen:
        rows = emulator_load.measure(*((2, 4000, 200, 30) if options.quick else (5, 20_000, 1000, 100)))
        results["emulator"] = {"machine": machine(*emulator_load.PACKAGES), "rows": rows}
        print("\n".join(emulator_load.table(rows)))
    results["versions"] = {name: versions(name) for name in ENVIRONMENTS if name != "compiler"}
    results["minutes"] = round((time.monotonic() - began) / 60, 1)
    _write(options.json, results)
    return 0


def _streams(quick: bool) -> dict[str, Any]:
    results = streams.measure(quick)
    print("\n".join(streams.table(results)))
    return results


def _write(file: Path, results: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"Wrote {file} after {results['minutes']} min.")


def _rows(groups: dict[str, list[Comparison]], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    with Stage(DELAYS) as stage:
        for group, comparisons in groups.items():
            chosen = [one for one in comparisons if not options.only or options.only in one.subject.contender]
            if not chosen:
                continue
            print(group, end=" ", file=sys.stderr, flush=True)
            began = time.monotonic()
            for row in compare(stage, quick(chosen) if options.quick else chosen):
                row["group"] = group
                print(_line(row), flush=True)
                yield row
            print(f"{group}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def _line(row: dict[str, Any]) -> str:
    name = f"{row['load']['name']}: {row['contender']}"
    if not row["pairs"]:
        return f"{name:75} failed: {row['errors'][0]}"
    against = row["reference"] if row["load"] == row["reference load"] else row["reference load"]["name"]
    of, mine = result(row), own(row)
    word = "times" if is_throughput(row) else "of"
    return (
        f"{name:75} {of.middle:6.2f} [{of.low:.2f} {of.high:.2f}] {word} {against}, {mine.middle:,.0f} {own_unit(row)}"
    )


def _cost_line(row: dict[str, Any]) -> str:
    if "points" in row:
        points = ", ".join(f"{at}: {value:,.4g}" for at, value in row["points"])
        return f"{row['over']}: {row['what']}: {row['name']}, {row['unit']}: {points}"
    name = f"{row['group']}: {row['name']}"
    if "pairs" not in row:
        return f"{name:75} {own(row).middle:,.4g} {row['unit']}"
    of = result(row)
    mine = f"{own(row).middle:,.4g} {row['unit']}"
    return f"{name:75} {of.middle:6.2f} [{of.low:.2f} {of.high:.2f}] of {row['reference']}, {mine}"


if __name__ == "__main__":
    sys.exit(main())
