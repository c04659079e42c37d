"""The section of the page, and the table for the manual, about costs as they grow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape

from tests.benchmarks import open_streams, quota
from tests.benchmarks.charts import table
from tests.benchmarks.summary import Row, Spread, own, result

_GROUPS = (
    *(quota.CPU_OF_A_CALL, quota.RATE_USED, quota.MEMORY),
    *(open_streams.CPU_OF_A_TOKEN, open_streams.MEMORY, open_streams.IDLE),
)
_HEAD = ("", "with", "measured", "growth", "compared with")


def is_of_growth(row: Row) -> bool:
    """Return whether a row belongs to this section, and not to the other costs."""
    return row["group"] in _GROUPS


def growth_section(rows: Iterable[Row]) -> Iterator[str]:
    """Yield the section of the page as HTML."""
    if cells := [[escape(cell) for cell in line] for line in _lines(rows)]:
        yield (
            "<h3>With the calls that wait for the quota, and with the open streams</h3>"
            "<p>Growth is the ratio to the same work with few calls or streams, in pairs; 1.00 is none.</p>"
        )
        yield table(_HEAD, cells, numbers=(2, 3))


def growth_table(rows: Iterable[Row]) -> str:
    """Return the table for the manual."""
    lines = [_HEAD, ("---", "---", "---:", "---:", "---"), *_lines(rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _lines(rows: Iterable[Row]) -> Iterator[tuple[str, ...]]:
    for row in sorted(filter(is_of_growth, rows), key=lambda row: _GROUPS.index(row["group"])):
        growth = _shown(result(row)) if "pairs" in row else ""
        measured = f"{_number(own(row).middle)} {row['unit']}".rstrip()
        yield row["group"], row["name"], measured, growth, row.get("reference", "")


def _shown(value: Spread) -> str:
    return f"{value.middle:.2f} [{value.low:.2f}, {value.high:.2f}; {value.count}]"


def _number(value: float) -> str:
    return f"{value:,.3f}" if value < 1 else f"{value:,.2f}" if value < 10 else f"{value:,.0f}"
