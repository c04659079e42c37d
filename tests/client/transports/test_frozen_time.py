"""No deadline rests on a clock that the tests of an app freeze or move."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from forge_realtime import AsyncRealtimeClient, Delivery, RealtimeClient, RetryPolicy, StreamError, TimedOutError
from forge_realtime._core import clock
from tests.support.callers import INVOCATION, Caller
from tests.support.fake_time import FAKES
from tests.support.fault_server import Behaviour, Connection, FaultServer, http, slowly

SECONDS = 0.3
BRIEF = RetryPolicy(deadline=SECONDS, attempt_timeout=SECONDS)
# Longer than a busy machine needs, shorter than the server.
LATEST = 2.5


def stall(connection: Connection) -> bool:
    connection.read()
    connection.stopping.wait(5)
    return False


BEHAVIOURS = {"drips": slowly(http(200, headers={"Content-Length": "1000"}), b"x" * 500), "stalls": stall}


def publish(live: Any) -> Any:
    return live.publish("board-42", "x")


@pytest.mark.parametrize("fake", FAKES.values(), ids=FAKES)
@pytest.mark.parametrize("behaviour", BEHAVIOURS.values(), ids=BEHAVIOURS)
def test_deadline_of_a_call_holds_in_real_time(
    caller: Caller, behaviour: Behaviour, fake: Callable[[], AbstractContextManager[Any]]
) -> None:
    with FaultServer(then=behaviour) as server:
        with fake():
            began = clock.monotonic()
            [error] = caller(server.url, publish, retry=BRIEF)
            took = clock.monotonic() - began
        assert SECONDS - 0.01 <= took < LATEST
        assert isinstance(error, TimedOutError)
        assert error.delivery is Delivery.UNKNOWN


@pytest.mark.parametrize("fake", FAKES.values(), ids=FAKES)
def test_end_of_a_stream_holds_in_real_time(fake: Callable[[], AbstractContextManager[Any]]) -> None:
    with FaultServer(then=stall) as server, RealtimeClient(server.url, retry=BRIEF) as client:
        with fake():
            began = clock.monotonic()
            with pytest.raises(StreamError), client.for_invocation(INVOCATION).stream("c", deadline=SECONDS) as stream:
                stream.send("x")
            took = clock.monotonic() - began
        assert SECONDS - 0.01 <= took < LATEST


@pytest.mark.parametrize("fake", FAKES.values(), ids=FAKES)
def test_end_of_a_stream_with_asyncio_holds_in_real_time(fake: Callable[[], AbstractContextManager[Any]]) -> None:
    async def run() -> None:
        client = AsyncRealtimeClient(server.url, retry=BRIEF)
        async with client, client.for_invocation(INVOCATION).stream("c", deadline=SECONDS) as stream:
            await stream.send("x")

    with FaultServer(then=stall) as server:
        with fake():
            began = clock.monotonic()
            with pytest.raises(StreamError):
                asyncio.run(run())
            took = clock.monotonic() - began
        assert SECONDS - 0.01 <= took < LATEST


@pytest.mark.parametrize("fake", FAKES.values(), ids=FAKES)
def test_stream_publishes_at_its_interval_in_real_time(fake: Callable[[], AbstractContextManager[Any]]) -> None:
    """Also if the time is frozen after the stream has begun."""
    with (
        FaultServer() as server,
        RealtimeClient(server.url) as client,
        client.for_invocation(INVOCATION).stream("c", interval=0.05) as stream,
    ):
        stream.send("x")
        with fake():
            stream.flush()
            stream.send("y")
            until = clock.monotonic() + LATEST
            while stream.report.sent < 2 and clock.monotonic() < until:
                pass
            assert stream.report.sent == 2


@pytest.mark.parametrize("fake", FAKES.values(), ids=FAKES)
def test_waiting_for_a_token_ends_in_real_time(fake: Callable[[], AbstractContextManager[Any]]) -> None:
    """The call that waits for the other one's token has its own deadline."""

    async def run() -> list[Any]:
        async with AsyncRealtimeClient(server.url, cache_tokens=True, retry=BRIEF) as client:
            live = client.for_invocation(INVOCATION)
            patient = live.with_options(retry=RetryPolicy(deadline=2 * SECONDS, attempt_timeout=2 * SECONDS))
            signing = [patient.sign_realtime_token("c", {}), live.sign_realtime_token("c", {})]
            return await asyncio.gather(*signing, return_exceptions=True)

    with FaultServer(then=stall) as server:
        with fake():
            began = clock.monotonic()
            errors = asyncio.run(run())
            took = clock.monotonic() - began
        assert took < LATEST
    assert all(isinstance(error, TimedOutError) for error in errors)
