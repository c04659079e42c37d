"""The page of a service that `forge-realtime init` wrote, in Chromium, with that service and the emulator."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from forge_realtime_emulator import Emulator
from tests.emulator.site import Site
from tests.support.new_services import free_port, make_service, started

# Installing the packages of the front end takes a while.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_page_shows_message_and_answer(site: Site, open_page: Callable[[str], Page], tmp_path: Path) -> None:
    service = make_service(tmp_path, "fastapi")
    port = free_port()
    with (
        Emulator(service=f"http://127.0.0.1:{port}", origins=[site.origin]) as emulator,
        started(service, emulator.url, port) as running,
    ):
        path = site.new_service(service / "frontend", emulator)
        assert {file.name for file in (service / "frontend/build").iterdir()} == {"index.html", "main.css", "main.js"}
        page, other = open_page(site.origin + path), open_page(site.origin + path)
        for each in (page, other):
            expect(each.get_by_role("status")).to_have_text("Ready.")
        page.get_by_label("Message to everybody on this issue").fill("<hello>")
        page.get_by_role("button", name="Send").click()
        for each in (page, other):
            expect(each.get_by_role("listitem")).to_have_text("<hello>")
        # The model takes 0.05 seconds for a word.
        page.get_by_label("Question, answered to you alone").fill("Why? " * 60)
        ask, stop = (page.get_by_role("button", name=name) for name in ("Ask", "Stop"))
        answer, status = page.get_by_role("region", name="Answer"), page.get_by_role("status")
        ask.click()
        expect(status).to_have_text("Answering…")
        stop.click()
        expect(status).to_have_text("Stopped.")
        expect(answer).to_have_text(re.compile("^You asked: Why?"))
        ask.click()
        expect(status).to_have_text("Answering…")
        # The platform stops the instance that answers. The page gets the rest.
        running.stop()
        expect(status).to_have_text("Done.")
        stopped, stream = emulator.streams
        assert (stopped.stopped, stream.stopped) == ({"by": "page"}, None)
        assert answer.text_content() == stream.value
        expect(other.get_by_role("region", name="Answer")).to_have_text("")
        ask.click()
        expect(status).to_contain_text("The service responded with 5")
