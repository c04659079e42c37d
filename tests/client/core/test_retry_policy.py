from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge_realtime import Attempt, RetryPolicy, UsageError
from forge_realtime._core.retry import RetryBudget, retry_after


async def wait_a_while(attempt: Attempt) -> None: ...


@pytest.mark.parametrize(
    "settings",
    [
        {"delivery": "exactly_once"},
        {"deadline": 0},
        {"deadline": math.inf},
        {"deadline": 86_401},
        {"deadline": "5"},
        {"attempt_timeout": -1},
        {"attempt_timeout": math.nan},
        {"max_attempts": 0},
        {"max_attempts": 2.0},
        {"backoff_initial": -0.1},
        {"backoff_max": math.inf},
        {"budget": -1},
        {"budget": math.nan},
        {"budget": True},
        {"max_attempts": True},
        {"on_attempt": 5},
        {"on_attempt": wait_a_while},
    ],
)
def test_values_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    [name] = settings
    with pytest.raises(UsageError, match=f"RetryPolicy: {name} must be"):
        RetryPolicy(**settings)


def test_policy_is_immutable() -> None:
    with pytest.raises(AttributeError):
        setattr(RetryPolicy(), "deadline", 9)  # noqa: B010 (type checkers refuse the plain assignment)


@given(initial=st.floats(0, 86_400), most=st.floats(0, 86_400), attempt=st.integers(1, 10**9), random=st.floats(0, 1))
def test_backoff_has_full_jitter(initial: float, most: float, attempt: int, random: float) -> None:
    policy = RetryPolicy(backoff_initial=initial, backoff_max=most)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("forge_realtime._core.policy.random.uniform", lambda low, high: low + (high - low) * random)
        wait = policy.backoff(attempt)
    bound = min(most, initial * 2 ** (attempt - 1)) if attempt < 50 else (most if initial > 1e-9 else None)
    assert 0 <= wait <= most
    if bound is not None:
        assert wait == pytest.approx(bound * random)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        ("0.5", 0.5),
        (" 7 ", 7),
        ("Mon, 23 Nov 2026 12:00:30 GMT", 30),
        ("Monday, 23-Nov-26 12:00:30 GMT", 30),
        ("Mon Nov 23 12:00:30 2026", 30),
        ("Mon, 23 Nov 2026 11:00:00 GMT", 0),
        ("", None),
        ("-5", None),
        ("soon", None),
        ("1e3", None),
        ("nan", None),
        ("٣", None),
        ("Mon, 99 Nov 2026 12:00:30 GMT", None),
        ("10 May", None),
    ],
)
def test_retry_after_is_read(value: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": value, "date": "Mon, 23 Nov 2026 12:00:00 GMT"}) == seconds


def test_absent_retry_after_is_none() -> None:
    assert retry_after({}) is None


@given(value=st.text(), date=st.text())
def test_any_retry_after_is_a_wait_or_none(value: str, date: str) -> None:
    seconds = retry_after({"retry-after": value, "date": date})
    assert seconds is None or seconds >= 0


@given(earned=st.lists(st.floats(0, 50), max_size=50))
def test_budget_never_grants_more_than_was_earned(earned: list[float]) -> None:
    budget = RetryBudget()
    granted = 0
    for retries in earned:
        budget.deposit(retries)
        granted += budget.withdraw()
    while budget.withdraw():
        granted += 1
    assert 100 <= granted <= 100 + sum(earned)
    assert not budget.withdraw()
