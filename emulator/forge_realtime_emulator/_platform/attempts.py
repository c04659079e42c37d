"""Attempts of one call, told by what the platform documents: no header says that a call is retried."""

from __future__ import annotations

from dataclasses import dataclass, field

from .clock import elapsed

DEADLINE = 30.0
"""Seconds from the first attempt of a call in which its next attempts come."""

_OPEN_LIMIT = 10_000
"""Number of calls that may be retried and are remembered; the oldest are forgotten."""


@dataclass(slots=True)
class Attempt:
    """Attempt of a call that is being carried out.

    Attributes:
        id: The number of its record.
        call: The number of the call's first attempt.
        number: Which attempt of its call it is, from 1.
        key: Operation, authorization header and body. Equal in all attempts of a call; `None` for a call that is never
            taken for a retry. Hidden in the repr.
        began: Real seconds, as `elapsed` returns them.
    """

    id: int
    call: int
    number: int
    key: tuple[object, ...] | None = field(repr=False)
    began: float


@dataclass(slots=True)
class _Call:
    id: int
    attempts: int
    began: float


class Attempts:
    """Groups the attempts of calls.

    An attempt belongs to an earlier call if operation, authorization header and body are the same, a fault or the rate
    limit had made the earlier attempt fail, and the call's first attempt was at most `DEADLINE` seconds ago. Equal
    calls that fail at the same time cannot be told apart.
    """

    def __init__(self) -> None:
        # By the hash of the key, so that no body is kept. Empty while nothing fails.
        self._open: dict[int, _Call] = {}

    def begin(self, id_: int, key: tuple[object, ...] | None, began: float) -> Attempt:
        """Begin an attempt, either the first one of a call or the next one of a call that is open."""
        if self._open and key is not None and (call := self._open.get(hash(key))) is not None:
            if began - call.began <= DEADLINE:
                call.attempts += 1
                return Attempt(id_, call.id, call.attempts, key, began)
            del self._open[hash(key)]
        return Attempt(id_, id_, 1, key, began)

    def may_be_retried(self, attempt: Attempt) -> None:
        """Note that an attempt fails or is delayed, so that the same call again is its retry."""
        if attempt.key is None:
            return
        self._open.setdefault(hash(attempt.key), _Call(attempt.call, attempt.number, attempt.began))
        since = elapsed() - DEADLINE
        while self._open and (len(self._open) > _OPEN_LIMIT or next(iter(self._open.values())).began < since):
            del self._open[next(iter(self._open))]

    def succeed(self, attempt: Attempt) -> None:
        """Note that an attempt succeeded: the same call again is another call."""
        if self._open and attempt.key is not None:
            self._open.pop(hash(attempt.key), None)

    def clear(self) -> None:
        """Forget all calls."""
        self._open.clear()
