"""The React hook `useForgeStream`, and handles in `streams.js`, in Chromium with React in development mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.emulator.envelopes import ID, envelope, snapshot_alone
from tests.emulator.site import Site

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

HANDLE = {
    "channel": "answer",
    "stream": ID,
    "token": "token-1",
    "expiresAt": None,
    "stop": {"path": "/forge-realtime/stop", "secret": "secret-1"},
}
NEXT = {**HANDLE, "token": "token-2"}
# A bridge that notes the calls, and lets the test publish to all open subscriptions.
BRIDGE = """
window.calls = [];
window.open = [];
window.replies = [];
window.refused = [];
window.slow = [];
const commands = {
  async subscribeRealtimeChannel({ channelName, onEvent, options, isGlobal }) {
    window.calls.push(["subscribe", channelName, options ?? null, isGlobal ?? false]);
    if (window.refused.includes(options?.token)) throw new Error("Realtime token validation failed: TOKEN_EXPIRED");
    const subscription = { onEvent };
    window.open.push(subscription);
    if (window.slow.includes(options?.token)) await new Promise((go) => { window.answer = go; });
    return {
      async unsubscribe() {
        window.calls.push(["unsubscribe", channelName]);
        window.open = window.open.filter((other) => other !== subscription);
      },
    };
  },
  async invoke({ path, method, headers, body }) {
    window.calls.push(["invoke", path, method, headers, JSON.parse(body)]);
    const [status, answer] = window.replies.shift() ?? [404, { stopped: false }];
    if (status >= 400) return { success: false, error: { status, headers: {}, error: JSON.stringify(answer) } };
    const payload = status === 200 ? { status, headers: {}, body: answer } : { ...answer, headers: {} };
    return { success: true, payload };
  },
};
globalThis.__bridge = { callBridge: (command, payload) => commands[command](payload) };
window.give = (payloads) => payloads.forEach((payload) => [...window.open].forEach(({ onEvent }) => onEvent(payload)));
"""


@pytest.fixture(scope="module")
def loaded(site: Site, browser: Browser) -> Iterator[Page]:
    site.bundle(Path(__file__).with_name("hook_page.jsx"))
    site.write("bridge/fake.js", BRIDGE)
    path = site.page("/bridge/fake.js", "hook_page.js")
    errors: list[str] = []
    with closing(browser.new_page()) as page:
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.clock.install(time=0)
        page.clock.pause_at(1_000)
        page.goto(site.origin + path)
        yield page
    assert errors == []


@pytest.fixture
def page(loaded: Page) -> Iterator[Page]:
    loaded.evaluate(
        "() => Object.assign(window, { calls: [], states: [], replies: [], refused: [], slow: [], seen: [] })"
    )
    yield loaded
    loaded.evaluate("window.unmount()")
    settle(loaded)
    assert loaded.evaluate("window.open.length") == 0


def settle(page: Page, milliseconds: int = 100) -> None:
    """Let React and timers work, by the clock of the page."""
    page.clock.run_for(milliseconds)


def render(page: Page, target: Any, options: Any = None) -> None:
    page.evaluate("([target, options]) => window.render(target, options ?? undefined)", [target, options])
    settle(page)


def give(page: Page, *payloads: str) -> None:
    page.evaluate("payloads => window.give(payloads)", list(payloads))
    settle(page)


def state(page: Page) -> Any:
    return page.evaluate("window.states.at(-1)")


def calls(page: Page) -> list[Any]:
    found: list[Any] = page.evaluate("window.calls")
    return found


def test_component_in_strict_mode_subscribes_once_and_leaves_nothing_behind(page: Page) -> None:
    for _ in range(2):
        page.evaluate("() => { window.calls = []; }")
        render(page, HANDLE, {"replaySeconds": 60})
        assert calls(page) == [["subscribe", "answer", {"replaySeconds": 60, "token": "token-1"}, True]]
        # A handle that was parsed again, and other options, are no reason to subscribe again.
        render(page, {**HANDLE}, {"replaySeconds": 30})
        assert len(calls(page)) == 1
        page.evaluate("window.unmount()")
        settle(page)
        assert calls(page)[1:] == [["unsubscribe", "answer"]]
        assert page.evaluate("window.open.length") == 0


def test_component_that_is_gone_before_it_subscribes_does_not(page: Page) -> None:
    page.evaluate("handle => { window.render(handle); window.unmount(); }", HANDLE)
    settle(page)
    assert calls(page) == []


def test_hook_shows_the_text_from_waiting_to_done(page: Page) -> None:
    render(page, None)
    assert state(page) == {"status": "idle", "complete": True}
    render(page, HANDLE)
    assert state(page) == {"status": "waiting", "complete": True}
    give(page, envelope(0, "Hel"))
    assert state(page) == {"status": "streaming", "complete": True, "value": "Hel"}
    give(page, envelope(1, "lo"), envelope(2, end=True, updates=0))
    assert state(page) == {"status": "done", "complete": True, "value": "Hello"}
    # The stream of a handle is the only one of its channel: the subscription ends with it.
    assert page.evaluate("window.open.length") == 0


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"error": {"type": "model_unavailable", "message": "Ask again."}}, "failed"),
        ({"stopped": {"by": "page", "reason": "enough"}}, "stopped"),
    ],
)
def test_hook_shows_how_the_stream_ended(page: Page, more: dict[str, Any], status: str) -> None:
    render(page, HANDLE)
    give(page, envelope(0, "Hel"), envelope(1, end=True, updates=0, **more))
    assert state(page) == {"status": status, "complete": True, "value": "Hel", **more}


def test_hook_collects_the_items_of_a_batch_and_follows_the_next_handle(page: Page) -> None:
    render(page, HANDLE)
    batches = [envelope(seq, items, merge="batch") for seq, items in enumerate([[{"a": 1}], [{"b": 2}, {"c": 3}]])]
    give(page, *batches)
    assert state(page)["value"] == [{"a": 1}, {"b": 2}, {"c": 3}]
    render(page, {**NEXT, "stream": "f" * 32})
    assert state(page) == {"status": "waiting", "complete": True}
    assert [call[0] for call in calls(page)] == ["subscribe", "unsubscribe", "subscribe"]


def test_hook_replaces_an_incomplete_value_with_a_snapshot(page: Page) -> None:
    render(page, HANDLE)
    give(page, envelope(0, ["a"], merge="batch"), envelope(2, ["c"], merge="batch"))
    settle(page, 1_000)
    assert state(page) == {"status": "streaming", "complete": False, "value": ["a", "c"]}
    give(page, snapshot_alone(3, '["a","b","c"]', merge="batch", updates=3))
    assert state(page) == {"status": "streaming", "complete": True, "value": ["a", "b", "c"]}


def test_hook_with_the_next_handle_shows_nothing_of_the_former(page: Page) -> None:
    """Its events may come before its subscription is complete, and so before it can be ended."""
    page.evaluate("() => { window.slow = ['token-1']; }")
    render(page, HANDLE)
    render(page, {**NEXT, "stream": "f" * 32})
    for payload in (envelope(0, "former"), envelope(2, "r"), envelope(3, "y", end=True)):
        page.evaluate("payload => window.open[0].onEvent(payload)", payload)
        settle(page, 2_000)
    assert state(page) == {"status": "waiting", "complete": True}
    page.evaluate("window.answer()")
    settle(page)
    assert page.evaluate("window.open.length") == 1
    give(page, envelope(0, "next", stream="f" * 32))
    assert state(page)["value"] == "next"


def test_hook_on_a_channel_follows_the_newest_stream(page: Page) -> None:
    render(page, "chat", {"contextOverrides": ["issue"]})
    assert calls(page) == [["subscribe", "chat", {"contextOverrides": ["issue"]}, False]]
    give(page, envelope(0, "Hel"), envelope(1, "lo", end=True), envelope(0, "Bye", stream="e" * 32))
    assert state(page) == {"status": "streaming", "complete": True, "value": "Bye"}
    assert page.evaluate("window.cancel()") is False


def test_hook_on_a_channel_shows_no_other_streams_between(page: Page) -> None:
    render(page, "chat")
    older, newer = ({"merge": "batch", "stream": stream} for stream in (ID, "e" * 32))
    give(page, envelope(0, ["a"], **older))
    # The newest stream begins with a gap.
    give(page, envelope(1, ["late"], **newer))
    settle(page, 1_000)
    give(page, envelope(1, ["b"], **older), envelope(2, ["r"], **newer))
    # One that ended before is repeated.
    give(page, snapshot_alone(2, '["former"]', end=True, **{**newer, "stream": "d" * 32}))
    give(page, envelope(3, ["d"], **older))
    settle(page, 1_000)
    expected = {"status": "streaming", "complete": False, "value": ["late", "r"]}
    assert state(page) == expected
    give(page, envelope(3, end=True, updates=0, **newer))
    assert state(page) == {**expected, "status": "done"}
    give(page, envelope(4, ["e"], **older))
    assert state(page) == {**expected, "value": ["a", "b", "d", "e"]}


def test_hook_shows_that_it_cannot_subscribe(page: Page) -> None:
    page.evaluate("() => { window.refused = ['token-1']; }")
    render(page, HANDLE)
    message = "Realtime token validation failed: TOKEN_EXPIRED"
    assert state(page) == {
        "status": "failed",
        "complete": True,
        "error": {"type": "SubscriptionError", "message": message},
    }
    assert page.evaluate("window.cancel()") is False


def test_cancel_is_repeated_until_the_replica_with_the_stream_responds(page: Page) -> None:
    render(page, HANDLE)
    page.evaluate("() => { window.replies = [[404, {}], [503, {}], [200, { stopped: true }]]; }")
    page.evaluate("() => { window.cancelled = window.cancel('enough'); }")
    for _ in range(4):
        settle(page)
    assert page.evaluate("window.cancelled") is True
    json = {"Content-Type": "application/json"}
    body = {"stream": ID, "secret": "secret-1", "reason": "enough"}
    assert calls(page)[1:] == [["invoke", "/forge-realtime/stop", "POST", json, body]] * 3


def test_cancel_reads_data_without_a_body(page: Page) -> None:
    """As Atlassian's documentation of `invokeService` can be read."""
    render(page, HANDLE)
    page.evaluate("() => { window.replies = [[202, { stopped: true }]]; window.cancelled = window.cancel(); }")
    settle(page)
    assert len(calls(page)) == 2
    assert page.evaluate("window.cancelled") is True


def test_cancel_as_the_handler_of_a_click_has_no_reason(page: Page) -> None:
    render(page, HANDLE)
    page.evaluate("() => { window.replies = [[200, { stopped: true }]]; }")
    page.evaluate("() => { window.cancelled = window.cancel(new Event('click')); }")
    settle(page)
    assert page.evaluate("window.cancelled") is True
    assert calls(page)[1][-1] == {"stream": ID, "secret": "secret-1"}


def test_cancel_gives_up_or_is_over_with_the_stream(page: Page) -> None:
    render(page, HANDLE)
    page.evaluate("() => { window.cancelled = window.cancel(); }")
    for _ in range(40):
        settle(page, 500)
    assert page.evaluate("window.cancelled") is False
    assert len(calls(page)) == 1 + 8
    page.evaluate("() => { window.cancelled = window.cancel(); }")
    settle(page)
    give(page, envelope(0, "Hi", end=True))
    for _ in range(4):
        settle(page)
    assert page.evaluate("window.cancelled") is True


def follow(page: Page, handle: Any, *renewals: Any) -> None:
    script = "([handle, renewals]) => { window.following = window.follow(handle, renewals); }"
    page.evaluate(script, [handle, [*renewals] or None])
    settle(page)


def test_page_subscribes_anew_before_its_token_expires(page: Page) -> None:
    """The clock of the page is at 1 second when it starts, and goes on from test to test."""
    now = page.evaluate("Date.now()") / 1000
    follow(page, {**HANDLE, "expiresAt": now + 100}, None, {**NEXT, "expiresAt": None})
    give(page, envelope(0, "Hel"))
    settle(page, 89_000)
    assert len(calls(page)) == 1
    # The first renewal brings nothing: it is tried again while the token is still valid.
    settle(page, 12_000)
    give(page, envelope(0, "Hel"), envelope(1, "lo"))
    assert [call[2]["token"] for call in calls(page) if call[0] == "subscribe"] == ["token-1", "token-2"]
    assert calls(page)[2] == ["unsubscribe", "answer"]
    assert page.evaluate("window.seen") == ["Hel", "Hello"]
    page.evaluate("window.subscription.unsubscribe()")


def test_private_page_reads_the_stream_of_its_handle_only(page: Page) -> None:
    follow(page, HANDLE)
    give(page, envelope(0, "not mine", stream="other", end=True), envelope(0, "Hi", end=True))
    assert page.evaluate("window.seen") == ["Hi", "end"]


@pytest.mark.parametrize("expires_at", [1, None])
def test_page_with_an_expired_token_renews_it_first(page: Page, expires_at: int | None) -> None:
    """By its own clock, or because the platform refuses the token."""
    page.evaluate("() => { window.refused = ['token-1']; }")
    follow(page, {**HANDLE, "expiresAt": expires_at}, NEXT)
    page.evaluate("window.following")
    give(page, envelope(0, "Hi", end=True))
    assert [call[2]["token"] for call in calls(page) if call[0] == "subscribe"][-1] == "token-2"
    assert page.evaluate("window.seen") == ["Hi", "end"]


@pytest.mark.parametrize("said", [{}, {"expiresAt": "2026-12-01T00:00:00Z"}])
def test_page_does_not_renew_a_token_whose_expiry_is_not_said(page: Page, said: dict[str, Any]) -> None:
    """Services that leave empty fields out of their JSON leave this one out too. Others write times as text."""
    handle = {name: value for name, value in HANDLE.items() if name != "expiresAt"}
    follow(page, {**handle, **said}, *[NEXT] * 50)
    settle(page, 60_000)
    assert [call[0] for call in calls(page)] == ["subscribe"]
    page.evaluate("window.subscription.unsubscribe()")


def test_page_whose_clock_is_ahead_does_not_renew_all_the_time(page: Page) -> None:
    handles = [{**NEXT, "expiresAt": 1} for _ in range(50)]
    follow(page, HANDLE | {"expiresAt": 1}, *handles)
    settle(page, 60_000)
    assert len([call for call in calls(page) if call[0] == "subscribe"]) < 10
    page.evaluate("window.subscription.unsubscribe()")
    settle(page, 600_000)
    assert page.evaluate("window.open.length") == 0
