"""The invocation that a container answers: read from the inbound request, current in its context, carried elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias

from attrs import asdict, field, fields, frozen

from .errors import NoInvocationError, UsageError

Headers: TypeAlias = (
    Mapping[str, str] | Mapping[bytes, bytes] | Iterable[tuple[bytes, bytes]] | Iterable[tuple[str, str]]
)

_current: ContextVar[Invocation | None] = ContextVar("forge_realtime.current_invocation", default=None)


@frozen
class Invocation:
    """One invocation of the app.

    Source: the documented headers of requests to a Forge Container. How long an id stays valid is not documented.

    Attributes:
        id: `x-forge-invocation-id`.
        log_attributes: `x-forge-invocation-log-attributes`, opaque base64 for the platform's log reader.
        trace_id: `x-b3-traceid`.
        span_id: `x-b3-spanid`.
    """

    id: str = field(repr=False)
    log_attributes: str | None = field(default=None, kw_only=True, repr=False)
    trace_id: str | None = field(default=None, kw_only=True)
    span_id: str | None = field(default=None, kw_only=True)

    @classmethod
    def from_headers(cls, headers: Headers) -> Invocation:
        """Reads the invocation from the headers of an inbound request.

        Args:
            headers: A mapping or pairs of names and values, as text or bytes (ASGI), the names in any case.

        Raises:
            UsageError: These are no headers.
            NoInvocationError: There is no `x-forge-invocation-id` in them.
        """
        # Not every framework's headers are a Mapping, but all that are not pairs have items().
        items: Callable[[], Any] = getattr(headers, "items", lambda: headers)
        try:
            found = {_text(name).lower(): _text(value) for name, value in items()}
        except (TypeError, ValueError):
            raise UsageError("Expected the headers of a request: a mapping, or pairs of names and values.") from None
        if not (id_ := found.get("x-forge-invocation-id")):
            raise NoInvocationError(
                "These headers carry no x-forge-invocation-id. Pass the headers of the request that the platform sent to "
                "the container; outside of one, use for_installation(...) with publish_global."
            )
        return cls(
            id_,
            log_attributes=found.get("x-forge-invocation-log-attributes"),
            trace_id=found.get("x-b3-traceid"),
            span_id=found.get("x-b3-spanid"),
        )

    @classmethod
    def from_text(cls, text: str) -> Invocation:
        """Reads what `to_text` wrote.

        Raises:
            UsageError: It is no such text.
        """
        names = [attribute.name for attribute in fields(cls)]
        try:
            found = json.loads(text)
            values = {name: found[name] for name in names if name in found}
        except (TypeError, ValueError, RecursionError):
            values = {}
        # Raised outside of the handler: the error of the decoder holds the text.
        if not (values.get("id") and all(isinstance(value, str) for value in values.values())):
            raise UsageError(
                "This is not the text of an invocation. Pass what Invocation.to_text() returned, unchanged."
            )
        return cls(values.pop("id"), **values)

    def to_text(self) -> str:
        """Writes it as one line of printable ASCII, to be carried in a message, a header or an environment variable.

        The text holds the id: who has it can act for the invocation as long as that is valid.
        """
        values = asdict(self, filter=lambda _, value: value is not None)
        return json.dumps(values, separators=(",", ":"))

    def active(self) -> AbstractContextManager[None]:
        """Makes it the current invocation of the block, as the middleware does for a request.

        Blocks can be nested, and used in threads and tasks: each sees its own. The former invocation is current again
        after the block.

            with Invocation.from_text(message["invocation"]).active():
                realtime.publish("board-42", {"moved": 7})
        """
        return activated(self)


def current_invocation() -> Invocation | None:
    """Returns the invocation that this code runs for; None outside of one.

    It is set by the middleware (`forge_realtime.asgi`, `forge_realtime.wsgi`) and by `Invocation.active()`. Tasks and
    `asyncio.to_thread` inherit it. To other threads, to executors and to queues it is carried by hand: give them the
    `Invocation`, or its `to_text()`, and enter `active()` there.
    """
    return _current.get()


@contextmanager
def activated(invocation: Invocation | None) -> Iterator[None]:
    """Makes `invocation` the current one of the block, or makes sure that there is none."""
    former = _current.get()
    _current.set(invocation)
    try:
        yield
    finally:
        # Not by a token: that raises where the block ends in another context, as an abandoned async generator's does.
        _current.set(former)


def find_invocation(headers: Headers) -> Invocation | None:
    """As `Invocation.from_headers`, but None where there is no invocation."""
    try:
        return Invocation.from_headers(headers)
    except NoInvocationError:
        return None


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
