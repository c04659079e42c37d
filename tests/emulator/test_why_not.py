"""Explanations of a missing event: each near miss, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from tests.emulator.api import Api


def why(api: Api, publish: Callable[[], object], channel: str = "board-42", **subscription: Any) -> str:
    """Return the explanation for a subscriber that got nothing."""
    with api.emulator.subscribe(channel, **subscription) as subscribed:
        publish()
        with pytest.raises(TimeoutError) as timeout:
            subscribed.receive(timeout=0)
    explanation = str(timeout.value)
    first, _, rest = explanation.partition("\n")
    assert first == f"No event on channel '{channel}' within 0 s."
    return rest


def test_no_publish_and_no_call(own: Api) -> None:
    explanation = why(own, lambda: None)
    assert explanation.startswith("Since the subscription began, nothing was published.\nNo call came either.")
    assert "FORGE_EGRESS_PROXY_URL" in explanation


def test_no_publish_but_calls(own: Api) -> None:
    assert why(own, lambda: own.sign("board-42")) == "Since the subscription began, nothing was published."


@pytest.mark.parametrize(
    ("channel", "difference"),
    [
        ("Board-42", "the subscription is on 'board-42', and names are case-sensitive"),
        ("board_42", "the subscription is on 'board-42'."),
    ],
)
def test_channel_name_differs_slightly(own: Api, channel: str, difference: str) -> None:
    explanation = why(own, lambda: own.publish(channel))
    assert explanation.startswith("Published since the subscription began, but to other addresses:\n")
    assert f"  publish on '{channel}': {difference}" in explanation


def test_channel_name_differs_entirely(own: Api) -> None:
    explanation = why(own, lambda: (own.publish("news"), own.publish_global("alerts")))
    assert explanation == (
        "Since the subscription began, events were published on other channels only: 'alerts', 'news'."
    )


def test_scoped_and_global_differ(own: Api) -> None:
    explanation = why(own, lambda: own.publish("board-42"), is_global=True)
    assert "publish on 'board-42': the subscription is global, and gets only what publish_global sends." in explanation
    explanation = why(own, lambda: own.publish_global("board-42"))
    assert "publish_global on 'board-42': the subscription is scoped, and gets only what publish sends" in explanation
    assert "(is_global=True, or listen --global, gets this)" in explanation


def test_default_scope_differs(own: Api) -> None:
    own.emulator.register(invocations={"inv-1": {"module": "panel", "context": {"issue": "DEMO-1"}}})
    explanation = why(own, lambda: own.publish("board-42"))
    assert (
        'published in the default scope [module panel issue="DEMO-1"],'
        " and the subscription is in the default scope [module default-module];"
        " the subscription is in the default context (subscribe with the invocation= that is meant)."
    ) in explanation
    explanation = why(own, lambda: own.publish("board-42", authorization="Forge id=inv-2"), invocation="inv-1")
    assert (
        "; the publisher is in the default context (is its invocation registered, under the id that was sent?)."
        in explanation
    )
    own.emulator.register(invocations={"inv-2": {"module": "page"}})
    explanation = why(own, lambda: own.publish("board-42", authorization="Forge id=inv-2"), invocation="inv-1")
    assert "; each side is in the context of its invocation." in explanation


def test_overrides_differ(own: Api) -> None:
    own.emulator.register(default={"context": {"issue": "DEMO-1", "project": "DEMO"}})
    explanation = why(own, lambda: own.publish("board-42", contextOverrides=["project"]), context_overrides=["issue"])
    assert 'published in the context overrides [project="DEMO"]' in explanation
    assert 'the subscription is in the context overrides [issue="DEMO-1"]' in explanation


def test_only_one_side_has_overrides(own: Api) -> None:
    explanation = why(own, lambda: own.publish("board-42"), context_overrides=[])
    assert (
        "in the default scope [module default-module], and the subscription is in the context overrides []"
        in explanation
    )
    assert "both sides have to give the same context overrides, or none" in explanation


def test_installation_differs(own: Api) -> None:
    own.emulator.register(invocations={"inv-1": {"installation": "i-1"}})
    explanation = why(own, lambda: own.publish("board-42"))
    assert "it is in the installation 'i-1', and the subscription in 'default-installation'" in explanation
    assert "invocation=" in explanation


def test_claims_differ_and_are_not_shown(own: Api) -> None:
    red, blue = own.sign("board-42", {"team": "secret-red"}), own.sign("board-42", {"team": "secret-blue"})
    explanation = why(own, lambda: own.publish("board-42", "secret", token=red), token=blue)
    assert "publish on 'board-42': the claims of the two tokens differ" in explanation
    assert "secret" not in explanation


def test_only_one_side_has_a_token(own: Api) -> None:
    token = own.sign("board-42")
    explanation = why(own, lambda: own.publish("board-42", token=token))
    assert (
        "the event has a token and the subscription has none; both need one with equal claims, or neither"
        in explanation
    )
    explanation = why(own, lambda: own.publish("board-42"), token=token)
    assert "the subscription has a token and the event has none" in explanation


def test_all_differences_are_named_together(own: Api) -> None:
    explanation = why(own, lambda: own.publish("Board-42"), is_global=True, token=own.sign("board-42"))
    assert explanation.splitlines() == [
        "Published since the subscription began, but to other addresses:",
        "  publish on 'Board-42':",
        "    the subscription is on 'board-42', and names are case-sensitive.",
        "    the subscription is global, and gets only what publish_global sends.",
        "    the subscription has a token and the event has none; both need one with equal claims, or neither.",
    ]


def test_event_was_published_too_early(own: Api) -> None:
    own.publish("board-42")
    own.emulator.advance(1)
    explanation = why(own, lambda: None)
    assert (
        "Before the subscription began, 1 event(s) were published to it. Subscribe first, or replay them" in explanation
    )
    assert "replay_seconds" in explanation
    assert "No call came" not in explanation


def test_all_arrived_events_were_received(own: Api) -> None:
    with own.emulator.subscribe("board-42") as subscription:
        own.publish("board-42")
        own.publish("news")
        subscription.receive()
        with pytest.raises(TimeoutError, match=r"1 event\(s\) were published to it\. All that arrived were rec"):
            subscription.receive(timeout=0)


def test_failed_calls_are_named_with_their_reasons(own: Api) -> None:
    expired = own.sign("board-42")
    own.emulator.advance(4000)

    def fail() -> None:
        own.publish("board-42", token=expired)
        own.publish("board-42", authorization="Forge installationId=i-1")
        own.emulator.fail_next(status=503)
        own.publish("board-42")
        own.post("/forge/realtime/v1/publish", {"name": "board-42"}, None)

    explanation = why(own, fail)
    assert "publish on 'board-42', answered 200: Realtime token validation failed: TOKEN_EXPIRED" in explanation
    assert "answered 200: Unauthorized request: publish needs the id of an invocation" in explanation
    assert "answered 503: INJECTED_FAULT: The emulator was asked to answer this call with status 503" in explanation
    assert "publish, answered 401: UNAUTHORIZED: the header" in explanation


def test_only_the_last_are_named(own: Api) -> None:
    own.emulator.change(limit=None)
    explanation = why(own, lambda: [own.publish(f"board-42{letter}") for letter in "abcdefghij"])
    assert [line.split("'")[1] for line in explanation.splitlines()[1:]] == [f"board-42{letter}" for letter in "fghij"]


def test_events_missing_for_the_same_reason_are_named_once(own: Api) -> None:
    def stream() -> None:
        own.publish("Board-42")
        for _ in range(20):
            own.publish_global("board-42")

    one, twenty = why(own, stream).splitlines()[1:]
    assert one.startswith("  publish on 'Board-42': ")
    assert twenty.startswith("  20 times: publish_global on 'board-42': ")


def test_calls_over_the_limit_are_named_once_with_their_number(own: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forge_realtime_emulator._platform.clock.elapsed", lambda: 0.0)

    def stream() -> None:
        for _ in range(60):
            own.publish_global("board-42")

    explanation = why(own, stream).splitlines()
    assert explanation[0].startswith("Published since the subscription began")
    # The subscription counts as an operation too.
    assert explanation[1].startswith(
        "  49 times: publish_global on 'board-42': the subscription is scoped, and gets only"
    )
    assert explanation[2:] == [
        "Failed calls since the subscription began:",
        (
            "  11 times: publish_global on 'board-42', answered 200: RATE_LIMIT_EXCEEDED: Over 50 operations per second"
            " for the installation; nothing was done. Back off and retry."
        ),
    ]


def test_only_some_of_many_channels_are_named(own: Api) -> None:
    explanation = why(own, lambda: [own.publish(f"{letter * 9}") for letter in "abcdefgh"])
    assert explanation.endswith("'ccccccccc', 'ddddddddd', 'eeeeeeeee' and 3 more.")


def test_earlier_calls_are_not_named(own: Api) -> None:
    own.publish("Board-42")
    own.publish("board-42", authorization="Forge installationId=i-1")
    own.emulator.advance(1)
    assert "Board" not in why(own, lambda: None)


def unheard(api: Api, caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the logged near misses of an event that reached nobody. The console gets the same."""
    first, *rest = [record.getMessage() for record in caplog.records]
    assert first.endswith("reached 0 subscriber(s)")
    caplog.clear()
    assert api.emulator.events[-1].to_json()["nearMisses"] == tuple(line.strip() for line in rest)
    return [line.strip() for line in rest]


def test_event_that_reached_nobody_names_the_near_misses(own: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "forge_realtime_emulator")
    red, blue = own.sign("news", {"team": "secret-red"}), own.sign("news", {"team": "secret-blue"})
    caplog.clear()
    with own.emulator.subscribe("news"), own.emulator.subscribe("news"), own.emulator.subscribe("other"):
        own.publish_global("news")
        assert unheard(own, caplog) == [
            (
                "2 subscriber(s) on 'news' did not get it: the subscription is scoped, and gets only what publish sends"
                " (is_global=True, or listen --global, gets this)."
            )
        ]
        own.publish("News", token=own.sign("News"))
        caplog.records.pop(0)
        assert unheard(own, caplog) == [
            (
                "2 subscriber(s) on 'news' did not get it: the subscription is on 'news', and names are case-sensitive;"
                " the event has a token and the subscription has none; both need one with equal claims, or neither."
            )
        ]
        own.publish("unlike")
        assert unheard(own, caplog) == []
        own.publish("news")
        assert [record.getMessage() for record in caplog.records] == [
            "publish              200  on 'news', reached 2 subscriber(s)"
        ]
        caplog.clear()
    with own.emulator.subscribe("news", is_global=True, token=red):
        own.publish_global("news", "secret", token=blue)
        [line] = unheard(own, caplog)
    assert "the claims of the two tokens differ" in line
    assert "secret" not in line


def test_near_misses_are_bounded(own: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "forge_realtime_emulator")
    long = "a" * 100_000
    own.emulator.register(invocations={f"i-{number}": {"module": f"m-{number}"} for number in range(7)})
    with ExitStack() as subscriptions:
        for number in range(7):
            subscriptions.enter_context(own.emulator.subscribe(long, invocation=f"i-{number}"))
        own.publish(long)
    first = caplog.records[0].getMessage()
    assert len(first) < 200
    lines = unheard(own, caplog)
    assert len(lines) == 6
    assert max(map(len, lines)) <= 501
    assert lines[5] == "Nor did those of 2 more subscriptions to a channel of that name."


def test_near_misses_of_a_page_are_logged_too(own: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "forge_realtime_emulator")
    own.post("/_emulator/publish", {"channel": "x", "payload": "secret"}, None)
    assert [record.getMessage() for record in caplog.records] == [
        "publish (page)       200  on 'x', reached 0 subscriber(s)"
    ]
