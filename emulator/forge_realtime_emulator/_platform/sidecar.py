"""The egress sidecar: carries out calls that have passed the document's checks."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count, islice
from typing import Any

from .attempts import Attempt, Attempts
from .authorization import Authorization
from .bounded_log import BoundedLog
from .channels import Address, Channels, Listener
from .clock import Clock, elapsed
from .cold_start import ColdStart
from .contexts import OVERRIDES, Context, Contexts, bare_installation
from .document import Document
from .errors import RATE_LIMIT_EXCEEDED, RefusedError, rate_limited
from .faults import Faults
from .feed import Feed
from .limit import Limit
from .mock_routes import MockRoutes
from .records import RECORD_LIMIT, AnyRecord, RecordedEvent, RecordedInvoke, RecordedRequest
from .schema import Schema
from .settings import Settings
from .streams import Streams
from .tokens import Permission, Tokens
from .why_not import near_misses

INSTALLATIONS_LIMIT = 100
INSTALLATION_LIMIT = 10
"""Documented requests per minute and app: `GET /v1/installations`, and `GET /v1/installation/<id>`."""

PAST = 100
"""Number of past records of each kind that the feed begins with."""

_LISTENERS = 20
"""Number of the subscribers that got an event that are kept with it."""


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


def _from_page(properties: Mapping[str, Any], options: Mapping[str, Any]) -> Schema:
    """Build the schema of what a page sends, all of these properties required, beside the address and its options."""
    return Schema(
        {
            "type": "object",
            "required": ["channel", *properties],
            "additionalProperties": False,
            "properties": {
                "channel": {"type": "string"},
                **properties,
                "isGlobal": {"type": "boolean"},
                "invocation": {"type": "string"},
                "options": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "token": {"type": "string", "nullable": True},
                        "contextOverrides": {"type": "array", "items": {"type": "string"}},
                        **options,
                    },
                },
            },
        }
    )


SUBSCRIPTION = _from_page({}, {"replaySeconds": {"type": "number", "minimum": 0}})
PUBLICATION = _from_page({"payload": {"type": "string"}}, {})


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
        self.attempts = Attempts()
        self._given = settings
        self._registered: Any = {}
        self._tokens = Tokens()
        self._begin()

    def _begin(self) -> None:
        self.settings = self._given
        self.contexts = Contexts()
        self.contexts.register(self._registered)
        self._limit = Limit(1.0)
        self._app_limit = Limit(60.0)
        self.cold_start = ColdStart()
        self.replayed = False
        self._ids = count(1)
        self._listener_ids = count(1)
        # When each invocation began, by the emulator's clock. Stays empty unless `invocation_lifetime` is set.
        self._began: dict[str, float] = {}

    def keep(self, registry: Any) -> None:
        """Register contexts that survive a reset.

        Raises:
            ValueError: The registry is not in the form that `Contexts.register` takes.
        """
        self.contexts.register(registry)
        self._registered = copy.deepcopy(registry)

    def sign_with(self, key: bytes) -> None:
        """Sign and verify tokens with this key instead of a random one."""
        self._tokens = Tokens(key)

    def reset(self) -> None:
        """Restore the settings and contexts of the start, forget the rest, and close all subscriptions."""
        self.channels.close("The emulator was reset.")
        self.faults.clear()
        self.faults.end_delays()
        self.mocks.reset()
        self._forget()
        self.clock = Clock()
        self._begin()
        self.feed.restart()

    def show(self, settings: Settings, contexts: Contexts, records: Sequence[AnyRecord]) -> None:
        """Show the records of a recording instead of the present ones, until a reset, and go on from there.

        Args:
            settings: The settings of the recording.
            contexts: The contexts of the recording.
            records: The records, each with a number of its own.
        """
        self._forget()
        self.settings = settings
        self.contexts = contexts
        self.replayed = True
        for record in sorted(records, key=lambda record: record.id):
            match record:
                case RecordedRequest():
                    self.requests.append(record, record.size)
                case RecordedEvent():
                    self.events.append(record, len(record.payload))
                    self.streams.take(record.address, record.payload, record.at)
                case RecordedInvoke():
                    self.invokes.append(record, len(record.path))
        self._ids = count(max((record.id for record in records), default=0) + 1)
        self.feed.restart()
        for record in self.past(PAST):
            self.feed.send(record, 0)

    def past(self, most: int) -> list[AnyRecord]:
        """Return the last records of each kind, oldest first."""
        kept: list[list[AnyRecord]] = [[*self.invokes], [*self.events], [*self.requests]]
        return sorted((record for records in kept for record in records[-most:]), key=lambda record: record.at)

    def _forget(self) -> None:
        self.requests.clear()
        self.events.clear()
        self.streams.clear()
        self.invokes.clear()
        self.attempts.clear()

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

    def begin(self, key: tuple[object, ...] | None, began: float) -> Attempt:
        """Begin an attempt of a call.

        Args:
            key: Operation, authorization header and body, or `None` if the attempt is never a retry.
            began: When it began, as `elapsed` returns it.
        """
        return self.attempts.begin(next(self._ids), key, began)

    def carry_out(self, operation_id: str, authorization: Authorization, body: Any, call: int) -> OperationResult:
        """Carry out an operation of a call. An operation that is not emulated returns `{}`.

        Raises:
            RefusedError: The call breaks a documented rule that is not in its schema, or exceeds the limit.
        """
        installation = self.installation(authorization)
        match operation_id:
            case "publish":
                return self._publish(body, installation, self._context_of(authorization), call)
            case "publish_global":
                return self._publish(body, installation, None, call, is_global=True)
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
            raise _malformed("the context is that of an invocation. Send id=<invocation id>")
        context = self._invocation(authorization.invocation_id)
        app = {
            "id": "ari:cloud:ecosystem::app/emulated",
            "installationId": context.installation_ari,
            "environment": {"type": "DEVELOPMENT", "id": "ari:cloud:ecosystem::environment/emulated"},
            "module": {"key": context.module, "type": context.module_type},
        }
        user = {"enabled": context.account is not None}
        return {"app": app, "context": {"cloudId": "emulated", "moduleKey": context.module, "userAccess": user}}

    def installations(self, page_size: int, cursor: str | None) -> dict[str, Any]:
        """Return a page of `GET /v1/installations`: the registered installations, or else the default one.

        Args:
            page_size: Number of installations on a page, 1 to 100.
            cursor: The cursor of the page before, or `None` for the first page.

        Raises:
            RefusedError: The cursor is not one that a response gave, or the app is over the limit.
        """
        self._count_request("GET /v1/installations", INSTALLATIONS_LIMIT)
        known = self.contexts.installations or [self.contexts.default.installation]
        starts = {_cursor(id_): number for number, id_ in enumerate(known)}
        if cursor is not None and cursor not in starts:
            raise _malformed("cursor must be one that a response gave")
        start = 0 if cursor is None else starts[cursor]
        end = start + page_size
        return {
            "installations": [_describe_installation(id_) for id_ in known[start:end]],
            "cursor": _cursor(known[end]) if end < len(known) else None,
        }

    def installation_details(self, id_: str) -> dict[str, Any]:
        """Return the body of `GET /v1/installation/<id>`.

        Raises:
            RefusedError: The installation is not registered, or the app is over the limit.
        """
        self._count_request("GET /v1/installation/<id>", INSTALLATION_LIMIT)
        id_ = bare_installation(id_)
        if id_ not in (*self.contexts.installations, self.contexts.default.installation):
            message = "This installation is not registered. Register it: --contexts FILE, or POST /_emulator/contexts."
            raise RefusedError(404, "NOT_FOUND", message)
        return {**_describe_installation(id_), "scopes": [], "external": []}

    def page(self, invocation: str | None) -> Context:
        """Return the context of a page in a browser: that of an invocation, or the default one.

        Raises:
            RefusedError: The invocation is not registered and the emulator is strict.
        """
        return self.contexts.default if invocation is None else self.contexts.invocation(invocation, self.settings)

    def subscription(self, subscription: Mapping[str, Any], via: str) -> Listener:
        """Accept a subscription.

        Args:
            subscription: The subscriber's first message, already checked against its schema.
            via: How the subscriber is connected, as `Listener` says.

        Raises:
            RefusedError: The token does not allow it, or the installation is over the limit.
        """
        address = self.address_of_page(subscription, "subscribe", count=True)
        replay = subscription.get("options", {}).get("replaySeconds")
        now = self.clock.now()
        return Listener(
            address=address,
            id=next(self._listener_ids),
            via=via,
            invocation=subscription.get("invocation"),
            since=now,
            replay_since=None if replay is None else now - min(replay, self.settings.replay_retention),
        )

    def publish_from_page(self, publication: Any) -> RecordedEvent:
        """Publish as a front end does.

        Args:
            publication: `{"channel", "payload"}`, and optionally `isGlobal`, `invocation` and `options`.

        Raises:
            ValueError: The publication has another form.
            RefusedError: The token does not allow it, or the installation is over the limit.
        """
        if problem := PUBLICATION.problem(publication):
            raise ValueError(problem)
        address = self.address_of_page(publication, "publish", count=True)
        return self._deliver(address, publication["payload"], None)

    def publish_again(self, event: RecordedEvent) -> RecordedEvent:
        """Publish the payload of an event again, at the same address.

        Raises:
            RefusedError: The installation is over the limit.
        """
        self._count(event.address.installation)
        return self._deliver(event.address, event.payload, None)

    def address_of_page(self, described: Mapping[str, Any], permission: Permission, *, count: bool = False) -> Address:
        """Return the address at which a page in a browser publishes or listens.

        Args:
            described: `channel`, and optionally `isGlobal`, `invocation` and `options`.
            permission: The permission that the token must have.
            count: Whether to count the operation against the limit.

        Raises:
            RefusedError: The token does not allow it, the installation is over the limit, or the invocation is not
                registered and the emulator is strict.
        """
        context = self.page(described.get("invocation"))
        options = described.get("options", {})
        claims = self._claims(options, described["channel"], permission)
        if count:
            self._count(context.installation)
        overrides = options.get("contextOverrides")
        scope = None if described.get("isGlobal") else self._scope(context, overrides, permission)
        return _address(context.installation, described["channel"], scope, claims)

    def default_scope(self) -> str:
        """Return the scope of the default context."""
        return self._scope(self.contexts.default, None) or ""

    def _deliver(self, address: Address, payload: str, call: int | None) -> RecordedEvent:
        event_id = str(uuid.uuid4())
        now = self.clock.now()
        listeners = self.channels.deliver(address, payload, event_id, now, keep_unheard=self.settings.keep_unheard)
        delivered = len(listeners)
        near = (
            () if delivered else near_misses(address, self.channels.live_named(address.channel), self.default_scope())
        )
        event = RecordedEvent(
            address=address,
            payload=payload,
            event_id=event_id if delivered else None,
            event_timestamp=str(int(now * 1000)) if delivered else None,
            delivered=delivered,
            at=now,
            near_misses=near,
            id=next(self._ids),
            call=call,
            listeners=tuple(listeners[:_LISTENERS]),
        )
        size = len(payload) + len(address.channel) + sum(map(len, near))
        self.events.append(event, size)
        self.streams.take(address, payload, now)
        self.feed.send(event, size)
        return event

    def record(self, attempt: Attempt, request: RecordedRequest) -> None:
        """Remember an attempt that has ended."""
        if request.code is None and not request.fault:
            self.attempts.succeed(attempt)
        elif request.code == RATE_LIMIT_EXCEEDED and not request.fault:
            # No other refusal goes away by a retry. Of a fault it was noted at once: a client may retry before the
            # fault's delay is over.
            self.attempts.may_be_retried(attempt)
        size = request.size
        self.requests.append(request, size)
        self.feed.send(request, size)

    def record_invoke(self, call: Mapping[str, Any], began: float, **outcome: Any) -> RecordedInvoke:
        """Remember a page's call of the service.

        Args:
            call: The `method` and `path`.
            began: When it began, as `elapsed` returns it.
            **outcome: `invocation`, `status`, `code` and `message` of the record.
        """
        invoke = RecordedInvoke(
            method=call["method"],
            path=call["path"].partition("?")[0],
            at=self.clock.now(),
            duration=elapsed() - began,
            id=next(self._ids),
            **outcome,
        )
        self.invokes.append(invoke, len(invoke.path))
        self.feed.send(invoke, len(invoke.path))
        return invoke

    def state(self, most: int | None = None) -> dict[str, Any]:
        """Return what the console shows beside calls and events.

        Args:
            most: Number of channels in it, or `None` for all. `live` counts all.
        """
        live = self.channels.live()
        return {
            "kind": "state",
            "now": self.clock.now(),
            "clock": self.clock.ahead,
            "replayed": self.replayed,
            "settings": asdict(self.settings),
            "rates": self._limit.rates(self.clock.now()),
            "live": {"channels": len(live), "subscribers": sum(live.values())},
            "channels": [
                {**address.to_json(), "subscribers": subscribers} for address, subscribers in islice(live.items(), most)
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

    def _context_of(self, authorization: Authorization) -> Context | None:
        return None if authorization.invocation_id is None else self._invocation(authorization.invocation_id)

    def _publish(
        self, body: Any, installation: str, context: Context | None, call: int, *, is_global: bool = False
    ) -> OperationResult:
        channel, options = _part(body, "name", str), _part(body, "options", dict, {})
        overrides = None if is_global else _part(options, "contextOverrides", list, None)
        claims = self._claims(options, channel, "publish")
        payload = _part(body, "payload", object)
        # Documented: what is refused before this line does not count against the limit; what is refused after it does.
        self._count(installation)
        if is_global:
            scope = None
        elif context is None or not context.from_ui:
            raise _unauthorized(
                "publish needs the id of an invocation that came from a UI context, and cannot be done on behalf of an"
                " installationId. Send id=<invocation id> of such an invocation, or publish to a global channel."
            )
        else:
            scope = self._scope(context, overrides, "publish")
        address = _address(installation, channel, scope, claims)
        # Only a later document could allow another type.
        event = self._deliver(address, payload if isinstance(payload, str) else json.dumps(payload), call)
        return OperationResult({"eventId": event.event_id, "eventTimestamp": event.event_timestamp}, event)

    def _sign(self, body: Any, authorization: Authorization, installation: str) -> OperationResult:
        channel, claims = _part(body, "channelName", str), _part(body, "claims", dict)
        permissions = _part(body, "permissions", list, None)
        if permissions == []:
            raise _malformed("permissions: must not be empty. Leave it out for both")
        self._count(installation)
        if authorization.invocation_id is None and not self.settings.token_by_installation:
            raise _unauthorized("The emulator was told to refuse tokens on behalf of an installationId.")
        expires_at = int(self.clock.now()) + self.settings.token_lifetime
        token = self._tokens.sign(channel, claims, permissions, expires_at)
        return OperationResult({"token": token, "expiresAt": expires_at})

    def _scope(
        self, context: Context, overrides: Sequence[str] | None, permission: Permission = "subscribe"
    ) -> str | None:
        """Return the scope that publisher and subscriber must share, or `None` for a global channel."""
        if overrides is None:
            # Quoted unless it is a plain key, so that no two scopes read alike.
            module = context.module if _KEY.fullmatch(context.module) else json.dumps(context.module)
            return _format_scope(f"module {module}", {name: context.product[name] for name in sorted(context.product)})
        for name in overrides:
            if not isinstance(name, str) or name not in OVERRIDES:
                problem = f"options.contextOverrides: must be of {', '.join(OVERRIDES)}"
                if permission == "subscribe" or not isinstance(name, str):
                    raise _malformed(problem)
                message = "Error publishing event to channel"
                raise RefusedError(400, "PUBLISH_FAILED", message, detail=f"{problem}.", logical=True)
        if not overrides and self.settings.empty_overrides_are_global:
            return None
        names = dict.fromkeys(overrides if self.settings.overrides_in_order else sorted(overrides))
        return _format_scope("overrides", {name: context.product.get(name) for name in names})

    def _claims(self, options: Mapping[str, Any], channel: str, permission: Permission) -> str | None:
        token = _part(options, "token", str, None)
        if token is None:
            return None
        return self._tokens.verify(token, channel=channel, permission=permission, now=self.clock.now())

    def _count(self, installation: str) -> None:
        limit = self.settings.limit
        if not self._limit.count(installation, self.clock.now(), limit):
            detail = f"Over {limit} operations per second for the installation; nothing was done. Back off and retry."
            raise rate_limited(detail, self.settings.limit_retry_after)

    def _count_request(self, request: str, limit: int) -> None:
        if not self._app_limit.count(request, self.clock.now(), limit):
            message = f"Over {limit} requests of {request} per minute for the app. Retry after a minute."
            raise RefusedError(429, RATE_LIMIT_EXCEEDED, message)


def _address(installation: str, channel: str, scope: str | None, claims: str | None) -> Address:
    return Address(
        installation=installation, channel=channel, is_global=scope is None, scope=scope or "", claims=claims
    )


def _describe_installation(id_: str) -> dict[str, Any]:
    return {
        "id": id_,
        "installationContext": "ari:cloud:jira::site/emulated",
        "version": "1.0.0",
        "secondaryInstallationContexts": [],
    }


def _cursor(id_: str) -> str:
    """Return the cursor of the page that begins with an installation."""
    return hashlib.sha256(f"cursor {id_}".encode("utf-8", "surrogatepass")).hexdigest()


_REQUIRED: Any = object()


def _part(body: Any, name: str, kind: type, default: Any = _REQUIRED) -> Any:
    """Take a part of a body that the emulator cannot do without, even if the document is looser."""
    value = body.get(name, default) if isinstance(body, dict) else _REQUIRED
    if value is _REQUIRED or not (isinstance(value, kind) or value is default):
        what = "it" if kind is object else f"a {kind.__name__} here"
        raise _malformed(f"{name}: the document allows what was sent, but the emulator needs {what}")
    return value


def _format_scope(kind: str, parts: Mapping[str, str | None]) -> str:
    return " ".join([kind, *(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in parts.items())])


def _malformed(problem: str) -> RefusedError:
    return RefusedError(400, "INVALID_REQUEST", f"Invalid request: {problem}.")


def _unauthorized(detail: str) -> RefusedError:
    return RefusedError(400, "UNAUTHORIZED", "Unauthorized request", detail=detail, logical=True)
