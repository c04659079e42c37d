"""The report and the comparison, with invented numbers."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from tests.benchmarks import open_streams, quota
from tests.benchmarks.blocks import Load, Side
from tests.benchmarks.growth_page import growth_table
from tests.benchmarks.page import changes, main, markdown, page
from tests.benchmarks.scenarios import scenarios
from tests.benchmarks.summary import Spread, own, result
from tests.benchmarks.targets import Target, targets

Results = dict[str, Any]


def pairs(ratio: float, count: int = 8) -> list[list[float]]:
    """Return pairs around a ratio of times."""
    return [[0.0004 * ratio * (1 + number / 1000), 0.0004, 0.0003, 0.0003] for number in range(count)]


def row(group: str, subject: Side, reference: Side, ratio: float) -> dict[str, Any]:
    loads = {"load": asdict(subject.load), "reference load": asdict(reference.load)}
    names = {"contender": subject.contender, "reference": reference.contender}
    return {"group": group, **names, **loads, "pairs": pairs(ratio), "errors": []}


@pytest.fixture
def results() -> Results:
    """The results of a whole run, in which each subject takes half the time of its reference."""
    about = {
        "commit": "0123456789abcdef",
        "subject": "A <change>",
        "changed": True,
        "date": "2026-11-24T09:00:00+00:00",
    }
    machine = {"processor": "A & B", "processors": 2, "load average": 0.1, "system": "Linux", "python": "3.11.7"}
    rows = [
        row(group, comparison.subject, comparison.reference, 0.5)
        for group, comparisons in scenarios().items()
        for comparison in comparisons
    ]
    paired = [
        {"group": group, "name": name, "unit": "ms", "reference": reference, "pairs": [[110.0, 100.0], [120.0, 100.0]]}
        for group in ("import", "first answer", "memory")
        for name, reference in (("forge-realtime", "httpx"), ("forge-realtime async", "httpx async"))
    ]
    single = {"group": "for_invocation", "name": "of 1 header", "unit": "µs", "values": [6.0, 6.1, 6.2]}
    grown = [
        {"over": "clients", "what": "memory of one", "name": name, "unit": "kB", "points": [[1, 500.0], [10, 50.5]]}
        for name in ("httpx", "forge-realtime")
    ]
    growing = [
        {"group": group, "name": name, "unit": unit, "reference": "few", "pairs": [[mine, theirs], [mine, theirs]]}
        for group, name, unit, mine, theirs in (
            (quota.CPU_OF_A_CALL, "10,000 waiting, in process", "µs", 110.0, 100.0),
            (quota.CPU_OF_A_CALL, "10,000 waiting, Redis", "µs", 130.0, 100.0),
            (quota.RATE_USED, "10,000 waiting, in process", "", 0.99, 0.995),
            (open_streams.CPU_OF_A_TOKEN, "1,000 open", "µs", 12.5, 10.0),
        )
    ]
    held = {"group": quota.MEMORY, "name": "2,000 installations, Redis, each", "unit": "KiB", "values": [1.975]}
    emulator = {"machine": {}, "rows": [{"name": "publish", "unit": "events/s", "values": [1.0, 2.0, 3.0]}]}
    return {
        **about,
        "quick": False,
        "machine": machine,
        "minutes": 9.5,
        "rows": rows,
        "costs": [*paired, single, *growing, held],
        "growth": grown,
        "emulator": emulator,
        "versions": {"httpx": {"httpx": "0.28.1"}},
    }


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.links: list[str | None] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.opened.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "src")]


def test_page_shows_every_section_and_is_self_contained(results: Results) -> None:
    text = page(results)
    tags = Tags(text)
    assert set(tags.opened) >= {"h1", "table", "svg", "details"}
    assert tags.links == ["data:,"]
    assert "A &lt;change&gt;" in text
    assert "A &amp; B" in text
    for drawing in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        assert len(ET.fromstring(drawing)) > 3
    for group in ("Sync, one by one", "50 calls in flight", "With the payload", "With the clients: memory of one"):
        assert group in text


def test_imports_are_shown_with_their_spread_and_how_to_measure_them(results: Results) -> None:
    [section] = re.findall(r"<h3>Import</h3>.*?(?=<h3>)", page(results), re.DOTALL)
    assert "make bench ARGS=imports measures only this" in section
    assert "<td>forge-realtime async</td><td class=n>1.15 [1.12, 1.17; 2]</td>" in section


def test_growth_is_shown_as_a_table_and_written_for_the_manual(results: Results) -> None:
    [section] = re.findall(r"<h2>Growth</h2>.*?</table>", page(results), re.DOTALL)
    assert "<td class=n>110 µs</td><td class=n>1.10 [1.10, 1.10; 2]</td><td>few</td>" in section
    assert "<td class=n>1.98 KiB</td><td class=n></td>" in section
    # Only there.
    assert page(results).count("<td>2,000 installations, Redis, each</td>") == 1
    lines = growth_table(results["costs"]).splitlines()
    assert lines[-1] == "| streams, processor time of a token | 1,000 open | 12 µs | 1.25 [1.25, 1.25; 2] | few |"
    assert {line.count("|") for line in lines} == {6}
    results["costs"] = [row for row in results["costs"] if row["group"] == "import"]
    assert "With the calls that wait" not in page(results)


def test_partial_run_has_a_page(results: Results) -> None:
    some = {name: results[name] for name in ("commit", "subject", "changed", "date", "machine")}
    rows = [one for one in results["rows"] if one["group"] == "sync"]
    rows[0] = {**rows[0], "pairs": [], "errors": ["PoolTimeout: <none>", "PoolTimeout: <none>"]}
    text = page({**some, "quick": True, "rows": rows})
    assert "A quick run" in text
    assert "failed: PoolTimeout: &lt;none&gt;" in text
    assert "not measured" in text


def test_ratio_is_of_times_for_single_calls_and_of_throughput_in_flight() -> None:
    one, many = (Side("forge-realtime", Load("any", lanes=lanes)) for lanes in (1, 50))
    assert result(row("sync", one, one, 0.5)).middle == pytest.approx(0.5, rel=0.01)
    assert own(row("sync", one, one, 0.5)).middle == pytest.approx(200, rel=0.01)
    assert result(row("flight-50", many, many, 0.5)).middle == pytest.approx(2, rel=0.01)
    assert own(row("flight-50", many, many, 0.5)).middle == pytest.approx(5000, rel=0.01)


def test_targets_are_judged_by_the_measurement(results: Results) -> None:
    verdicts = {target.name: target.verdict for target in targets(results)}
    assert verdicts["sync publish"] == "met"
    assert verdicts["forge-realtime[aiohttp] async, one by one"] == "missed"
    assert verdicts["forge-realtime async, 50 in flight"] == "missed"
    assert verdicts["from forge_realtime import RealtimeClient"] == "met"
    assert verdicts["for_invocation"] == "missed"
    assert verdicts["quota, processor time of a call, 10,000 waiting, in process"] == "met"
    assert verdicts["quota, processor time of a call, 10,000 waiting, Redis"] == "missed"
    assert verdicts["quota, rate used, 10,000 waiting, in process"] == "met"
    assert verdicts["quota, 2,000 installations, Redis, each"] == "met"
    assert verdicts["streams, processor time of a token, 1,000 open"] == "met"
    assert verdicts["streams, idle, 5,000 open"] == "not measured"
    assert verdicts["making a client for a plain-http address, httpcore loaded"] == "not measured"


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        (Spread(0.5, 0.6, 0.65, 9), "met"),
        (Spread(0.5, 0.6, 0.7, 9), "met by the median"),
        (Spread(0.6, 0.66, 0.7, 9), "missed"),
    ],
)
def test_target_is_met_if_the_worse_quartile_meets_it(value: Spread, verdict: str) -> None:
    assert Target("any", 0.65, True, value).verdict == verdict
    mirrored = Spread(1 / value.high, 1 / value.middle, 1 / value.low, 9)
    assert Target("any", 1 / 0.65, False, mirrored).verdict == verdict


def test_runs_are_compared_row_by_row(results: Results) -> None:
    base = copy.deepcopy(results)
    for one in results["rows"]:
        if one["contender"] == "forge-realtime" and one["group"] in ("sync", "threads"):
            one["pairs"] = pairs(0.4)
        if one["contender"] == "forge-realtime async" and one["group"] == "async":
            one["pairs"] = pairs(0.6)
    found = {name: verdict for name, _, _, verdict in changes(results, base)}
    assert len(found) == len(results["rows"]) + len(results["costs"])
    changed = {name: verdict for name, verdict in found.items() if verdict}
    assert changed == {
        "one by one: forge-realtime": "better",
        "32 threads: forge-realtime": "better",
        "async one by one: forge-realtime async": "worse",
    }
    assert "Since 0123456789" in page(results, base)


def test_readme_table_has_ratios_only(results: Results) -> None:
    lines = markdown(results).splitlines()
    assert lines[2] == "| **forge-realtime** | 0.50 | 1.99 times | 0.50 | 1.99 times |"
    assert "| httpx | 1.00 | 1.00 times | 1.00 | 1.00 times |" in lines
    assert len({line.count("|") for line in lines}) == 1


def test_report_is_written(results: Results, tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text(json.dumps(results), encoding="utf-8")
    assert main([str(file), "--output", str(tmp_path / "report")]) == 0
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == [
        "growth.md",
        "index.html",
        "results.json",
        "table.md",
    ]
    assert json.loads((tmp_path / "report/results.json").read_text(encoding="utf-8")) == results


@pytest.mark.parametrize("content", ["[]", "{}", "no JSON"])
def test_file_without_results_is_refused(content: str, tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text(content, encoding="utf-8")
    message = f"{file} has no results of `make bench`. Run it first, or name another file."
    with pytest.raises(SystemExit, match=f"^{re.escape(message)}$"):
        main([str(file), "--output", str(tmp_path / "other")])
    assert not (tmp_path / "other").exists()
