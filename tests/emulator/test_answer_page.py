"""The example that streams an answer: page in Chromium, bridge, service, client and emulator together."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import pairwise

import pytest
from playwright.sync_api import Page, expect

from forge_realtime_emulator import Emulator
from tests.emulator.site import Site
from tests.examples.answer import service
from tests.support.web_servers import AsgiServer

WHOLE = re.compile("^You asked: Why\\?\n\nThis is sentence 1, .*This is sentence 20, [^.]*\\.$", re.DOTALL)

# Installing the packages of the front end takes a while.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def emulator(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    server = AsgiServer(service.app)
    with Emulator(service=server.url, origins=[site.origin]) as emulator:
        monkeypatch.setenv("FORGE_EGRESS_PROXY_URL", emulator.url)
        with server:
            yield emulator


@pytest.fixture
def page(site: Site, emulator: Emulator, open_page: Callable[[str], Page]) -> Page:
    return open_page(f"{site.origin}{site.app('answer', emulator)}?invocation=invocation-123")


def ask(page: Page) -> None:
    page.get_by_label("Question").fill("Why?")
    page.get_by_role("button", name="Ask").click()


def test_answer_grows_and_arrives_whole_despite_failing_calls(
    page: Page, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "TOKEN_SECONDS", 0.002)
    page.evaluate(
        """() => {
            window.shown = [];
            const answer = document.getElementById("answer");
            new MutationObserver(() => window.shown.push(answer.textContent)).observe(answer, { childList: true });
        }"""
    )
    answer, status = page.get_by_role("region", name="Answer"), page.get_by_role("status")
    for _ in range(2):
        emulator.fail_next(status=500, delivered=True, operation="publish")
        ask(page)
        expect(status).to_have_text("Answering…")
        expect(status).to_have_text("Done.")
        expect(answer).to_have_text(WHOLE)
    shown = [text for text in page.evaluate("window.shown") if text]
    assert len(shown) > 4
    for text, longer in pairwise(shown):
        assert longer.startswith(text) or WHOLE.match(text)
    for stream in emulator.streams:
        assert stream.value == answer.text_content()
        assert (stream.duplicates, stream.gaps, stream.ended) == (1, (), True)
        assert stream.updates / stream.operations > 10


def test_page_reloaded_in_mid_answer_shows_whole_answer(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    more = threading.Event()
    model = service.model

    async def halting(prompt: str) -> AsyncIterator[str]:
        async for token in model(prompt):
            yield token
            if token.strip() == "10,":
                await asyncio.to_thread(more.wait)

    monkeypatch.setattr(service, "TOKEN_SECONDS", 0)
    monkeypatch.setattr(service, "model", halting)
    answer, status = page.get_by_role("region", name="Answer"), page.get_by_role("status")
    ask(page)
    expect(answer).to_have_text(re.compile("sentence 10,$"))
    page.reload()
    expect(answer).to_have_text(re.compile("^You asked: Why.*sentence 10,$", re.DOTALL))
    expect(status).to_have_text("Answering…")
    more.set()
    expect(status).to_have_text("Done.")
    expect(answer).to_have_text(WHOLE)
    page.reload()
    expect(answer).to_have_text("")


def test_page_shows_that_model_failed(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(prompt: str) -> AsyncIterator[str]:
        yield "Because "
        raise TimeoutError

    monkeypatch.setattr(service, "model", broken)
    ask(page)
    expect(page.get_by_role("status")).to_have_text("The answer could not be finished. Ask again.")
    expect(page.get_by_role("region", name="Answer")).to_have_text("Because")


def test_page_shows_that_service_is_unreachable(site: Site, open_page: Callable[[str], Page]) -> None:
    with Emulator(origins=[site.origin]) as emulator:
        page = open_page(f"{site.origin}{site.app('answer', emulator)}")
        ask(page)
        expect(page.get_by_role("status")).to_contain_text("emulate --service")
