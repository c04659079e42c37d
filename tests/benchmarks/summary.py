"""Medians and quartiles of the rows of a run."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Spread:
    """A median with its quartiles.

    Attributes:
        low: The lower quartile.
        middle: The median.
        high: The upper quartile.
        count: The number of values.
    """

    low: float
    middle: float
    high: float
    count: int


def spread(values: Iterable[float]) -> Spread:
    found = list(values)
    if len(found) == 1:
        return Spread(found[0], found[0], found[0], 1)
    low, middle, high = statistics.quantiles(found, n=4, method="inclusive")
    return Spread(low, middle, high, len(found))


def is_throughput(row: Row) -> bool:
    """Return whether the row has many calls in flight, so that more is better."""
    return "load" in row and row["load"]["lanes"] > 1


def result(row: Row) -> Spread:
    """Return the ratio to the reference, of throughput with many calls in flight, else of time; or the value itself."""
    if "pairs" not in row:
        return spread(row["values"])
    if is_throughput(row):
        return spread(pair[1] / pair[0] for pair in row["pairs"])
    return spread(pair[0] / pair[1] for pair in row["pairs"])


def own(row: Row, *, reference: bool = False) -> Spread:
    """Return the figure of the subject or the reference: calls per second, microseconds per call, or a cost."""
    place = 1 if reference else 0
    if "pairs" not in row:
        return spread(row["values"])
    if is_throughput(row):
        return spread(1 / pair[place] for pair in row["pairs"])
    scale = 1e6 if "load" in row else 1
    return spread(pair[place] * scale for pair in row["pairs"])


def own_unit(row: Row) -> str:
    if "load" not in row:
        return str(row["unit"])
    return "calls/s" if is_throughput(row) else "µs"


def key(row: Row) -> tuple[str, ...]:
    """Return the identity of a row across runs."""
    if "load" in row:
        return (row["group"], row["load"]["name"], row["contender"], row["reference"], row["reference load"]["name"])
    return (row["group"], row["name"], row.get("reference", ""))


def found(results: dict[str, Any], group: str, name: str, load: str = "", reference: str = "") -> Row | None:
    """Return a row with values, or `None`."""
    for row in [*results.get("rows", []), *results.get("costs", [])]:
        if row["group"] != group or row.get("contender", row.get("name")) != name or not _values(row):
            continue
        if (not load or row["load"]["name"] == load) and (not reference or row["reference"] == reference):
            return row  # type: ignore[no-any-return]
    return None


def _values(row: Row) -> list[Any]:
    values: list[Any] = row["pairs"] if "pairs" in row else row["values"]
    return values
