"""Records of what became of a call's attempts and of a stream's updates. They load with the first client."""

from __future__ import annotations

from attrs import field, frozen

from .errors import Delivery


def _in_milliseconds(seconds: float | None) -> str:
    return "None" if seconds is None else f"{seconds:.3f}"


@frozen
class Attempt:
    """One attempt of a call.

    Attributes:
        number: Counts from 1.
        delivery: What is known about the event after this attempt.
        status: Status of the response; None if there was none.
        error: Class name of the failure; None if the attempt succeeded.
        elapsed: Duration of the attempt in seconds.
        wait: Seconds until the next attempt; None if this was the last one.
    """

    number: int
    delivery: Delivery = field(repr=str)
    status: int | None
    error: str | None
    elapsed: float = field(repr=_in_milliseconds)
    wait: float | None = field(repr=_in_milliseconds)


@frozen(kw_only=True)
class StreamReport:
    """Counts of a stream's updates: `updates` is `sent + dropped + rejected + unknown + pending`.

    Attributes:
        updates: Taken by `send`.
        sent: Published in events that the platform accepted.
        merged: Published in one event with an earlier update, whatever became of that event.
        dropped: Never published: they made room for newer ones (`overflow="drop_oldest"`), or the stream ended before.
        rejected: Published in an event that the platform refused.
        unknown: In an event that may have been published, without a clear response.
        pending: Not settled yet; 0 when the stream has ended.
        operations: Attempts to publish that reached the platform or may have, including the end mark's.
    """

    updates: int = 0
    sent: int = 0
    merged: int = 0
    dropped: int = 0
    rejected: int = 0
    unknown: int = 0
    pending: int = 0
    operations: int = 0
