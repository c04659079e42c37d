"""Page object of the console in a browser."""

from __future__ import annotations

import re
from typing import Any

from playwright.sync_api import ConsoleMessage, Error, Locator, Page, expect


class Console:
    """The open console."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.list = page.locator("#calls")
        self.rows = page.locator("#rows > .row:not([hidden])")
        self.detail = page.locator("#detail")
        self.facts = page.locator("#facts")
        self.count = page.locator("#count")
        self.complaints: list[str] = []
        self.expected: str | None = None
        page.on("console", self.on_message)
        page.on("pageerror", self.on_error)

    def on_message(self, message: ConsoleMessage) -> None:
        self.complaints.append(message.text)

    def on_error(self, error: Error) -> None:
        self.complaints.append(str(error))

    @property
    def connection(self) -> Locator:
        return self.page.locator("#connection")

    def open(self, view: str = "") -> Console:
        """Open the page anew, at a view."""
        self.page.goto("about:blank")
        self.page.goto(f"{self.url}/{view}")
        expect(self.connection).to_have_text("Connected")
        return self

    def panel(self, key: str) -> Locator:
        """Open a panel by its key."""
        self.page.keyboard.press(key)
        panel = self.page.locator("dialog.panel[open]")
        expect(panel).to_be_visible()
        return panel

    def row(self, text: str) -> Locator:
        return self.rows.filter(has_text=text).first

    def cells(self, name: str) -> Any:
        """Return the texts of a column, from top to bottom."""
        shown = "rows => rows.sort((a, b) => a.ariaRowIndex - b.ariaRowIndex)"
        return self.rows.evaluate_all(f"({shown}.map(row => row.cells.{name}.textContent))")

    def open_detail(self, text: str) -> Locator:
        """Open the details of a row."""
        self.row(text).click()
        expect(self.detail).to_be_visible()
        return self.detail

    def check(self) -> None:
        """Assert that the browser reported nothing unexpected. It reports each 4xx response."""
        assert [text for text in self.complaints if not (self.expected and re.search(self.expected, text))] == []
