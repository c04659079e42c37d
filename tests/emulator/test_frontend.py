"""Each function of the official `@forge/bridge` beside Realtime, in Chromium and in jsdom."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import ConsoleMessage, Error, Page, expect

from forge_realtime_emulator import Emulator
from tests.emulator.site import Site
from tests.support.web_servers import AsgiServer

# Installing the packages of the front end takes a while.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def emulator(site: Site) -> Iterator[Emulator]:
    with Emulator(origins=[site.origin]) as emulator:
        yield emulator


@pytest.fixture
def path(site: Site, emulator: Emulator) -> str:
    emulator.reset()
    return site.page(f"{emulator.url}/bridge.js")


@pytest.fixture
def page(site: Site, path: str, open_page: Callable[[str], Page]) -> Page:
    return open_page(site.origin + path)


def run(page: Page, script: str, argument: Any = None) -> Any:
    """Run a script in which `b` is @forge/bridge."""
    return page.evaluate(f"(argument) => {{ const b = window.bridge; return {script}; }}", argument)


def console(page: Page, script: str) -> ConsoleMessage:
    """Run a script that writes to the console, and return the message."""
    with page.expect_console_message() as message:
        run(page, script)
    return message.value


def test_theme_follows_the_system(page: Page) -> None:
    root = page.locator("html")
    page.emulate_media(color_scheme="dark")
    run(page, "b.view.theme.enable()")
    expect(root).to_have_attribute("data-color-mode", "dark")
    page.emulate_media(color_scheme="light")
    expect(root).to_have_attribute("data-color-mode", "light")
    expect(root).to_have_attribute("data-theme", "dark:dark light:light spacing:spacing typography:typography")


def test_history_is_kept_in_the_address_and_survives_a_reload(page: Page) -> None:
    heard = """(async () => {
        window.app = await b.view.createHistory();
        window.heard = [];
        window.stop = window.app.listen((location, action) => window.heard.push([location.pathname, action]));
    })()"""
    run(page, heard)
    assert run(page, "window.app.location.pathname") == "/"
    run(page, "window.app.push('/items/1?tab=a#top', { from: 'list' })")
    location = run(page, "window.app.location")
    assert {**location, "key": ""} == {
        "pathname": "/items/1",
        "search": "?tab=a",
        "hash": "#top",
        "state": {"from": "list"},
        "key": "",
    }
    run(page, "window.app.push({ pathname: '/items/2' })")
    run(page, "window.app.replace('3')")
    assert page.url.partition("#")[2] == "/items/3"
    run(page, "window.app.goBack()")
    page.wait_for_function("window.heard.length === 4")
    assert run(page, "window.heard") == [
        ["/items/1", "PUSH"],
        ["/items/2", "PUSH"],
        ["/items/3", "REPLACE"],
        ["/items/1", "POP"],
    ]
    assert run(page, "window.app.location.state") == {"from": "list"}
    run(page, "window.stop()")
    run(page, "window.app.go(1)")
    page.wait_for_function("window.app.location.pathname === '/items/3'")
    assert run(page, "window.heard.length") == 4
    page.reload()
    run(page, heard)
    assert run(page, "window.app.location.pathname") == "/items/3"


def test_navigation_is_logged(page: Page) -> None:
    message = console(page, "b.router.navigate('/browse/DEMO-1')")
    assert message.text == "[emulated] router: the product would show /browse/DEMO-1."
    message = console(page, "b.router.open({ target: 'issue', issueKey: 'DEMO-1' })")
    assert message.text == (
        "[emulated] router: the product would show https://emulated.invalid/issue?issueKey=DEMO-1 in a new tab."
    )
    url = run(page, "b.router.getUrl({ target: 'dashboard', dashboardId: '7' }).then((url) => url.href)")
    assert url == "https://emulated.invalid/dashboard?dashboardId=7"
    with page.expect_navigation():
        run(page, "void b.router.reload()")


@pytest.mark.parametrize("kind", ["", "Public"])
def test_events_reach_all_frames_of_the_page(page: Page, path: str, kind: str) -> None:
    page.evaluate(
        """path => new Promise((resolve) => {
            const frame = document.body.appendChild(document.createElement("iframe"));
            frame.src = path;
            frame.onload = resolve;
        })""",
        path,
    )
    inner = page.frames[1]
    heard = f"""async () => {{
        window.heard = [];
        window.subscription = await window.bridge.events.on{kind}("saved", (event) => window.heard.push(event));
    }}"""
    for frame in (page, inner):
        frame.evaluate(heard)
    run(page, f"b.events.emit{kind}('saved', {{ a: [1], file: new Blob(['x']) }})")
    inner.evaluate(f"window.bridge.events.emit{kind}('saved')")
    run(page, f"b.events.emit{kind}('other', 1)")
    run(page, f"b.events.emit{'' if kind else 'Public'}('saved', 1)")
    for frame in (page, inner):
        assert frame.evaluate("window.heard.map((event) => event?.a)") == [[1], None]
        assert frame.evaluate("window.heard[0].file.constructor.name") == "Blob"
    run(page, "window.subscription.unsubscribe()")
    run(page, f"b.events.emit{kind}('saved')")
    assert page.evaluate("window.heard.length") == 2
    assert inner.evaluate("window.heard.length") == 3


def test_flag_is_shown_until_it_is_closed(page: Page) -> None:
    page.clock.install()
    run(
        page,
        """{
            window.flag = b.showFlag({
                id: "saved", title: "Saved", description: "All is well", appearance: "success",
                actions: [{ text: "Undo", onClick: () => (window.undone = true) }],
            })
        }""".strip("{} \n"),
    )
    flag = page.get_by_role("alert")
    expect(flag).to_contain_text("Saved")
    expect(flag).to_contain_text("All is well")
    flag.get_by_role("button", name="Undo").click()
    assert page.evaluate("window.undone") is True
    assert run(page, "window.flag.close()") is True
    expect(flag).to_have_count(0)

    # A flag with the same id replaces the earlier one.
    run(page, "void b.showFlag({ id: 1, title: 'one' })")
    run(page, "void b.showFlag({ id: 1, title: 'two' })")
    expect(flag).to_contain_text("two")
    expect(flag).to_have_count(1)
    flag.get_by_role("button", name="Close").click()
    expect(flag).to_have_count(0)
    run(page, "void b.showFlag({ id: 1, title: 'short', isAutoDismiss: true })")
    expect(flag).to_have_count(1)
    page.clock.run_for(8_000)
    expect(flag).to_have_count(0)


@pytest.mark.parametrize("function", ["submit", "close", "open", "refresh", "emitReadyEvent"])
def test_request_to_the_product_is_logged(page: Page, function: str) -> None:
    message = console(page, f"b.view.{function}({{ secret: 'hidden' }})")
    assert message.text.startswith(f"[emulated] view.{function}(): the product ")
    assert "secret" not in message.text
    assert "hidden" not in message.text


def test_on_close_is_called_when_the_view_closes(page: Page) -> None:
    run(page, "b.view.onClose(async () => { window.viewClosed = true; })")
    assert page.evaluate("window.viewClosed") is None
    run(page, "b.view.close()")
    assert page.evaluate("window.viewClosed") is True


def test_window_title_is_changed(page: Page) -> None:
    run(page, "b.view.changeWindowTitle('Board')")
    expect(page).to_have_title("Board")


def test_translations_are_those_of_the_site(site: Site, page: Page) -> None:
    info = {"config": {"locales": ["en-US", "de-DE"], "fallback": {"default": "en-US"}}}
    site.write("__LOCALES__/i18n-info.json", json.dumps(info))
    site.write("__LOCALES__/en-US.json", '{"hello": "Hello"}')
    site.write("__LOCALES__/de-DE.json", '{"hello": "Hallo"}')
    assert run(page, "b.i18n.getTranslations()") == {"locale": "en-US", "translations": {"hello": "Hello"}}
    assert run(page, "b.i18n.createTranslationFunction('de-DE').then((t) => [t('hello'), t('x', 'y')])") == [
        "Hallo",
        "y",
    ]


def test_modal_shows_a_page_with_its_context_and_returns_its_payload(page: Page) -> None:
    opening = """new b.Modal({
        title: "Edit", size: "small", context: { key: "DEMO-1" },
        onClose: (payload) => (window.returned = [payload]),
    }).open()"""
    run(page, opening)
    expect(page.get_by_role("dialog")).to_contain_text("Edit")
    modal = page.frames[1]
    modal.wait_for_function("window.bridge")
    assert modal.evaluate("window.bridge.view.getContext()")["extension"]["modal"] == {"key": "DEMO-1"}
    modal.evaluate("void setTimeout(() => window.bridge.view.close({ saved: 1 }))")
    page.wait_for_function("window.returned")
    assert page.evaluate("window.returned") == [{"saved": 1}]
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert "modal" not in run(page, "b.view.getContext()")["extension"]

    pressed = "void setTimeout(() => window.dispatchEvent(new KeyboardEvent('keydown', { key: 'Escape' })))"
    for closing in ("Escape", "Escape in the frame", "overlay"):
        page.evaluate("window.returned = undefined")
        run(page, opening)
        expect(page.get_by_role("dialog")).to_have_count(1)
        if closing == "overlay":
            page.mouse.click(5, 5)
        elif closing == "Escape in the frame":
            page.frames[1].wait_for_function("window.bridge")
            page.frames[1].evaluate(pressed)
        else:
            page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        assert page.evaluate("window.returned") == [None]
    run(page, "new b.Modal({ closeOnEscape: false, closeOnOverlayClick: false }).open()")
    page.keyboard.press("Escape")
    page.mouse.click(5, 5)
    expect(page.get_by_role("dialog")).to_have_count(1)


def test_modal_of_a_resource_needs_its_page(
    site: Site, emulator: Emulator, page: Page, path: str, open_page: Callable[[str], Page]
) -> None:
    with page.expect_console_message() as message, pytest.raises(Error, match="Unable to open modal"):
        run(page, "new b.Modal({ resource: 'editor' }).open()")
    assert 'data-resources=\'{"editor": "modal.html"}\'' in message.value.text
    resources = json.dumps({"editor": path})
    other = open_page(site.origin + site.page(f"{emulator.url}/bridge.js", resources=resources))
    run(other, "new b.Modal({ resource: 'editor' }).open()")
    other.wait_for_function("window.frames.length === 1 && window.frames[0].bridge")
    assert other.frames[1].url == site.origin + path


@pytest.mark.parametrize("product", ["Jira", "Confluence", "Bitbucket"])
def test_request_to_a_product_gets_the_mock_route(page: Page, emulator: Emulator, product: str) -> None:
    prefix = f"/{product.lower()}"
    emulator.mock("GET", f"{prefix}/rest/api/3/issue/{{key}}", json={"key": "DEMO-1"})
    emulator.mock("PUT", f"{prefix}/rest/api/3/issue/{{key}}", status=204)
    request = f"b.request{product}('/rest/api/3/issue/DEMO-1?expand=names', argument)"
    read = ".then(async (response) => [response.status, response.headers.get('content-type'), await response.text()])"
    assert run(page, request + read, {}) == [200, "application/json", '{"key":"DEMO-1"}']
    assert run(page, request + read, {"method": "PUT", "body": "{}"}) == [204, "application/json", ""]
    with page.expect_console_message(lambda message: "--mocks FILE" in message.text):
        status, _, text = run(page, request + read, {"method": "POST", "body": "{}"})
    assert status == 501
    assert f"POST {prefix}/rest/api/3/issue/DEMO-1" in json.loads(text)["message"]


def test_function_of_the_app_gets_the_mock_route(page: Page, emulator: Emulator) -> None:
    emulator.mock("POST", "/invoke/get-items", json=[1, 2])
    emulator.mock("POST", "/invoke/fails", status=500, json={"message": "It failed."})
    assert run(page, "b.invoke('get-items', { a: 1 })") == [1, 2]
    assert run(page, "b.invoke('get-items', {}, { rateLimitProperties: true })") == {"body": [1, 2], "metadata": {}}
    with pytest.raises(Error, match=r"It failed\."):
        run(page, "b.invoke('fails')")
    with pytest.raises(Error, match="does not carry out POST /invoke/other"):
        run(page, "b.invoke('other')")


def test_remote_gets_the_mock_route(page: Page, emulator: Emulator) -> None:
    emulator.mock("GET", "/remote/things", json={"a": 1})
    emulator.mock("POST", "/remote/backend/things", status=202, json={"b": 1})
    assert run(page, "b.invokeRemote({ path: '/things', method: 'GET' })") == {
        "status": 200,
        "headers": {"content-type": "application/json"},
        "body": {"a": 1},
    }
    missing = run(page, "b.invokeRemote({ path: '/other', method: 'GET' })")
    assert missing["status"] == 501
    assert "GET /remote/other" in missing["error"]
    request = "b.requestRemote('backend', { path: '/things', method: 'POST', body: '{}' })"
    assert run(page, f"{request}.then(async (response) => [response.status, await response.json()])") == [202, {"b": 1}]


def test_functions_without_a_product_say_so(page: Page) -> None:
    assert run(page, "b.rovo.isEnabled()") is False
    with pytest.raises(Error, match="Unable to open Rovo Chat"):
        run(page, "b.rovo.open({ type: 'default' })")
    assert run(page, "b.getCookieConsentPreferences?.() ?? null") is None


RECONCILE = """(count) => {
    window.votes ??= { count: 0 };
    const text = (key, text) => ({ type: "String", key, props: { text }, children: [] });
    const part = (type, key, props, ...children) => ({ type, key, props, children });
    const forgeDoc = part("Root", "root", {},
        part("Stack", "stack", { space: "space.200" },
            part("Heading", "heading", {}, text("title", "Votes")),
            part("Text", "count", {}, text("count-text", `Count: ${count}`)),
            part("Button", "button", { onClick: () => window.votes.count++, isDisabled: count === 2 },
                text("label", "Vote")),
            ...(count ? [part("Text", "thanks", {}, text("thanks-text", "Thank you"))] : []),
            part("ProgressBar", "bar", { value: count / 2 })));
    return window.__bridge.callBridge("reconcile", { forgeDoc });
}"""
"""Gives the bridge what the reconciler of @forge/react 12.3.1 gives: its document, with functions as they are."""


def test_ui_kit_draws_text_and_buttons(page: Page) -> None:
    logged: list[str] = []
    page.on("console", lambda message: logged.append(message.text))
    page.evaluate(RECONCILE, 0)
    expect(page.get_by_role("heading", name="Votes")).to_be_visible()
    expect(page.get_by_text("Count: 0")).to_be_visible()
    expect(page.get_by_text("Thank you")).to_have_count(0)
    button = page.get_by_role("button", name="Vote")
    button.click()
    assert page.evaluate("window.votes.count") == 1
    page.evaluate(RECONCILE, 1)
    expect(page.get_by_text("Count: 1")).to_be_visible()
    expect(page.get_by_text("Count: 0")).to_have_count(0)
    expect(page.get_by_text("Thank you")).to_be_visible()
    stack = page.locator("div", has=page.get_by_role("heading")).last
    assert stack.evaluate("(stack) => [stack.style.flexDirection, stack.style.gap]") == ["column", "16px"]
    page.evaluate(RECONCILE, 2)
    expect(button).to_be_disabled()
    assert [text.partition(".")[0] for text in logged] == ["The emulator does not draw UI Kit's ProgressBar"]


def test_ui_kit_keeps_the_focus_when_it_draws_again(page: Page) -> None:
    page.evaluate(RECONCILE, 0)
    button = page.get_by_role("button", name="Vote")
    button.focus()
    for count in (1, 0, 0):  # a text after the button comes and goes
        page.evaluate(RECONCILE, count)
        expect(page.get_by_text("Thank you")).to_have_count(count)
        expect(button).to_be_focused()


def test_jsdom_needs_no_polyfill(site: Site) -> None:
    async def app(_: Any, receive: Any, send: Any) -> None:
        await receive()
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 202, "headers": headers})
        await send({"type": "http.response.body", "body": b"{}"})

    mocks = [{"method": "POST", "path": "/invoke/key", "json": "mocked"}]
    with AsgiServer(app) as service, Emulator(origins=[site.origin], service=service.url, mocks=mocks) as emulator:
        page = site.page(f"{emulator.url}/bridge.js")
        printed = site.in_jsdom(Path(__file__).with_name("jsdom_page.js"), page)
    assert json.loads(printed) == {
        "fetch": "undefined",
        "payload": {"moved": 7},
        "heard": [1],
        "module": "default-module",
        "status": 202,
        "value": "mocked",
        "path": "/items/1",
        "theme": "light",
    }
