"""A real browser, for tests that look at a page."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, BrowserContext, expect, sync_playwright

from tests.support import programs

_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


def require(*names: str) -> None:
    """Skip the test when a program is missing, or fail it when FORGE_REALTIME_BROWSER=required is set."""
    programs.require("FORGE_REALTIME_BROWSER", *names)


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Open Chromium without a window. While it is open, its thread runs an event loop: don't call asyncio.run()."""
    require("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=_ARGUMENTS)
        # Generous, because the machine may be busy.
        expect.set_options(timeout=15_000)
        try:
            yield browser
        finally:
            browser.close()


def close_pages(context: BrowserContext) -> None:
    """Close the pages of a profile but for its first, and delete what they stored: the next ones find it as new."""
    for page in context.pages[1:]:
        session = context.new_cdp_session(page)
        session.send("Network.clearBrowserCache")
        session.send("Network.clearBrowserCookies")
        for frame in page.frames:
            session.send("Storage.clearDataForOrigin", {"origin": frame.url, "storageTypes": "all"})
        page.close()
