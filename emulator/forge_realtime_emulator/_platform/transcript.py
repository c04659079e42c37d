"""Transcripts for snapshot tests: what was called and published, the same in every run of a test."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .authorization import Authorization
from .channels import Address
from .records import RecordedEvent, RecordedRequest, channel_of
from .streams import RecordedStream, parse_envelope

# A signed token; a UUID, with dashes or without; a point in time in ISO 8601.
_REPLACED = re.compile(
    r"(?P<token>\beyJ[\w-]+\.[\w-]+\.[\w-]*)"
    r"|(?P<id>\b[0-9a-f]{8}(?P<dash>-?)(?:[0-9a-f]{4}(?P=dash)){3}[0-9a-f]{12}\b)"
    r"|(?P<time>\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?)",
    re.IGNORECASE | re.ASCII,
)


def make_transcript(
    requests: Iterable[RecordedRequest], events: Iterable[RecordedEvent], streams: Iterable[RecordedStream]
) -> dict[str, list[dict[str, Any]]]:
    """Make the transcript of calls, events and streams, each sorted by channel.

    How many publishes a stream takes depends on time. So its calls and events are left out, and its value is there.
    """
    calls = [_describe_call(call) for call in requests if _is_single(_payload_of(call.body))]
    singles = [_describe_event(event) for event in events if _is_single(event.payload)]
    found = {"calls": calls, "events": singles, "streams": [_describe_stream(stream) for stream in streams]}
    replace = _Replacer()
    # `sorted` keeps the order within a channel.
    return {kind: [replace(entry) for entry in sorted(entries, key=_by_channel)] for kind, entries in found.items()}


def _by_channel(entry: Mapping[str, Any]) -> str:
    return str(entry["channel"])


def _payload_of(body: Any) -> Any:
    return body.get("payload") if isinstance(body, dict) else None


def _is_single(payload: Any) -> bool:
    return not isinstance(payload, str) or parse_envelope(payload) is None


def _describe_call(call: RecordedRequest) -> dict[str, Any]:
    body = dict(call.body) if isinstance(call.body, dict) else {}
    channel = channel_of(body)
    for name in ("name", "channelName"):
        body.pop(name, None)
    if "payload" in body:
        body["payload"] = _readable(body["payload"])
    described = {"operation": call.operation, "channel": channel, **_describe_caller(call.authorization), **body}
    return described | {"status": call.status} | ({} if call.code is None else {"code": call.code})


def _describe_caller(authorization: Authorization | None) -> dict[str, str]:
    if authorization is None:
        return {}
    described = {
        "invocation": authorization.invocation_id,
        "installation": authorization.installation_id,
        "as": authorization.acts_as,
        "account": authorization.account_id,
    }
    return {name: value for name, value in described.items() if value is not None}


def _describe_event(event: RecordedEvent) -> dict[str, Any]:
    described = {**_describe_address(event.address), "payload": _readable(event.payload)}
    return described | {"event": event.event_id, "delivered": event.delivered}


def _describe_stream(stream: RecordedStream) -> dict[str, Any]:
    described = {**_describe_address(stream.address), "merge": stream.merge, "value": stream.value}
    end = {"error": stream.error, "message": stream.message, "stopped": stream.stopped}
    return described | {"ended": stream.ended} | {name: value for name, value in end.items() if value is not None}


def _describe_address(address: Address) -> dict[str, Any]:
    claims = {} if address.claims is None else {"claims": json.loads(address.claims)}
    scope = "global" if address.is_global else address.scope
    return {"channel": address.channel, "installation": address.installation, "scope": scope, **claims}


def _readable(payload: Any) -> Any:
    """Return a payload that is a JSON object or array as Python has it."""
    if isinstance(payload, str) and payload.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(payload)
        except (ValueError, RecursionError):
            pass
    return payload


class _Replacer:
    """Replaces ids, tokens and times in all texts; the same id by the same text."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._counts = {"token": 0, "id": 0}

    def __call__(self, value: Any) -> Any:
        replace: Callable[[Any], Any] = self
        if isinstance(value, str):
            return _REPLACED.sub(self._text, value)
        if isinstance(value, dict):
            return {replace(name): replace(item) for name, item in value.items()}
        if isinstance(value, list):
            return [replace(item) for item in value]
        return value

    def _text(self, found: re.Match[str]) -> str:
        # Not numbered: two times may be equal in one run only.
        if found["time"]:
            return "<time>"
        kind = "token" if found["token"] else "id"
        if found[0] not in self._known:
            self._counts[kind] += 1
            self._known[found[0]] = f"<{kind} {self._counts[kind]}>"
        return self._known[found[0]]
