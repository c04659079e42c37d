"""Replay of events published before a subscription."""

from __future__ import annotations

import json
from collections.abc import Callable
from threading import Event, Thread
from typing import Any

import pytest

from forge_realtime_emulator import Emulator, Settings, SubscriptionRefused
from forge_realtime_emulator._platform import channels as _channels
from tests.emulator.api import Api
from tests.emulator.test_sse import subscribers, until


def got(api: Api, channel: str, expected: int, **subscription: object) -> list[str]:
    """Return all events of a subscriber, which must be this many."""
    with api.emulator.subscribe(channel, **subscription) as subscribed:  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        payloads = [subscribed.receive().payload for _ in range(expected)]
        options: dict[str, Any] = _options(subscription)
        api.publish(channel, "the end", **options)
        assert subscribed.receive().payload == "the end"
    return payloads


def _options(subscription: dict[str, object]) -> dict[str, object]:
    names = {"token": "token", "context_overrides": "contextOverrides"}
    return {names[name]: value for name, value in subscription.items() if name in names}


def test_earlier_events_are_replayed_in_order_with_their_ids(own: Api) -> None:
    published = []
    for number in range(3):
        with own.emulator.subscribe("x"):
            published.append(own.publish("x", str(number)).json())
        own.emulator.advance(1)
    with own.emulator.subscribe("x", replay_seconds=60) as subscription:
        events = [subscription.receive() for _ in range(3)]
    assert [event.payload for event in events] == ["0", "1", "2"]
    assert [{"eventId": event.event_id, "eventTimestamp": event.event_timestamp} for event in events] == published


def test_event_that_reached_nobody_is_not_replayed(own: Api) -> None:
    own.publish("x", "unheard")
    with own.emulator.subscribe("x"):
        own.publish("x", "heard")
    until(lambda: subscribers(own) == 0)
    own.publish("x", "unheard again")
    assert got(own, "x", 1, replay_seconds=60) == ["heard"]


def test_only_events_within_the_seconds_are_replayed(own: Api) -> None:
    own.emulator.change(keep_unheard=True)
    for payload in ("old", "new"):
        own.publish("x", payload)
        own.emulator.advance(10)
    assert got(own, "x", 1, replay_seconds=15) == ["new"]
    own.emulator.advance(1)
    assert got(own, "x", 0, replay_seconds=0) == []
    assert got(own, "x", 0) == []


def test_replay_is_bounded_by_the_retention(api_of: Callable[[Emulator], Api]) -> None:
    with Emulator(settings=Settings(replay_retention=60, keep_unheard=True)) as emulator:
        api = api_of(emulator)
        api.publish("x", "old")
        emulator.advance(61)
        api.publish("x", "new")
        assert got(api, "x", 1, replay_seconds=1_000_000) == ["new"]


def test_only_the_same_address_is_replayed(own: Api) -> None:
    own.emulator.change(keep_unheard=True)
    token, other = own.sign("x", {"team": "red"}), own.sign("x", {"team": "blue"})
    own.emulator.register(invocations={"elsewhere": {"installation": "i-2"}, "page": {"module": "page"}})
    own.publish("x", "plain")
    own.publish("X", "another channel")
    own.publish_global("x", "global")
    own.publish("x", "overrides", contextOverrides=["issue"])
    own.publish("x", "red", token=token)
    own.publish("x", "blue", token=other)
    own.publish("x", "elsewhere", authorization="Forge id=elsewhere")
    own.publish("x", "page", authorization="Forge id=page")
    assert got(own, "x", 1, replay_seconds=60) == ["plain"]
    assert got(own, "x", 1, replay_seconds=60, token=token) == ["red"]
    assert got(own, "x", 1, replay_seconds=60, context_overrides=["issue"]) == ["overrides"]
    with own.emulator.subscribe("x", is_global=True, replay_seconds=60) as subscription:
        assert subscription.receive().payload == "global"


def test_replay_continues_live_without_gap_or_duplicate(own: Api, channel: str) -> None:
    own.emulator.change(limit=None, keep_unheard=True)
    halfway = Event()

    def publish() -> None:
        for number in range(200):
            if number == 100:
                halfway.set()
            own.publish(channel, str(number))

    publisher = Thread(target=publish, daemon=True)
    publisher.start()
    assert halfway.wait(30)
    with own.emulator.subscribe(channel, replay_seconds=60) as subscription:
        payloads = [subscription.receive().payload for _ in range(200)]
        with pytest.raises(TimeoutError):
            subscription.receive(timeout=0)
    publisher.join(30)
    assert payloads == [str(number) for number in range(200)]


def test_replayed_events_do_not_count_as_waiting(own: Api, channel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_channels, "QUEUE_LIMIT", 3)
    own.emulator.change(limit=None, keep_unheard=True)
    payloads = [f"{number} {'x' * 500_000}" for number in range(20)]
    for payload in payloads:
        own.publish(channel, payload)
    with own.emulator.subscribe(channel, replay_seconds=60) as subscription:
        # The 10 MB are still being sent, and these events wait behind them.
        assert [own.publish(channel, "live").json()["eventId"] is None for _ in range(2)] == [False, False]
        assert [subscription.receive().payload for _ in range(22)] == [*payloads, "live", "live"]


def test_number_of_events_for_replay_is_bounded(own: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    channels = _channels.Channels(lambda: None)
    address = _channels.Address("i", "x", False, "", None)
    for number in range(_channels.REPLAY_LIMIT + 1):
        channels.deliver(address, str(number), "id", 1.0, keep_unheard=True)
    listener = _channels.Listener(address, 1, "sse", None, since=0.0, replay_since=0.0)
    with channels.subscriber(listener, cut_off=lambda: None) as subscriber:
        messages = [subscriber._first.popleft() for _ in range(2)]
        assert len(subscriber._first) == _channels.REPLAY_LIMIT - 1
    assert [json.loads(message).get("payload") for message in messages] == [None, "1"]


def test_reset_forgets_events_for_replay(own: Api) -> None:
    with own.emulator.subscribe("x"):
        own.publish("x", "before")
    own.emulator.reset()
    assert got(own, "x", 0, replay_seconds=60) == []


@pytest.mark.parametrize("seconds", [-1, "60", True, float("nan"), float("inf")])
def test_replay_seconds_must_be_a_number(api: Api, channel: str, seconds: float) -> None:
    with pytest.raises(SubscriptionRefused) as refused:
        api.emulator.subscribe(channel, replay_seconds=seconds).__enter__()
    assert refused.value.code == "INVALID_SUBSCRIPTION"
