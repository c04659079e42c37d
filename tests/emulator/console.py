"""Page object of the console in a browser."""

from __future__ import annotations

import re

from playwright.sync_api import Locator, Page, expect


class Console:
    """The open console."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.rows = page.locator("#rows > li")
        self.shown = page.locator("#rows > li:visible")
        self.events = self.rows.filter(has=page.locator(".badge.event"))
        self.requests = self.rows.filter(has_not=page.locator(".badge.event"))
        self.complaints: list[str] = []
        self.expected: str | None = None
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(url)
        expect(self.connection).to_have_text("Connected")

    @property
    def connection(self) -> Locator:
        return self.page.locator("#connection")

    def region(self, name: str) -> Locator:
        return self.page.get_by_role("region", name=re.compile(f"^{name}"))

    def check(self) -> None:
        """Assert that the browser reported nothing unexpected. It reports each 4xx response."""
        assert [text for text in self.complaints if not (self.expected and re.search(self.expected, text))] == []
