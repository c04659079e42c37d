"""The ledger of the soak notices what is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.faults.soak import GROWTH, Ledger, Record
from tests.support.fault_server import Received

COMPLETE = {"outcome": "complete", "offered": 2, "updates": 2, "sent": 2, "dropped": 0, "rejected": 0, "unknown": 0}


@pytest.fixture
def record() -> Record:
    return Record()


@pytest.fixture
def ledger(record: Record) -> Ledger:
    return Ledger(record)


def arrive(record: Record, *payloads: str) -> None:
    for payload in payloads:
        record.append(Received("POST", "/", {}, json.dumps({"payload": payload}).encode()))


def batch(**changes: Any) -> dict[str, Any]:
    return {"kind": "sync", "events": {}, "streams": [], "memory": 1, "files": 1, "threads": 1, **changes}


def envelope(seq: int, data: str | None, *, end: bool = False) -> str:
    part = {} if data is None else {"data": data}
    return json.dumps({"forgeStream": 2, "stream": "a", "seq": seq, "end": end, **part})


@pytest.mark.parametrize(
    ("name", "outcome", "times"),
    [
        ("least-1", "accepted", 0),
        ("least-1", "not sent", 1),
        ("least-1", "rejected", 1),
        ("most-1", "accepted", 2),
        ("most-1", "unknown", 2),
        ("least-1", "not ours: KeyError()", 0),
        ("most-1", "a fork hangs or died", 0),
    ],
)
def test_wrong_outcome_is_a_problem(ledger: Ledger, record: Record, name: str, outcome: str, times: int) -> None:
    arrive(record, *[name] * times)
    ledger.read(batch(events={name: outcome}))
    assert len(ledger.problems) == 1


@pytest.mark.parametrize(
    ("name", "outcome", "times"),
    [
        ("least-1", "accepted", 1),
        ("least-1", "accepted", 2),
        ("least-1", "unknown", 0),
        ("most-1", "unknown", 1),
        ("most-1", "not sent", 0),
        ("least-1", "cancelled", 2),
    ],
)
def test_right_outcome_is_none(ledger: Ledger, record: Record, name: str, outcome: str, times: int) -> None:
    arrive(record, *[name] * times)
    ledger.read(batch(events={name: outcome}))
    assert ledger.problems == []
    assert not record.arrived


def test_complete_stream_is_no_problem(ledger: Ledger, record: Record) -> None:
    arrive(record, envelope(0, "0;1;"), envelope(1, None, end=True))
    ledger.read(batch(streams=[{"stream": "a", **COMPLETE}]))
    assert ledger.problems == record.wrong == []


@pytest.mark.parametrize(
    "payloads",
    [
        [],
        [envelope(0, "0;")],
        [envelope(0, "0;", end=True)],
        [envelope(0, "0;1;")],
        [envelope(0, "0;0;1;", end=True)],
        [envelope(0, "1;0;", end=True)],
    ],
)
def test_stream_that_lost_something_is_a_problem(ledger: Ledger, record: Record, payloads: list[str]) -> None:
    arrive(record, *payloads)
    ledger.read(batch(streams=[{"stream": "a", **COMPLETE}]))
    assert len(ledger.problems) == 1


def test_report_that_hides_a_loss_is_a_problem(ledger: Ledger, record: Record) -> None:
    arrive(record, envelope(0, "0;"))
    ledger.read(batch(streams=[{"stream": "a", **COMPLETE, "outcome": "interrupted"}]))
    ledger.read(batch(streams=[{"stream": "b", **COMPLETE, "outcome": "interrupted", "sent": 0, "dropped": 2}]))
    assert len(ledger.problems) == 1


def test_gap_is_a_problem(record: Record) -> None:
    arrive(record, envelope(0, "0;"), envelope(2, "1;", end=True))
    assert len(record.wrong) == 1


@pytest.mark.parametrize("leak", ["memory", "files", "threads"])
def test_growth_is_a_problem(ledger: Ledger, leak: str) -> None:
    for number in range(9):
        ledger.read(batch(**{leak: number * GROWTH}))
    assert len(list(ledger.grown())) == 1
