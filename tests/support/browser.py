"""A real browser, and what to do when the machine has none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


def require(*programs: str) -> None:
    """Skips the test when a program is missing, or fails it when FORGE_REALTIME_BROWSER=required is set."""
    missing = [program for program in programs if shutil.which(program) is None]
    if not missing:
        return
    reason = f"not installed: {', '.join(missing)}"
    if os.environ.get("FORGE_REALTIME_BROWSER") == "required":
        pytest.fail(f"FORGE_REALTIME_BROWSER=required, and {reason}")
    pytest.skip(f"{reason}; the tests in a browser need it")


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Chromium, without a window. While it is open, the thread has an event loop: no asyncio.run() in it."""
    require("chromium")
    expect.set_options(timeout=20_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=_ARGUMENTS)
        # The machine may have more to do.
        expect.set_options(timeout=15_000)
        try:
            yield browser
        finally:
            browser.close()
