"""A browser for tests: the Chromium of the machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Starts it, and ends it when the context ends.

    Skips the test when the machine has none, unless `FORGE_REALTIME_BROWSER` is `required`. Until the end an event loop
    runs in this thread: `asyncio.run` fails, so open it for no longer than a module.
    """
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        missing = f"There is no browser on this machine; one of {', '.join(_NAMES)} has to be on the PATH."
        if os.environ.get("FORGE_REALTIME_BROWSER") == "required":
            pytest.fail(missing)
        pytest.skip(f"{missing} With FORGE_REALTIME_BROWSER=required this fails.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        # The machine may have more to do.
        expect.set_options(timeout=15_000)
        yield browser
        browser.close()
