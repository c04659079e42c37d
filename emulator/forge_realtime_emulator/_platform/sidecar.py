"""The egress sidecar: carries out calls that have passed the document's checks."""

from __future__ import annotations

import copy
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .authorization import Authorization
from .bounded_log import BoundedLog
from .channels import Address, Channels
from .clock import Clock
from .cold_start import ColdStart
from .contexts import OVERRIDES, Context, Contexts
from .document import Document
from .errors import RefusedError
from .faults import Faults
from .feed import START, Feed
from .limit import Limit
from .mock_routes import MockRoutes
from .records import RECORD_LIMIT, RecordedEvent, RecordedInvoke, RecordedRequest
from .schema import Schema
from .settings import Settings
from .streams import Streams
from .tokens import Permission, Tokens
from .why_not import near_misses


@dataclass(frozen=True, slots=True)
class OperationResult:
    """The outcome of an operation.

    Attributes:
        body: The JSON body of the response; hidden in the repr.
        event: The published event, or `None` if the operation publishes nothing.
    """

    body: Any = field(repr=False)
    event: RecordedEvent | None = None


_KEY = re.compile(r"[\w.:/-]+")

_PUBLICATION = Schema(
    {
        "type": "object",
        "required": ["channel", "payload"],
        "additionalProperties": False,
        "properties": {
            "channel": {"type": "string"},
            "payload": {"type": "string"},
            "isGlobal": {"type": "boolean"},
            "invocation": {"type": "string"},
            "options": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "token": {"type": "string"},
                    "contextOverrides": {"type": "array", "items": {"type": "string"}},
                },
            },
        },
    }
)


class Sidecar:
    """The state behind the endpoints.

    Args:
        document: The operations.
        settings: The settings at the start and after each reset.
    """

    def __init__(self, document: Document, settings: Settings) -> None:
        self.document = document
        self.clock = Clock()
        self.feed = Feed()
        self.channels = Channels(self.feed.changed)
        self.faults = Faults([*document.operations])
        self.mocks = MockRoutes()
        self.requests: BoundedLog[RecordedRequest] = BoundedLog(RECORD_LIMIT)
        self.events: BoundedLog[RecordedEvent] = BoundedLog(RECORD_LIMIT)
        self.streams = Streams()
        self.invokes: BoundedLog[RecordedInvoke] = BoundedLog(RECORD_LIMIT)
        self._given = settings
        self._registered: Any = {}
        self._tokens = Tokens()
        self._begin()

    def _begin(self) -> None:
        self.settings = self._given
        self.contexts = Contexts()
        self.contexts.register(self._registered)
        self._limit = Limit()
        self.cold_start = ColdStart()
        # When each invocation began, by the emulator's clock. Stays empty unless `invocation_lifetime` is set.
        self._began: dict[str, float] = {}

    def keep(self, registry: Any) -> None:
        """Register contexts that survive a reset.

        Raises:
            ValueError: The registry is not in the form that `Contexts.register` takes.
        """
        self.contexts.register(registry)
        self._registered = copy.deepcopy(registry)

    def reset(self) -> None:
        """Restore the settings and contexts of the start, forget the rest, and close all subscriptions."""
        self.channels.close("The emulator was reset.")
        self.faults.clear()
        self.faults.end_delays()
        self.mocks.reset()
        self.requests.clear()
        self.events.clear()
        self.streams.clear()
        self.invokes.clear()
        self.clock = Clock()
        self._begin()
        self.feed.send(START, 0)

    def installation(self, authorization: Authorization) -> str:
        """Return the installation of a call.

        Raises:
            RefusedError: The id is not registered and the emulator is strict.
        """
        if authorization.invocation_id is not None:
            return self._invocation(authorization.invocation_id).installation
        return self.contexts.installation(authorization.installation_id or "", self.settings)

    def invoke(self, context: Context) -> str:
        """Register an invocation caused by a page, and return its id."""
        id_ = self.contexts.invoke(context)
        if self.settings.invocation_lifetime is not None:
            self._began[id_] = self.clock.now()
        self.feed.changed()
        return id_

    def carry_out(self, operation_id: str, authorization: Authorization, body: Any) -> OperationResult:
        """Carry out an operation. An operation that is not emulated returns `{}`.

        Raises:
            RefusedError: The call breaks a documented rule that is not in its schema, or exceeds the limit.
        """
        installation = self.installation(authorization)
        match operation_id:
            case "publish":
                return self._publish(body, self._scoped(body, authorization))
            case "publish_global":
                return self._publish(body, self._global(body, installation, "publish"))
            case "sign_realtime_token":
                return self._sign(body, authorization, installation)
            case _:
                return OperationResult({})

    def invocation_context(self, authorization: Authorization) -> dict[str, Any]:
        """Return the body of `GET /invocation/context`.

        Raises:
            RefusedError: The call is on behalf of an installation, or the invocation is unknown.
        """
        if authorization.invocation_id is None:
            raise _rule_broken("the context is that of an invocation. Send id=<invocation id>")
        context = self._invocation(authorization.invocation_id)
        app = {
            "id": "ari:cloud:ecosystem::app/emulated",
            "installationId": context.installation,
            "environment": {"type": "DEVELOPMENT", "id": "ari:cloud:ecosystem::environment/emulated"},
            "module": {"key": context.module, "type": context.module_type},
        }
        user = {"enabled": context.account is not None}
        return {"app": app, "context": {"cloudId": "emulated", "moduleKey": context.module, "userAccess": user}}

    def installations(self, page_size: int, cursor: int) -> dict[str, Any]:
        """Return a page of `GET /v1/installations`: the registered installations, or else the default one.

        Atlassian documents `pageSize` and `cursor`. The form of the response is unknown; this one is a guess.
        """
        known = self.contexts.installations or [self.contexts.default.installation]
        end = cursor + page_size
        page = [{"id": id_, "installationContext": "ari:cloud:jira::site/emulated"} for id_ in known[cursor:end]]
        return {"installations": page, "cursor": str(end) if end < len(known) else None}

    def page(self, invocation: str | None) -> Context:
        """Return the context of a page in a browser: that of an invocation, or the default one.

        Raises:
            RefusedError: The invocation is not registered and the emulator is strict.
        """
        return self.contexts.default if invocation is None else self.contexts.invocation(invocation, self.settings)

    def subscription(self, subscription: Mapping[str, Any]) -> tuple[Address, float | None]:
        """Accept a subscription.

        Args:
            subscription: The subscriber's first message, already checked against its schema.

        Returns:
            The address to listen at, and the time from which to replay events (`None`: no replay).

        Raises:
            RefusedError: The token does not allow it, or the installation is over the limit.
        """
        address = self.address_of_page(subscription, "subscribe")
        self._count(address.installation)
        replay = subscription.get("options", {}).get("replaySeconds")
        if replay is None:
            return address, None
        return address, self.clock.now() - min(replay, self.settings.replay_retention)

    def publish_from_page(self, publication: Any) -> RecordedEvent:
        """Publish as a front end does.

        Args:
            publication: `{"channel", "payload"}`, and optionally `isGlobal`, `invocation` and `options`.

        Raises:
            ValueError: The publication has another form.
            RefusedError: The token does not allow it, or the installation is over the limit.
        """
        if problem := _PUBLICATION.problem(publication):
            raise ValueError(problem)
        if publication.get("isGlobal") and "contextOverrides" in publication.get("options", {}):
            raise ValueError("options.contextOverrides: a global channel has no context; leave it out")
        address = self.address_of_page(publication, "publish")
        self._count(address.installation)
        return self._deliver(address, publication["payload"])

    def address_of_page(self, described: Mapping[str, Any], permission: Permission) -> Address:
        """Return the address at which a page in a browser publishes or listens.

        Args:
            described: `channel`, and optionally `isGlobal`, `invocation` and `options`.
            permission: The permission that the token must have.

        Raises:
            RefusedError: The token does not allow it, or the invocation is not registered and the emulator is strict.
        """
        context = self.page(described.get("invocation"))
        options = described.get("options", {})
        scope = None if described.get("isGlobal") else self._scope(context, options.get("contextOverrides"))
        return self._address(context.installation, described["channel"], scope, options, permission)

    def default_scope(self) -> str:
        """Return the scope of the default context."""
        return self._scope(self.contexts.default, None) or ""

    def _deliver(self, address: Address, payload: str) -> RecordedEvent:
        event_id = str(uuid.uuid4())
        now = self.clock.now()
        delivered = self.channels.deliver(address, payload, event_id, now)
        near = () if delivered else near_misses(address, self.channels.live(), self.default_scope())
        event = RecordedEvent(
            address=address,
            payload=payload,
            event_id=event_id if delivered else None,
            event_timestamp=str(int(now * 1000)) if delivered else None,
            delivered=delivered,
            at=now,
            near_misses=near,
        )
        size = len(payload) + sum(map(len, near))
        self.events.append(event, size)
        self.streams.take(address, payload, now)
        self.feed.send(event, size)
        return event

    def record(self, request: RecordedRequest, size: int) -> None:
        """Remember a call; `size` is that of its body, in bytes."""
        self.requests.append(request, size)
        self.feed.send(request, size)

    def record_invoke(self, invoke: RecordedInvoke) -> None:
        """Remember a page's call of the service."""
        self.invokes.append(invoke, len(invoke.path))
        self.feed.send(invoke, len(invoke.path))

    def state(self) -> dict[str, Any]:
        """Return what the console shows beside calls and events."""
        return {
            "kind": "state",
            "now": self.clock.now(),
            "limit": self.settings.limit,
            "rates": self._limit.rates(self.clock.now()),
            "channels": [
                {**address.to_json(), "subscribers": subscribers}
                for address, subscribers in self.channels.live().items()
            ],
            "streams": self.streams.shown(),
            "faults": self.faults.waiting(),
            "contexts": self.contexts.to_json(),
            "invoked": self.contexts.invoked(),
            "operations": [*self.document.operations],
            "overrides": [*OVERRIDES],
        }

    def _invocation(self, id_: str) -> Context:
        context = self.contexts.invocation(id_, self.settings)
        lifetime = self.settings.invocation_lifetime
        if lifetime is not None and self.clock.now() - self._began.setdefault(id_, self.clock.now()) >= lifetime:
            raise RefusedError(
                401,
                "UNAUTHORIZED",
                f"Unauthorized request: this invocation began {lifetime} s ago or earlier, and the emulator was told to"
                " let none live longer (invocation_lifetime). Use the id of a later one, or publish globally for the"
                " installation.",
            )
        return context

    def _publish(self, body: Any, address: Address) -> OperationResult:
        payload = _part(body, "payload", object)
        self._count(address.installation)
        # Only a later document could allow another type.
        event = self._deliver(address, payload if isinstance(payload, str) else json.dumps(payload))
        return OperationResult({"eventId": event.event_id, "eventTimestamp": event.event_timestamp}, event)

    def _scoped(self, body: Any, authorization: Authorization) -> Address:
        if authorization.invocation_id is None:
            raise _rule_broken(
                "publish needs the id of an invocation that came from a UI context and cannot be done on behalf of an"
                " installationId. Send id=<invocation id>, or publish to a global channel"
            )
        context = self._invocation(authorization.invocation_id)
        if not context.from_ui:
            raise _rule_broken(
                "publish needs an invocation that came from a UI context, and this one did not. Publish to a global"
                " channel"
            )
        options = _part(body, "options", dict, {})
        scope = self._scope(context, _part(options, "contextOverrides", list, None))
        return self._address(context.installation, _part(body, "name", str), scope, options, "publish")

    def _global(self, body: Any, installation: str, permission: Permission) -> Address:
        return self._address(installation, _part(body, "name", str), None, _part(body, "options", dict, {}), permission)

    def _sign(self, body: Any, authorization: Authorization, installation: str) -> OperationResult:
        if authorization.invocation_id is None and not self.settings.token_by_installation:
            raise _rule_broken("the emulator was told to refuse tokens on behalf of an installationId")
        channel, claims = _part(body, "channelName", str), _part(body, "claims", dict)
        permissions = _part(body, "permissions", list, None)
        self._count(installation)
        expires_at = int(self.clock.now()) + self.settings.token_lifetime
        token = self._tokens.sign(channel, claims, permissions, expires_at)
        return OperationResult({"token": token, "expiresAt": expires_at})

    def _scope(self, context: Context, overrides: Sequence[str] | None) -> str | None:
        """Return the scope that publisher and subscriber must share, or `None` for a global channel."""
        if overrides is None:
            # Quoted unless it is a plain key, so that no two scopes read alike.
            module = context.module if _KEY.fullmatch(context.module) else json.dumps(context.module)
            return _format_scope(f"module {module}", {name: context.product[name] for name in sorted(context.product)})
        for name in overrides:
            if not isinstance(name, str) or name not in OVERRIDES:
                raise _rule_broken(f"options.contextOverrides: must be of {', '.join(OVERRIDES)}")
        if not overrides and self.settings.empty_overrides_are_global:
            return None
        names = dict.fromkeys(overrides if self.settings.overrides_in_order else sorted(overrides))
        return _format_scope("overrides", {name: context.product.get(name) for name in names})

    def _address(
        self, installation: str, channel: str, scope: str | None, options: Mapping[str, Any], permission: Permission
    ) -> Address:
        token = _part(options, "token", str, None)
        claims = None
        if token is not None:
            claims = self._tokens.verify(token, channel=channel, permission=permission, now=self.clock.now())
        return Address(
            installation=installation,
            channel=channel,
            is_global=scope is None,
            scope=scope or "",
            claims=claims,
        )

    def _count(self, installation: str) -> None:
        self._limit.count(installation, self.clock.now(), self.settings.limit, self.settings.limit_retry_after)


_REQUIRED: Any = object()


def _part(body: Any, name: str, kind: type, default: Any = _REQUIRED) -> Any:
    """Take a part of a body that the emulator cannot do without, even if the document is looser."""
    value = body.get(name, default) if isinstance(body, dict) else _REQUIRED
    if value is _REQUIRED or not (isinstance(value, kind) or value is default):
        what = "it" if kind is object else f"a {kind.__name__} here"
        raise _rule_broken(f"{name}: the document allows what was sent, but the emulator needs {what}")
    return value


def _format_scope(kind: str, parts: Mapping[str, str | None]) -> str:
    return " ".join([kind, *(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in parts.items())])


def _rule_broken(rule: str) -> RefusedError:
    return RefusedError(400, "INVALID_REQUEST", f"Invalid request: {rule}.", logical=True)
