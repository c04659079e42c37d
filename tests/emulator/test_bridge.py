"""An app's front end with the official `@forge/bridge`, in Chromium, against the emulator."""

from __future__ import annotations

import base64
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Error, Page, expect

from forge_realtime import RealtimeClient
from forge_realtime_emulator import Emulator, Settings
from tests.emulator.site import Site
from tests.examples.progress import service
from tests.support.features import needs
from tests.support.web_servers import AsgiServer

Open = Callable[..., Page]

# Installing the packages of the front end takes a while.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def emulator(site: Site) -> Iterator[Emulator]:
    with Emulator(origins=[site.origin], settings=Settings(limit=None)) as emulator:
        yield emulator


@pytest.fixture
def opened(site: Site, emulator: Emulator, open_page: Callable[[str], Page]) -> Open:
    """Open a page with the bundle of the tests."""

    def opened(*, script: str = "", query: str = "", origin: str = site.origin) -> Page:
        return open_page(f"{origin}{site.page(f'{emulator.url}/bridge.js{script}')}{query}")

    return opened


@pytest.fixture
def page(opened: Open) -> Page:
    return opened()


def listen(page: Page, name: str, channel: str, **options: Any) -> None:
    page.evaluate("arguments => window.listen(...arguments)", [name, channel, options])


def call(page: Page, function: str, *arguments: Any) -> Any:
    """Call a function of @forge/bridge, such as `realtime.publish`."""
    return page.evaluate(f"arguments => window.bridge.{function}(...arguments)", list(arguments))


def rejection(page: Page, channel: str, **options: Any) -> str:
    """Subscribe, which must fail, and return the message of the error."""
    script = "arguments => window.listen(...arguments).then(() => 'subscribed', (error) => error.message)"
    message: str = page.evaluate(script, ["refused", channel, options])
    return message


def events(page: Page, name: str, count: int) -> list[Any]:
    """Wait for this number of events."""
    page.wait_for_function("([name, count]) => window.events[name].length >= count", arg=[name, count])
    received: list[Any] = page.evaluate("name => window.events[name]", name)
    return received


@pytest.fixture
def back_end(emulator: Emulator) -> Iterator[RealtimeClient]:
    with RealtimeClient(emulator.url) as client:
        yield client.for_invocation({"x-forge-invocation-id": "invocation-123"})


def test_example_app_shows_progress_of_its_container(
    site: Site, open_page: Callable[[str], Page], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "STEP_SECONDS", 0.05)
    server = AsgiServer(service.app)
    with Emulator(service=server.url, origins=[site.origin]) as emulator:
        monkeypatch.setenv("FORGE_EGRESS_PROXY_URL", emulator.url)
        with server:
            page = open_page(f"{site.origin}{site.app('progress', emulator)}?invocation=invocation-123")
            bar, button = page.get_by_role("progressbar", name="Progress"), page.get_by_role("button")
            expect(bar).to_have_js_property("value", 0)
            page.evaluate(
                """() => {
                    window.shown = [];
                    const note = () => window.shown.push(document.getElementById("status").textContent);
                    new MutationObserver(note).observe(document.getElementById("status"), { childList: true });
                }"""
            )
            for _ in range(2):
                button.click()
                expect(page.get_by_role("status")).to_have_text("The report is ready.")
                expect(bar).to_have_js_property("value", 1)
                expect(page.locator("#percent")).to_have_text("100 %")
                expect(button).to_have_attribute("aria-disabled", "false")
            once = ["Starting…", *(f"{step}…" for step in service.STEPS), "The report is ready."]
            assert page.evaluate("window.shown") == [*once, *once]
            calls = emulator.requests
    assert [call.status for call in calls] == [200] * 2 * (len(service.STEPS) + 1)
    # Each click is an invocation of its own.
    assert len({call.authorization.invocation_id for call in calls if call.authorization}) == 2


def test_example_app_shows_errors(site: Site, open_page: Callable[[str], Page]) -> None:
    with Emulator(origins=[site.origin]) as emulator:
        page = open_page(f"{site.origin}{site.app('progress', emulator)}")
        page.get_by_role("button").click()
        expect(page.get_by_role("status")).to_contain_text("emulate --service")
        expect(page.get_by_role("button")).to_have_attribute("aria-disabled", "false")


def test_front_end_subscribes_and_unsubscribes(
    page: Page, emulator: Emulator, back_end: RealtimeClient, channel: str
) -> None:
    listen(page, "scoped", channel)
    listen(page, "global", channel, isGlobal=True)
    # A string stays a string unless it is the JSON of an object or array. The client sends other values as JSON.
    for payload in ("text", "42", "null", {"a": [1, None]}, [1], '{"b": 2}', ""):
        back_end.publish(channel, payload)
    assert events(page, "scoped", 7) == ["text", "42", "null", {"a": [1, None]}, [1], {"b": 2}, ""]
    back_end.publish_global(channel, "to all")
    assert events(page, "global", 1) == ["to all"]

    page.evaluate("window.unlisten('scoped')")
    back_end.publish(channel, "too late")
    back_end.publish_global(channel, "last")
    assert events(page, "global", 2) == ["to all", "last"]
    assert len(events(page, "scoped", 7)) == 7


def test_unsubscribing_twice_is_no_error(page: Page, channel: str) -> None:
    listen(page, "a", channel)
    page.evaluate("Promise.all([window.unlisten('a'), window.unlisten('a')])")
    page.evaluate("window.unlisten('a')")


@pytest.mark.parametrize("suffix", ["", "Global"])
def test_front_end_publishes(page: Page, emulator: Emulator, channel: str, suffix: str) -> None:
    nobody = call(page, f"realtime.publish{suffix}", channel, "x")
    assert nobody == {"eventId": None, "eventTimestamp": None}
    listen(page, "a", channel, isGlobal=bool(suffix))
    for payload in ("text", {"a": 1}, '"quoted"'):
        result = call(page, f"realtime.publish{suffix}", channel, payload)
        assert result == {
            "eventId": emulator.events[-1].event_id,
            "eventTimestamp": emulator.events[-1].event_timestamp,
        }
    assert events(page, "a", 3) == ["text", {"a": 1}, '"quoted"']
    assert [event.payload for event in emulator.events] == ["x", "text", '{"a":1}', '"quoted"']
    assert {event.address.is_global for event in emulator.events} == {bool(suffix)}


def test_earlier_events_are_replayed_on_request(
    page: Page, emulator: Emulator, back_end: RealtimeClient, channel: str
) -> None:
    emulator.change(keep_unheard=True)
    back_end.publish(channel, "before")
    listen(page, "with", channel, replaySeconds=60)
    listen(page, "without", channel)
    back_end.publish(channel, "after")
    assert events(page, "with", 2) == ["before", "after"]
    assert events(page, "without", 1) == ["after"]


def test_token_receives_events_with_the_same_claims(page: Page, back_end: RealtimeClient, channel: str) -> None:
    red, blue = (back_end.sign_realtime_token(channel, {"team": team}) for team in ("red", "blue"))
    listen(page, "red", channel, token=red.token)
    listen(page, "without", channel)
    back_end.publish(channel, "to blue", token=blue)
    call(page, "realtime.publish", channel, "to red", {"token": red.token})
    back_end.publish(channel, "to those without")
    assert events(page, "red", 1) == ["to red"]
    assert events(page, "without", 1) == ["to those without"]


@needs("permissions")
def test_token_without_permission_is_refused(page: Page, back_end: RealtimeClient, channel: str) -> None:
    to_publish = back_end.sign_realtime_token(channel, {}, permissions=["publish"])
    assert rejection(page, channel, token=to_publish.token) == "Realtime token validation failed: MISSING_PERMISSION"
    to_subscribe = back_end.sign_realtime_token(channel, {}, permissions=["subscribe"])
    result = call(page, "realtime.publish", channel, "x", {"token": to_subscribe.token})
    assert result["eventId"] is None
    assert result["eventTimestamp"] is None
    assert result["errors"] == [{"message": "Realtime token validation failed: MISSING_PERMISSION"}]


def test_publish_and_subscribe_over_the_limit_are_refused(page: Page, emulator: Emulator, channel: str) -> None:
    emulator.change(limit=1)
    call(page, "realtime.publish", channel, "x")
    result = call(page, "realtime.publish", channel, "x")
    assert result == {"eventId": None, "eventTimestamp": None, "errors": [{"message": "RATE_LIMIT_EXCEEDED"}]}
    # The explanation is not in the message.
    with page.expect_console_message() as explained:
        assert rejection(page, channel) == "RATE_LIMIT_EXCEEDED"
    assert "per second" in explained.value.text


def test_context_overrides_reach_across_modules(opened: Open, emulator: Emulator, channel: str) -> None:
    issue = {"project": "DEMO", "issue": "DEMO-1"}
    emulator.register(invocations={name: {"module": name, "context": issue} for name in ("panel", "page")})
    panel, other = (opened(script=f"?invocation={name}") for name in ("panel", "page"))
    listen(panel, "issue", channel, contextOverrides=["issue"])
    listen(panel, "scoped", channel)
    call(other, "realtime.publish", channel, "other module")
    call(other, "realtime.publish", channel, "same issue", {"contextOverrides": ["issue"]})
    call(panel, "realtime.publish", channel, "same module")
    assert events(panel, "issue", 1) == ["same issue"]
    assert events(panel, "scoped", 1) == ["same module"]


def test_page_is_in_the_context_of_its_invocation(opened: Open, emulator: Emulator, channel: str) -> None:
    emulator.register(
        invocations={
            f"invocation-{number}": {"context": {"project": "DEMO", "issue": f"DEMO-{number}"}, "account": "user-123"}
            for number in (1, 2)
        }
    )
    # The script's own query takes precedence over that of the page.
    one = opened(script="?invocation=invocation-1", query="?invocation=invocation-2")
    two = opened(query="?invocation=invocation-2")
    for page in (one, two):
        listen(page, "a", channel)
    call(one, "realtime.publish", channel, "from one")
    call(two, "realtime.publish", channel, "from two")
    assert events(one, "a", 1) == ["from one"]
    assert events(two, "a", 1) == ["from two"]
    assert [event.delivered for event in emulator.events] == [1, 1]

    context = call(two, "view.getContext")
    assert context["accountId"] == "user-123"
    assert context["moduleKey"] == "default-module"
    assert context["extension"] == {
        "type": "jira:issuePanel",
        "project": {"key": "DEMO"},
        "issue": {"key": "DEMO-2"},
    }


def test_default_context_has_no_account(page: Page) -> None:
    context = call(page, "view.getContext")
    assert "accountId" not in context
    assert context["locale"] == "en-US"
    assert context["extension"] == {"type": "jira:issuePanel"}


def test_strict_emulator_refuses_unknown_invocation(opened: Open, emulator: Emulator, channel: str) -> None:
    emulator.change(strict=True)
    page = opened(query="?invocation=unknown")
    for attempt in (
        lambda: listen(page, "a", channel),
        lambda: call(page, "view.getContext"),
        lambda: call(page, "invokeService", {"path": "/", "method": "GET"}),
    ):
        with pytest.raises(Error, match="not registered"):
            attempt()
    assert "not registered" in call(page, "realtime.publish", channel, "x")["errors"][0]["message"]


def test_lost_connection_is_reopened(page: Page, emulator: Emulator, site: Site, channel: str) -> None:
    listen(page, "a", channel)
    call(page, "realtime.publish", channel, "one")
    port = int(emulator.url.rpartition(":")[2])
    emulator.stop()
    settings = Settings(keep_unheard=True)
    with Emulator(port=port, origins=[site.origin], settings=settings) as restarted:
        # Events published while the page is away are replayed to it.
        with RealtimeClient(restarted.url) as client:
            live = client.for_invocation({"x-forge-invocation-id": "invocation-123"})
            live.publish(channel, "two")
            assert events(page, "a", 2) == ["one", "two"]
            live.publish(channel, "three")
        assert events(page, "a", 3) == ["one", "two", "three"]


def test_reconnected_page_gets_missed_events_once_and_nothing_older(
    page: Page, emulator: Emulator, back_end: RealtimeClient, channel: str
) -> None:
    emulator.change(keep_unheard=True)
    back_end.publish(channel, "before the subscription")
    listen(page, "a", channel)
    for text in ("one", "two"):
        back_end.publish(channel, text)
    assert events(page, "a", 2) == ["one", "two"]
    lose_connections(emulator)
    back_end.publish(channel, "three")
    assert events(page, "a", 3) == ["one", "two", "three"]
    back_end.publish(channel, "four")
    assert events(page, "a", 4) == ["one", "two", "three", "four"]


def lose_connections(emulator: Emulator) -> None:
    """Cut the connections of the subscribers, and keep everything else."""

    def cut() -> None:
        for connection in list(emulator._app.state.connections):
            if (connection.scope or {}).get("type") == "websocket":
                connection.transport.abort()

    emulator._in_loop(cut)


def test_subscription_with_token_comes_back_after_a_restart(
    site: Site, open_page: Callable[[str], Page], channel: str
) -> None:
    # With port 0, tokens would not survive.
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with Emulator(port=port, origins=[site.origin]) as emulator:
        page = open_page(f"{site.origin}{site.page(f'{emulator.url}/bridge.js')}")
        with RealtimeClient(emulator.url) as client:
            live = client.for_invocation({"x-forge-invocation-id": "invocation-123"})
            token = live.sign_realtime_token(channel, {"team": "red"}).token
        listen(page, "a", channel, token=token)
    with Emulator(port=port, origins=[site.origin]) as restarted:
        until = time.monotonic() + 20
        while subscribers(restarted) == 0 and time.monotonic() < until:
            page.wait_for_timeout(20)
        call(page, "realtime.publish", channel, "again", {"token": token})
        assert events(page, "a", 1) == ["again"]


def test_subscription_refused_on_reconnect_ends(
    page: Page, emulator: Emulator, back_end: RealtimeClient, channel: str
) -> None:
    emulator.change(token_lifetime=60)
    token = back_end.sign_realtime_token(channel, {}).token
    listen(page, "a", channel, token=token)
    emulator.advance(120)
    with page.expect_console_message(lambda message: "TOKEN_EXPIRED" in message.text) as ended:
        lose_connections(emulator)
    assert ended.value.type == "error"
    assert token not in ended.value.text
    page.evaluate("window.unlisten('a')")


def test_subscription_over_the_limit_on_reconnect_is_retried(
    page: Page, emulator: Emulator, back_end: RealtimeClient, channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Only advance() moves the emulator's clock: until then the limit's second does not end.
    monkeypatch.setattr("forge_realtime_emulator._platform.clock.elapsed", lambda: 0.0)
    refused: list[float] = []

    def note(frame: str | bytes) -> None:
        if "RATE_LIMIT_EXCEEDED" in str(frame):
            refused.append(time.monotonic())

    page.on("websocket", lambda websocket: websocket.on("framereceived", note))
    listen(page, "a", channel)
    listen(page, "b", channel)
    back_end.publish(channel, "one")
    assert events(page, "a", 1) == events(page, "b", 1) == ["one"]
    emulator.change(limit=4, keep_unheard=True)
    back_end.publish(channel, "two")  # the fourth operation in this second
    assert events(page, "a", 2) == events(page, "b", 2) == ["one", "two"]
    lose_connections(emulator)
    while len(refused) < 8:
        page.wait_for_timeout(10)
    emulator.change(limit=5, keep_unheard=True)
    back_end.publish(channel, "meanwhile")
    emulator.advance(1)
    for name in ("a", "b"):
        assert events(page, name, 3) == ["one", "two", "meanwhile"]
    back_end.publish(channel, "after")
    for name in ("a", "b"):
        assert events(page, name, 4) == ["one", "two", "meanwhile", "after"]
    # Each of the two retried after 0.1 s, 0.2 s and 0.4 s.
    assert refused[7] - refused[0] > 0.5


def test_unsubscribing_while_disconnected_stops_reconnecting(
    page: Page, emulator: Emulator, channel: str, site: Site
) -> None:
    page.clock.install()
    listen(page, "a", channel)
    port = int(emulator.url.rpartition(":")[2])
    emulator.stop()
    page.evaluate("window.unlisten('a')")
    with Emulator(port=port, origins=[site.origin]) as restarted:
        # Long after the next retry.
        page.clock.run_for(60_000)
        listen(page, "b", channel)
        call(page, "realtime.publish", channel, "x")
        assert events(page, "b", 1) == ["x"]
        assert events(page, "a", 0) == []
        assert [event.delivered for event in restarted.events] == [1]


def test_service_is_called_as_the_platform_does(site: Site, open_page: Callable[[str], Page], echo: AsgiServer) -> None:
    contexts = {"invocations": {"invocation-1": {"context": {"issue": "DEMO-1"}}}}
    with Emulator(service=f"{echo.url}/base/", origins=[site.origin], contexts=contexts) as emulator:
        page = open_page(f"{site.origin}{site.page(f'{emulator.url}/bridge.js?invocation=invocation-1')}")
        sent = {
            "path": "/a%20b?c=d&c=e",
            "method": "PUT",
            "headers": {"X-Own": "1", "X-Forge-Invocation-Id": "forged", "Connection": "x-hop", "X-Hop": "1"},
            "body": {"n": [1, "ü"]},
        }
        response = call(page, "invokeService", sent)
        assert response["status"] == 201
        assert response["headers"]["x-answer"] == "one,two"
        assert "transfer-encoding" not in response["headers"]
        got = response["body"]
        assert (got["method"], got["path"], got["query"]) == ("PUT", "/base/a%20b", "c=d&c=e")
        assert got["body"] == '{"n": [1, "\\u00fc"]}'
        headers = got["headers"]
        assert headers["x-own"] == "1"
        assert headers["content-type"] == "application/json"
        assert "x-hop" not in headers
        assert re.fullmatch("invocation-[0-9a-f-]{36}", headers["x-forge-invocation-id"])
        assert base64.b64decode(headers["x-forge-invocation-log-attributes"], validate=True)
        assert re.fullmatch("[0-9a-f]{32}", headers["x-b3-traceid"])
        assert re.fullmatch("[0-9a-f]{16}", headers["x-b3-spanid"])
        # The invocation is registered with the context of the page.
        with RealtimeClient(emulator.url) as client, emulator.subscribe("board", invocation="invocation-1") as there:
            client.for_invocation(headers).publish("board", "moved")
            assert there.receive(timeout=5).payload == "moved"

        second = call(page, "invokeService", {"path": "/", "method": "POST", "body": '{"a": 1}'})["body"]
        assert second["body"] == '{"a": 1}'
        assert second["headers"]["content-type"] == "application/json"
        assert second["headers"]["x-forge-invocation-id"] != headers["x-forge-invocation-id"]


def test_front_end_gets_json_errors_and_rejections_of_the_service(
    site: Site, open_page: Callable[[str], Page], echo: AsgiServer, caplog: pytest.LogCaptureFixture
) -> None:
    with Emulator(service=echo.url, origins=[site.origin]) as emulator:
        page = open_page(f"{site.origin}{site.page(f'{emulator.url}/bridge.js')}")
        caplog.set_level("INFO", "forge_realtime_emulator")
        assert call(page, "invokeService", {"path": "/", "method": "GET"})["status"] == 201
        [logged] = [vars(record)["call"] for record in caplog.records if "call" in vars(record)]
        assert logged.pop("duration") > 0
        assert {name: value for name, value in logged.items() if value is not None} == {
            "operation": "invoke",
            "status": 201,
            "channel": "GET /",
        }
        missing = call(page, "invokeService", {"path": "/missing", "method": "DELETE"})
        assert missing.pop("headers")["x-answer"] == "one,two"
        assert missing == {"status": 404, "error": '{"code": "GONE"}'}
        with pytest.raises(Error, match="the content type text/plain"):
            call(page, "invokeService", {"path": "/text", "method": "GET"})


@pytest.fixture
def echo() -> Iterator[AsgiServer]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        path = scope["path"].removeprefix("/base")
        request = {
            "method": scope["method"],
            "path": scope["raw_path"].decode(),
            "query": scope["query_string"].decode(),
            "headers": {name.decode(): value.decode() for name, value in scope["headers"]},
            "body": body.decode(),
        }
        status, kind, content = {
            "/text": (200, b"text/plain", b"plain"),
            "/missing": (404, b"application/json", b'{"code": "GONE"}'),
        }.get(path, (201, b"application/json; charset=utf-8", json.dumps(request).encode()))
        headers = [(b"content-type", kind), (b"x-answer", b"one"), (b"x-answer", b"two")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    with AsgiServer(app) as server:
        yield server


def test_unknown_command_is_refused_by_name_and_logged_once(page: Page) -> None:
    logged: list[str] = []
    page.on("console", lambda message: logged.append(message.text))
    for _ in range(2):
        with pytest.raises(Error, match="does not have the command requestTeamworkGraph"):
            page.evaluate("window.__bridge.callBridge('requestTeamworkGraph', {})")
    assert [text.partition(":")[0] for text in logged] == [
        "The emulator's bridge does not have the command requestTeamworkGraph"
    ]
    # A test or an app can add what is missing.
    page.evaluate("window.__bridge.commands.requestTeamworkGraph = () => ({ data: 1 })")
    assert page.evaluate("window.__bridge.callBridge('requestTeamworkGraph', {})") == {"data": 1}


def test_one_connection_carries_300_subscriptions_of_a_page(
    page: Page, emulator: Emulator, back_end: RealtimeClient, site: Site, channel: str
) -> None:
    opened: list[str] = []
    page.on("websocket", lambda websocket: opened.append(websocket.url))
    page.evaluate(
        """channel => Promise.all([...Array(300).keys()].map((n) => window.listen(`${n}`, `${channel}-${n}`)))""",
        channel,
    )
    assert [url.rpartition("/")[2] for url in opened] == ["subscriptions"]
    assert subscribers(emulator) == 300
    page.evaluate("Promise.all([...Array(10).keys()].map((n) => window.unlisten(`${n}`)))")
    assert subscribers(emulator) == 290
    for number in (9, 10, 299):
        back_end.publish(f"{channel}-{number}", number)
    assert events(page, "10", 1) == ["10"]
    assert events(page, "299", 1) == ["299"]
    assert events(page, "9", 0) == []

    port = int(emulator.url.rpartition(":")[2])
    emulator.stop()
    with Emulator(port=port, origins=[site.origin], settings=Settings(limit=None)) as restarted:
        until = time.monotonic() + 20
        while subscribers(restarted) < 290 and time.monotonic() < until:
            page.wait_for_timeout(20)
        assert subscribers(restarted) == 290
        with RealtimeClient(restarted.url) as client:
            live = client.for_invocation({"x-forge-invocation-id": "invocation-123"})
            for number in (9, 10, 299):
                live.publish(f"{channel}-{number}", "again")
        assert events(page, "10", 2) == ["10", "again"]
        assert events(page, "299", 2) == ["299", "again"]
        assert events(page, "9", 0) == []
        assert [event.delivered for event in restarted.events] == [0, 1, 1]
        page.evaluate("Promise.all(Object.keys(window.events).map((name) => window.unlisten(name)))")
        assert subscribers(restarted) == 0


def subscribers(emulator: Emulator) -> int:
    counts: list[int] = []
    emulator._in_loop(lambda: counts.append(sum(emulator._sidecar.channels.live().values())))
    return counts[0]


def test_page_of_unknown_origin_gets_nothing(opened: Open, site: Site, channel: str) -> None:
    page = opened(origin=site.other_origin)
    service_call = {"path": "/", "method": "GET"}
    for attempt in (
        lambda: listen(page, "a", channel),
        lambda: call(page, "realtime.publish", channel, "x"),
        lambda: call(page, "view.getContext"),
        lambda: call(page, "invokeService", service_call),
    ):
        with pytest.raises(Error, match=f"emulate --origin {site.other_origin}"):
            attempt()


def test_allowed_page_cannot_control_the_emulator(page: Page, emulator: Emulator) -> None:
    for path, method in [("state", "GET"), ("reset", "POST"), ("faults", "DELETE"), ("contexts", "POST")]:
        with pytest.raises(Error, match="Failed to fetch"):
            page.evaluate(f"fetch('{emulator.url}/_emulator/{path}', {{ method: '{method}' }})")


def test_bridge_must_be_loaded_as_a_script(emulator: Emulator, site: Site, context: BrowserContext) -> None:
    with closing(context.new_page()) as page:
        page.goto(f"{site.origin}{site.page(f'{emulator.url}/bridge.js')}")
        with pytest.raises(Error, match="must be loaded by <script"):
            page.evaluate(f"import('{emulator.url}/bridge.js')")
