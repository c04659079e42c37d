"""`make bench-check`: the verdict on counts that differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.counts import RECORD, WAYS, Counts, check, grown

HERE: dict[str, Any] = {"python": "3.11", "versions": {"httpx": "0.28.1"}}


def counts(**owners: int) -> dict[str, Counts]:
    return {"sync": {"instructions": owners}}


@pytest.fixture
def record(tmp_path: Path) -> Path:
    path = tmp_path / "counts.json"
    recorded = {**HERE, "counts": counts(forge_realtime=1000, httpx=10_000, harness=50)}
    path.write_text(json.dumps(recorded), encoding="utf-8")
    return path


def test_growth_is_reported_with_numbers_and_what_to_do(record: Path) -> None:
    code, message = check(record, counts(forge_realtime=1100, httpx=10_201, attrs=31), HERE)
    assert code == 1
    assert message == (
        "A publish costs more than recorded in counts.json:\n"
        "  sync: forge_realtime: 1,000 -> 1,100 instructions (+10.0%)\n"
        "  sync: httpx: 10,000 -> 10,201 instructions (+2.0%)\n"
        "  sync: attrs: 0 -> 31 instructions\n"
        "If this is intended: make bench-check RECORD=1, and commit counts.json."
    )


@pytest.mark.parametrize(
    "counted", [counts(forge_realtime=1030, httpx=10_200, attrs=30, harness=500), counts(forge_realtime=500)]
)
def test_small_growth_and_any_decrease_pass(record: Path, counted: dict[str, Counts]) -> None:
    assert check(record, counted, HERE) == (0, "A publish costs no more than recorded.")


def test_counts_of_another_python_are_not_compared(record: Path) -> None:
    code, message = check(record, counts(forge_realtime=9000), {**HERE, "python": "3.12"})
    assert code == 0
    assert message.startswith("Not compared: recorded with Python 3.11, and this is 3.12")


def test_other_package_versions_fail(record: Path) -> None:
    code, message = check(record, counts(forge_realtime=1), {**HERE, "versions": {"httpx": "0.29.0"}})
    assert code == 1
    assert "httpx 0.28.1 -> 0.29.0" in message
    assert "make bench-check RECORD=1" in message


def test_missing_record_fails_and_says_how_to_record(tmp_path: Path) -> None:
    code, message = check(tmp_path / "counts.json", counts(forge_realtime=1), HERE)
    assert (code, "make bench-check RECORD=1" in message) == (1, True)


def test_committed_record_covers_every_way() -> None:
    recorded = json.loads(RECORD.read_text(encoding="utf-8"))
    assert tuple(recorded["counts"]) == WAYS
    for kinds in recorded["counts"].values():
        assert kinds.keys() == {"instructions", "calls", "bytes at most"}
        assert kinds["instructions"]["forge_realtime"] > 100
    assert grown(recorded["counts"], recorded["counts"]) == []
