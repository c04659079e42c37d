"""What a client leaves in event loops that end before it is closed, and other loops than asyncio's."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from forge_realtime import AsyncRealtimeClient, UsageError
from forge_realtime._transports.connection import QuietSocket
from tests.support.callers import ASYNC_KINDS, INVOCATION, AsyncKind, async_client
from tests.support.fault_server import FaultServer
from tests.support.garbage import collect

LOOPS = 100


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def end_in_order(live: AsyncRealtimeClient) -> None:
    asyncio.run(live.publish("c", "p"))


def close_only(live: AsyncRealtimeClient) -> None:
    loop = asyncio.new_event_loop()
    loop.run_until_complete(live.publish("c", "p"))
    loop.close()


def never_close(live: AsyncRealtimeClient) -> None:
    asyncio.new_event_loop().run_until_complete(live.publish("c", "p"))


@pytest.mark.parametrize("end", [end_in_order, close_only, never_close])
@pytest.mark.parametrize("kind", ASYNC_KINDS)
def test_100_event_loops_leave_no_open_files(kind: AsyncKind, end: Callable[[AsyncRealtimeClient], None]) -> None:
    with FaultServer() as server, warnings.catch_warnings():
        # asyncio warns about a loop that is never closed.
        warnings.simplefilter("ignore" if end is never_close else "error", ResourceWarning)
        live = async_client(kind, server.url).for_invocation(INVOCATION)
        end(live)
        collect()
        server.wait_for_closed_connections()
        before = open_files()
        for _ in range(LOOPS):
            end(live)
        collect()
        server.wait_for_closed_connections()
        assert open_files() <= before
        assert len(server.received) == LOOPS + 1


@pytest.mark.parametrize("kind", ASYNC_KINDS)
def test_connections_of_a_loop_that_ends_in_order_are_closed_at_once(kind: AsyncKind) -> None:
    with FaultServer() as server:
        live = async_client(kind, server.url).for_invocation(INVOCATION)
        asyncio.run(live.publish("c", "p"))
        server.wait_for_closed_connections()


def test_event_loop_with_more_calls_than_connections_goes_too() -> None:
    """A semaphore that was waited for refers to its event loop."""

    async def many(live: AsyncRealtimeClient) -> None:
        await asyncio.gather(*[live.publish("c", "p") for _ in range(150)])

    with FaultServer() as server:
        live = async_client("async", server.url).for_invocation(INVOCATION)
        asyncio.run(many(live))
        collect()
        assert not live._pool._loops


PROJECT = """
import pytest
from forge_realtime import AsyncRealtimeClient

client = AsyncRealtimeClient("{url}", transport="{transport}")
live = client.for_invocation({{"x-forge-invocation-id": "invocation-123"}})

@pytest.mark.parametrize("number", range(5))
async def test_publish(number):
    assert (await live.publish("c", "p")).event_id == "event-1"

@pytest.mark.asyncio(loop_scope="module")
async def test_publish_in_the_loop_of_the_module():
    assert (await live.publish("c", "p")).event_id == "event-1"
"""


@pytest.mark.parametrize("mode", ["auto", "strict"])
@pytest.mark.parametrize("transport", ["httpx", "aiohttp"])
def test_client_of_a_module_works_under_pytest_asyncio_with_warnings_as_errors(
    transport: str, mode: str, tmp_path: Path
) -> None:
    with FaultServer() as server:
        text = PROJECT.format(url=server.url, transport=transport)
        if mode == "strict":
            text = text.replace("@pytest.mark.parametrize", "@pytest.mark.asyncio\n@pytest.mark.parametrize")
        (tmp_path / "test_app.py").write_text(text)
        (tmp_path / "pytest.ini").write_text(
            f"[pytest]\nasyncio_mode = {mode}\nasyncio_default_fixture_loop_scope = function\n"
        )
        plugins = ["-p", "pytest_asyncio.plugin", "-p", "no:cacheprovider"]
        command = [sys.executable, "-W", "error", "-m", "pytest", "-q", *plugins, str(tmp_path)]
        environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        run = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert (run.returncode, "6 passed" in run.stdout) == (0, True), run.stdout + run.stderr
        assert len(server.received) == 6


@pytest.mark.parametrize("kind", ASYNC_KINDS)
def test_trio_is_refused_with_the_reason(kind: AsyncKind) -> None:
    calls: list[Callable[[AsyncRealtimeClient], Any]] = [
        lambda live: live.publish("c", "p"),
        lambda live: live.publish_global("c", "p"),
        lambda live: live.sign_realtime_token("c", {}),
        lambda live: live.aclose(),
    ]

    async def run(call: Callable[[AsyncRealtimeClient], Any]) -> None:
        await call(async_client(kind, server.url).for_invocation(INVOCATION))

    with FaultServer() as server:
        for call in calls:
            with pytest.raises(UsageError, match=r"runs on asyncio only.*trio\.to_thread\.run_sync"):
                trio.run(run, call)
        assert not server.received


def test_socket_that_was_never_made_is_collected_quietly() -> None:
    """As at the limit of open files."""
    QuietSocket.__new__(QuietSocket).__del__()
