"""Records of calls and events, for tests and the console."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .authorization import Authorization
from .channels import Address

RECORD_LIMIT = 10_000
"""Number of calls, and of events, that are kept; the oldest are dropped."""


def channel_of(body: Any) -> Any:
    """Return the channel named in the body of a call, or `None`."""
    return body.get("name", body.get("channelName")) if isinstance(body, dict) else None


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """Record of one call of an operation, whatever its outcome.

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
        at: Seconds since the epoch, by the emulator's clock.
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

    def to_json(self) -> dict[str, Any]:
        """Return the form for the console. It has ids in it and must stay on this machine."""
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
            "at": self.at,
            "operation": self.operation,
            "status": self.status,
            "authorization": parsed,
            "channel": channel_of(self.body),
            "code": self.code,
            "message": self.message,
            "detail": self.detail,
            "fault": self.fault,
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
    """

    method: str
    path: str
    invocation: str | None
    status: int | None
    code: str | None
    message: str | None
    at: float

    def to_json(self) -> dict[str, Any]:
        """Return the form for the console."""
        return {"kind": "invoke", **dataclasses.asdict(self)}


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
    """

    address: Address = field(repr=False)
    payload: str = field(repr=False)
    event_id: str | None
    event_timestamp: str | None
    delivered: int
    at: float
    near_misses: tuple[str, ...] = field(default=(), repr=False)

    @property
    def channel(self) -> str:
        """The channel name."""
        return self.address.channel

    @property
    def is_global(self) -> bool:
        """Whether it was published globally."""
        return self.address.is_global

    def to_json(self) -> dict[str, Any]:
        """Return the form for the console. It has the payload in it and must stay on this machine."""
        return {
            "kind": "event",
            "at": self.at,
            **self.address.to_json(),
            "payload": self.payload,
            "eventId": self.event_id,
            "delivered": self.delivered,
            "nearMisses": self.near_misses,
        }
