"""The console in a browser."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Error, expect

from forge_realtime_emulator import Emulator
from forge_realtime_emulator._platform.records import RecordedInvoke
from tests.emulator.api import Api
from tests.emulator.console import Console
from tests.support.browser import open_browser

pytestmark = pytest.mark.slow

CONTEXTS: dict[str, Any] = {
    "default": {"installation": "i-acme", "module": "board-panel", "context": {"project": "DEMO"}},
    "invocations": {
        "invocation-123": {"module": "issue-panel", "context": {"issue": "DEMO-42"}, "account": "ada"},
        "invocation-nightly": {"installation": "i-globex", "module": "nightly", "fromUi": False},
    },
}

INDENTED = r"""{
  "big": 12345678901234567890.10,
  "big": [],
  "text": "a, \"b\": {c} \\",
  "rest": [
    {
      "a": null
    },
    [
      1,
      -2e3
    ],
    {}
  ],
  "é": true
}"""

REFUSED = r"the server responded with a status of 4\d\d"
UNREACHABLE = r"net::ERR_(CONNECTION_REFUSED|CONNECTION_RESET|INCOMPLETE_CHUNKED_ENCODING)"


def test_missing_browser_skips_unless_it_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    for value, outcome in [("", pytest.skip.Exception), ("required", pytest.fail.Exception)]:
        monkeypatch.setenv("FORGE_REALTIME_BROWSER", value)
        with pytest.raises(outcome, match="not installed: chromium"), open_browser():
            pass


def test_page_loads_and_reaches_nothing_but_the_emulator(own: Api, client: httpx.Client) -> None:
    response = client.get(own.emulator.url)
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert not re.search(r"""(src|href)=["']?(https?:|/)|url\(|@import""", response.text)
    policy = dict(part.split(" ", 1) for part in response.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    for directive in ("script-src", "style-src"):
        assert re.fullmatch(r"'sha256-[\w+/]{43}='", policy[directive])


def test_injected_code_does_not_run(console: Console) -> None:
    console.expected = "Content Security Policy|TrustedHTML|by CSP"
    with pytest.raises(Error, match="TrustedHTML"):
        console.page.evaluate("document.body.innerHTML = '<b>x</b>'")
    for injected in (
        "document.head.append(Object.assign(document.createElement('style'), {textContent: 'body {color: red}'}))",
        "fetch('http://192.0.2.1/').catch(() => {})",
    ):
        with console.page.expect_console_message(lambda message: "Content Security Policy" in message.text):
            console.page.evaluate(f"() => {{ {injected} }}")


def test_event_shows_payload_and_number_of_subscribers_reached(own: Api, console: Console, channel: str) -> None:
    with own.emulator.subscribe(channel), own.emulator.subscribe(channel):
        own.publish(channel, json.dumps({"moved": 7}))
    event = console.events.first
    expect(event).to_contain_text(channel)
    expect(event).to_contain_text("delivered to 2 subscribers")
    expect(event).to_contain_text("scoped: module default-module")
    expect(event).to_contain_text("no token")
    expect(event.locator("pre")).to_have_text('{"moved": 7}')
    own.publish_global(channel, "nobody is there")
    expect(event).to_contain_text("reached nobody")
    expect(event).to_contain_text("global")
    expect(event.locator("pre")).to_have_text("nobody is there")
    with own.emulator.subscribe(channel):
        own.publish_global(channel)
        expect(event).to_contain_text("1 subscriber(s) on ")
        expect(event).to_contain_text("the subscription is scoped, and gets only what publish sends")
        own.publish(channel, contextOverrides=[])
        expect(event).to_contain_text("scoped: no overrides, []")


def test_event_with_token_shows_claims(own: Api, console: Console, channel: str) -> None:
    token = own.sign(channel, {"team": "red"})
    with own.emulator.subscribe(channel, token=token):
        expect(console.region("Live channels")).to_contain_text('token with claims {"team":"red"}')
        own.publish(channel, token=token)
        expect(console.events).to_contain_text('token with claims {"team":"red"}')


def test_payload_is_never_markup(own: Api, console: Console) -> None:
    evil = "<script>console.error('ran')</script><img src=x onerror=\"console.error('ran')\">"
    with own.emulator.subscribe(evil), own.emulator.subscribe(evil, token=own.sign(evil, {evil: evil})):
        own.publish(evil, evil)
        expect(console.events.locator("pre")).to_have_text(evil)
        expect(console.events.locator(".name")).to_have_text(evil)
        expect(console.region("Live channels").locator(".name")).to_have_text([evil, evil])
    assert console.page.locator("img").count() == 0
    assert console.page.locator("script").count() == 1


def test_json_payload_is_indented_and_otherwise_unchanged(own: Api, console: Console, channel: str) -> None:
    payload = (
        r'{"big":12345678901234567890.10,"big":[],"text":"a, \"b\": {c} \\","rest":[{"a":null},[1,-2e3],{}],"é":true}'
    )
    own.publish(channel, payload)
    expect(console.events.locator("pre")).to_be_visible()
    assert console.events.locator("pre").text_content() == INDENTED
    console.events.get_by_role("button", name="As published").click()
    assert console.events.locator("pre").text_content() == payload
    console.events.get_by_role("button", name="Indented").click()
    assert console.events.locator("pre").text_content() == INDENTED


def test_deeply_nested_payload_leaves_the_console_usable(own: Api, console: Console, channel: str) -> None:
    """Indented by its depth, 60 KB of brackets would take gigabytes."""
    depth = 30_000
    payload = "[" * depth + "]" * depth
    names = '{"a":' * depth + "1" + "}" * depth
    for _ in range(2):
        own.publish(channel, payload)
        own.publish(channel, names)
        expect(console.events.first).to_contain_text("The first 20000 of ")
        console.page.reload()
        expect(console.connection).to_have_text("Connected")
    expect(console.events).to_have_count(4)
    shown = console.events.first.locator("pre").text_content()
    assert shown is not None
    assert shown.startswith('{\n  "a": {\n    "a": {')
    assert '{"a": {"a": ' in shown
    assert own.emulator.events[-2].payload == payload


def test_deeply_nested_claims_are_refused_and_the_console_goes_on(own: Api, console: Console, channel: str) -> None:
    """The console would have to show them with each channel and event."""
    claims: dict[str, Any] = {}
    for _ in range(98):
        claims = {"a": claims}
    token = own.sign(channel, claims)
    with own.emulator.subscribe(channel, token=token):
        own.publish(channel, token=token)
        expect(console.events).to_contain_text("delivered to 1 subscriber")
    refused = own.post("/forge/realtime/v1/token", {"channelName": channel, "claims": {"a": {"a": claims}}})
    assert (refused.status_code, "nested too deeply" in refused.json()["message"]) == (400, True)


def test_many_consoles_leave_connections_for_calls(browser: Browser, own: Api) -> None:
    """A browser opens six connections to one host, for all its tabs together."""
    ask = "fetch('/_emulator/state', {signal: AbortSignal.timeout(10000)}).then((response) => response.status)"
    with closing(browser.new_context()) as context:
        pages = [context.new_page() for _ in range(10)]
        for page in pages:
            page.goto(own.emulator.url)
            expect(page.locator("#connection")).to_have_text("Connected")
        assert [page.evaluate(ask) for page in pages] == [200] * 10
        own.publish("to-all")
        for page in pages:
            expect(page.locator("#rows")).to_contain_text("to-all")


def test_page_of_another_origin_uses_up_nothing(browser: Browser, own: Api, client: httpx.Client) -> None:
    """Images, frames, scripts and forms send no Origin, or send requests without asking first."""
    own.emulator.change(limit=1)
    url = own.emulator.url
    hostile = f"""<!doctype html><body><script>
      const load = (tag, path) => new Promise((resolve) => {{
        const node = document.createElement(tag);
        node.onload = node.onerror = resolve;
        node.src = "{url}" + path;
        document.body.append(node);
      }});
      const paths = Array.from({{length: 12}}, (_, n) => `/_emulator/subscribe?channel=c${{n}}`);
      window.done = Promise.allSettled([
        ...["img", "script", "iframe"].flatMap((tag) => paths.map((path) => load(tag, path))),
        ...paths.map((path) => fetch("{url}" + path, {{mode: "no-cors"}})),
        fetch("{url}/_emulator/reset", {{method: "POST", mode: "no-cors"}}),
        fetch("{url}/_emulator/publish", {{method: "POST", mode: "no-cors", body: "{{}}"}}),
      ]).then(() => "done");
    </script>"""
    with closing(browser.new_context()) as context:
        context.route("http://localhost:1/", lambda route: route.fulfill(body=hostile, content_type="text/html"))
        page = context.new_page()
        page.goto("http://localhost:1/")
        assert page.evaluate("window.done") == "done"
        state = client.get(f"{url}/_emulator/state").json()
        assert (state["channels"], state["rates"]) == ([], {})
        # The person can still follow a link to the console.
        page.evaluate(f"location.href = '{url}'")
        expect(page.locator("#connection")).to_have_text("Connected")


def test_long_payload_is_folded(own: Api, console: Console, channel: str) -> None:
    own.publish(channel, "line\n" * 6000)
    pre = console.events.locator("pre")
    expect(console.events).to_contain_text("The first 20000 of 30000 characters.")
    folded = pre.bounding_box()
    console.events.get_by_role("button", name="Show all").click()
    unfolded = pre.bounding_box()
    assert folded is not None
    assert unfolded is not None
    assert folded["height"] < 200 < unfolded["height"]
    expect(console.events.get_by_role("button", name="Show less")).to_have_attribute("aria-expanded", "true")


def test_call_shows_outcome_and_authorization(own: Api, console: Console, channel: str) -> None:
    own.publish(channel, authorization="Forge as=user,id=inv-1,accountId=ada")
    call = console.requests.first
    expect(call.locator(".badge")).to_have_text("200")
    expect(call).to_contain_text(f"publish{channel}")
    expect(call.locator(".meta span")).to_have_text(["as=user", "id=inv-1", "accountId=ada"])
    own.publish(channel, authorization="Forge installationId=i-1")
    expect(call.locator(".badge")).to_have_text("200")
    expect(call).to_contain_text("Unauthorized request")
    expect(call).to_contain_text("cannot be done on behalf of an installationId")
    expect(call).to_contain_text("installationId=i-1")
    expect(call).not_to_contain_text("by a fault")
    own.post("/forge/realtime/v1/publish", {"name": channel}, None)
    expect(call.locator(".badge")).to_have_text("401")
    expect(call).to_contain_text("UNAUTHORIZED")
    expect(call).to_contain_text("no valid authorization header")
    own.emulator.fail_next(answer="reset")
    with pytest.raises(httpx.TransportError):
        own.publish(channel)
    expect(call.locator(".badge")).to_have_text("reset")
    expect(call).to_contain_text("by a fault")


@pytest.mark.parametrize(
    ("where", "boxes", "subscription"),
    [
        ("Scoped, by module and product context", [], {}),
        ("Scoped, by context overrides", ["issue"], {"context_overrides": ["issue"]}),
        ("Scoped, by context overrides", [], {"context_overrides": []}),
        ("Global", [], {"is_global": True}),
    ],
)
def test_publish_form_reaches_a_real_subscriber(
    own: Api, console: Console, channel: str, where: str, boxes: list[str], subscription: dict[str, Any]
) -> None:
    own.emulator.register(**CONTEXTS)
    form = console.region("Publish")
    token = own.sign(channel, {"team": "red"})
    with own.emulator.subscribe(channel, invocation="invocation-123", token=token, **subscription) as subscriber:
        form.get_by_label("Channel").fill(channel)
        form.get_by_label("Payload").fill('{"moved": 7}\n')
        form.get_by_label(where).check()
        for box in boxes:
            form.get_by_label(box, exact=True).check()
        form.get_by_label("As the page of invocation").select_option("invocation-123")
        form.get_by_label("Token").fill(token)
        form.get_by_role("button", name="Publish").click()
        received = subscriber.receive(timeout=15)
        assert received.payload == '{"moved": 7}\n'
        expect(form.get_by_role("status")).to_have_text(f"Published as event {received.event_id}.")
        expect(console.events).to_contain_text("delivered to 1 subscriber")


def test_publish_form_shows_the_result(own: Api, console: Console, channel: str) -> None:
    console.expected = f"{REFUSED}|{UNREACHABLE}"
    form = console.region("Publish")
    publish = form.get_by_role("button", name="Publish")
    form.get_by_label("Channel").fill(channel)
    publish.click()
    expect(form.get_by_role("status")).to_have_text("Published. Nobody was subscribed.")
    expect(console.events).to_contain_text("empty payload")
    form.get_by_label("Token").fill("nonsense")
    publish.click()
    expect(form.get_by_role("status")).to_contain_text("INVALID_TOKEN: ")
    own.emulator.stop()
    publish.click()
    expect(form.get_by_role("status")).to_have_text("The emulator did not answer.")


def test_fault_form_makes_next_call_fail(own: Api, console: Console, channel: str) -> None:
    form = console.region("Faults")
    form.get_by_role("spinbutton", name="Status").fill("429")
    form.get_by_label("Retry-After").fill("7")
    form.get_by_label("Times").fill("2")
    form.get_by_label("Only for operation").select_option("publish")
    form.get_by_label("Only for channel").fill(channel)
    form.get_by_label("Only for installation").fill("default-installation")
    form.get_by_role("button", name="Add fault").click()
    expect(form.get_by_role("status")).to_have_text("Added. It waits for a call.")
    waiting = form.get_by_role("list").get_by_role("listitem")
    what = f"status 429, Retry-After 7, {{}}only operation publish, only channel {channel}"
    where = ", only installation default-installation"
    expect(waiting).to_have_text(what.format("2 times, ") + where)
    assert own.publish_global(channel).status_code == 200
    response = own.publish(channel)
    assert (response.status_code, response.headers["retry-after"]) == (429, "7")
    expect(waiting).to_have_text(what.format("") + where)
    call = console.requests.first
    expect(call).to_contain_text("by a fault")
    expect(call).to_contain_text("RATE_LIMIT_EXCEEDED")
    form.get_by_role("button", name="Drop all that wait").click()
    expect(waiting).to_have_count(0)
    expect(form.get_by_text("None.")).to_be_visible()
    assert own.publish(channel).status_code == 200


def test_used_up_fault_disappears(own: Api, console: Console, channel: str) -> None:
    form = console.region("Faults")
    form.get_by_role("button", name="Add fault").click()
    expect(form.get_by_role("status")).to_have_text("Added. It waits for a call.")
    expect(form.get_by_role("listitem")).to_have_text("status 503")
    assert own.publish(channel).status_code == 503
    expect(form.locator("output")).to_have_text("")


@pytest.mark.parametrize(
    ("kind", "fault", "described"),
    [
        ("a status", {"status": 503, "delivered": True}, "status 503, 0.5 s late, carried out all the same"),
        ("a reset connection", {"answer": "reset", "delivered": True}, "reset connection, 0.5 s late, carried out"),
        ("a truncated body", {"answer": "truncated", "delivered": True}, "truncated body, 0.5 s late, carried out"),
        ("a body that is not JSON", {"answer": "not-json", "delivered": True}, "body that is not JSON, 0.5 s late"),
        ("its own answer, late", {}, "its own answer, 0.5 s late"),
    ],
)
def test_fault_form_offers_every_kind_of_fault(
    own: Api, client: httpx.Client, console: Console, kind: str, fault: dict[str, Any], described: str
) -> None:
    form = console.region("Faults")
    form.get_by_label("What the next call gets").select_option(kind)
    form.get_by_label("Delay").fill("0.5")
    delivered = form.get_by_label("Carried out all the same")
    if fault:
        delivered.check()
    else:
        expect(delivered).to_be_hidden()
    form.get_by_role("button", name="Add fault").click()
    expect(form.get_by_role("listitem")).to_contain_text(described)
    waiting = client.get(f"{own.emulator.url}/_emulator/state").json()["faults"]
    assert waiting == [{"times": 1, "delay": 0.5, **fault}]


def test_live_channels_appear_and_disappear(own: Api, console: Console, channel: str) -> None:
    channels = console.region("Live channels")
    expect(channels.get_by_text("Nobody is subscribed.")).to_be_visible()
    with own.emulator.subscribe(channel, is_global=True), own.emulator.subscribe(channel, is_global=True):
        item = channels.get_by_role("listitem")
        expect(item).to_contain_text("2 subscribers")
        expect(item.locator(".meta span")).to_have_text(["global", "installation default-installation", "no token"])
    expect(channels.get_by_text("Nobody is subscribed.")).to_be_visible()
    expect(item).to_have_count(0)


def test_rate_is_shown_against_the_limit(
    own: Api, console: Console, channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = console.region("Operations per second")
    expect(rates.get_by_role("listitem")).to_have_text("default-installation0 of 50")
    with monkeypatch.context() as frozen:
        frozen.setattr("forge_realtime_emulator._platform.clock.Clock.now", lambda _: 1_700_000_000.0)
        for _ in range(3):
            own.publish(channel)
        expect(rates.get_by_role("listitem")).to_have_text("default-installation3 of 50")
    expect(rates.get_by_role("listitem")).to_have_text("default-installation0 of 50")
    own.emulator.change(limit=None)
    expect(rates).to_contain_text("no limit")


def test_registered_contexts_are_shown(own: Api, console: Console) -> None:
    own.emulator.register(**CONTEXTS)
    contexts = console.region("Contexts").get_by_role("listitem")
    expect(contexts).to_have_text(
        [
            re.compile("^defaultinstallation i-acmemodule board-panel .*project DEMO"),
            re.compile("^invocation-nightlyinstallation i-globexmodule nightly .*not from a UI"),
            re.compile("^invocation-123installation i-acmemodule issue-panel .*issue DEMO-42account adafrom a UI"),
        ]
    )


def test_calls_of_the_service_are_shown_and_their_invocations_grouped(browser: Browser, client: httpx.Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        service = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with Emulator(contexts={"invocations": {"panel": {"module": "panel"}}}, service=service) as emulator:
        page = browser.new_page()
        console = Console(page, emulator.url)
        call = {"path": "/jobs?secret=1", "method": "POST", "body": "secret"}
        for invocation in ({}, {"invocation": "panel"}, {}):
            client.post(f"{emulator.url}/_emulator/invoke", json={**call, **invocation})
        newest = console.requests.first
        expect(console.requests).to_have_count(3)
        expect(newest.locator(".badge")).to_have_text("failed")
        expect(newest).to_contain_text("invokePOST /jobs")
        expect(newest).to_contain_text(f"SERVICE_UNREACHABLENo service can be reached at {service}.")
        last = (newest.locator(".meta").text_content() or "").removeprefix("id=")
        expect(console.region("Contexts").get_by_role("listitem")).to_have_text(
            [
                re.compile("^defaultinstallation "),
                re.compile(f"^2 invocations of pagesthe last {last}installation .*module default-module"),
                re.compile("^1 invocation of pagesthe last invocation-.*module panel"),
                re.compile("^panelinstallation "),
            ]
        )
        offered = console.region("Publish").get_by_label("As the page of invocation").locator("option")
        expect(offered).to_have_text(["the default context", "panel"])
        assert "secret" not in (page.locator("#rows").text_content() or "")
        page.close()
        console.check()


def test_calls_of_the_service_are_shown_in_a_new_console(own: Api, open_console: Callable[..., Console]) -> None:
    for status in (202, 404, 500):
        own.emulator._sidecar.record_invoke(RecordedInvoke("GET", "/jobs", "invocation-1", status, None, None, status))
    console = open_console()
    expect(console.requests.locator(".badge")).to_have_text(["500", "404", "202"])
    console.page.get_by_label("Requests", exact=True).check()
    expect(console.shown).to_have_count(3)
    own.emulator.reset()
    expect(console.rows).to_have_count(0)


def test_rows_are_filtered_by_text_and_kind(own: Api, console: Console) -> None:
    own.publish("first", '{"answer":42}')
    own.publish("second", "plain")
    expect(console.rows).to_have_count(4)
    field = console.page.get_by_label("Filter the activity")
    field.fill('"ANSWER":42')
    expect(console.shown).to_have_count(1)
    expect(console.region("Activity")).to_contain_text("1 of 4")
    own.publish("third", '{"answer":43}')
    own.publish("fourth", '{"answer":42}')
    expect(console.rows).to_have_count(8)
    expect(console.shown).to_have_count(2)
    field.fill("no such thing")
    expect(console.shown).to_have_count(0)
    expect(console.page.get_by_text("Nothing matches.")).to_be_visible()
    field.fill("")
    console.page.get_by_label("Events", exact=True).check()
    expect(console.shown.locator(".badge")).to_have_text(["event"] * 4)
    console.page.get_by_label("Requests", exact=True).check()
    expect(console.shown.locator(".badge")).to_have_text(["200"] * 4)


def test_pause_holds_back_new_rows(own: Api, console: Console) -> None:
    own.publish("before")
    expect(console.rows).to_have_count(2)
    console.page.get_by_role("button", name="Pause").click()
    own.publish("meanwhile")
    resume = console.page.get_by_role("button", name="Resume (2 waiting)")
    expect(resume).to_have_attribute("aria-pressed", "true")
    expect(console.rows).to_have_count(2)
    resume.click()
    expect(console.rows.locator(".what")).to_contain_text(["meanwhile", "meanwhile", "before", "before"])
    expect(console.page.get_by_role("button", name="Pause")).to_have_attribute("aria-pressed", "false")


def test_burst_leaves_newest_rows(own: Api, console: Console) -> None:
    own.emulator.change(limit=None)
    for number in range(300):
        own.publish("burst", f"number {number}")
    expect(console.events.first).to_contain_text("number 299")
    expect(console.rows).to_have_count(200)
    expect(console.region("Activity")).to_contain_text("Activity the last 200")
    assert console.events.locator("pre").all_text_contents() == [f"number {299 - row}" for row in range(100)]


def test_console_reconnects_and_shows_nothing_twice(
    open_console: Callable[..., Console], own: Api, browser: Browser, api_of: Callable[[Emulator], Api]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    emulator = Emulator(port=port)
    emulator.start()
    try:
        page = browser.new_page()
        console = Console(page, emulator.url)
        console.expected = UNREACHABLE
        api_of(emulator).publish("before")
        expect(console.rows).to_have_count(2)
        emulator.stop()
        expect(console.connection).to_have_text("Disconnected, trying again")
        expect(console.rows).to_have_count(2)
        emulator.start()
        expect(console.connection).to_have_text("Connected")
        api_of(emulator).publish("after")
        expect(console.rows.locator(".what")).to_contain_text(["after", "after", "before", "before"])
        page.close()
        console.check()
    finally:
        emulator.stop()


def test_reset_empties_the_console(own: Api, console: Console) -> None:
    own.publish("before")
    expect(console.rows).to_have_count(2)
    own.emulator.reset()
    expect(console.rows).to_have_count(0)
    expect(console.region("Activity")).to_contain_text(f"export FORGE_EGRESS_PROXY_URL={own.emulator.url}")


@pytest.mark.parametrize("width", [320, 360, 768, 1024, 1440])
def test_nothing_overflows_the_window(own: Api, open_console: Callable[..., Console], width: int) -> None:
    console = open_console(viewport={"width": width, "height": 740})
    # One name without a place for a line break, and one with many.
    long, other = "a" * 300, "a-long-name-without-a-break" * 12
    own.emulator.register(invocations={long: {"installation": long, "module": long, "context": {"issue": long}}})
    own.emulator.fail_next(5, status=503, operation="publish", channel=long, installation=long)
    with own.emulator.subscribe(long, token=own.sign(long, {long: long}), invocation=long):
        own.publish_global(long, long, authorization=f"Forge id={long}")
        own.publish_global(other, json.dumps({long: [long]}), authorization=f"Forge id={long}")
        own.publish(long, long, authorization=f"Forge as=user,id={long},accountId={long}")
        own.publish(long, authorization=f"Forge as=app,id={long}")
        expect(console.events).to_have_count(2)
        expect(console.requests).to_have_count(5)
        for name in ("Contexts", "Publish", "Faults"):
            details = console.region(name).locator("details")
            if details.get_attribute("open") is None:
                details.locator("summary").click()
        console.page.get_by_label("Scoped, by context overrides").check()
        assert console.page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
        within = """() => [...document.querySelectorAll('body *')].filter((node) => {
            const box = node.getBoundingClientRect();
            const isOutside = box.right > innerWidth || box.left < 0;
            return box.width && getComputedStyle(node).position !== 'absolute' && isOutside;
        }).map((node) => node.outerHTML.slice(0, 80))"""
        assert console.page.evaluate(within) == []


@pytest.mark.parametrize("width", [360, 1440])
def test_many_channels_scroll_by_keyboard_and_hide_nothing(
    own: Api, open_console: Callable[..., Console], width: int
) -> None:
    own.emulator.change(limit=None)
    console = open_console(viewport={"width": width, "height": 740})
    with ExitStack() as subscriptions:
        for number in range(30):
            subscriptions.enter_context(own.emulator.subscribe(f"channel-{number}"))
        channels = console.page.get_by_role("list", name="Live channels")
        expect(channels.get_by_role("listitem")).to_have_count(30)
        card = console.region("Live channels").bounding_box()
        assert card is not None
        assert card["height"] < 450
        channels.focus()
        expect(channels).to_be_focused()
        console.page.keyboard.press("End")
        expect(channels.get_by_text("channel-29", exact=True)).to_be_in_viewport()
    expect(console.page.get_by_text("Nobody is subscribed.")).to_be_visible()
    expect(console.page.locator("#channels")).not_to_have_attribute("tabindex", "0")


def test_lost_connection_is_visible_at_any_scroll_position(
    own: Api, open_console: Callable[..., Console], channel: str
) -> None:
    console = open_console(viewport={"width": 360, "height": 740})
    console.expected = UNREACHABLE
    own.emulator.change(limit=None)
    for _ in range(30):
        own.publish(channel)
    expect(console.requests).to_have_count(30)
    console.rows.last.scroll_into_view_if_needed()
    expect(console.connection).not_to_be_in_viewport()
    own.emulator.stop()
    expect(console.connection).to_have_text("Disconnected, trying again")
    expect(console.connection).to_be_in_viewport()
    expect(console.page.locator("#channels")).to_have_css("opacity", "0.6")


def test_forms_are_folded_in_a_narrow_window_only(open_console: Callable[..., Console]) -> None:
    narrow = open_console(viewport={"width": 360, "height": 740})
    expect(narrow.page.get_by_role("button", name="Publish")).to_be_hidden()
    wide = open_console()
    expect(wide.page.get_by_role("button", name="Publish")).to_be_visible()


def test_everything_is_focusable_by_tab_with_visible_focus(own: Api, console: Console, channel: str) -> None:
    own.publish(channel, "line\n" * 20)
    expect(console.events).to_have_count(1)
    page = console.page
    every = """() => [...document.querySelectorAll('a, button, input, select, textarea, summary')]
        .filter((node) => node.checkVisibility() && !node.disabled && (node.type !== 'radio' || node.checked))
        .map((node, index) => node.dataset.test = String(index))"""
    wanted = page.evaluate(every)
    assert len(wanted) > 20
    reached = []
    focused = """() => {
        const node = document.activeElement;
        const label = node.closest('.kinds label') ?? node;
        const box = label.getBoundingClientRect();
        return [node.dataset.test, getComputedStyle(label).outlineStyle, box.top >= 0 && box.bottom <= innerHeight];
    }"""
    for _ in wanted:
        page.keyboard.press("Tab")
        name, outline, visible = page.evaluate(focused)
        reached.append(name)
        assert outline == "solid"
        assert visible
    assert reached == wanted


def test_console_works_by_keyboard_alone(own: Api, console: Console, channel: str) -> None:
    keyboard = console.page.keyboard
    with own.emulator.subscribe(channel, is_global=True) as subscriber:
        console.region("Publish").get_by_label("Channel").focus()
        keyboard.type(channel)
        keyboard.press("Tab")
        keyboard.type("by hand")
        keyboard.press("Tab")
        keyboard.press("ArrowDown")
        keyboard.press("ArrowDown")
        for _ in range(3):
            keyboard.press("Tab")
        keyboard.press("Enter")
        assert subscriber.receive(timeout=15).payload == "by hand"


def test_every_control_has_a_name_and_every_region_a_heading(console: Console) -> None:
    unnamed = [
        node
        for role in ("button", "checkbox", "combobox", "radio", "searchbox", "spinbutton", "textbox", "region")
        for node in console.page.get_by_role(role).all()
        if not re.search(rf'{role} ".+"', node.aria_snapshot())
    ]
    assert unnamed == []
    assert console.page.get_by_role("region").count() == 6
    for landmark in ("banner", "main"):
        expect(console.page.get_by_role(landmark)).to_have_count(1)


def test_console_has_dark_and_light_colours(open_console: Callable[..., Console]) -> None:
    colors = {}
    for scheme in ("light", "dark"):
        page = open_console(color_scheme=scheme).page
        colors[scheme] = page.evaluate(
            "[document.body, document.querySelector('.card')].map((node) => getComputedStyle(node).backgroundColor)"
        )
    assert colors["light"] == ["rgb(244, 245, 247)", "rgb(255, 255, 255)"]
    assert colors["dark"] == ["rgb(18, 21, 26)", "rgb(26, 30, 37)"]


@pytest.mark.parametrize(("motion", "animation"), [("no-preference", "arrive"), ("reduce", "none")])
def test_reduced_motion_is_respected(
    own: Api, open_console: Callable[..., Console], motion: str, animation: str
) -> None:
    console = open_console(reduced_motion=motion)
    own.publish("motion")
    expect(console.events).to_have_css("animation-name", animation)
