"""What the client costs beside what a user would take instead: `make bench`, or `python -m tests.benchmarks`."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from tests.benchmarks.blocks import Stage, compare
from tests.benchmarks.environments import ENVIRONMENTS, ROOT, versions
from tests.benchmarks.machine import commit, machine
from tests.benchmarks.scenarios import DELAYS, quick, scenarios


def main() -> int:
    groups = scenarios()
    parser = argparse.ArgumentParser(description="Publishing, measured against other clients.")
    parser.add_argument("scenarios", nargs="*", help=f"which: {', '.join(groups)}; all if none is named")
    parser.add_argument("--quick", action="store_true", help="few pairs, for trying something")
    parser.add_argument("--only", metavar="TEXT", help="only contenders with that in their name")
    parser.add_argument("--json", type=Path, metavar="FILE", default=ROOT / ".benchmarks/clients.json")
    options = parser.parse_args()
    if unknown := set(options.scenarios) - set(groups):
        parser.error(f"there is no scenario {', '.join(sorted(unknown))}; there are {', '.join(groups)}")
    results: dict[str, Any] = {**commit(), "quick": options.quick, "machine": machine()}
    rows = results["rows"] = []
    with Stage(DELAYS) as stage:
        for group in options.scenarios or groups:
            comparisons = quick(groups[group]) if options.quick else groups[group]
            if options.only:
                comparisons = [one for one in comparisons if options.only in one.subject.contender]
            if not comparisons:
                continue
            print(group, end=" ", file=sys.stderr, flush=True)
            for row in compare(stage, comparisons):
                row["group"] = group
                rows.append(row)
                print(line(row), flush=True)
    results["versions"] = {name: versions(name) for name in ENVIRONMENTS if name != "compiler"}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(f"In {options.json} as JSON.")
    return 0


def line(row: dict[str, Any]) -> str:
    name = f"{row['load']['name']}: {row['contender']}"
    against = row["reference"] if row["reference"] != row["contender"] else row["reference load"]["name"]
    if not row["pairs"]:
        return f"{name:75} failed: {row['errors'][0]}"
    ratios = sorted(pair[0] / pair[1] for pair in row["pairs"])
    mine = statistics.median(pair[0] for pair in row["pairs"])
    if row["load"]["lanes"] == 1:
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        return f"{name:75} {middle:6.2f} [{low:.2f} {high:.2f}] of {against}, {mine * 1e6:,.0f} µs"
    low, middle, high = statistics.quantiles([1 / ratio for ratio in ratios], n=4, method="inclusive")
    return f"{name:75} {middle:6.2f} [{low:.2f} {high:.2f}] times {against}, {1 / mine:,.0f}/s"


if __name__ == "__main__":
    sys.exit(main())
