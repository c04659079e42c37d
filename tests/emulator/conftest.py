"""Fixtures: `emulator` serves the whole run; tests that check records, faults or a stop take an `own` one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from forge_realtime_emulator import Emulator, Settings
from tests.emulator.api import Api
from tests.emulator.site import Site, install
from tests.support.browser import close_pages, open_browser, require
from tests.support.shared import EXAMPLES, make_once


@pytest.fixture(scope="session")
def client() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False) as client:
        yield client


@pytest.fixture(scope="session")
def emulator() -> Iterator[Emulator]:
    with Emulator(settings=Settings(limit=None)) as emulator:
        yield emulator


@pytest.fixture(scope="session")
def api_of(client: httpx.Client) -> Callable[[Emulator], Api]:
    return lambda emulator: Api(emulator, client)


@pytest.fixture(scope="session")
def api(emulator: Emulator, api_of: Callable[[Emulator], Api]) -> Api:
    return api_of(emulator)


@pytest.fixture
def own(api_of: Callable[[Emulator], Api]) -> Iterator[Api]:
    """An emulator for this test alone."""
    with Emulator() as emulator:
        yield api_of(emulator)


@pytest.fixture
def channel() -> str:
    return f"channel-{uuid4()}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    require("node", "npm", "chromium")
    examples = make_once(tmp_path_factory, EXAMPLES, install)
    with closing(Site(examples, tmp_path_factory.mktemp("site"))) as site:
        for script in ("bridge_page.js", "stream_page.js"):
            site.bundle(Path(__file__).with_name(script))
        yield site


@pytest.fixture(scope="module")
def context(browser: Browser) -> Iterator[BrowserContext]:
    """The profile of all pages of a module. Its first page keeps the window open: each new one costs a second."""
    with closing(browser.new_context()) as context:
        context.set_default_timeout(20_000)
        context.new_page()
        yield context


@pytest.fixture
def open_page(context: BrowserContext) -> Iterator[Callable[[str], Page]]:
    """Open pages that close with the test, as does what they stored. An uncaught error in a page fails the test."""
    errors: list[str] = []

    def open_page(url: str) -> Page:
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        return page

    yield open_page
    close_pages(context)
    assert errors == []
