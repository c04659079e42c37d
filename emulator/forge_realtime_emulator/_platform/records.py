"""Records of calls and events, for tests and the console.

Each record has two forms in JSON: `to_json`, a line of a list, and `details`, everything. Details have headers, tokens
and payloads in them: they must stay on this machine, and never be logged.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from .authorization import Authorization
from .channels import Address, Listener
from .streams import parse_envelope

RECORD_LIMIT = 10_000
"""Number of attempts, of events, and of a page's calls of the service that are kept; the oldest are dropped."""

_SHOWN = 300
"""Length of a payload in a list, in characters."""

_IS_GLOBAL = {"publish": False, "publish_global": True}


def channel_of(body: Any) -> str | None:
    """Return the channel named in the body of a call, or `None`."""
    channel = body.get("name", body.get("channelName")) if isinstance(body, dict) else None
    return channel if isinstance(channel, str) else None


def text_of(content: bytes) -> str:
    """Decode a body. What is not UTF-8 becomes lone surrogates, so that `bytes_of` returns the same bytes."""
    return content.decode("utf-8", "surrogateescape")


def bytes_of(text: str) -> bytes:
    """Encode a body as it was before `text_of`."""
    return text.encode("utf-8", "surrogateescape")


def _describe_payload(payload: Any) -> dict[str, Any]:
    """Describe a payload in a list: its beginning, and its place in a stream."""
    if not isinstance(payload, str):
        return {"payload": None, "stream": None}
    envelope = parse_envelope(payload)
    stream = None
    if envelope is not None:
        data = envelope.get("data")
        stream = {
            "id": envelope["stream"],
            "seq": envelope["seq"],
            "end": envelope["end"],
            "text": data[:_SHOWN] if isinstance(data, str) else None,
        }
    return {"payload": payload[:_SHOWN], "stream": stream}


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """Record of one event that a publish operation accepted.

    Attributes:
        address: The address that it was published to.
        payload: The payload exactly as published; hidden in the repr.
        event_id: The event id in the response, or `None` if nobody got the event.
        event_timestamp: Epoch milliseconds as a string, or `None` if nobody got the event.
        delivered: The number of subscribers that got the event.
        at: Seconds since the epoch, by the emulator's clock.
        near_misses: If nobody got the event: the subscribers of a channel with the same name, and what differs.
        id: The number of the record, unique until a reset.
        call: The number of the call that published it, or `None` if a page did.
        listeners: The first subscribers that got the event.
    """

    address: Address = field(repr=False)
    payload: str = field(repr=False)
    event_id: str | None
    event_timestamp: str | None
    delivered: int
    at: float
    near_misses: tuple[str, ...] = field(default=(), repr=False)
    id: int = 0
    call: int | None = None
    listeners: tuple[Listener, ...] = field(default=(), repr=False)

    @property
    def channel(self) -> str:
        """The channel name."""
        return self.address.channel

    @property
    def is_global(self) -> bool:
        """Whether it was published globally."""
        return self.address.is_global

    def to_json(self) -> dict[str, Any]:
        """Return the form for lists."""
        return {
            "kind": "event",
            "id": self.id,
            "call": self.call,
            "at": self.at,
            **self.address.to_json(),
            **_describe_payload(self.payload),
            "bytes": len(self.payload.encode("utf-8", "surrogatepass")),
            "eventId": self.event_id,
            "delivered": self.delivered,
            "nearMisses": self.near_misses,
        }

    def details(self) -> dict[str, Any]:
        """Return everything."""
        return {
            **self.to_json(),
            "payload": self.payload,
            "eventTimestamp": self.event_timestamp,
            "subscribers": [listener.to_json() for listener in self.listeners],
        }


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """Record of one attempt of a call, whatever its outcome.

    Attributes:
        operation: The `operationId`.
        status: The HTTP status of the response; 0 if a fault reset the connection.
        authorization: The parsed authorization header, or `None` if it was refused.
        headers: The request headers by lower-case name; hidden in the repr.
        body: The JSON body, or `None` if the call was refused before its body was read; hidden in the repr.
        code: The error code in the response, or the emulator's short name of an error that has none. `None` if the call
            was carried out.
        message: The error message in the response, or `None`.
        detail: The emulator's explanation of the message, or `None`.
        fault: Whether a fault made the response.
        at: The time of the response: seconds since the epoch, by the emulator's clock.
        id: The number of the record, unique until a reset.
        call: The number of the call's first attempt.
        attempt: Which attempt of its call it is, from 1.
        duration: Seconds from the request's head to the response.
        installation: The installation, or `None` if the call names none that is known.
        method: The HTTP method.
        path: The path.
        raw: The request's body as it was sent; hidden in the repr.
        response_headers: The headers of the response, or `None` if a fault reset the connection; hidden in the repr.
        response_body: The body of the response as it was sent; hidden in the repr.
        event: The event that it published, or `None`; hidden in the repr.
    """

    operation: str
    status: int
    authorization: Authorization | None
    headers: Mapping[str, str] = field(repr=False)
    body: Any = field(repr=False)
    code: str | None = None
    message: str | None = field(default=None, repr=False)
    detail: str | None = field(default=None, repr=False)
    fault: bool = False
    at: float = 0.0
    id: int = 0
    call: int = 0
    attempt: int = 1
    duration: float = 0.0
    installation: str | None = None
    method: str = ""
    path: str = ""
    raw: bytes = field(default=b"", repr=False)
    response_headers: tuple[tuple[bytes, bytes], ...] | None = field(default=None, repr=False)
    response_body: bytes = field(default=b"", repr=False)
    event: RecordedEvent | None = field(default=None, repr=False)

    @property
    def channel(self) -> str | None:
        """The channel name in the body, or `None`."""
        return channel_of(self.body)

    @property
    def size(self) -> int:
        """The approximate size in bytes of what was sent and received."""
        return len(self.raw) + len(self.response_body) + sum(map(len, self.headers.values()))

    @property
    def payload(self) -> Any:
        """The payload in the body, or `None`."""
        return self.body.get("payload") if isinstance(self.body, dict) else None

    def to_json(self) -> dict[str, Any]:
        """Return the form for lists. It has ids in it and must stay on this machine."""
        event = self.event
        authorization = self.authorization
        parsed = None
        if authorization is not None:
            parsed = {
                "id": authorization.invocation_id,
                "installationId": authorization.installation_id,
                "as": authorization.acts_as,
                "accountId": authorization.account_id,
            }
        return {
            "kind": "request",
            "id": self.id,
            "call": self.call,
            "attempt": self.attempt,
            "at": self.at,
            "duration": self.duration,
            "operation": self.operation,
            "status": self.status,
            "authorization": parsed,
            "channel": self.channel,
            "installation": self.installation,
            "isGlobal": _IS_GLOBAL.get(self.operation) if event is None else event.is_global,
            "scope": None if event is None else event.address.scope,
            "delivered": None if event is None else event.delivered,
            **_describe_payload(self.payload),
            "bytes": len(self.raw),
            "code": self.code,
            "message": self.message,
            "detail": self.detail,
            "fault": self.fault,
        }

    def details(self) -> dict[str, Any]:
        """Return everything."""
        headers = self.response_headers
        return {
            **self.to_json(),
            "payload": self.payload,
            "request": {
                "method": self.method,
                "path": self.path,
                "headers": dict(self.headers),
                "body": text_of(self.raw),
            },
            "response": None
            if headers is None
            else {
                "headers": {name.decode("latin-1"): value.decode("latin-1") for name, value in headers},
                "body": text_of(self.response_body),
            },
            "event": None if self.event is None else self.event.details(),
        }


@dataclass(frozen=True, slots=True)
class RecordedInvoke:
    """Record of one call of the app's service by a page.

    Attributes:
        method: The HTTP method.
        path: The path without its query.
        invocation: The id of the invocation that the page caused, or `None` if there is no service to call.
        status: The HTTP status of the service's response, or `None` if there was no response.
        code: The error code if there was no response, or `None`.
        message: The error message if there was no response, or `None`.
        at: Seconds since the epoch, by the emulator's clock.
        duration: Seconds until the response.
        id: The number of the record, unique until a reset.
    """

    method: str
    path: str
    invocation: str | None
    status: int | None
    code: str | None
    message: str | None
    at: float
    duration: float
    id: int

    def to_json(self) -> dict[str, Any]:
        """Return the form for lists, which is all there is."""
        return {"kind": "invoke", **dataclasses.asdict(self)}

    details = to_json


AnyRecord: TypeAlias = RecordedRequest | RecordedEvent | RecordedInvoke
