"""The rate limit: publish, subscribe and sign together, per second and installation."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from types import SimpleNamespace

import httpx
import pytest
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st

from forge_realtime_emulator import Emulator, Settings, SubscriptionRefused
from forge_realtime_emulator._platform.errors import RefusedError
from forge_realtime_emulator._platform.limit import Limit
from tests.emulator.api import Api


@pytest.fixture
def limited(own: Api, monkeypatch: pytest.MonkeyPatch) -> Api:
    """An emulator whose clock only advance() moves, so that the speed of this machine does not matter."""
    monkeypatch.setattr("forge_realtime_emulator._platform.clock.time", SimpleNamespace(time=lambda: 1_800_000_000.0))
    return own


def statuses(call: Callable[[], httpx.Response], times: int) -> list[int]:
    return [call().status_code for _ in range(times)]


def test_fifty_pass_and_the_next_is_refused(limited: Api) -> None:
    assert statuses(lambda: limited.publish("x"), 50) == [200] * 50
    response = limited.publish("x")
    assert response.status_code == 429
    assert response.json()["code"] == "RATE_LIMIT_EXCEEDED"
    assert "Over 50 operations per second" in response.json()["message"]
    assert "retry-after" not in response.headers
    assert len(limited.emulator.events) == 50
    assert (limited.emulator.requests[-1].status, limited.emulator.requests[-1].code) == (429, "RATE_LIMIT_EXCEEDED")


def test_publish_subscribe_and_sign_count_together(limited: Api) -> None:
    limited.emulator.change(limit=6)
    with ExitStack() as stack:
        stack.enter_context(limited.emulator.subscribe("x"))
        limited.sign("x")
        assert limited.publish("x").status_code == limited.publish_global("x").status_code == 200
        page = {"channel": "x", "payload": "y"}
        assert limited.post("/_emulator/publish", page).status_code == 200
        with limited.stream("channel=x") as stream:
            assert stream.status_code == 200
        for refused in (
            limited.publish("x"),
            limited.publish_global("x"),
            limited.post("/forge/realtime/v1/token", {"channelName": "x", "claims": {}}),
            limited.post("/_emulator/publish", page),
            limited.get("/_emulator/subscribe?channel=x"),
        ):
            assert (refused.status_code, refused.json()["code"]) == (429, "RATE_LIMIT_EXCEEDED")
        with pytest.raises(SubscriptionRefused) as error:
            stack.enter_context(limited.emulator.subscribe("x"))
        assert error.value.code == "RATE_LIMIT_EXCEEDED"


def test_each_installation_has_its_own_limit(limited: Api) -> None:
    limited.emulator.register(invocations={"a": {"installation": "i-a"}, "b": {"installation": "i-b"}})
    limited.emulator.change(limit=2)
    for id_ in ("a", "b"):
        assert statuses(partial(limited.publish, "x", authorization=f"Forge id={id_}"), 3) == [200, 200, 429]
    assert limited.publish_global("x", authorization="Forge installationId=i-a").status_code == 429


def test_refused_calls_do_not_count(limited: Api) -> None:
    limited.emulator.change(limit=2)
    foreign = limited.sign("other")
    limited.emulator.fail_next(3, status=503)
    assert statuses(lambda: limited.publish("x"), 3) == [503] * 3
    assert statuses(lambda: limited.publish("x", token=foreign), 3) == [400] * 3
    assert statuses(lambda: limited.publish("x", contextOverrides=["site"]), 3) == [400] * 3
    assert statuses(lambda: limited.publish("x", authorization="Forge id="), 3) == [401] * 3
    for _ in range(3):
        with pytest.raises(SubscriptionRefused, match="CHANNEL_NAME_MISMATCH"):
            limited.emulator.subscribe("x", token=foreign).__enter__()
    assert limited.publish("x").status_code == 200
    assert limited.publish("x").status_code == 429
    limited.emulator.advance(1)
    assert statuses(lambda: limited.publish("x"), 3) == [200, 200, 429]


def test_the_window_slides(limited: Api) -> None:
    limited.emulator.change(limit=2)
    assert statuses(lambda: limited.publish("x"), 1) == [200]
    limited.emulator.advance(0.75)
    assert statuses(lambda: limited.publish("x"), 2) == [200, 429]
    limited.emulator.advance(0.25)
    assert statuses(lambda: limited.publish("x"), 2) == [200, 429]
    limited.emulator.advance(0.5)
    assert statuses(lambda: limited.publish("x"), 1) == [429]
    limited.emulator.advance(0.25)
    assert statuses(lambda: limited.publish("x"), 2) == [200, 429]


def test_limit_can_be_changed_and_disabled(limited: Api) -> None:
    limited.emulator.change(limit=1)
    assert statuses(lambda: limited.publish("x"), 2) == [200, 429]
    limited.emulator.change(limit=None)
    assert statuses(lambda: limited.publish("x"), 100) == [200] * 100
    assert limited.post("/_emulator/limit", {"limit": 102}).status_code == 200
    assert statuses(lambda: limited.publish("x"), 2) == [200, 429]
    limited.emulator.reset()
    assert statuses(lambda: limited.publish("x"), 51) == [200] * 50 + [429]


@pytest.mark.parametrize("seconds", [0, 2])
def test_retry_after_is_sent_when_set(api_of: Callable[[Emulator], Api], seconds: int) -> None:
    with Emulator(settings=Settings(limit=1, limit_retry_after=seconds)) as emulator:
        api = api_of(emulator)
        with emulator.subscribe("x"):
            assert api.publish("x").headers["retry-after"] == str(seconds)
            assert api.get("/_emulator/subscribe?channel=x").headers["retry-after"] == str(seconds)


@given(
    steps=st.lists(st.tuples(st.floats(0, 1.5), st.sampled_from(["i-1", "i-2"])), max_size=60),
    most=st.integers(1, 5),
)
@example_settings(max_examples=200)
def test_no_window_exceeds_the_limit_and_no_call_is_refused_below_it(steps: list[tuple[float, str]], most: int) -> None:
    limit = Limit()
    taken: dict[str, list[float]] = {"i-1": [], "i-2": []}
    now = 0.0
    for step, installation in steps:
        now += step
        recent = [at for at in taken[installation] if at > now - 1]
        try:
            limit.count(installation, now, most, None)
        except RefusedError:
            assert len(recent) == most
        else:
            assert len(recent) < most
            taken[installation].append(now)
        assert limit.rates(now).get(installation) == len([at for at in taken[installation] if at > now - 1])
