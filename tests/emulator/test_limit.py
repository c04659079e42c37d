"""The rate limit: publish, subscribe and sign together, per second and installation."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st

from forge_realtime_emulator import Emulator, Settings, SubscriptionRefused
from forge_realtime_emulator._platform.limit import Limit
from tests.emulator.api import Api, failure


@pytest.fixture
def limited(own: Api, monkeypatch: pytest.MonkeyPatch) -> Api:
    """An emulator whose clock only advance() moves, so that the speed of this machine does not matter."""
    monkeypatch.setattr("forge_realtime_emulator._platform.clock.elapsed", lambda: 0.0)
    return own


LIMITED = "RATE_LIMIT_EXCEEDED"


def failures(call: Callable[[], httpx.Response], times: int) -> list[str | None]:
    return [failure(call()) for _ in range(times)]


def test_fifty_pass_and_the_next_is_refused(limited: Api) -> None:
    assert failures(lambda: limited.publish("x"), 50) == [None] * 50
    response = limited.publish("x")
    assert failure(response) == LIMITED
    assert "Over 50 operations per second" in response.json()["detail"]
    assert "retry-after" not in response.headers
    assert len(limited.emulator.events) == 50
    assert (limited.emulator.requests[-1].status, limited.emulator.requests[-1].code) == (200, LIMITED)


def test_publish_subscribe_and_sign_count_together(limited: Api) -> None:
    limited.emulator.change(limit=6)
    with ExitStack() as stack:
        stack.enter_context(limited.emulator.subscribe("x"))
        limited.sign("x")
        assert failure(limited.publish("x")) is failure(limited.publish_global("x")) is None
        page = {"channel": "x", "payload": "y"}
        assert limited.post("/_emulator/publish", page).status_code == 200
        with limited.stream("channel=x") as stream:
            assert stream.status_code == 200
        for refused in (
            limited.publish("x"),
            limited.publish_global("x"),
            limited.post("/forge/realtime/v1/token", {"channelName": "x", "claims": {}}),
        ):
            assert failure(refused) == LIMITED
        for refused in (limited.post("/_emulator/publish", page), limited.get("/_emulator/subscribe?channel=x")):
            assert (refused.status_code, refused.json()["message"]) == (429, LIMITED)
        with pytest.raises(SubscriptionRefused) as error:
            stack.enter_context(limited.emulator.subscribe("x"))
        assert (error.value.code, str(error.value)) == (LIMITED, LIMITED)


def test_each_installation_has_its_own_limit(limited: Api) -> None:
    limited.emulator.register(invocations={"a": {"installation": "i-a"}, "b": {"installation": "i-b"}})
    limited.emulator.change(limit=2)
    for id_ in ("a", "b"):
        publish = partial(limited.publish, "x", authorization=f"Forge id={id_}")
        assert failures(publish, 3) == [None, None, LIMITED]
    assert failure(limited.publish_global("x", authorization="Forge installationId=i-a")) == LIMITED


def test_both_spellings_of_an_installation_share_one_limit(limited: Api) -> None:
    ari = "ari:cloud:ecosystem::installation/i-a"
    limited.emulator.register(invocations={"a": {"installation": ari}}, installations=["i-a"])
    limited.emulator.change(limit=3)
    for authorization in ("Forge id=a", "Forge installationId=i-a", f"Forge installationId={ari}"):
        assert failure(limited.publish_global("x", authorization=authorization)) is None
    assert failure(limited.publish_global("x", authorization="Forge installationId=i-a")) == LIMITED
    assert limited.get("/_emulator/state").json()["rates"] == {"i-a": 3}


def test_calls_refused_by_the_token_check_or_before_do_not_count(limited: Api) -> None:
    limited.emulator.change(limit=2)
    foreign = limited.sign("other")
    invalid = "Realtime token validation failed: CHANNEL_NAME_MISMATCH"
    limited.emulator.fail_next(3, status=503)
    assert [limited.publish("x").status_code for _ in range(3)] == [503] * 3
    assert failures(lambda: limited.publish("x", token=foreign), 3) == [invalid] * 3
    assert [limited.publish("x", authorization="Forge id=").status_code for _ in range(3)] == [401] * 3
    assert [limited.post("/forge/realtime/v1/publish", {}).status_code for _ in range(3)] == [400] * 3
    for _ in range(3):
        with pytest.raises(SubscriptionRefused, match="CHANNEL_NAME_MISMATCH"):
            limited.emulator.subscribe("x", token=foreign).__enter__()
    assert failures(lambda: limited.publish("x"), 2) == [None, LIMITED]
    limited.emulator.advance(1)
    assert failures(lambda: limited.publish("x"), 3) == [None, None, LIMITED]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (partial(Api.publish, authorization="Forge installationId=i"), "Unauthorized request"),
        (partial(Api.publish, authorization="Forge id=timer"), "Unauthorized request"),
        (partial(Api.publish, contextOverrides=["site"]), "Error publishing event to channel"),
    ],
)
def test_calls_refused_after_the_token_check_count(limited: Api, call: Callable[..., Any], message: str) -> None:
    limited.emulator.register(invocations={"timer": {"fromUi": False}})
    limited.emulator.change(limit=2)
    assert failures(lambda: call(limited, "x"), 3) == [message, message, LIMITED]
    assert failure(limited.publish("x")) == LIMITED


def test_token_is_checked_before_the_limit(limited: Api) -> None:
    limited.emulator.change(limit=1)
    assert failure(limited.publish("x")) is None
    invalid = "Realtime token validation failed: INVALID_TOKEN"
    assert failure(limited.publish("x", token="x", authorization="Forge installationId=i")) == invalid


def test_the_window_slides(limited: Api) -> None:
    limited.emulator.change(limit=2)
    assert failures(lambda: limited.publish("x"), 1) == [None]
    limited.emulator.advance(0.75)
    assert failures(lambda: limited.publish("x"), 2) == [None, LIMITED]
    limited.emulator.advance(0.25)
    assert failures(lambda: limited.publish("x"), 2) == [None, LIMITED]
    limited.emulator.advance(0.5)
    assert failures(lambda: limited.publish("x"), 1) == [LIMITED]
    limited.emulator.advance(0.25)
    assert failures(lambda: limited.publish("x"), 2) == [None, LIMITED]


def test_limit_can_be_changed_and_disabled(limited: Api) -> None:
    limited.emulator.change(limit=1)
    assert failures(lambda: limited.publish("x"), 2) == [None, LIMITED]
    limited.emulator.change(limit=None)
    assert failures(lambda: limited.publish("x"), 100) == [None] * 100
    assert limited.post("/_emulator/settings", {"limit": 102}).status_code == 200
    assert failures(lambda: limited.publish("x"), 2) == [None, LIMITED]
    limited.emulator.reset()
    assert failures(lambda: limited.publish("x"), 51) == [None] * 50 + [LIMITED]


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
    limit = Limit(1.0)
    taken: dict[str, list[float]] = {"i-1": [], "i-2": []}
    now = 0.0
    for step, installation in steps:
        now += step
        recent = [at for at in taken[installation] if at > now - 1]
        if limit.count(installation, now, most):
            assert len(recent) < most
            taken[installation].append(now)
        else:
            assert len(recent) == most
        assert limit.rates(now).get(installation) == len([at for at in taken[installation] if at > now - 1])
