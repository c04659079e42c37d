"""The example that streams an answer: pages in Chromium, bridge, service, client and emulator together."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import pairwise

import pytest
from playwright.sync_api import Page, expect

from forge_realtime_emulator import Emulator, Settings
from tests.emulator.site import Site
from tests.examples.answer import service
from tests.support.web_servers import AsgiServer

WHOLE = re.compile("^You asked: Why\\?\n\nThis is sentence 1, .*This is sentence 20, [^.]*\\.$", re.DOTALL)
TEN = re.compile("^You asked: [^\n]*\n\nThis is sentence 1, .*sentence 10,$", re.DOTALL)

# Installing the packages of the front end takes a while.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def started(site: Site) -> Iterator[tuple[Emulator, str]]:
    """The emulator with the service, and the address of the page."""
    server = AsgiServer(service.app)
    with (
        Emulator(service=server.url, origins=[site.origin], settings=Settings(limit=None)) as emulator,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("FORGE_EGRESS_PROXY_URL", emulator.url)
        with server:
            yield emulator, f"{site.origin}{site.app('answer', emulator)}"


@pytest.fixture
def emulator(started: tuple[Emulator, str]) -> Emulator:
    emulator, _ = started
    emulator.reset()
    return emulator


class Reader:
    """A page of the example, and its user."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.answer = page.get_by_role("region", name="Answer")
        self.status = page.get_by_role("status")

    def ask(self, question: str = "Why?") -> None:
        self.page.get_by_label("Question").fill(question)
        self.page.get_by_role("button", name="Ask").click()

    def stop(self) -> None:
        self.page.get_by_role("button", name="Stop").click()


@pytest.fixture
def open_reader(
    started: tuple[Emulator, str], emulator: Emulator, open_page: Callable[[str], Page]
) -> Callable[[str], Reader]:
    return lambda invocation: Reader(open_page(f"{started[1]}?invocation={invocation}"))


@pytest.fixture
def reader(open_reader: Callable[[str], Reader]) -> Reader:
    return open_reader("invocation-123")


@pytest.fixture
def more(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Let the model halt after ten sentences, until this is set."""
    more = threading.Event()
    model = service.model

    async def halting(prompt: str) -> AsyncIterator[str]:
        async for token in model(prompt):
            yield token
            if token.strip() == "10,":
                while not more.is_set():  # noqa: ASYNC110 (set in another thread)
                    await asyncio.sleep(0.01)

    monkeypatch.setattr(service, "TOKEN_SECONDS", 0)
    monkeypatch.setattr(service, "model", halting)
    yield more
    more.set()


def test_answer_grows_and_arrives_whole_despite_failing_calls(
    reader: Reader, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "TOKEN_SECONDS", 0.008)
    reader.page.evaluate(
        """() => {
            window.shown = [];
            const answer = document.getElementById("answer");
            const note = () => window.shown.push(answer.textContent);
            new MutationObserver(note).observe(answer, { childList: true, characterData: true, subtree: true });
        }"""
    )
    emulator.fail_next(times=3, status=500, delivered=True, operation="publish_global")
    reader.ask()
    expect(reader.status).to_have_text("Answering…")
    expect(reader.status).to_have_text("Done.")
    expect(reader.answer).to_have_text(WHOLE)
    shown = [text for text in reader.page.evaluate("window.shown") if text]
    assert len(shown) > 4
    for text, longer in pairwise(shown):
        assert longer.startswith(text) or WHOLE.match(text)
    [stream] = [stream for stream in emulator.streams if stream.duplicates]
    assert stream.value == reader.answer.text_content()
    assert (stream.duplicates, stream.gaps, stream.ended) == (3, (), True)
    assert stream.updates / stream.operations > 10


def test_page_reloaded_in_mid_answer_and_after_it_shows_the_whole_answer(reader: Reader, more: threading.Event) -> None:
    reader.ask()
    expect(reader.answer).to_have_text(TEN)
    reader.page.reload()
    more.set()
    expect(reader.status).to_have_text("Done.")
    expect(reader.answer).to_have_text(WHOLE)
    reader.page.reload()
    expect(reader.answer).to_have_text(WHOLE)
    expect(reader.status).to_have_text("Done.")


def test_stop_button_stops_the_model_and_shows_what_was_sent(
    reader: Reader, more: threading.Event, emulator: Emulator
) -> None:
    reader.ask()
    expect(reader.answer).to_have_text(TEN)
    reader.stop()
    expect(reader.status).to_have_text("Stopped.")
    expect(reader.answer).to_have_text(TEN)
    expect(reader.page.get_by_role("button", name="Ask")).to_be_visible()
    # Answers of other tests may be repeated meanwhile.
    [stream] = [stream for stream in emulator.streams if stream.stopped]
    assert stream.stopped == {"by": "page", "reason": "The reader has seen enough."}


def test_two_users_of_one_installation_see_their_own_answers_only(
    open_reader: Callable[[str], Reader], more: threading.Event, emulator: Emulator
) -> None:
    emulator.register(
        invocations={
            f"invocation-{name}": {"installation": "installation-1", "account": name} for name in ("ann", "bob")
        }
    )
    ann, bob = open_reader("invocation-ann"), open_reader("invocation-bob")
    ann.ask("Ann's question")
    expect(ann.answer).to_have_text(TEN)
    bob.ask("Bob's question")
    expect(bob.answer).to_have_text(TEN)
    # Bob's page holds only the secret of his own answer.
    bob.stop()
    expect(bob.status).to_have_text("Stopped.")
    expect(ann.status).to_have_text("Answering…")
    more.set()
    expect(ann.status).to_have_text("Done.")
    assert "Ann's question" in (ann.answer.text_content() or "")
    assert "Ann's question" not in (bob.answer.text_content() or "")
    assert {event.delivered for event in emulator.events if '"data"' in event.payload} <= {0, 1}


def test_page_whose_token_expires_in_mid_answer_goes_on(
    reader: Reader, more: threading.Event, emulator: Emulator
) -> None:
    """It subscribes anew before, with another token; reloaded after that, it still can."""
    emulator.change(token_lifetime=2)
    reader.ask()
    expect(reader.answer).to_have_text(TEN)
    with reader.page.expect_response(lambda response: "/_emulator/invoke" in response.url):
        """It asks for another token."""
    emulator.advance(10)
    with reader.page.expect_response(lambda response: "/_emulator/invoke" in response.url):
        reader.page.reload()
    more.set()
    expect(reader.status).to_have_text("Done.")
    expect(reader.answer).to_have_text(WHOLE)
    signed = [request for request in emulator.requests if request.operation == "sign_realtime_token"]
    assert [request.body["permissions"] for request in signed].count(["subscribe"]) >= 3


def test_page_shows_that_model_failed(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(prompt: str) -> AsyncIterator[str]:
        yield "Because "
        raise TimeoutError

    monkeypatch.setattr(service, "model", broken)
    reader.ask()
    expect(reader.status).to_have_text("The answer could not be finished. Ask again.")
    expect(reader.answer).to_have_text("Because")


def test_page_shows_that_service_is_unreachable(site: Site, open_page: Callable[[str], Page]) -> None:
    with Emulator(origins=[site.origin]) as emulator:
        reader = Reader(open_page(f"{site.origin}{site.app('answer', emulator)}"))
        reader.ask()
        expect(reader.status).to_contain_text("emulate --service")
