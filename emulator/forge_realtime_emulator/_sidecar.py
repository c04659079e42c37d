"""What the operations do once a call has passed the document's checks."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ._authorization import Authorization
from ._channels import Address, Channels
from ._document import Document
from ._errors import Refused
from ._faults import Faults
from ._records import RECORD_LIMIT, RecordedEvent, RecordedRequest
from ._tokens import Permission, Tokens

# Which invocation belongs where is not registered yet: all share one installation and one module context.
_INSTALLATION = "default"
_CONTEXT = "default"


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a call.

    Attributes:
        body: The JSON body; hidden in the repr.
        delivered: How many subscribers got the event, or None when the operation publishes nothing.
    """

    body: Mapping[str, Any] = field(repr=False)
    delivered: int | None = None


class Sidecar:
    """The state behind the endpoints: tokens, channels, faults and records.

    Args:
        document: Which operations there are.
        token_lifetime: Whole seconds that a signed token is valid.
    """

    def __init__(self, document: Document, token_lifetime: int) -> None:
        self.document = document
        self.channels = Channels()
        self.faults = Faults(document.operations)
        self.requests: deque[RecordedRequest] = deque(maxlen=RECORD_LIMIT)
        self.events: deque[RecordedEvent] = deque(maxlen=RECORD_LIMIT)
        self._tokens = Tokens(token_lifetime)

    def answer(self, operation_id: str, authorization: Authorization, body: Any) -> Answer:
        """Does what an operation does; one that is not emulated answers `{}`.

        Raises:
            Refused: The call is against a documented rule that its schema cannot say.
        """
        match operation_id:
            case "publish":
                if authorization.installation_id is not None:
                    raise Refused(
                        400,
                        "INVALID_REQUEST",
                        "Publish needs the id of an invocation that came from a UI context and cannot be done on"
                        " behalf of an installationId. Send id=<invocation id>, or publish to a global channel.",
                    )
                return self._publish(body, is_global=False)
            case "publish_global":
                return self._publish(body, is_global=True)
            case "sign_realtime_token":
                token, expires_at = self._tokens.sign(body["channelName"], body["claims"], body.get("permissions"))
                return Answer({"token": token, "expiresAt": expires_at})
            case _:
                return Answer({})

    def address(self, channel: str, is_global: bool, options: Mapping[str, Any], permission: Permission) -> Address:
        """Where an event goes to, or where a subscriber listens.

        Args:
            channel: The channel's name.
            is_global: Whether it is a global channel; its address has no context, so context overrides do not count.
            options: `token` and `contextOverrides`, both optional.
            permission: What the token must allow.

        Raises:
            Refused: The token does not allow it.
        """
        token = options.get("token")
        overrides = None if is_global else options.get("contextOverrides")
        return Address(
            installation=_INSTALLATION,
            channel=channel,
            is_global=is_global,
            context=_CONTEXT if not is_global and overrides is None else None,
            overrides=None if overrides is None else frozenset(overrides),
            claims=None if token is None else self._tokens.verify(token, channel=channel, permission=permission),
        )

    def _publish(self, body: Mapping[str, Any], *, is_global: bool) -> Answer:
        address = self.address(body["name"], is_global, body.get("options", {}), "publish")
        event = self.channels.publish(address, body["payload"])
        self.events.append(event)
        return Answer({"eventId": event.event_id, "eventTimestamp": event.event_timestamp}, event.delivered)
