"""What the emulator remembers of calls and events, for tests and for the console to look at."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .authorization import Authorization
from .channels import Address

RECORD_LIMIT = 10_000
"""Calls and events that are remembered; the oldest go first."""


def channel_of(body: Any) -> Any:
    """The channel that a call's body names, or None."""
    return body.get("name", body.get("channelName")) if isinstance(body, dict) else None


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """One call of an operation, whatever its outcome.

    Attributes:
        operation: The `operationId`.
        status: The HTTP status that was answered; 0 when a fault reset the connection.
        authorization: What the authorization header said, or None when it was refused.
        headers: The request's headers by lower-case name; hidden in the repr.
        body: The JSON body, or None when the call was refused before its body was read; hidden in the repr.
        code: The code of the failure that was answered, or None.
        message: The message of it, or None.
        fault: Whether a fault made the answer.
        at: Seconds since the epoch, by the emulator's clock.
    """

    operation: str
    status: int
    authorization: Authorization | None
    headers: Mapping[str, str] = field(repr=False)
    body: Any = field(repr=False)
    code: str | None = None
    message: str | None = field(default=None, repr=False)
    fault: bool = False
    at: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """As the console shows it. Ids and payloads are in it: it stays on this machine."""
        authorization = self.authorization
        said = None
        if authorization is not None:
            said = {
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
            "authorization": said,
            "channel": channel_of(self.body),
            "code": self.code,
            "message": self.message,
            "fault": self.fault,
        }


@dataclass(frozen=True, slots=True)
class RecordedInvoke:
    """One call of the app's service by a page.

    Attributes:
        method: The HTTP method.
        path: The path without its query.
        invocation: The id of the invocation that the page caused, or None when there is no service to call.
        status: The HTTP status that the service answered, or None when it gave no answer.
        code: The code of the failure when it gave none, or None.
        message: The message of it, or None.
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
        """As the console shows it."""
        return {"kind": "invoke", **dataclasses.asdict(self)}


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """One event that a publish operation accepted.

    Attributes:
        address: Where it was published to.
        payload: The payload exactly as published; hidden in the repr.
        event_id: The id that was answered, or None when nobody got the event.
        event_timestamp: Epoch milliseconds as a string, or None when nobody got the event.
        delivered: How many subscribers got the event.
        at: Seconds since the epoch, by the emulator's clock.
        near_misses: When nobody got it, those who were subscribed to a channel of that name otherwise, and how.
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
        """The channel's name."""
        return self.address.channel

    @property
    def is_global(self) -> bool:
        """Whether it was published globally."""
        return self.address.is_global

    def to_json(self) -> dict[str, Any]:
        """As the console shows it. The payload is in it: it stays on this machine."""
        return {
            "kind": "event",
            "at": self.at,
            **self.address.to_json(),
            "payload": self.payload,
            "eventId": self.event_id,
            "delivered": self.delivered,
            "nearMisses": self.near_misses,
        }
