"""The tools of the MCP server, on what the control endpoints show and change. This module needs the extra `mcp`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from mcp.server import Server, ServerRequestContext
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.types import CallToolRequestParams, CallToolResult, ListToolsResult, TextContent, Tool, ToolAnnotations

from .._platform.calls import FILTERS, list_records, read_filter
from .._platform.errors import RefusedError, join_code
from .._platform.faults import FAULT
from .._platform.schema import Schema
from .._platform.sidecar import PUBLICATION, Sidecar
from .._platform.why_not import about_channel
from .control import CLOCK
from .json import BODY_LIMIT
from .log import log_event
from .openapi import as_3_1

_ABOUT = "A local stand-in for Atlassian Forge Realtime: it carries out the calls of the app that you develop."
_VALUE = 4_000
"""Longest value of a stream in a result, in characters."""

_SHOWN = {"id", "kind", "operation", "method", "path", "status", "code", "message", "detail", "fault", "attempt"}
_SHOWN |= {"channel", "isGlobal", "installation", "delivered", "nearMisses", "duration", "payload"}
"""What is listed of a record: neither tokens nor ids of accounts."""

_TYPES = {"failed": "boolean", "delivered": "boolean", "before": "integer", "limit": "integer"}


def make_manager(sidecar: Sidecar) -> StreamableHTTPSessionManager:
    """Make what serves MCP for a sidecar. The tools run in the event loop, where the sidecar's state lives."""

    async def list_tools(_: ServerRequestContext[Any], __: Any) -> ListToolsResult:
        tools = []
        for name, (run, schema) in _TOOLS.items():
            about = " ".join((run.__doc__ or "").split())
            hints = ToolAnnotations(read_only_hint=run in _READING, open_world_hint=False)
            arguments = as_3_1(schema.definition)
            tools.append(Tool(name=name, description=about, input_schema=arguments, annotations=hints))
        return ListToolsResult(tools=tools)

    async def call_tool(_: ServerRequestContext[Any], params: CallToolRequestParams) -> CallToolResult:
        try:
            text, is_error = _run(sidecar, params.name, params.arguments or {}), False
        except RefusedError as refused:
            text, is_error = join_code(refused.code, refused.message, refused.detail), True
        except ValueError as error:
            text, is_error = f"{str(error).removesuffix('.')}. Correct the arguments, and try again.", True
        return CallToolResult(content=[TextContent(type="text", text=text)], is_error=is_error)

    server = Server("forge-realtime-emulator", instructions=_ABOUT, on_list_tools=list_tools, on_call_tool=call_tool)
    # The emulator has checked the origin and the host.
    return StreamableHTTPSessionManager(server, stateless=True, json_response=True, max_request_body_size=BODY_LIMIT)


def _run(sidecar: Sidecar, name: str, arguments: Any) -> str:
    if name not in _TOOLS:
        raise ValueError(f"There is no tool {name!r}; there are {', '.join(_TOOLS)}")
    run, schema = _TOOLS[name]
    if problem := schema.problem(arguments):
        raise ValueError(problem)
    text = run(sidecar, arguments)
    if run not in _READING:
        sidecar.feed.changed()
    return text


def _list_calls(sidecar: Sidecar, given: Any) -> str:
    """List calls of the app and events of pages as JSON, newest first, 20 by default.

    Use it first, to see whether the app called the emulator and what came of it. A call is listed with its last
    attempt; `delivered` is the number of subscribers that got its event, and status 0 a connection that was reset.
    """
    query = {name: value if isinstance(value, str) else json.dumps(value) for name, value in given.items()}
    found = [row.to_json() for row in list_records(sidecar, read_filter({"limit": "20", **query})) if row is not None]
    if not found:
        return "Nothing passes the filter. If the app made calls: does it send them to FORGE_EGRESS_PROXY_URL?"
    return _lines({name: row[name] for name in row if name in _SHOWN and row[name] not in (None, ())} for row in found)


def _explain_missing_event(sidecar: Sidecar, given: Any) -> str:
    """Explain why subscribers of a channel did not get an event.

    Use it when a publish succeeded and the page did not react, or when nothing came. It compares the last events with
    the subscribers, and names failed calls.
    """
    live, now, scope = sidecar.channels.live(), sidecar.clock.now(), sidecar.default_scope()
    return about_channel(given["channel"], [*sidecar.events], [*sidecar.requests], live, now=now, default_scope=scope)


def _read_streams(sidecar: Sidecar, given: Any) -> str:
    """Read the newest streams as JSON: small updates that the client publishes as few events.

    Use it to see what a streamed response became, whether it ended, and the gaps: numbers of publishes that never came.
    """
    records = [stream for stream in sidecar.streams.records() if given.get("channel") in (None, stream.channel)]
    rows = []
    for record in records[: -given.get("limit", 5) - 1 : -1]:
        row, value = record.to_json(), record.value
        del row["claims"], row["shown"]
        text = value if record.merge == "append" else json.dumps(value, ensure_ascii=False)
        rows.append({**row, "value": (text or "")[-_VALUE:]})
    return _lines(rows) if rows else "No stream was published. list_calls shows single events."


def _publish(sidecar: Sidecar, given: Any) -> str:
    """Publish an event as a page of the app does, and see how many subscribers it reached and why others missed it.

    Use it to test a subscriber without the app's container.
    """
    event = sidecar.publish_from_page(given)
    log_event("publish (assistant)", event)
    return "\n".join([f"Event {event.id} reached {event.delivered} subscriber(s).", *event.near_misses])


def _fail_calls(sidecar: Sidecar, given: Any) -> str:
    """Make calls of the app fail, to see what it does.

    Give `status` (with `retryAfter` in seconds), `answer` or `delay` in seconds. `times` calls fail (1), or each one
    with a `probability` until clear_faults. `delivered`: the call is carried out all the same. `operation`, `channel`
    and `installation` limit it. Returns all pending faults as JSON.
    """
    sidecar.faults.add(given)
    return _lines(sidecar.faults.waiting())


def _clear_faults(sidecar: Sidecar, _: Any) -> str:
    """Drop all pending faults. Use it at the end of a test."""
    dropped = len(sidecar.faults.waiting())
    sidecar.faults.clear()
    return f"Dropped {dropped} pending fault(s)."


def _advance_clock(sidecar: Sidecar, given: Any) -> str:
    """Advance the emulator's clock by seconds. Use it instead of waiting: tokens and the limit's second expire."""
    sidecar.clock.advance(given["advance"])
    return f"The clock is {sidecar.clock.ahead:g} s ahead."


def _lines(rows: Iterable[Any]) -> str:
    """Return a JSON array with a line for each row."""
    return "[" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "]"


_ANY: dict[str, Any] = {"type": "object", "additionalProperties": False}
_ON_CHANNEL = {"channel": {"type": "string", "description": "The name of the channel, exactly."}}
_FILTER = {name: {"type": _TYPES.get(name, "string"), "description": FILTERS[name]} for name in FILTERS}

_READING = (_list_calls, _explain_missing_event, _read_streams)
_TOOLS: dict[str, tuple[Callable[[Sidecar, Any], str], Schema]] = {
    "list_calls": (_list_calls, Schema({**_ANY, "properties": _FILTER})),
    "explain_missing_event": (
        _explain_missing_event,
        Schema({**_ANY, "properties": _ON_CHANNEL, "required": ["channel"]}),
    ),
    "read_streams": (
        _read_streams,
        Schema({**_ANY, "properties": {**_ON_CHANNEL, "limit": {"type": "integer", "minimum": 1}}}),
    ),
    "publish": (_publish, PUBLICATION),
    "fail_calls": (_fail_calls, FAULT),
    "clear_faults": (_clear_faults, Schema(_ANY)),
    "advance_clock": (_advance_clock, Schema(CLOCK)),
}
