"""Pictures of the console for the documentation, with traffic of the real client. `make pictures` runs it."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import httpx
from playwright.sync_api import Browser, Page, expect

from forge_realtime import ForgeRealtimeError, RealtimeClient
from forge_realtime_emulator import Emulator
from tests.support.browser import open_browser

FOLDER = Path(__file__).parents[1] / "docs" / "pictures"
SIZE_LIMIT = 200_000
"""Largest picture, in bytes."""

CONTEXTS: dict[str, Any] = {
    "default": {"installation": "acme", "module": "board-panel", "context": {"project": "DEMO"}},
    "invocations": {
        "invocation-123": {"module": "issue-panel", "context": {"project": "DEMO", "issue": "DEMO-42"}},
        "invocation-nightly": {"installation": "globex", "module": "nightly", "fromUi": False},
    },
    "installations": ["acme", "globex"],
}
TEXT = (
    "The board has 42 open issues. Seven of them wait for a review, three are blocked by the migration of the payment"
    " service, and two have had no comment for a month. I would begin with DEMO-17: it blocks the other two."
)


@contextmanager
def busy_emulator() -> Iterator[Emulator]:
    """Run an emulator that has seen what an app does: moves, chat, tokens, streams, faults and mistakes."""
    with (
        Emulator(contexts=CONTEXTS) as emulator,
        RealtimeClient(base_url=emulator.url) as realtime,
        ExitStack() as subscriptions,
    ):
        issue = realtime.for_invocation({"x-forge-invocation-id": "invocation-123"})
        board = realtime.for_invocation({"x-forge-invocation-id": "invocation-7"})
        nightly = realtime.for_invocation({"x-forge-invocation-id": "invocation-nightly"})
        token = issue.sign_realtime_token("chat", {"room": "design"})
        listened: list[tuple[str, dict[str, Any]]] = [
            ("board-42", {}),
            ("board-42", {}),
            ("board-42", {}),
            ("issue", {"invocation": "invocation-123"}),
            ("chat", {"invocation": "invocation-123", "token": token}),
            ("news", {"is_global": True}),
            ("answer", {"invocation": "invocation-123"}),
            ("import", {"invocation": "invocation-123"}),
        ]
        for channel, options in listened:
            subscriptions.enter_context(emulator.subscribe(channel, **options))
        for card in range(1, 9):
            board.publish("board-42", {"moved": card, "from": "To do", "to": "In progress", "by": "ada"})
        issue.publish("chat", {"from": "ada", "text": "Shall we ship it?"}, token=token)
        with issue.stream("answer", interval=0.05) as stream:
            for word in TEXT.split(" "):
                stream.send(f"{word} ")
                time.sleep(0.005)
        issue.publish("issue", {"status": "In review", "assignee": {"name": "Grace", "id": "u-7"}, "votes": 3})
        emulator.fail_next(2, status=503, delay=0.05)
        board.publish("board-42", {"moved": 9, "from": "In progress", "to": "Done", "by": "grace"})
        board.publish("Board-42", {"moved": 10, "from": "In progress", "to": "Done", "by": "grace"})
        with contextlib.suppress(ForgeRealtimeError):
            nightly.publish("news", "nightly build is green")
        realtime.for_installation("globex").publish_global("news", "nightly build is green")
        for seq, done in enumerate((120, 480, 800)):
            state = {"done": done, "of": 1200, "step": "Importing issues"}
            envelope = {"forgeStream": 1, "stream": "5c" * 16, "seq": seq, "merge": "latest", "data": state}
            issue.publish("import", json.dumps({**envelope, "updates": 40, "end": False}))
        realtime.for_installation("acme").publish_global("news", {"headline": "Version 3 is out", "url": "/news/3"})
        issue.publish("board-42", {"note": "for this issue only"}, context_overrides=["issue"])
        emulator.fail_next(answer="reset")
        issue.publish("issue", {"status": "Done", "resolution": None, "votes": 4})
        post(emulator, "publish", {"channel": "board-42", "payload": json.dumps({"typing": True, "by": "linus"})})
        with contextlib.suppress(ForgeRealtimeError):
            issue.publish("board-42", {"moved": 11}, context_overrides=["Issue"])
        board.publish("board-42", {"moved": 12, "from": "To do", "to": "Done", "by": "ada"})
        yield emulator


def post(emulator: Emulator, path: str, body: Any) -> None:
    """Post to a control endpoint."""
    httpx.post(f"{emulator.url}/_emulator/{path}", json=body, trust_env=False).raise_for_status()


def open_page(browser: Browser, emulator: Emulator, width: int, scheme: Literal["light", "dark"]) -> Page:
    """Open the console, and wait until it shows what there is."""
    height = 844 if width < 500 else 640
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce")
    page.goto(emulator.url)
    expect(page.locator("#connection")).to_have_text("Connected")
    expect(page.locator("#count")).to_have_text("23 rows")
    return page


def row_of(page: Page, text: str) -> Any:
    """Return the first row with a text."""
    return page.locator("#rows .row", has_text=text).first


def take(page: Page, name: str) -> None:
    """Take a picture, small enough for a repository."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    content = page.screenshot(path=FOLDER / f"{name}.png")
    assert len(content) < SIZE_LIMIT, f"{name}.png has {len(content)} bytes"


def main() -> None:
    with busy_emulator() as emulator, open_browser() as browser:
        light = open_page(browser, emulator, 1280, "light")
        take(light, "console-light")
        dark = open_page(browser, emulator, 1280, "dark")
        take(dark, "console-dark")
        row_of(dark, "fault").click()
        expect(dark.get_by_role("heading", name="Attempts")).to_be_visible()
        take(dark, "detail")
        row_of(light, "answer").click()
        expect(light.get_by_role("heading", name="Publishes")).to_be_visible()
        light.locator("#calls").press("ArrowRight")
        take(light, "streams")
        take(open_page(browser, emulator, 390, "light"), "narrow")
        post(emulator, "faults", {"status": 503, "probability": 0.1, "seed": 7, "operation": "publish"})
        light.keyboard.press("Escape")
        light.keyboard.press("f")
        expect(light.locator("#facts")).to_contain_text("Chaos")
        take(light, "chaos")


if __name__ == "__main__":
    main()
