from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge_realtime._realtime.results import epoch_or_iso

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "value",
    [
        1767225600000,
        1767225600000.0,
        "1767225600000",
        "2026-01-01T00:00:00Z",
        "2026-01-01T00:00:00.000+00:00",
        "2026-01-01T01:00:00+01:00",
        "2026-01-01T00:00:00",
    ],
)
def test_milliseconds_and_iso_8601_are_read(value: str | float) -> None:
    assert epoch_or_iso(value, per_second=1000) == NEW_YEAR


@pytest.mark.parametrize(
    "value", [None, "", "soon", "inf", "nan", "1e400", 1e300, "9" * 400, 10**400, "0001-01-01T00:00:00+14:00"]
)
def test_unreadable_times_are_none(value: str | float | None) -> None:
    assert epoch_or_iso(value, per_second=1000) is None


@given(
    # Naive, as hypothesis wants the bounds.
    st.datetimes(datetime(1970, 1, 2), datetime(2900, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    st.integers(-14, 14),
)
def test_iso_8601_is_read_exactly(moment: datetime, hours: int) -> None:
    written = moment.astimezone(timezone(timedelta(hours=hours))).isoformat()
    assert epoch_or_iso(written, per_second=1000) == moment


@given(st.integers(0, 4_000_000_000_000))
def test_milliseconds_are_exact(milliseconds: int) -> None:
    moment = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=milliseconds)
    assert epoch_or_iso(milliseconds, per_second=1000) == moment
    assert epoch_or_iso(str(milliseconds), per_second=1000) == moment


@given(st.text())
def test_any_text_is_a_time_or_none(text: str) -> None:
    moment = epoch_or_iso(text, per_second=1000)
    assert moment is None or moment.utcoffset() == timedelta(0)
