"""The console in a browser: one page for all tests, opened anew for each."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, nullcontext
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
from playwright.sync_api import Browser, Error, Locator, Page, expect

from forge_realtime import RealtimeClient, RejectedError, RetryPolicy
from forge_realtime_emulator import Emulator, RecordedRequest, Settings
from tests.emulator.api import Api
from tests.emulator.console import Console
from tests.emulator.envelopes import ID, envelope
from tests.emulator.site import install_package
from tests.support.browser import open_browser, require

pytestmark = pytest.mark.slow

CONTEXTS: dict[str, Any] = {
    "default": {"installation": "i-acme", "module": "board-panel", "context": {"project": "DEMO"}},
    "invocations": {
        "invocation-123": {"module": "issue-panel", "context": {"issue": "DEMO-42"}, "account": "ada"},
        "invocation-nightly": {"installation": "i-globex", "module": "nightly", "fromUi": False},
    },
}
REFUSED = r"the server responded with a status of 4\d\d"
UNREACHABLE = r"net::ERR_(CONNECTION_REFUSED|CONNECTION_RESET|INCOMPLETE_CHUNKED_ENCODING|EMPTY_RESPONSE)"
PANELS = {"p": "Publish", "f": "Faults", "c": "Contexts", "t": "Clock", "s": "Settings"}
LONG = "a" * 300
FAST = RetryPolicy(backoff_initial=0.01)


@pytest.fixture(scope="module")
def served() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture(scope="module")
def tab(browser: Browser, served: Emulator) -> Iterator[Page]:
    with closing(browser.new_context(viewport={"width": 1440, "height": 900})) as context:
        context.grant_permissions(["clipboard-read", "clipboard-write"], origin=served.url)
        yield context.new_page()


@pytest.fixture
def own(served: Emulator, api_of: Callable[[Emulator], Api]) -> Api:
    """The emulator of this module, as if just started."""
    served.reset()
    return api_of(served)


@pytest.fixture
def console(tab: Page, own: Api) -> Iterator[Console]:
    tab.set_viewport_size({"width": 1440, "height": 900})
    console = Console(tab, own.emulator.url).open()
    yield console
    tab.goto("about:blank")
    tab.remove_listener("console", console.on_message)
    tab.remove_listener("pageerror", console.on_error)
    console.check()


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    require("node", "npm", "chromium")
    package = install_package(tmp_path_factory.mktemp("axe"), "axe-core")
    return (package / "axe.min.js").read_text(encoding="utf-8")


def publish_many(own: Api, count: int) -> None:
    """Publish as pages do, without HTTP: 10,000 calls take seconds."""

    def publish() -> None:
        for number in range(count):
            own.emulator._sidecar.publish_from_page({"channel": "many", "payload": f'{{"n": {number}}}'})

    own.emulator._in_loop(publish)


# Without a browser


def test_missing_browser_skips_unless_it_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    for value, outcome in [("", pytest.skip.Exception), ("required", pytest.fail.Exception)]:
        monkeypatch.setenv("FORGE_REALTIME_BROWSER", value)
        with pytest.raises(outcome, match="not installed: chromium"), open_browser():
            pass


def test_page_and_its_parts_reach_nothing_but_the_emulator(own: Api, client: httpx.Client) -> None:
    page = own.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    parts = re.findall(r'(?:src|href)="(/console/[\w.]+)"', page.text)
    for path in parts:
        parts += [f"/console/{name}" for name in re.findall(r'from "\./([\w.]+)"', own.get(path).text)]
    assert len(set(parts)) == 11
    for path in {"/", *parts}:
        response = own.get(path)
        assert response.status_code == 200
        policy = dict(part.split(" ", 1) for part in response.headers["content-security-policy"].split("; "))
        assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert not re.search(r"""(src|href)=["']?https?:|\burl\(|@import|innerHTML""", response.text)
    assert own.get("/console/control.py").status_code == 404
    cross_site = {"Sec-Fetch-Site": "cross-site"}
    assert client.get(f"{own.emulator.url}/console/main.js", headers=cross_site).status_code == 403


def test_settings_of_the_page_are_those_of_the_emulator(own: Api) -> None:
    listed = re.findall(r'name: "(\w+)".*? start: (\w+)', own.get("/console/settings.js").text)
    assert {name: json.loads(start) for name, start in listed} == dataclasses.asdict(Settings())


# Rows


def test_call_is_one_row_with_its_attempts(own: Api, console: Console, channel: str) -> None:
    own.emulator.fail_next(status=503)
    own.emulator.fail_next(answer="reset")
    with (
        own.emulator.subscribe(channel),
        RealtimeClient(base_url=own.emulator.url, retry=FAST) as realtime,
    ):
        live = realtime.for_invocation({"x-forge-invocation-id": "invocation-1"})
        live.sign_realtime_token(channel, {})
        live.publish(channel, {"moved": 7})
    expect(console.rows).to_have_count(2)
    row = console.rows.first
    assert console.cells("status") == ["200", "200"]
    assert console.cells("operation") == ["publish", "sign_realtime_tokenfault"]
    own.emulator.fail_next(2, status=503)
    with RealtimeClient(base_url=own.emulator.url, retry=FAST) as realtime:
        realtime.for_invocation({"x-forge-invocation-id": "invocation-1"}).publish(channel, {"moved": 8})
    expect(console.rows).to_have_count(3)
    expect(row.locator(".attempts")).to_have_text("3")
    expect(row.locator(".said")).to_have_text('{"moved":8}')
    expect(row.locator(".scope")).to_have_text("default-module")
    expect(row.locator(".delivered")).to_have_text("nobody")
    expect(row.locator(".duration")).to_have_text(re.compile(r"^[\d.]+ m?s$"))
    expect(row.locator(".time")).to_have_text(re.compile(r"^\d\d:\d\d:\d\d\.\d{3}$"))
    row.locator(".twist").click()
    expect(console.rows).to_have_count(6)
    expect(row).to_have_attribute("aria-expanded", "true")
    assert console.cells("operation")[1:4] == ["attempt 3", "attempt 2fault", "attempt 1fault"]
    assert console.cells("status")[1:4] == ["200", "503", "503"]
    # The same after the feed has left out the past.
    own.emulator.change(limit=None)
    whole = row.locator(".duration").text_content()
    publish_many(own, 110)
    for number in range(110):
        own.sign(f"later-{number}")
    console.open("#text=moved%22%3A8")
    expect(console.rows).to_have_count(1)
    expect(row.locator(".duration")).to_have_text(whole or "")
    row.locator(".twist").click()
    expect(console.rows).to_have_count(4)


def test_what_pages_do_is_a_row(own: Api, console: Console, channel: str) -> None:
    console.expected = "status of 50"
    with own.emulator.subscribe(channel):
        own.post("/_emulator/publish", {"channel": channel, "payload": "from a page"})
    own.post("/_emulator/invoke", {"path": "/jobs?secret=1", "method": "POST", "body": "secret"})
    expect(console.rows).to_have_count(2)
    assert console.cells("operation") == ["invokepage", "publishpage"]
    assert console.cells("channel") == ["POST /jobs", channel]
    assert console.cells("delivered") == ["", "1"]
    expect(console.row("invoke")).to_contain_text("NO_SERVICE")
    detail = console.open_detail("invoke")
    expect(detail).to_contain_text("emulate --service")
    assert "secret" not in (console.page.locator("main").text_content() or "")


def test_2000_calls_show_25_rows_and_a_filter_for_400_finds_only_that_status(own: Api, console: Console) -> None:
    own.emulator.change(limit=None)
    for number in range(2000):
        if number % 100 == 0:
            own.emulator.fail_next(status=400)
        own.publish("board-400", f'{{"n": {number}, "id": "400"}}', authorization=f"Forge id=invocation-{number}")
    own.publish("answer", envelope(0, "text", stream="400" * 10))
    expect(console.count).to_have_text("2,001 rows")
    expect(console.list).to_have_attribute("aria-rowcount", "2002")
    in_view = """rows => {
        const top = document.querySelector('.head').getBoundingClientRect().bottom;
        const boxes = rows.map((row) => row.getBoundingClientRect());
        return boxes.filter((box) => box.top >= top - 1 && box.bottom <= innerHeight).length;
    }"""
    assert console.rows.evaluate_all(in_view) >= 25
    console.page.keyboard.press("/")
    console.page.keyboard.type("400")
    expect(console.count).to_have_text("20 of 2,001 rows")
    assert set(console.cells("status")) == {"400"}
    assert console.page.url.endswith("/#text=400")
    console.page.keyboard.type("0")
    expect(console.page.get_by_text("No call matches")).to_be_visible()
    console.page.locator("#empty").get_by_role("button", name="Reset filters").click()
    expect(console.count).to_have_text("2,001 rows")


def test_10000_rows_are_as_few_elements_as_10(own: Api, console: Console) -> None:
    own.emulator.change(limit=None)
    publish_many(own, 10)
    expect(console.rows).to_have_count(10)
    elements = "document.querySelectorAll('*').length"
    few = console.page.evaluate(elements)
    publish_many(own, 10_500)
    console.open()
    expect(console.count).to_have_text("10,000 rows")
    assert console.page.evaluate(elements) <= few + 5
    console.list.focus()
    console.page.keyboard.press("End")
    expect(console.rows.filter(has_text='{"n": 500}')).to_be_in_viewport()
    active = console.page.locator("#calls [aria-selected=true]")
    expect(active).to_have_attribute("aria-rowindex", "10001")
    expect(console.list).to_have_attribute("aria-activedescendant", active.get_attribute("id") or "")
    # A frame, however far the list is scrolled, is drawn in less than two frames' time of a slow machine.
    slowest = console.page.evaluate(
        """async () => {
            const list = document.querySelector("#calls");
            const frame = () => new Promise(requestAnimationFrame);
            const times = [];
            for (let step = 0; step < 30; step += 1) {
                const began = performance.now();
                list.scrollTop = (step * 7919 * 28) % list.scrollHeight;
                list.onscroll();
                times.push(performance.now() - began);
                await frame();
            }
            return times.sort((one, other) => one - other)[27];
        }"""
    )
    assert slowest < 32
    assert console.page.evaluate(elements) <= few + 5


def test_new_rows_move_nothing_that_is_looked_at(own: Api, console: Console) -> None:
    own.emulator.change(limit=None)
    publish_many(own, 200)
    expect(console.count).to_have_text("200 rows")
    console.page.evaluate(
        """() => {
            window.shifts = 0;
            // As for Lighthouse: what follows a click may move.
            const counted = (list) => list.getEntries().filter((entry) => !entry.hadRecentInput);
            const add = (list) => counted(list).forEach((entry) => (window.shifts += entry.value));
            new PerformanceObserver(add).observe({type: "layout-shift", buffered: false});
        }"""
    )
    publish_many(own, 50)
    expect(console.count).to_have_text("250 rows")
    console.list.evaluate("list => (list.scrollTop = 1000)")
    looked_at = console.row('{"n": 0}')
    expect(looked_at).to_be_in_viewport()
    before = looked_at.bounding_box()
    publish_many(own, 30)
    newer = console.page.get_by_role("button", name="30 newer")
    expect(newer).to_be_visible()
    assert looked_at.bounding_box() == before
    newer.click()
    expect(console.rows.first).to_be_in_viewport()
    expect(newer).to_be_hidden()
    assert console.list.evaluate("list => list.scrollTop") == 0
    # An open row stays where it is, too.
    console.open_detail('{"n": 20}')
    before = console.row('{"n": 20}').bounding_box()
    publish_many(own, 40)
    expect(console.page.get_by_role("button", name="40 newer")).to_be_visible()
    assert console.row('{"n": 20}').bounding_box() == before
    assert console.page.evaluate("window.shifts") == 0


def test_burst_leaves_every_row(own: Api, console: Console) -> None:
    own.emulator.change(limit=None)
    for number in range(300):
        own.publish("burst", f"number {number}", authorization=f"Forge id={number}")
    expect(console.count).to_have_text("300 rows")
    assert console.cells("said")[:20] == [f"number {299 - row}" for row in range(20)]


def test_pause_clear_and_reset(own: Api, console: Console) -> None:
    page = console.page
    expect(page.get_by_text("No calls yet")).to_be_visible()
    own.publish("before")
    expect(console.rows).to_have_count(1)
    page.keyboard.press("Space")
    own.publish("meanwhile")
    resume = page.get_by_role("button", name=re.compile("^Resume"))
    # The event and the attempt that published it.
    expect(resume).to_have_text("Resume (2 new)")
    expect(resume).to_have_attribute("aria-pressed", "true")
    expect(console.rows).to_have_count(1)
    resume.click()
    expect(console.rows).to_have_count(2)
    assert console.cells("channel") == ["meanwhile", "before"]
    page.get_by_role("button", name="Clear", exact=True).click()
    expect(page.get_by_text("New calls appear here.")).to_be_visible()
    own.publish("after")
    expect(console.rows).to_have_count(1)
    console.page.get_by_role("button", name="Clear", exact=True).click()
    page.get_by_role("button", name="Show all again").click()
    expect(console.rows).to_have_count(3)
    settings = console.panel("s")
    settings.get_by_role("button", name="Reset the emulator").click()
    settings.get_by_role("button", name="Really? All calls are lost").click()
    expect(console.rows).to_have_count(0)
    assert own.emulator.requests == []
    page.keyboard.press("Escape")
    expect(page.get_by_text(f"export FORGE_EGRESS_PROXY_URL={own.emulator.url}")).to_be_visible()


def test_first_call_of_an_empty_console_works(own: Api, console: Console) -> None:
    curl = console.page.locator("#empty .snippet", has_text="curl").locator("code").text_content()
    assert curl is not None
    subprocess.run(["sh", "-c", curl.replace("curl", "curl -sSf", 1)], check=True, capture_output=True, timeout=60)
    expect(console.row("board-42")).to_contain_text("hello")


# Details


def test_details_show_everything_about_a_call(own: Api, console: Console, channel: str) -> None:
    own.emulator.register(**CONTEXTS)
    token = own.sign(channel, {"team": "red"})
    payload = '{"big":12345678901234567890.10,"big":[],"text":"a, \\"b\\"","rest":[{"a":null},[1,-2e3],{}],"é":true}'
    own.emulator.fail_next(status=503, delay=0.02)
    with own.emulator.subscribe(channel, invocation="invocation-123", token=token):
        for _ in range(2):
            own.publish(channel, payload, authorization="Forge as=user,id=invocation-123,accountId=ada", token=token)
    detail = console.open_detail('"big"')
    heading = detail.get_by_role("heading", name=channel)
    expect(heading).to_be_visible()
    for text in (
        "as=user, id=invocation-123, accountId=ada",
        "Installationi-acme",
        'Scopeissue-panel issue="DEMO-42"',
        'Claims{"team":"red"}',
        "Delivered to1 subscriber",
        "WebSocket, as invocation-123, subscribed ",
        "POST /forge/realtime/v1/publish",
        "forge-proxy-authorizationForge as=user,id=invocation-123,accountId=ada",
        "content-typeapplication/json",
        "eventTimestamp",
    ):
        expect(detail).to_contain_text(text)
    timing = detail.locator(".timing button")
    expect(timing).to_have_count(2)
    expect(timing.nth(1)).to_have_attribute("aria-pressed", "true")
    expect(timing.first).to_have_text(re.compile(r"^1503\d+ ms$"))
    timing.first.click()
    expect(detail).to_contain_text("INJECTED_FAULT")
    # The tree is made of the payload's own text: no number is rounded, no name is lost.
    tree = detail.locator(".tree").first
    expect(tree.locator(".key")).to_have_text(["big", "big", "text", "rest", "0", "a", "1", "0", "1", "2", '"é"'])
    expect(tree).to_contain_text("12345678901234567890.10")
    expect(tree).to_contain_text("-2e3")
    detail.get_by_role("button", name="Raw").click()
    assert detail.locator("pre").first.text_content() == payload
    console.page.keyboard.press("Escape")
    expect(detail).to_be_hidden()
    expect(console.list).to_be_focused()


def test_details_say_why_nobody_got_an_event(own: Api, console: Console, channel: str) -> None:
    with own.emulator.subscribe(channel.upper(), is_global=True):
        own.publish(channel)
        detail = console.open_detail(channel)
        expect(detail.locator(".callout")).to_contain_text("Nobody got it")
        expect(detail).to_contain_text("the subscription is global, and gets only what publish_global sends")
        expect(detail).to_contain_text("names are case-sensitive")
    own.publish(channel, authorization="Forge installationId=i-1")
    expect(console.rows.first.locator(".said")).to_contain_text("Unauthorized request")
    console.rows.first.click()
    expect(detail).to_contain_text("cannot be done on behalf of an installationId")
    own.post("/forge/realtime/v1/publish", {"name": "unauthorized"}, None)
    detail = console.open_detail("UNAUTHORIZED")
    expect(detail).to_contain_text("no valid authorization header")
    own.emulator.fail_next(answer="reset")
    with pytest.raises(httpx.TransportError):
        own.publish("lost")
    detail = console.open_detail("lost")
    expect(detail).to_contain_text("None: a fault reset the connection.")


def test_payload_is_never_markup_and_deep_nesting_leaves_the_console_usable(own: Api, console: Console) -> None:
    evil = "<script>console.error('ran')</script><img src=x onerror=\"console.error('ran')\">"
    depth = 30_000
    own.publish(evil, json.dumps({evil: evil}))
    own.publish("brackets", "[" * depth + "]" * depth)
    own.publish("names", '{"a":' * depth + "1" + "}" * depth)
    own.publish("long", "line\n" * 6000)
    expect(console.rows).to_have_count(4)
    detail = console.open_detail("<script>")
    expect(detail.locator(".tree").first).to_contain_text(json.dumps(evil))
    assert console.page.locator("img").count() == 0
    assert console.page.locator("script").count() == 1
    for channel in ("brackets", "names"):
        expect(console.open_detail(channel).get_by_role("heading", name=channel)).to_be_visible()
        expect(detail.locator(".tree").first).to_be_visible()
    detail = console.open_detail("long")
    expect(detail).to_contain_text("The first 20,000 of 30,000 characters.")
    detail.get_by_role("button", name="Show all").first.click()
    assert len(detail.locator("pre").first.text_content() or "") == 30_000


def test_malformed_calls_have_details(own: Api, console: Console) -> None:
    for body in ("{not json", "null", "[]", "{}", '{"name": 7}', '{"name": "x"}', '{"channelName": "x"}'):
        own.post("/forge/realtime/v1/publish", content=body.encode(), headers={"Content-Type": "application/json"})
        expect(console.rows.first.locator(".said")).to_contain_text("INVALID_REQUEST")
        console.list.focus()
        console.page.keyboard.press("Home")
        console.page.keyboard.press("Enter")
        expect(console.detail.locator(".callout")).to_contain_text("INVALID_REQUEST")
        expect(console.detail.get_by_role("heading", name="Request")).to_be_visible()
        expect(console.detail.locator("[data-name=python]")).to_have_count(0)
        own.emulator.reset()
        expect(console.rows).to_have_count(0)
        console.page.keyboard.press("Escape")


def test_hostile_recording_puts_no_command_into_copied_code(own: Api, console: Console, tmp_path: Path) -> None:
    own.publish("x")
    recording = own.get("/_emulator/recording").json()
    [call] = recording["calls"]
    call["request"]["method"] = f"POST; touch {tmp_path}/done; echo"
    call["request"]["headers"] = {"x": f"\x03\ntouch {tmp_path}/done\n'\\'\x1b[201~", "y": "$(touch done)`touch done`"}
    call["request"]["body"] = '{"name": "x", "payload": 7, "options": {"token": 7}}'
    own.post("/_emulator/recording", recording)
    expect(console.facts).to_contain_text("Replayed recording")
    copied_text = copied(console.open_detail("x"), "curl")
    assert [c for c in copied_text if not c.isprintable() and c != "\n"] == []
    script = f'curl() {{ printf "%s\\n" "$@"; }}\n{copied_text}\n'
    run = subprocess.run(["bash", "-c", script], check=True, capture_output=True, text=True, timeout=10, cwd=tmp_path)
    assert run.stdout.splitlines()[1] == call["request"]["method"]
    assert f"x: {call['request']['headers']['x']}\n" in run.stdout
    assert list(tmp_path.iterdir()) == []


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


def test_call_and_page_event_are_resent(own: Api, console: Console, channel: str) -> None:
    with own.emulator.subscribe(channel) as subscriber:
        own.publish(channel, "again")
        own.post("/_emulator/publish", {"channel": channel, "payload": "page"})
        for text in ("again", "page"):
            assert subscriber.receive(timeout=15).payload == text
        expect(console.rows).to_have_count(2)
        for text in ("again", "page"):
            detail = console.open_detail(text)
            detail.get_by_role("button", name="Resend").click()
            expect(detail.get_by_role("status")).to_have_text("Resent: 200. It is the newest row.")
            assert subscriber.receive(timeout=15).payload == text
    expect(console.rows).to_have_count(4)
    assert console.cells("attempts") == ["", "1", "", "1"]


def test_copied_code_does_what_the_call_did(own: Api, console: Console, tmp_path: Path) -> None:
    own.emulator.register(**CONTEXTS)
    token = own.sign("secured", {"team": "red"})
    tricky = 'it\'s "quoted" \\ $HOME `id`\n\tünï \U0001f600 \u2028'
    as_ada = "Forge as=user,id=invocation-123,accountId=ada"
    listened: list[tuple[str, dict[str, Any]]] = [
        ("moves", {}),
        ("secured", {"token": token, "invocation": "invocation-123"}),
        ("overridden", {"context_overrides": ["issue"], "invocation": "invocation-123"}),
        ("retried", {"is_global": True}),
    ]
    with ExitStack() as subscriptions:
        for channel, options in listened:
            subscriptions.enter_context(own.emulator.subscribe(channel, **options))
        own.publish("moves", '{"moved":7,"done":true,"by":null,"x":[1.5,"é"]}')
        own.publish("secured", tricky, as_ada, token=token)
        own.publish("overridden", '{"n": 1}', as_ada, contextOverrides=["issue"])
        own.emulator.fail_next(2, status=503)
        for _ in range(3):
            own.publish_global("retried", "x", "Forge installationId=i-1")
        own.publish("unheard", "nobody")
        own.publish("refused", "x", "Forge id=invocation-nightly")
        own.sign("signed", {"a": None, "b": [True]}, ["publish"])
        expect(console.rows).to_have_count(8)
        calls = {call.channel: call for call in own.emulator.requests}
        commands, programs, tests = "", [], ""
        names = ("moves", "secured", "overridden", "retried", "unheard", "refused", "signed")
        for channel in names:
            detail = console.open_detail(channel)
            expect(detail.get_by_role("heading", name=channel)).to_be_visible()
            commands += f"{copied(detail, 'curl').replace('curl', 'curl -sS', 1)}\n"
            programs.append(copied(detail, "python"))
            tests += f"{copied(detail, 'pytest')}\n\n"
        subprocess.run(["sh", "-ec", commands], check=True, capture_output=True, timeout=60)
        for channel, program in zip(names, programs, strict=True):
            with pytest.raises(RejectedError) if channel == "refused" else nullcontext():
                exec(program, {})
        for channel, sent in zip(names * 2, own.emulator.requests[-2 * len(names) :], strict=True):
            call = calls[channel]
            assert (sent.operation, sent.code, who(sent)) == (call.operation, call.code, who(call))
            assert {"options": {}, **sent.body} == {"options": {}, **call.body}
    (tmp_path / "test_copied.py").write_text(tests, encoding="utf-8")
    # Without the plugins that are installed here: they take seconds to load.
    plugin = ["-p", "forge_realtime_emulator.pytest_plugin", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-q", *plugin, "--rootdir=.", "test_copied.py"]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    run = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=120, cwd=tmp_path, env=environment
    )
    assert run.returncode == 0, f"{run.stdout}{run.stderr}{tests}"
    assert "7 passed" in run.stdout


def who(call: RecordedRequest) -> tuple[str | None, ...]:
    """Return for whom a call was made. The client always says as whom."""
    assert call.authorization is not None
    return call.authorization.invocation_id, call.authorization.installation_id, call.authorization.account_id


def copied(detail: Locator, name: str) -> str:
    """Press a button that copies, and return what is in the clipboard, which is shown too."""
    button = detail.locator(f"[data-name={name}]")
    button.click()
    expect(button).to_have_text("Copied")
    text: str = detail.page.evaluate("navigator.clipboard.readText()")
    assert text == detail.locator(".snippet code").text_content()
    return text


def test_recording_is_exported_and_shown_again(own: Api, console: Console, channel: str, tmp_path: Path) -> None:
    own.emulator.fail_next(status=503)
    for _ in range(2):
        own.publish(channel, "kept")
    own.publish("answer", envelope(0, "Hello"))
    expect(console.rows).to_have_count(2)
    settings = console.panel("s")
    expect(settings).to_contain_text("It holds headers, tokens and payloads.")
    with console.page.expect_download() as download:
        settings.get_by_role("link", name="Export").click()
    assert download.value.suggested_filename == "forge-realtime-recording.json"
    file = tmp_path / "recording.json"
    download.value.save_as(file)
    own.emulator.reset()
    expect(console.rows).to_have_count(0)
    with console.page.expect_file_chooser() as chooser:
        settings.get_by_role("button", name="Import").click()
    chooser.value.set_files(file)
    expect(settings).to_contain_text("Shown: recording.json.")
    expect(console.rows).to_have_count(2)
    assert console.cells("channel") == ["answer", channel]
    assert console.cells("attempts")[1] == "2"
    expect(console.facts).to_contain_text("Replayed recording")


# Streams


def test_stream_is_a_row_that_grows(own: Api, console: Console, channel: str) -> None:
    own.publish(channel, "before")
    own.publish(channel, envelope(0, "Hel", updates=3))
    expect(console.rows).to_have_count(2)
    row = console.rows.first
    expect(row.locator(".tail")).to_have_text("Hel")
    expect(row.locator(".status")).to_have_text("open")
    own.publish(channel, "after")
    expect(console.rows).to_have_count(3)
    own.publish(channel, envelope(1, "lo <b>", updates=6))
    row = console.rows.nth(1)
    expect(row.locator(".tail")).to_have_text("Hello <b>")
    expect(row.locator(".tag").last).to_have_attribute("title", "4.5 updates per publish")
    expect(row.locator(".attempts")).to_have_text("2")
    expect(console.rows).to_have_count(3)
    row.click()
    expect(console.detail).to_contain_text("9 updates in 2 publishes: 4.5 each")
    expect(console.detail).to_contain_text("Text so far 9 characters")
    expect(console.detail.locator("pre")).to_have_text("Hello <b>")
    own.publish(channel, envelope(3, "!", updates=1))
    own.publish(channel, envelope(3, "!", updates=1))
    expect(console.detail.locator("pre")).to_have_text("Hello <b>!")
    expect(console.detail).to_contain_text("Number 2. Were they rejected, or not sent?")
    expect(row.locator(".said")).to_contain_text("1 gap")
    expect(row.locator(".said")).to_contain_text("1 duplicate")
    own.publish(channel, envelope(4, end=True, updates=0, error={"type": "TimeoutError"}))
    expect(row.locator(".status")).to_have_text("TimeoutError")
    expect(console.detail).to_contain_text("It ended with an error")
    console.list.focus()
    console.page.keyboard.press("ArrowRight")
    expect(console.rows).to_have_count(8)
    assert console.cells("operation")[1:7] == ["stream", *(f"publish {seq}" for seq in (4, 3, 3, 1, 0))]
    console.page.keyboard.press("ArrowDown")
    expect(console.detail.get_by_role("heading", name="Request")).to_be_visible()
    console.page.keyboard.press("ArrowLeft")
    console.page.keyboard.press("ArrowLeft")
    expect(console.rows).to_have_count(3)
    console.page.keyboard.press("Escape")
    console.page.get_by_label("Hide streams").check()
    expect(console.rows).to_have_count(2)
    assert console.cells("said") == ["after", "before"]


def test_stream_shows_progress_and_the_end_of_long_text(own: Api, console: Console, channel: str) -> None:
    own.publish(channel, envelope(0, {"done": 1, "of": 4}, merge="latest"))
    bar = console.rows.first.locator(".bar > span")
    expect(bar).to_have_attribute("style", "transform: scaleX(0.25);")
    own.publish(channel, envelope(1, 0.75, merge="latest"))
    expect(bar).to_have_attribute("style", "transform: scaleX(0.75);")
    own.publish(channel, envelope(2, {"step": "last"}, merge="latest"))
    expect(bar).to_have_count(0)
    expect(console.rows).to_have_count(1)
    own.publish("long", envelope(0, "beginning " + "x" * 600 + " end", stream=ID[::-1]))
    tail = console.rows.first.locator(".tail > span")
    expect(tail).to_have_text(re.compile("^x+ end$"))
    console.rows.first.click()
    expect(console.detail.locator("pre")).to_have_text(re.compile("^…x+ end$"))


# Panels


def test_panels_open_by_keys_and_leave_the_list_its_width(own: Api, console: Console) -> None:
    own.publish("first")
    expect(console.rows).to_have_count(1)
    width = console.rows.first.bounding_box()
    page = console.page
    console.list.focus()
    for key, name in PANELS.items():
        panel = console.panel(key)
        expect(panel).to_have_accessible_name(name)
        expect(page.locator("#openers button", has_text=name)).to_have_attribute("aria-expanded", "true")
        assert console.rows.first.bounding_box() == width
        assert page.evaluate("document.activeElement.closest('dialog') !== null")
        page.keyboard.press("Escape")
        expect(panel).to_be_hidden()
        expect(console.list).to_be_focused()
    # One at a time; in a field, keys are text.
    console.panel("t")
    page.keyboard.press("p")
    expect(page.get_by_role("dialog")).to_have_accessible_name("Publish")
    page.keyboard.type("fcts")
    expect(page.get_by_role("dialog").get_by_label("Channel")).to_have_value("fcts")
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_have_accessible_name("Keyboard shortcuts")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.locator("#openers").get_by_text("Settings").click()
    page.get_by_role("dialog").get_by_role("button", name="Close").click()
    expect(page.get_by_role("dialog")).to_have_count(0)


@pytest.mark.parametrize(
    ("where", "boxes", "subscription"),
    [
        ("Scoped, by module and product context", [], {}),
        ("Scoped, by context overrides", ["issue"], {"context_overrides": ["issue"]}),
        ("Scoped, by context overrides", [], {"context_overrides": []}),
        ("Global", [], {"is_global": True}),
    ],
)
def test_publish_panel_reaches_a_real_subscriber(
    own: Api, console: Console, channel: str, where: str, boxes: list[str], subscription: dict[str, Any]
) -> None:
    own.emulator.register(**CONTEXTS)
    token = own.sign(channel, {"team": "red"})
    with own.emulator.subscribe(channel, invocation="invocation-123", token=token, **subscription) as subscriber:
        form = console.panel("p")
        console.page.keyboard.type(channel)
        form.get_by_label("Payload").fill('{"moved": 7}\n')
        form.get_by_label(where).check()
        for box in boxes:
            form.get_by_label(box, exact=True).check()
        form.get_by_label("As the page of invocation").select_option("invocation-123")
        form.get_by_label("Token").fill(token)
        console.page.keyboard.press("Enter")
        received = subscriber.receive(timeout=15)
        assert received.payload == '{"moved": 7}\n'
        expect(form.locator("output")).to_have_text(f"Published as event {received.event_id}.")
    expect(console.rows.first.locator(".delivered")).to_have_text("1")


def test_publish_panel_shows_what_became_of_it(own: Api, console: Console, channel: str) -> None:
    console.expected = REFUSED
    form = console.panel("p")
    publish = form.get_by_role("button", name="Publish")
    form.get_by_label("Channel").fill(channel)
    publish.click()
    expect(form.locator("output")).to_have_text("Published. Nobody was subscribed.")
    form.get_by_label("Token").fill("nonsense")
    publish.click()
    expect(form.locator("output")).to_contain_text("INVALID_TOKEN: ")


def test_faults_panel_arms_every_kind_of_fault(own: Api, console: Console, channel: str) -> None:
    panel = console.panel("f")
    armed = panel.get_by_role("listitem")
    only = {"operation": "publish", "channel": channel, "installation": "default-installation"}
    panel.get_by_label("Only for operation").select_option("publish")
    panel.get_by_label("Only for channel").fill(channel)
    panel.get_by_label("Only for installation").fill("default-installation")
    described = f", only operation publish, only channel {channel}, only installation default-installation"
    panel.get_by_label("Retry-After").fill("7")
    panel.get_by_label("Times").fill("2")
    panel.get_by_role("button", name="Add fault").click()
    expect(armed).to_have_text(f"status 503, Retry-After 7, 2 times{described}")
    expect(console.facts).to_contain_text("1 fault armed")
    assert own.publish_global(channel).status_code == 200
    response = own.publish(channel)
    assert (response.status_code, response.headers["retry-after"]) == (503, "7")
    expect(armed).to_have_text(f"status 503, Retry-After 7{described}")
    assert own.publish(channel).status_code == 503
    expect(panel.get_by_text("None: every call gets its own response.")).to_be_visible()
    kinds: list[tuple[str, dict[str, Any], str]] = [
        ("a status", {"status": 503, "delivered": True}, "status 503, 0.5 s late, carried out all the same"),
        ("a reset connection", {"answer": "reset", "delivered": True}, "reset connection, 0.5 s late, carried out"),
        ("a truncated body", {"answer": "truncated", "delivered": True}, "truncated body, 0.5 s late, carried out"),
        ("a body that is not JSON", {"answer": "not-json", "delivered": True}, "body that is not JSON, 0.5 s late"),
        ("their own response, late", {}, "its own response, 0.5 s late"),
    ]
    panel.get_by_label("Times").fill("1")
    panel.get_by_label("Retry-After").fill("")
    panel.get_by_label("Delay").fill("0.5")
    panel.get_by_label("Carried out all the same").check()
    for number, (kind, _, text) in enumerate(kinds):
        panel.get_by_label("They get").select_option(kind)
        panel.get_by_role("button", name="Add fault").click()
        expect(armed).to_have_count(number + 1)
        expect(armed.nth(number)).to_contain_text(text)
    expect(panel.get_by_label("Carried out all the same")).to_be_hidden()
    waiting = own.get("/_emulator/state").json()["faults"]
    assert waiting == [{"times": 1, "delay": 0.5, **fault, **only} for _, fault, _ in kinds]
    panel.get_by_role("button", name="Clear all faults").click()
    expect(armed).to_have_count(0)
    assert own.publish(channel).status_code == 200


def test_chaos_is_shown_while_it_is_on_and_is_repeated_by_its_seed(own: Api, console: Console) -> None:
    own.emulator.change(limit=None)
    panel = console.panel("f")
    panel.get_by_text("Chaos: some, at random").click()
    panel.get_by_label("Probability").fill("30")
    panel.get_by_label("Seed").fill("7")
    panel.get_by_label("Only for operation").select_option("publish")
    runs = []
    for _ in range(2):
        panel.get_by_role("button", name="Add fault").click()
        expect(panel.get_by_role("listitem")).to_have_text(
            "30 % of calls, seed 7, status 503, only operation publishchaos"
        )
        expect(console.facts).to_contain_text("Chaos 30 %, seed 7")
        runs.append([own.publish("c", str(number)).status_code for number in range(40)])
        panel.get_by_role("button", name="Clear all faults").click()
        expect(console.facts).not_to_contain_text("Chaos")
    assert runs[0] == runs[1]
    assert 3 < runs[0].count(503) < 25
    expect(console.rows.first).to_be_visible()


def test_contexts_panel_shows_subscribers_rates_and_contexts(
    own: Api, console: Console, channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own.emulator.register(**CONTEXTS)
    panel = console.panel("c")
    expect(panel.get_by_text("Nobody is subscribed.")).to_be_visible()
    token = own.sign(channel, {"team": "red"})
    with own.emulator.subscribe(channel, is_global=True, token=token), own.emulator.subscribe(channel):
        items = panel.get_by_role("list", name="Subscribers").get_by_role("listitem")
        expect(items).to_have_count(2)
        expect(items.first).to_contain_text('globalinstallation i-acmetoken with claims {"team":"red"}')
        expect(console.facts).to_contain_text("2 subscribers")
    expect(items).to_have_count(0)
    rates = panel.get_by_role("list", name="Operations per second")
    with monkeypatch.context() as frozen:
        frozen.setattr("forge_realtime_emulator._platform.clock.Clock.now", lambda _: 1_700_000_000.0)
        for _ in range(3):
            own.publish(channel)
        expect(rates.get_by_role("listitem").first).to_have_text("i-acme3 of 50")
        expect(console.facts).to_contain_text("3 of 50 /s")
    panel.get_by_label("Invocation id").fill("invocation-9")
    panel.get_by_label("Installation").fill("i-9")
    panel.get_by_label("Product context").fill("no JSON")
    panel.get_by_role("button", name="Register").click()
    expect(panel.locator("output")).to_contain_text("The product context is not JSON.")
    panel.get_by_label("Product context").fill('{"issue": "DEMO-9"}')
    panel.get_by_label("Came from a UI").uncheck()
    panel.get_by_role("button", name="Register").click()
    expect(panel.locator("output")).to_have_text("Registered invocation-9.")
    expect(panel.get_by_role("list", name="Registered").get_by_role("listitem")).to_have_text(
        [
            re.compile("^defaultinstallation i-acmemodule board-panel .*project DEMO"),
            re.compile("^invocation-9installation i-9module board-panel .*issue DEMO-9not from a UI"),
            re.compile("^invocation-nightlyinstallation i-globexmodule nightly .*not from a UI"),
            re.compile("^invocation-123installation i-acmemodule issue-panel .*issue DEMO-42account adafrom a UI"),
        ]
    )


def test_invocations_of_pages_are_grouped(own: Api, console: Console, client: httpx.Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        service = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with Emulator(contexts={"invocations": {"panel": {"module": "panel"}}}, service=service) as emulator:
        for invocation in ({}, {"invocation": "panel"}, {}):
            call = {"path": "/jobs", "method": "POST", **invocation}
            client.post(f"{emulator.url}/_emulator/invoke", json=call)
        other = Console(console.page, emulator.url).open()
        expect(other.rows).to_have_count(3)
        panel = other.panel("c")
        expect(panel.get_by_role("list", name="Registered").get_by_role("listitem")).to_have_text(
            [
                re.compile("^defaultinstallation "),
                re.compile("^2 invocations of pagesthe last invocation-.*module default-module"),
                re.compile("^1 invocation of pagesthe last invocation-.*module panel"),
                re.compile("^panelinstallation "),
            ]
        )
        console.page.keyboard.press("Escape")
        offered = other.panel("p").get_by_label("As the page of invocation").locator("option")
        expect(offered).to_have_text(["the default context", "panel"])
    console.expected = UNREACHABLE


def test_clock_is_put_forward(own: Api, console: Console, channel: str) -> None:
    token = own.sign(channel)
    panel = console.panel("t")
    expect(panel.get_by_text("with the wall clock")).to_be_visible()
    panel.get_by_role("button", name="+1 h").click()
    panel.get_by_label("Seconds").fill("90")
    panel.get_by_role("button", name="Put forward").click()
    expect(panel.locator("output")).to_have_text("Put forward by 1 min 30 s.")
    expect(panel.locator("#now")).to_contain_text("1 h 1 min ahead of the wall clock")
    expect(console.facts).to_contain_text("Clock +1 h 1 min")
    assert "TOKEN_EXPIRED" in own.publish(channel, token=token).text


def test_each_setting_is_changed(own: Api, console: Console) -> None:
    console.expected = REFUSED
    panel = console.panel("s")
    shown: dict[str, Any] = {}
    for setting in dataclasses.fields(Settings):
        field = panel.locator(f"#setting-{setting.name}")
        before = own.emulator._sidecar.settings
        if setting.type == "bool":
            field.click()
            shown[setting.name] = not getattr(before, setting.name)
        else:
            field.fill("17")
            field.press("Enter")
            shown[setting.name] = 17
        expect(panel.locator(f".setting:has(#setting-{setting.name}) .tag")).to_be_visible()
        expect(panel.locator("form output")).to_contain_text(f"{setting.name} is ")
    assert dataclasses.asdict(own.emulator._sidecar.settings) == shown
    field = panel.get_by_label("Limit", exact=True)
    field.fill("")
    field.press("Enter")
    expect(panel.locator("form output")).to_have_text("limit is none.")
    expect(console.facts).to_contain_text("0 /s")
    field.fill("0")
    field.press("Enter")
    expect(panel.locator("form output")).to_contain_text("INVALID_REQUEST")


# Filters


def test_filters_are_in_the_address_and_can_be_shared(own: Api, console: Console) -> None:
    own.emulator.register(**CONTEXTS)
    with own.emulator.subscribe("heard", is_global=True):
        own.publish_global("heard", '{"answer": 42}')
        own.publish_global("unheard", "x" * 400 + " needle")
        own.publish("refused", authorization="Forge installationId=i-1")
        own.publish("other", "429", authorization="Forge id=invocation-123")
        own.publish_global("nightly", authorization="Forge id=invocation-nightly")
        own.sign("signed")
        own.emulator.fail_next(status=429)
        own.publish("limited")
        own.emulator.fail_next(answer="reset")
        with pytest.raises(httpx.TransportError):
            own.publish("lost")
        own.publish("stream", envelope(0, "text"))
    everything = ["stream", "lost", "limited", "signed", "nightly", "other", "refused", "unheard", "heard"]
    expect(console.rows).to_have_count(len(everything))
    assert console.cells("channel") == everything
    page = console.page
    filters = page.locator("#filters")
    choices: list[tuple[str, str, list[str], str]] = [
        ("Status", "4xx", ["limited"], "status=4xx"),
        ("Status", "No response", ["lost"], "status=reset"),
        ("Status", "Failed", ["lost", "limited", "refused"], "status=failed"),
        ("Operation", "sign_realtime_token", ["signed"], "operation=sign_realtime_token"),
        ("Operation", "stream", ["stream"], "operation=stream"),
        ("Channel", "heard", ["heard"], "channel=heard"),
        ("Installation", "i-globex", ["nightly"], "installation=i-globex"),
        ("Delivered", "Delivered", ["heard"], "delivered=true"),
        ("Delivered", "Reached nobody", ["stream", "nightly", "other", "unheard"], "delivered=false"),
    ]
    for label, choice, found, view in choices:
        filters.get_by_label(label, exact=True).select_option(choice)
        expect(console.rows.locator(".channel")).to_have_text(found)
        assert page.url == f"{own.emulator.url}/#{view}"
        page.locator("#unfilter").click()
        expect(console.rows).to_have_count(len(everything))
        assert page.url == f"{own.emulator.url}/"
    texts = {
        'ANSWER": 42': ["heard"],
        "NEEDLE": ["unheard"],
        "RATE_LIMIT": ["limited"],
        "unheard": ["unheard"],
        '"429"': ["limited", "other"],
    }
    for text, found in {**texts, "429": ["limited"], "5xx": [], "2xx": [everything[0], *everything[3:]]}.items():
        page.get_by_label("Filter by text").fill(text)
        expect(console.rows.locator(".channel")).to_have_text(found)
    page.get_by_label("Filter by text").fill("")
    page.get_by_label("Hide streams").check()
    filters.get_by_label("Delivered", exact=True).select_option("Reached nobody")
    filters.get_by_label("Installation").select_option("i-acme")
    expect(console.open_detail("other").get_by_role("heading", name="other")).to_be_visible()
    page.wait_for_url("**/#*call=*")
    view = page.url.partition("/#")[2]
    console.open(f"#{view}")
    expect(console.detail.get_by_role("heading", name="other")).to_be_visible()
    assert console.cells("channel") == ["other", "unheard"]
    expect(page.get_by_label("Hide streams")).to_be_checked()
    page.evaluate("location.hash = 'channel=heard'")
    expect(console.rows).to_have_count(1)


# Connection


def test_address_with_unknown_names_leaves_the_console_usable(own: Api, console: Console) -> None:
    own.publish("x")
    for view in ("#status=__proto__", "#status=constructor", "#operation=__proto__&channel=<script>", "#call=9e99&%%%"):
        console.open(view)
        expect(console.count).to_have_text("1 row" if "call" in view else "0 of 1 row")


def test_ten_tabs_work_and_a_hidden_one_costs_nothing(browser: Browser, own: Api) -> None:
    """A browser opens six connections to one host, for all its tabs together."""
    ask = "fetch('/_emulator/state', {signal: AbortSignal.timeout(10000)}).then((response) => response.status)"
    hide = """(hidden) => {
        Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});
        document.dispatchEvent(new Event('visibilitychange'));
    }"""
    readers = own.emulator._sidecar.feed._readers
    with closing(browser.new_context()) as context:
        pages = [context.new_page() for _ in range(10)]
        for page in pages:
            page.goto(own.emulator.url)
            expect(page.locator("#connection")).to_have_text("Connected")
        assert [page.evaluate(ask) for page in pages] == [200] * 10
        own.publish("to-all")
        for page in pages:
            expect(page.locator("#rows")).to_contain_text("to-all")
        assert len(readers) == 10
        for page in pages[1:]:
            page.evaluate(hide, arg=True)
        expect(pages[1].locator("#connection")).to_have_text("Waiting")
        pages[0].wait_for_function("async () => (await fetch('/_emulator/state')).ok")
        for _ in range(100):
            if len(readers) == 1:
                break
            pages[0].wait_for_timeout(50)
        assert len(readers) == 1
        own.publish("meanwhile")
        expect(pages[0].locator("#rows")).to_contain_text("meanwhile")
        assert "meanwhile" not in (pages[1].locator("#rows").text_content() or "")
        pages[1].evaluate(hide, arg=False)
        expect(pages[1].locator("#connection")).to_have_text("Connected")
        expect(pages[1].locator("#rows .row:not([hidden])")).to_have_count(2)


def test_console_comes_back_after_a_restart(
    console: Console, api_of: Callable[[Emulator], Api], own: Api, channel: str
) -> None:
    console.expected = UNREACHABLE
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    emulator = Emulator(port=port)
    emulator.start()
    other = Console(console.page, emulator.url).open()
    api_of(emulator).publish(channel)
    expect(other.rows).to_have_count(1)
    other.page.get_by_role("button", name="Clear", exact=True).click()
    expect(other.rows).to_have_count(0)
    api_of(emulator).publish("second")
    expect(other.rows).to_have_count(1)
    emulator.stop()
    expect(other.connection).to_have_text("Disconnected, retrying")
    expect(other.rows).to_have_count(1)
    form = other.panel("p")
    form.get_by_label("Channel").fill(channel)
    form.get_by_role("button", name="Publish").click()
    expect(form.locator("output")).to_have_text("The emulator did not respond. Is it running?")
    # As a new process: nothing of before, and the numbers begin anew.
    with Emulator(port=port) as emulator:
        expect(other.connection).to_have_text("Connected")
        expect(other.rows).to_have_count(0)
        api_of(emulator).publish("after")
        expect(other.rows).to_have_count(1)
        assert other.cells("channel") == ["after"]
        other.page.goto("about:blank")


def test_page_of_another_origin_uses_up_nothing(browser: Browser, own: Api) -> None:
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
        state = own.get("/_emulator/state").json()
        assert (state["channels"], state["rates"]) == ([], {})
        # The person can still follow a link to the console.
        page.evaluate(f"location.href = '{url}'")
        expect(page.locator("#connection")).to_have_text("Connected")


# For everybody


def test_axe_finds_nothing_in_any_state(own: Api, console: Console, axe: str) -> None:
    own.emulator.register(**CONTEXTS)
    page = console.page
    page.emulate_media(color_scheme="light", reduced_motion="reduce")
    page.evaluate(axe)

    def findings(**options: Any) -> list[str]:
        found = page.evaluate("options => axe.run(document, options)", {"resultTypes": ["violations"], **options})
        return [f"{one['id']}: {one['nodes'][0]['failureSummary']}" for one in found["violations"]]

    assert findings() == []
    with own.emulator.subscribe("moves"):
        own.publish("moves", '{"a": [1, null, "x"]}')
        own.emulator.fail_next(status=429)
        own.publish("limited")
        own.publish("unheard", contextOverrides=["issue"])
        own.publish("answer", envelope(0, "text"))
        own.publish("import", envelope(0, {"done": 1, "of": 2}, merge="latest", stream=ID[::-1]))
        expect(console.rows).to_have_count(5)
        own.emulator.fail_next(status=429, probability=0.1, seed=7)
        # Each panel beside the details of another kind.
        for key, channel in zip(PANELS, ("moves", "limited", "unheard", "answer", "import"), strict=True):
            expect(console.open_detail(channel).get_by_role("heading", name=channel)).to_be_visible()
            console.panel(key)
            page.emulate_media(color_scheme="light", reduced_motion="reduce")
            assert findings() == [], key
            page.emulate_media(color_scheme="dark", reduced_motion="reduce")
            assert findings(runOnly=["color-contrast"]) == [], key
            page.keyboard.press("Escape")
        page.keyboard.press("?")
        assert findings() == []
    page.emulate_media(color_scheme="no-preference", reduced_motion="no-preference")


def test_page_says_what_it_is(console: Console) -> None:
    page = console.page
    expect(page).to_have_title("Forge Realtime emulator")
    assert page.evaluate("document.documentElement.lang") == "en"
    for name in ("viewport", "description", "color-scheme"):
        assert page.locator(f"meta[name={name}]").get_attribute("content")
    expect(page.get_by_role("heading", level=1)).to_have_count(1)
    for landmark in ("banner", "main", "search", "navigation"):
        expect(page.get_by_role(landmark)).to_have_count(1)


def test_everything_is_reached_by_tab_in_its_order_with_visible_focus(own: Api, console: Console) -> None:
    own.publish("first", '{"a": {"b": 1}}')
    expect(console.rows).to_have_count(1)
    page = console.page
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Response")).to_be_visible()
    every = """() => [...document.querySelectorAll('a, button, input, select, textarea, summary, [tabindex="0"]')]
        .filter((node) => node.checkVisibility() && !node.disabled && !node.closest('dialog:not([open])'))
        .map((node, index) => node.dataset.test = String(index))"""
    wanted = page.evaluate(every)
    assert len(wanted) > 25
    reached = []
    focused = """() => {
        const node = document.activeElement;
        const box = node.getBoundingClientRect();
        const style = getComputedStyle(node);
        const ring = node.id === 'calls' ? getComputedStyle(node.querySelector('[aria-selected=true]')) : style;
        const isInView = box.bottom > 0 && box.top < innerHeight;
        return [node.dataset.test, ring.outlineStyle, isInView];
    }"""
    page.locator("#skip").focus()
    for number in range(len(wanted)):
        if number:
            page.keyboard.press("Tab")
        name, outline, is_in_view = page.evaluate(focused)
        reached.append(name)
        assert outline in ("solid", "auto")
        assert is_in_view
    assert reached == wanted


def test_list_works_by_keyboard_alone(own: Api, console: Console) -> None:
    own.emulator.change(limit=None)
    for number in range(40):
        own.publish(f"channel-{number}", authorization=f"Forge id={number}")
    expect(console.count).to_have_text("40 rows")
    page = console.page
    page.keyboard.press("ArrowDown")
    active = page.locator("#calls [aria-selected=true]")
    expect(active).to_contain_text("channel-39")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(console.detail.get_by_role("heading", name="channel-38")).to_be_visible()
    expect(console.list).to_be_focused()
    page.keyboard.press("End")
    expect(console.detail.get_by_role("heading", name="channel-0")).to_be_visible()
    expect(active).to_be_in_viewport()
    page.keyboard.press("PageUp")
    page.keyboard.press("Home")
    expect(console.detail.get_by_role("heading", name="channel-39")).to_be_visible()
    page.keyboard.press("r")
    expect(console.rows).to_have_count(41 if console.rows.count() > 40 else console.rows.count())
    expect(console.count).to_have_text("41 rows")
    page.keyboard.press("Escape")
    expect(console.detail).to_be_hidden()
    page.keyboard.press("/")
    page.keyboard.type("channel-7")
    expect(console.count).to_have_text("1 of 41 rows")
    page.keyboard.press("Escape")
    expect(console.count).to_have_text("41 rows")
    page.keyboard.press("Escape")
    expect(console.list).to_be_focused()


def test_nothing_overflows_the_window(own: Api, console: Console) -> None:
    # Names without a place for a line break.
    own.emulator.register(invocations={LONG: {"installation": LONG, "module": LONG, "context": {"issue": LONG}}})
    own.emulator.fail_next(5, status=503, operation="publish", channel=LONG, installation=LONG)
    page = console.page
    within = """() => [...document.querySelectorAll('body *')].filter((node) => {
        const box = node.getBoundingClientRect();
        const isOutside = box.right > innerWidth + 0.5 || box.left < -0.5;
        return box.width && node.checkVisibility() && isOutside && !node.closest('.row, .skip, .unseen, #facts, .tail');
    }).map((node) => node.outerHTML.slice(0, 80))"""
    with own.emulator.subscribe(LONG, token=own.sign(LONG, {LONG: LONG}), invocation=LONG):
        own.publish_global(LONG, json.dumps({LONG: [LONG]}), authorization=f"Forge id={LONG}")
        own.publish(LONG, LONG, authorization=f"Forge as=user,id={LONG},accountId={LONG}")
        own.publish(LONG, envelope(0, LONG, stream=LONG))
        own.publish(LONG, envelope(9, end=True, error={"type": LONG, "message": LONG}, stream=LONG))
        for width in (320, 390, 768, 1024, 1440):
            page.set_viewport_size({"width": width, "height": 740})
            expect(console.rows).to_have_count(4)
            for index in range(3):
                console.rows.nth(index).click()
                expect(console.detail.get_by_role("heading", level=2)).to_be_visible()
                assert page.evaluate(within) == [], width
                page.keyboard.press("Escape")
            for key in PANELS:
                console.panel(key)
                assert page.evaluate(within) == [], (width, key)
                page.keyboard.press("Escape")
            assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")


def test_header_and_filters_fit_at_every_width(own: Api, console: Console) -> None:
    own.emulator.change(limit=None)
    names = [f"{name}-{number}-" * 10 for name in ("installation", "invocation") for number in range(4)]
    invocations = {name: {"installation": name, "module": name} for name in names}
    own.emulator.register(invocations=invocations)
    publish_many(own, 1200)
    for name in names:
        own.publish(name[:100], name, authorization=f"Forge id={name}")
        own.publish_global(name[:100], name, authorization=f"Forge id={name}")
        own.sign(name[:100])
    own.publish("answer", envelope(0, "text " * 40))
    own.emulator.advance(4000)
    own.emulator.fail_next(20, status=503, channel="nobody's")
    own.emulator.fail_next(status=503, probability=0.123, seed=1_234_567)
    page = console.page
    expect(console.facts).to_contain_text("seed 1234567")
    expect(console.count).to_have_text("1,225 rows")
    # What is outside the window or list, and what lies on something else.
    misplaced = """() => {
        const shown = [...document.querySelectorAll('header > *, nav > *, .head .row > *, #newer,'
            + '#filters :is(.find, select, .check, output, button)')].filter((node) => node.checkVisibility());
        const boxes = shown.map((node) => node.getBoundingClientRect());
        const outside = shown.filter((node, at) => {
            const bound = node.closest('#list')?.getBoundingClientRect().right ?? innerWidth;
            return boxes[at].left < 0 || boxes[at].right > bound + 0.5;
        });
        const covering = shown.filter((node, at) => node.id !== 'newer' && boxes.some((box, other) => other < at
            && shown[other].id !== 'newer' && !shown[other].contains(node)
            && Math.min(box.right, boxes[at].right) - Math.max(box.left, boxes[at].left) > 1
            && Math.min(box.bottom, boxes[at].bottom) - Math.max(box.top, boxes[at].top) > 1));
        const isWide = document.documentElement.scrollWidth > innerWidth;
        return [...outside, ...covering, ...(isWide ? [document.documentElement] : [])].map(
            (node) => node.id || node.name || node.className || node.tagName);
    }"""

    def find_misplaced() -> dict[int, list[str]]:
        found = {}
        for width in range(320, 1701, 30):
            page.set_viewport_size({"width": width, "height": 740})
            if names := page.evaluate(misplaced):
                found[width] = names
        return found

    assert find_misplaced() == {}
    # With all that the bar of filters and the list can show, then beside the details of a call.
    console.list.evaluate("list => (list.scrollTop = 1000)")
    publish_many(own, 30)
    expect(page.get_by_role("button", name="30 newer")).to_be_visible()
    page.locator("#pause").click()
    publish_many(own, 600)
    expect(page.locator("#pause")).to_have_text("Resume (600 new)")
    page.locator("#filters [name=channel]").select_option(names[0][:100])
    expect(page.get_by_role("button", name="Reset", exact=True)).to_be_visible()
    assert find_misplaced() == {}
    console.rows.first.click()
    expect(console.detail).to_be_visible()
    assert find_misplaced() == {}


def test_narrow_window_shows_filters_on_demand(own: Api, console: Console) -> None:
    own.publish("first")
    console.page.set_viewport_size({"width": 390, "height": 844})
    expect(console.page.locator("#filters [name=status]")).to_be_hidden()
    console.page.get_by_role("button", name="Filters").click()
    expect(console.page.locator("#filters [name=status]")).to_be_visible()
    own.publish("second")
    expect(console.rows).to_have_count(2)
    for width, height in ((1280, 28), (390, 46)):
        console.page.set_viewport_size({"width": width, "height": 844})
        expect(console.rows.last).to_have_css("height", f"{height}px")
        expect(console.rows.last).to_have_css("transform", f"matrix(1, 0, 0, 1, 0, {height})")
    console.open_detail("first")
    assert console.detail.bounding_box() == {"x": 0, "y": 0, "width": 390, "height": 844}


def test_colours_and_motion_are_those_that_the_person_prefers(own: Api, console: Console) -> None:
    page = console.page
    colours = {}
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        colours[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert colours == {"light": "rgb(255, 255, 255)", "dark": "rgb(23, 26, 33)"}
    motions: list[tuple[Literal["no-preference", "reduce"], str]] = [("no-preference", "arrive"), ("reduce", "none")]
    for motion, animation in motions:
        page.emulate_media(color_scheme="no-preference", reduced_motion=motion)
        own.publish(motion)
        expect(console.row(motion)).to_have_css("animation-name", animation)
    page.emulate_media(reduced_motion="no-preference")
