"""What can go wrong, and what is then known of the event.

* ForgeRealtimeError
  x UsageError                 refused by the client's own checks; nothing was sent
    + NoInvocationError        no invocation to act for
    + InvalidTokenError        a token that the platform would refuse
  x NoResponseError              no connection, or it broke before the answer was complete
    + TimedOutError            not in time
      - OverQuotaError         not begun: the client's own quota was in use up to the deadline
  x ResponseError                an answer, but not one of success
    + RejectedError            the platform refused: 4xx, 503 with Retry-After, or `errors` in a 200
      - RateLimitedError       429: more than 50 operations per second for the installation
    + ServerError        any other 5xx
    + UnexpectedResponseError    not JSON, not the documented shape, or a status outside the document
  x StreamError                a stream ended before all of it was published
    + StreamFullError          more updates than may be pending

Every one carries `delivery`, which is what decides whether to send again. Messages show neither payload, token, claims,
ids nor any text of the answer: that is in `body`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType

from attrs import frozen


class Delivery(enum.Enum):
    """What is known of an event after an attempt to send it."""

    ACCEPTED = "accepted"
    """The platform answered with success."""
    NOT_SENT = "not sent"
    """The request never left completely: the event cannot have arrived."""
    REJECTED = "rejected"
    """The platform refused the request: the event was not published."""
    UNKNOWN = "unknown"
    """The request left, but no clear answer came back: the event may have been published."""


@frozen
class Attempt:
    """One attempt of a call.

    Attributes:
        number: Counts from 1.
        delivery: What is known of the event after this attempt.
        status: The status of the answer; None when there was none.
        error: The class name of what went wrong; None when the attempt succeeded.
        elapsed: Seconds that the attempt took.
        wait: Seconds to wait before the next attempt; None when this was the last one.
    """

    number: int
    delivery: Delivery
    status: int | None
    error: str | None
    elapsed: float
    wait: float | None


@frozen(kw_only=True)
class StreamReport:
    """What became of the updates of a stream: `updates` is `sent + dropped + rejected + unknown + pending`.

    Attributes:
        updates: Those that `send` took.
        sent: In events that the platform accepted.
        merged: That went out in one event with an earlier update, whatever became of it.
        dropped: Never published: they made room for newer ones (`overflow="drop_oldest"`), or the stream ended before.
        rejected: In an event that the platform refused.
        unknown: In an event that may have been published, without a clear answer.
        pending: Not settled yet; 0 when the stream has ended.
        operations: Attempts to publish that reached the platform, or may have, the end mark's included.
    """

    updates: int = 0
    sent: int = 0
    merged: int = 0
    dropped: int = 0
    rejected: int = 0
    unknown: int = 0
    pending: int = 0
    operations: int = 0


class ForgeRealtimeError(Exception):
    """The base of all errors of this package.

    Attributes:
        delivery: What is known of the event: NOT_SENT, REJECTED or UNKNOWN. When an earlier attempt ended UNKNOWN and a
            later one was refused, it stays UNKNOWN: the earlier one may have arrived.
        attempts: Every attempt made, in order; empty when nothing was tried.
    """

    delivery: Delivery = Delivery.NOT_SENT
    attempts: tuple[Attempt, ...] = ()
    # Whether another attempt may help, as far as the kind of the failure tells.
    _retryable: bool = False


class UsageError(ForgeRealtimeError, ValueError):
    """The client's own checks refused the call. Nothing was sent; the message says what to do."""


class NoInvocationError(UsageError):
    """The call needs an invocation to act for, and there is none."""


class InvalidTokenError(UsageError):
    """A token that the platform would refuse; found before sending, as the official JavaScript SDK does.

    Attributes:
        code: `INVALID_TOKEN`, `TOKEN_EXPIRED`, `CHANNEL_NAME_MISMATCH` or `MISSING_PERMISSION`.
    """

    code: str = ""


class NoResponseError(ForgeRealtimeError):
    """No connection was made (NOT_SENT), or it broke before the answer was complete (UNKNOWN).

    `__cause__` is the error of httpx.
    """


class TimedOutError(NoResponseError, TimeoutError):
    """Connecting (NOT_SENT) or answering (UNKNOWN) took longer than the policy allows."""


class OverQuotaError(TimedOutError):
    """The client's own quota would have let the call begin only after its deadline. Nothing was sent.

    `__cause__` is None. Where an earlier attempt of the call was made, that one's error is raised instead.
    """


class ResponseError(ForgeRealtimeError):
    """There was an answer, but not one of success.

    Attributes:
        status: The status of the answer.
        headers: Its headers, the names in lower case.
        body: The first 64 KiB of its body, as received. May hold what was sent: think before you log it.
        code: The platform's code for the failure (`RATE_LIMIT_EXCEEDED`, `TOKEN_EXPIRED`, ...), from the body or from the
            header `forge-proxy-error`, or its documented message where it has no code (`Unauthorized request`, `Error
            publishing event to channel`, `Error signing realtime token`); None when it gave neither.
        retry_after: Seconds that the server asks to wait; None when it does not say.
    """

    status: int = 0
    headers: Mapping[str, str] = MappingProxyType({})
    body: bytes = b""
    code: str | None = None
    retry_after: float | None = None


class RejectedError(ResponseError):
    """The platform refused the request: 4xx, 503 with `Retry-After`, or `errors` in the body of a 200."""


class RateLimitedError(RejectedError):
    """429: over the documented 50 operations per second (3000 per minute) and installation."""


class ServerError(ResponseError):
    """A 5xx other than a 503 with `Retry-After`: the event may have been published all the same."""


class UnexpectedResponseError(ResponseError):
    """Not JSON, not the documented shape, or a status that the document does not list."""


class StreamError(ForgeRealtimeError):
    """A stream ended, or a wait in it (`flush`), before all of it was published. `__cause__` is what the last attempt ended with.

    Attributes:
        report: What became of the updates so far.
    """

    report: StreamReport = StreamReport()


class StreamFullError(StreamError):
    """As many updates are pending as may be; this one was not taken."""
