"""The MCP server, used with the official client."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from mcp import Client
from mcp.types import TextContent
from openapi_schema_validator import OAS31Validator

from forge_realtime import RateLimitedError, RealtimeClient, RetryPolicy
from forge_realtime_emulator import Emulator
from tests.emulator.envelopes import envelope

LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
INVOCATION = {"x-forge-invocation-id": "invocation-123"}


@pytest.fixture(scope="module")
def running() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def emulator(running: Emulator) -> Emulator:
    running.reset()
    return running


def use(emulator: Emulator, *calls: tuple[str, dict[str, Any]], mode: str = "auto") -> list[str]:
    """Call tools one after another, and return their texts, those of errors after `error: `."""

    async def run() -> list[str]:
        texts = []
        async with Client(f"{emulator.url}/mcp", mode=mode) as client:
            for name, arguments in calls:
                result = await client.call_tool(name, arguments)
                [content] = result.content
                assert isinstance(content, TextContent)
                texts.append(f"{'error: ' if result.is_error else ''}{content.text}")
        return texts

    return asyncio.run(run())


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_each_tool_says_when_to_use_it_and_what_it_takes(emulator: Emulator, mode: str) -> None:
    async def list_tools() -> Any:
        async with Client(f"{emulator.url}/mcp", mode=mode) as client:
            return (await client.list_tools()).tools

    tools = {tool.name: tool for tool in asyncio.run(list_tools())}
    reading = {name for name, tool in tools.items() if tool.annotations.read_only_hint}
    assert reading == {"list_calls", "explain_missing_event", "read_streams"}
    assert tools.keys() - reading == {"publish", "fail_calls", "clear_faults", "advance_clock"}
    for tool in tools.values():
        assert "Use it" in tool.description or "to see" in tool.description
        OAS31Validator.check_schema(tool.input_schema)
        assert tool.input_schema["type"] == "object"


def test_calls_are_listed_with_filters_and_without_secrets(emulator: Emulator) -> None:
    with RealtimeClient(emulator.url) as client:
        live = client.for_invocation(INVOCATION)
        token = live.sign_realtime_token("board-42", {"team": "crimson"}).token
        live.publish("board-42", "moved", token=token)
        live.publish("other", "x")
    [all_, here, none] = use(
        emulator,
        ("list_calls", {}),
        ("list_calls", {"channel": "board-42", "operation": "publish", "delivered": False, "limit": 5}),
        ("list_calls", {"failed": True}),
    )
    assert [row["operation"] for row in json.loads(all_)] == ["publish", "publish", "sign_realtime_token"]
    [row] = json.loads(here)
    assert (row["status"], row["delivered"], row["payload"]) == (200, 0, "moved")
    assert none.startswith("Nothing passes the filter.")
    assert not any(secret in all_ for secret in (token, "crimson", "invocation-123"))


def test_missing_event_is_explained(emulator: Emulator) -> None:
    [nothing] = use(emulator, ("explain_missing_event", {"channel": "board-42"}))
    assert nothing.splitlines() == [
        "No event was published on 'board-42'. Events: none.",
        "Now 0 subscriber(s) of 'board-42'. Subscribed: none.",
        "No call came either. Does the app send to the emulator's url (FORGE_EGRESS_PROXY_URL)?",
    ]
    with RealtimeClient(emulator.url, retry=RetryPolicy(max_attempts=1)) as client:
        live = client.for_invocation(INVOCATION)
        with emulator.subscribe("board-42", is_global=True):
            live.publish("board-42", "moved")
            emulator.fail_next(status=429)
            with pytest.raises(RateLimitedError):
                live.publish("board-42", "moved")
            [text] = use(emulator, ("explain_missing_event", {"channel": "board-42"}))
    reached, missed, subscribers, heading, failed = text.splitlines()
    assert reached == "publish on 'board-42', 0 s ago, reached 0 subscriber(s)."
    assert missed.startswith("1 subscriber(s) on 'board-42' did not get it: the subscription is global")
    assert subscribers == "Now 1 subscriber(s) of 'board-42'. Subscribed: 'board-42'."
    assert heading == "Failed calls on it:"
    assert "answered 429" in failed


def test_published_event_arrives(emulator: Emulator) -> None:
    with emulator.subscribe("board-42") as page:
        [said] = use(emulator, ("publish", {"channel": "board-42", "payload": "moved"}))
        assert page.receive().payload == "moved"
    assert said.endswith(" reached 1 subscriber(s).")


def test_faults_are_armed_and_cleared(emulator: Emulator) -> None:
    fault = {"status": 429, "retryAfter": 1, "times": 2, "channel": "board-42"}
    with RealtimeClient(emulator.url, retry=RetryPolicy(max_attempts=1)) as client:
        [armed] = use(emulator, ("fail_calls", fault))
        assert json.loads(armed) == [fault]
        with pytest.raises(RateLimitedError):
            client.for_invocation(INVOCATION).publish("board-42", "x")
        assert use(emulator, ("clear_faults", {})) == ["Dropped 1 pending fault(s)."]
        client.for_invocation(INVOCATION).publish("board-42", "x")


def test_clock_is_advanced(emulator: Emulator) -> None:
    before = emulator._sidecar.clock.now()
    assert use(emulator, ("advance_clock", {"advance": 3600})) == ["The clock is 3600 s ahead."]
    assert emulator._sidecar.clock.now() - before >= 3600


def test_streams_are_read_newest_first(emulator: Emulator) -> None:
    with RealtimeClient(emulator.url) as client:
        live = client.for_invocation(INVOCATION)
        for seq, text in enumerate(("Hel", "lo")):
            live.publish("chat", envelope(seq, text))
    chat, none = use(emulator, ("read_streams", {"channel": "chat"}), ("read_streams", {"channel": "other"}))
    [stream] = json.loads(chat)
    assert (stream["value"], stream["updates"], stream["gaps"], stream["ended"]) == ("Hello", 2, [], False)
    assert "claims" not in stream
    assert none == "No stream was published. list_calls shows single events."


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        ("list_calls", {"status": "9"}, "status: must be one such as 429, a class such as 4xx, or reset."),
        ("list_calls", {"limit": 0}, "limit: must be a whole number of at least 1."),
        ("explain_missing_event", {}, "the JSON value: missing channel."),
        ("publish", {"channel": "c", "payload": "x", "options": {"token": "none"}}, ""),
        ("fail_calls", {"status": 42}, "status: must be at least 400."),
        ("fail_calls", {}, "say what the call gets: status, answer or delay."),
        ("advance_clock", {"advance": -1}, "advance: must be at least 0."),
        ("advance_time", {}, "There is no tool 'advance_time'; there are list_calls, "),
    ],
)
def test_refused_call_is_an_error_that_says_what_to_do(
    emulator: Emulator, tool: str, arguments: dict[str, Any], said: str
) -> None:
    [text] = use(emulator, (tool, arguments))
    assert text.startswith(f"error: {said}")


def test_server_works_after_a_new_start(emulator: Emulator) -> None:
    for _ in range(2):
        assert use(emulator, ("clear_faults", {})) == ["Dropped 0 pending fault(s)."]
        emulator.stop()
        emulator.start()


@pytest.mark.parametrize("headers", [{"Origin": "https://app.example"}, {"Host": "rebound.example"}])
def test_web_pages_are_refused(emulator: Emulator, client: httpx.Client, headers: dict[str, str]) -> None:
    assert client.post(f"{emulator.url}/mcp", json=LIST).status_code == 200
    assert client.post(f"{emulator.url}/mcp", json=LIST, headers=headers).status_code == 403


def test_missing_extra_is_named(emulator: Emulator, client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    response = client.post(f"{emulator.url}/mcp", json=LIST)
    assert (response.status_code, response.json()["code"]) == (501, "MCP_NOT_INSTALLED")
    assert "pip install 'forge-realtime[mcp]'" in response.json()["message"]


UNUSED = """
import sys
import httpx
from forge_realtime_emulator import Emulator

with Emulator() as emulator:
    httpx.get(emulator.url + "/_emulator/state")
print(sorted({"mcp", "mcp_types"} & sys.modules.keys()))
"""


def test_nothing_is_imported_before_the_first_use() -> None:
    run = subprocess.run([sys.executable, "-c", UNUSED], check=True, capture_output=True, text=True)
    assert run.stdout == "[]\n"
