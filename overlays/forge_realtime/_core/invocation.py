"""The invocation that a container is answering: read from the request, current in its context, carried to workers."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, Literal, Protocol, TypeAlias

from attrs import asdict, field, fields, frozen

from .errors import NoInvocationError, UsageError
from .group import REALTIME
from .log import log


class Request(Protocol):
    """A request of a web framework."""

    @property
    def headers(self) -> Any: ...


Headers: TypeAlias = (
    Mapping[str, Any] | Mapping[bytes, bytes] | Iterable[tuple[bytes, bytes]] | Iterable[tuple[str, str]] | Request
)

AfterEnd: TypeAlias = Literal["warn", "allow", "refuse"]


def _check_id(_instance: object, _attribute: object, value: str) -> None:
    if not (isinstance(value, str) and value.strip()):
        raise UsageError(
            "Invocation takes the id of an invocation, a non-empty str: the value of the header x-forge-invocation-id. "
            "To read it from a request, use Invocation.from_headers(request.headers)."
        )


@frozen
class Invocation:
    """One invocation of the app.

    Source: the documented headers of requests to a Forge Container. It is not documented how long an id stays valid.

    Attributes:
        id: `x-forge-invocation-id`.
        log_attributes: `x-forge-invocation-log-attributes`, opaque base64 for the platform's log reader.
        trace_id: `x-b3-traceid`.
        span_id: `x-b3-spanid`.
    """

    id: str = field(repr=False, validator=_check_id)
    log_attributes: str | None = field(default=None, kw_only=True, repr=False)
    trace_id: str | None = field(default=None, kw_only=True)
    span_id: str | None = field(default=None, kw_only=True)

    @classmethod
    def from_headers(cls, headers: Headers) -> Invocation:
        """Read the invocation from the headers of an inbound request.

        Args:
            headers: A mapping, or pairs of names and values, as str or bytes (ASGI); names in any case. Or a request
                with such `headers`, or the environment of WSGI (`request.META` of Django).

        Raises:
            UsageError: The argument is no mapping or pairs.
            NoInvocationError: The argument is None, or the headers carry no `x-forge-invocation-id`.
        """
        if headers is None:
            raise NoInvocationError(
                "None is no invocation: current_invocation() returns it where none is current. Pass request.headers of "
                f"the request that the platform sent to the container. {_where_it_is_current()}"
            )
        headers = getattr(headers, "headers", headers)
        # Not every framework's headers are a Mapping, but they all have items() or are pairs.
        try:
            items: Callable[[], Any] = getattr(headers, "items", lambda: headers)
            if isinstance(headers, Mapping) and "REQUEST_METHOD" in headers:
                items = environ_headers(headers).items
            found = {_text(name).lower(): _text(value) for name, value in items()}
        except Exception:  # noqa: BLE001 (a mapping of the app may raise anything)
            raise UsageError(
                "Expected a request, or its headers: a mapping, or pairs of names and values, such as request.headers. "
                "If you have only the id of an invocation, pass Invocation(id)."
            ) from None
        if not (id_ := found.get("x-forge-invocation-id", "").strip()):
            raise NoInvocationError(
                "These headers carry no x-forge-invocation-id. Pass the headers of the request that the platform sent"
                f" to the container. {_WITHOUT}"
            )
        return cls(
            id_,
            log_attributes=found.get("x-forge-invocation-log-attributes"),
            trace_id=found.get("x-b3-traceid"),
            span_id=found.get("x-b3-spanid"),
        )

    @classmethod
    def from_text(cls, text: str) -> Invocation:
        """Read the text that `to_text` wrote.

        Raises:
            UsageError: The text is something else.
        """
        names = [attribute.name for attribute in fields(cls)]
        try:
            found = json.loads(text)
            values = {name: found[name] for name in names if name in found}
        except (TypeError, ValueError, RecursionError):
            values = {}
        # Raised outside of the handler, because the decoder's error holds the text.
        if not (values.get("id") and all(isinstance(value, str) for value in values.values())):
            raise UsageError(
                "This is not the text of an invocation. Pass the result of Invocation.to_text() unchanged."
            )
        return cls(values.pop("id"), **values)

    def to_text(self) -> str:
        """Return one line of printable ASCII, to carry the invocation in a message, header or environment variable.

        The text holds the id: anyone who has it can act for the invocation while that is valid.
        """
        values = asdict(self, filter=lambda _, value: value is not None)
        return json.dumps(values, separators=(",", ":"))

    def active(self) -> AbstractContextManager[None]:
        """Make this the current invocation in a `with` block, as the middleware does for a request.

        Blocks can be nested, and each thread and task has its own. After the block, the former invocation is current
        again.

            with Invocation.from_text(message["invocation"]).active():
                ...  # calls of the client act for it
        """
        return activated(CurrentInvocation(self))


def current_invocation() -> Invocation | None:
    """Return the invocation that this code runs for, or None.

    The middleware (`forge_realtime.asgi`, `forge_realtime.wsgi`, `forge_realtime.django`) and `Invocation.active()` set
    it. Tasks and `asyncio.to_thread` inherit it. Other threads, executors and queues do not: hand them the
    `Invocation`, or its `to_text()`, and enter `active()` there.

    A task that outlives its request still gets it here, but a call for it warns: enter `active()` in the task to take
    it along on purpose.
    """
    current = _current.get()
    return None if current is None else current.invocation


class CurrentInvocation:
    """An invocation that was made the current one, or that there is none.

    Attributes:
        invocation: The invocation; None for a request without one.
        after_end: What a call does after the end of the request.
        ended: Whether the request has ended. Tasks that it started see it, too.
    """

    def __init__(self, invocation: Invocation | None, *, after_end: AfterEnd = "warn") -> None:
        if after_end not in ("warn", "allow", "refuse"):
            raise UsageError("InvocationMiddleware: after_end must be 'warn', 'allow' or 'refuse'.")
        self.invocation = invocation
        self.after_end: AfterEnd = after_end
        self.ended = False
        self._warned = False

    def require(self, name: str) -> Invocation:
        """Return the invocation for a call; warn once or refuse if the request has ended."""
        if self.invocation is None:
            raise NoInvocationError(
                f"{name}: the request that this code runs for carries no x-forge-invocation-id. Only requests that the "
                f"platform sent to the container have one; in a test, set this header. {_WITHOUT}"
            )
        if self.ended and self.after_end != "allow":
            self._report(name)
        return self.invocation

    def _report(self, name: str) -> None:
        text = (
            f"{name}: the request that started this task has ended, but its invocation is still current here. If the "
            "task works for other requests too, its calls for them would act for the wrong user: hand each request's "
            "current_invocation() to the task, and enter `with invocation.active()` there. To take this one along on "
            "purpose, enter the same block at the start of the task, or make the middleware with after_end='allow'."
        )
        if self.after_end == "refuse":
            raise NoInvocationError(text)
        if not self._warned:
            self._warned = True
            log(logging.WARNING, "%s", text)
            # The caller of the client's method.
            warnings.warn(text, RuntimeWarning, stacklevel=8)


_current: ContextVar[CurrentInvocation | None] = ContextVar("forge_realtime.current_invocation", default=None)
_WITHOUT = "Without an invocation, use client.for_installation(installation_id)"
_WITHOUT += ", which publishes to global channels." if REALTIME else "."


def require_invocation(name: str) -> Invocation:
    """Return the current invocation for the call of an operation; raise NoInvocationError if there is none."""
    current = _current.get()
    if current is not None:
        return current.require(name)
    raise NoInvocationError(f"{name}: no invocation is current here. {_where_it_is_current()} {_WITHOUT}")


def _where_it_is_current() -> str:
    if "django.conf" in sys.modules:
        middleware = (
            "add 'forge_realtime.django.InvocationMiddleware' to MIDDLEWARE in the settings of Django, first of all "
            "(in a test, use Client or AsyncClient: RequestFactory runs no middleware)"
        )
    else:
        middleware = "add InvocationMiddleware of forge_realtime.asgi or forge_realtime.wsgi to the app"
    return (
        f"In a request, {middleware}, or call it on client.for_invocation(request.headers). In a thread, executor or "
        "queue worker, enter `with invocation.active()` with the request's current_invocation(); to_text() carries it "
        "through a queue."
    )


@contextmanager
def activated(current: CurrentInvocation) -> Iterator[None]:
    """Make an invocation, or that there is none, the current one in a `with` block."""
    former = _current.get()
    _current.set(current)
    try:
        yield
    finally:
        # Not by a token, which raises if the block ends in another context, as an abandoned async generator's does.
        _current.set(former)


def activated_chunks(content: Iterable[Any], current: CurrentInvocation) -> Iterator[Any]:
    """Yield the chunks of a response, each made with an invocation as the current one.

    Between chunks there is none: the server may use the thread.
    """
    with activated(current):
        chunks = iter(content)
    while True:
        with activated(current):
            chunk = next(chunks, None)
        if chunk is None:
            return
        yield chunk


def find_invocation(headers: Headers) -> Invocation | None:
    """Read the invocation as `Invocation.from_headers` does; None if there is none."""
    try:
        return Invocation.from_headers(headers)
    except NoInvocationError:
        return None


def environ_headers(environ: Mapping[Any, Any]) -> dict[str, str]:
    """Return the headers in the environment of WSGI or CGI."""
    return {name[5:].replace("_", "-"): value for name, value in environ.items() if name.startswith("HTTP_")}


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
