"""Private streams of both clients: tokens, handle, the end of the invocation, and who may stop them."""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from typing import Any

import pytest

from forge_realtime import (
    AsyncRealtimeClient,
    Quota,
    RealtimeClient,
    StreamHandle,
    UsageError,
)
from forge_realtime_emulator import Emulator, Settings
from tests.support.callers import INVOCATION, QUICK

UNLIMITED = Quota(per_second=100_000, burst=1000)
INSTALLATION = "11111111-1111-4111-8111-111111111111"


Steps = Generator[Any, Any, Any]


def nothing(stream: Any) -> Steps:
    yield


class Opener:
    """Opens a private stream with either client. A generator does the work of its block, and yields what to await."""

    def __init__(self, kind: str, emulator: Emulator) -> None:
        self.kind = kind
        self.emulator = emulator

    def __call__(self, work: Callable[[Any], Steps] = nothing, **options: Any) -> Any:
        settings: Any = {"retry": QUICK, "quota": UNLIMITED}
        if self.kind == "async":
            return asyncio.run(self._open(work, settings, options))
        with RealtimeClient(self.emulator.url, **settings) as client:
            self.live: Any = client.for_invocation(INVOCATION)
            with self.live.private_stream("answer", **options) as stream:
                steps, result = work(stream), None
                with suppress(StopIteration):
                    while True:
                        result = steps.send(result)
        return stream

    async def _open(self, work: Callable[[Any], Steps], settings: Any, options: Any) -> Any:
        async with AsyncRealtimeClient(self.emulator.url, **settings) as client:
            self.live = client.for_invocation(INVOCATION)
            async with await self.live.private_stream("answer", **options) as stream:
                steps, result = work(stream), None
                with suppress(StopIteration):
                    while True:
                        result = steps.send(result)
                        result = await result if inspect.isawaitable(result) else result
        return stream


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator(settings=Settings(token_lifetime=3600)) as emulator:
        yield emulator


@pytest.fixture(params=["sync", "async"])
def open_stream(request: pytest.FixtureRequest, emulator: Emulator) -> Opener:
    return Opener(request.param, emulator)


def payload_of(token: str) -> dict[str, Any]:
    text = token.split(".")[1]
    payload: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return payload


def signed(emulator: Emulator) -> list[dict[str, Any]]:
    return [request.body for request in emulator.requests if request.operation == "signRealtimeToken"]


def published(emulator: Emulator) -> list[Any]:
    return [request for request in emulator.requests if request.operation == "publishGlobal"]


def test_handle_is_json_and_shows_nothing(open_stream: Opener) -> None:
    stream = open_stream(claims={"account": "account-7"})
    handle = stream.handle
    assert isinstance(handle, StreamHandle)
    assert json.loads(json.dumps(handle)) == handle
    assert handle == {
        "channel": "answer",
        "stream": open_stream.emulator.streams[0].id,
        "token": handle["token"],
        "expiresAt": payload_of(handle["token"])["exp"],
        "stop": {"path": "/forge-realtime/stop", "secret": handle["stop"]["secret"]},
    }
    shown = f"{handle} {handle!r} {stream!r} {[handle]}"
    assert not [secret for secret in (handle["token"], handle["stop"]["secret"], "account-7") if secret in shown]


def test_page_may_subscribe_and_stream_may_publish_only(open_stream: Opener) -> None:
    stream = open_stream(claims={"account": "account-7"})
    first, second = signed(open_stream.emulator)
    assert {tuple(first["permissions"]), tuple(second["permissions"])} == {("publish",), ("subscribe",)}
    assert first["claims"] == second["claims"]
    assert payload_of(stream.handle["token"])["permissions"] == ["subscribe"]
    assert first["claims"].keys() == {"account", "channel", "nonce"}
    assert (first["claims"]["account"], first["claims"]["channel"]) == ("account-7", "answer")
    open_stream()
    assert signed(open_stream.emulator)[2]["claims"]["nonce"] != first["claims"]["nonce"]
    assert open_stream.live.private_stream is not None


def test_only_its_page_reads_it(open_stream: Opener) -> None:
    emulator = open_stream.emulator
    heard: list[Any] = []

    def work(stream: Any) -> Steps:
        other = emulator.sign("answer", {"account": "account-7"}) if hasattr(emulator, "sign") else None
        assert other is None
        with emulator.subscribe("answer", is_global=True, token=stream.handle["token"]) as page:
            with emulator.subscribe("answer", is_global=True) as without_token:
                yield stream.send("for one page")
                yield stream.flush()
                heard.append(page.receive(timeout=5))
                assert without_token.events == []

    open_stream(work)
    assert "for one page" in heard[0].payload


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"claims": {"nonce": "mine"}}, "the claims 'channel' and 'nonce' are the stream's own"),
        ({"claims": "account"}, "claims must be a mapping"),
        ({"stop_path": "stop"}, "stop_path must be a path of this service"),
        ({"installation_id": ""}, "for_installation takes the id"),
        ({"merge": "join"}, "merge must be"),
    ],
)
def test_wrong_arguments_are_refused_before_a_call(open_stream: Opener, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_stream(**options)
    assert open_stream.emulator.requests == []


def test_token_to_publish_is_renewed(open_stream: Opener) -> None:
    """Before it expires, by the client's clock; and when the platform calls it expired, whatever that clock says."""
    emulator = open_stream.emulator

    def work(stream: Any) -> Steps:
        yield stream.send("a")
        yield stream.flush()
        emulator.advance(3601)
        yield stream.send("b")
        yield stream.flush()

    open_stream(work)
    assert emulator.streams[0].value == "ab"
    assert [request.code for request in published(emulator)].count("TOKEN_EXPIRED") == 1
    assert [body["permissions"] for body in signed(emulator)] == [["publish"], ["subscribe"], ["publish"]]
