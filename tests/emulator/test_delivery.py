"""Delivery: which events reach which subscribers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from threading import Thread
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from forge_realtime_emulator import Emulator, Settings, SubscriptionRefused
from forge_realtime_emulator._platform import channels as _channels
from tests.emulator.api import Api, failure


def delivered(response: httpx.Response) -> bool:
    assert response.status_code == 200, response.text
    return response.json()["eventId"] is not None


@pytest.mark.parametrize("payload", ["", "plain", '"json"', '{"a": [1]}', "\u20ac \U0001f600 \x00\n", "\ud800"])
def test_payload_arrives_exactly_as_published(api: Api, channel: str, payload: str) -> None:
    with api.emulator.subscribe(channel) as subscription:
        assert delivered(api.publish(channel, payload))
        event = subscription.receive()
    assert (event.channel, event.payload) == (channel, payload)


def test_scoped_and_global_channels_are_separate(api: Api, channel: str) -> None:
    with api.emulator.subscribe(channel) as scoped, api.emulator.subscribe(channel, is_global=True) as everywhere:
        assert delivered(api.publish(channel, "scoped"))
        assert delivered(api.publish_global(channel, "global"))
        assert scoped.receive().payload == "scoped"
        assert everywhere.receive().payload == "global"
        for subscription in (scoped, everywhere):
            with pytest.raises(TimeoutError, match=f"No event on channel '{channel}'"):
                subscription.receive(timeout=0)


def test_installation_publishes_globally(api: Api, channel: str) -> None:
    with api.emulator.subscribe(channel, is_global=True) as subscription:
        assert delivered(api.publish_global(channel, "nightly", authorization="Forge installationId=inst-1"))
        assert subscription.receive().payload == "nightly"


def test_channel_names_are_case_sensitive(api: Api, channel: str) -> None:
    with api.emulator.subscribe(channel):
        assert not delivered(api.publish(channel.upper()))


@pytest.mark.parametrize(
    ("publisher", "subscriber", "reaches"),
    [
        (["project"], ["project"], True),
        (["project", "issue"], ["issue", "project"], True),
        ([], [], True),
        (["project"], ["project", "issue"], False),
        (["project", "issue"], ["project"], False),
        (["project"], None, False),
        (None, ["project"], False),
        ([], None, False),
        (None, [], False),
    ],
)
def test_context_overrides_must_match_exactly(
    api: Api, channel: str, publisher: Any, subscriber: Any, reaches: bool
) -> None:
    options = {} if publisher is None else {"contextOverrides": publisher}
    with api.emulator.subscribe(channel, context_overrides=subscriber):
        assert delivered(api.publish(channel, **options)) is reaches


def test_empty_overrides_reach_no_global_subscription(api: Api, channel: str) -> None:
    with api.emulator.subscribe(channel, is_global=True):
        assert not delivered(api.publish(channel, contextOverrides=[]))


@pytest.mark.parametrize(
    ("publisher", "subscriber", "reaches"),
    [
        ({"a": 1, "b": {"c": 1, "d": 2}}, {"b": {"d": 2, "c": 1}, "a": 1}, True),
        ({}, {}, True),
        ({"a": [1, 2]}, {"a": [2, 1]}, False),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"a": 1}, {"a": True}, False),
        ({}, None, False),
        (None, {}, False),
    ],
)
@pytest.mark.parametrize("is_global", [False, True])
def test_claims_must_match_exactly(
    api: Api, channel: str, publisher: Any, subscriber: Any, reaches: bool, is_global: bool
) -> None:
    options = {} if publisher is None else {"token": api.sign(channel, publisher)}
    token = None if subscriber is None else api.sign(channel, subscriber)
    publish = api.publish_global if is_global else api.publish
    with api.emulator.subscribe(channel, is_global=is_global, token=token):
        assert delivered(publish(channel, **options)) is reaches


claims = st.dictionaries(
    st.text(max_size=5), st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5)
)


@given(claims=claims, data=st.data())
@settings(deadline=None, max_examples=25)
def test_equal_claims_match_in_any_order(api: Api, claims: Any, data: st.DataObject) -> None:
    shuffled = dict(data.draw(st.permutations(list(claims.items()))))
    with api.emulator.subscribe("shuffled", token=api.sign("shuffled", claims)) as subscription:
        assert delivered(api.publish("shuffled", "x", token=api.sign("shuffled", shuffled)))
        assert subscription.receive().payload == "x"


@pytest.mark.parametrize(
    ("permissions", "publishes", "subscribes"),
    [
        (None, True, True),
        (["publish", "subscribe"], True, True),
        (["publish"], True, False),
        (["subscribe"], False, True),
    ],
)
def test_permissions_are_enforced(
    api: Api, channel: str, permissions: list[str] | None, publishes: bool, subscribes: bool
) -> None:
    token = api.sign(channel, {"team": "red"}, permissions)
    refused_with = None if publishes else "Realtime token validation failed: MISSING_PERMISSION"
    assert failure(api.publish(channel, token=token)) == refused_with
    if subscribes:
        with api.emulator.subscribe(channel, token=token) as subscription:
            assert delivered(api.publish(channel, token=api.sign(channel, {"team": "red"})))
            assert subscription.receive().payload == "x"
    else:
        with pytest.raises(SubscriptionRefused) as refused, api.emulator.subscribe(channel, token=token):
            pass
        assert refused.value.code == "MISSING_PERMISSION"


def test_token_checks_come_in_order_with_codes_and_message(api_of: Callable[[Emulator], Api], channel: str) -> None:
    with Emulator() as emulator, Emulator(settings=Settings(token_lifetime=0)) as expiring:
        api, expired = api_of(emulator), api_of(expiring)
        forged = api.sign(channel)[:-4] + "AAAA"
        for token in ["", "x", "a.b.c", "\ud800", "\u20ac.\u20ac.\u20ac", "W1tb" * 50_000 + ".e30.x", forged]:
            _refused(api.publish(channel, token=token), "INVALID_TOKEN")
        _refused(expired.publish(channel, token=api.sign(channel)), "INVALID_TOKEN")
        _refused(expired.publish("other", token=expired.sign(channel, {}, ["subscribe"])), "TOKEN_EXPIRED")
        _refused(api.publish("other", token=api.sign(channel, {}, ["subscribe"])), "CHANNEL_NAME_MISMATCH")
        _refused(api.publish(channel, token=api.sign(channel, {}, ["subscribe"])), "MISSING_PERMISSION")
        _refused(api.publish_global(channel, token=forged), "INVALID_TOKEN")
        for refusing, token, code in [
            (emulator, forged, "INVALID_TOKEN"),
            (emulator, "W1tb" * 50_000 + ".e30.x", "INVALID_TOKEN"),
            (expiring, expired.sign("other"), "TOKEN_EXPIRED"),
            (emulator, api.sign("other"), "CHANNEL_NAME_MISMATCH"),
        ]:
            with pytest.raises(SubscriptionRefused) as refused, refusing.subscribe(channel, token=token):
                pass
            assert (refused.value.code, str(refused.value)) == (code, f"Realtime token validation failed: {code}")


def test_subscription_outlives_its_token(own: Api, channel: str) -> None:
    claims = {"team": "red"}
    with own.emulator.subscribe(channel, token=own.sign(channel, claims)) as subscription:
        own.emulator.advance(3601)
        assert delivered(own.publish(channel, token=own.sign(channel, claims)))
        assert subscription.receive().payload == "x"


def _refused(response: httpx.Response, code: str) -> None:
    assert failure(response) == f"Realtime token validation failed: {code}"
    assert "detail" not in response.json()


def test_every_subscriber_gets_every_event_in_order(api: Api, channel: str) -> None:
    payloads = [str(number) for number in range(200)]
    with ExitStack() as stack:
        subscriptions = [stack.enter_context(api.emulator.subscribe(channel)) for _ in range(3)]
        for payload in payloads:
            api.publish(channel, payload)
        for subscription in subscriptions:
            assert [subscription.receive().payload for _ in payloads] == payloads
    assert api.emulator.events[-1].delivered == 3


def test_concurrent_publishers_give_all_subscribers_one_order(api: Api, channel: str) -> None:
    def publish(sender: int) -> None:
        for number in range(40):
            api.publish(channel, f"{sender} {number}")

    with api.emulator.subscribe(channel) as first, api.emulator.subscribe(channel) as second:
        threads = [Thread(target=publish, args=[sender], daemon=True) for sender in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        order = [first.receive().payload for _ in range(160)]
        assert [second.receive().payload for _ in range(160)] == order
    assert sorted(order) == sorted(f"{sender} {number}" for sender in range(4) for number in range(40))
    for sender in range(4):
        mine = [payload for payload in order if payload.startswith(f"{sender} ")]
        assert mine == [f"{sender} {number}" for number in range(40)]


def test_nothing_arrives_after_unsubscribing(own: Api, channel: str) -> None:
    own.emulator.change(limit=None)
    with own.emulator.subscribe(channel):
        pass
    responses = [delivered(own.publish(channel)) for _ in range(200)]
    assert not responses[-1]


def test_slow_subscriber_is_closed_with_reason_and_delays_nobody(
    own: Api, channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_channels, "QUEUE_LIMIT", 20)
    own.emulator.change(limit=None)
    large = "x" * 900_000
    with own.emulator.subscribe(channel) as fast, _unread(own.emulator, channel) as slow:
        published = 0
        while own.emulator.events[-1:] == [] or own.emulator.events[-1].delivered == 2:
            assert delivered(own.publish(channel, f"{published} {large}"))
            published += 1
            assert fast.receive().payload == f"{published - 1} {large}"
        got: list[str] = []
        with pytest.raises(ConnectionClosed) as closed:
            got.extend(json.loads(slow.recv(10))["payload"] for _ in range(published))
    assert published > 20
    assert 0 < len(got) < published
    assert got == [f"{number} {large}" for number in range(len(got))]
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1013
    assert "Too slow: 20 events were waiting" in closed.value.rcvd.reason


@contextmanager
def _unread(emulator: Emulator, channel: str) -> Iterator[ClientConnection]:
    """Subscriber that reads nothing ahead."""
    address = f"ws{emulator.url.removeprefix('http')}/_emulator/subscribe"
    with connect(address, proxy=None, compression=None, max_size=None, max_queue=1) as connection:
        connection.send(json.dumps({"channel": channel}))
        assert json.loads(connection.recv()) == {"type": "subscribed"}
        yield connection


@pytest.mark.parametrize("name", ["", " ", "n" * 4096, "prêt/#?&", "a\nb", "\x00"])
def test_every_string_is_a_channel_name(api: Api, name: str) -> None:
    with api.emulator.subscribe(name) as subscription:
        assert api.publish(name, "x").json()["eventId"] == subscription.receive().event_id
