"""The invocation that a container is answering: read from the request, current in its context, carried to workers."""

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
            headers: A mapping, or pairs of names and values, as str or bytes (ASGI); names in any case.

        Raises:
            UsageError: The argument is no mapping or pairs.
            NoInvocationError: The headers carry no `x-forge-invocation-id`.
        """
        # Not every framework's headers are a Mapping, but they all have items() or are pairs.
        try:
            items: Callable[[], Any] = getattr(headers, "items", lambda: headers)
            found = {_text(name).lower(): _text(value) for name, value in items()}
        except Exception:  # noqa: BLE001 (a mapping of the app may raise anything)
            raise UsageError(
                "Expected the headers of a request: a mapping, or pairs of names and values, such as request.headers. "
                "If you have only the id of an invocation, pass Invocation(id)."
            ) from None
        if not (id_ := found.get("x-forge-invocation-id", "").strip()):
            raise NoInvocationError(
                "These headers carry no x-forge-invocation-id. Pass the headers of the request that the platform sent"
                " to the container; outside of a request, use for_installation(...) with publish_global."
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
                realtime.publish("board-42", {"moved": 7})
        """
        return activated(self)


def current_invocation() -> Invocation | None:
    """Return the invocation that this code runs for, or None.

    The middleware (`forge_realtime.asgi`, `forge_realtime.wsgi`) and `Invocation.active()` set it. Tasks and
    `asyncio.to_thread` inherit it. Other threads, executors and queues do not: hand them the `Invocation`, or its
    `to_text()`, and enter `active()` there.
    """
    return _current.get()


@contextmanager
def activated(invocation: Invocation | None) -> Iterator[None]:
    """Make `invocation` the current one in a `with` block; None for no invocation."""
    former = _current.get()
    _current.set(invocation)
    try:
        yield
    finally:
        # Not by a token, which raises if the block ends in another context, as an abandoned async generator's does.
        _current.set(former)


def find_invocation(headers: Headers) -> Invocation | None:
    """Read the invocation as `Invocation.from_headers` does; None if there is none."""
    try:
        return Invocation.from_headers(headers)
    except NoInvocationError:
        return None


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
