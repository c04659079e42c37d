"""The errors of this package, and what each one says about the event.

* ForgeRealtimeError
  x UsageError                 the client's own checks refused the call; nothing was sent
    + NoInvocationError        no invocation to act for
    + InvalidTokenError        a token that the platform would refuse
  x NoResponseError            no connection, or it broke before the response was complete
    + TimedOutError            not in time
      - OverQuotaError         not started: the client's own quota was used up until the deadline
  x ResponseError              a response other than success
    + RejectedError            the platform refused: 4xx, 503 with Retry-After, or `errors` in a 200
      - RateLimitedError       more than 50 operations per second for the installation
    + ServerError              any other 5xx
    + UnexpectedResponseError  not JSON, not the documented shape, an undocumented status, or a contradiction
  x StreamError                a stream ended before everything was published
    + StreamFullError          more updates than may be pending

Every error carries `delivery`, which decides whether to send again. Messages show no payload, token, claim or id, and
no text of the response: that is in `body`. A client with `show_response=True` adds it to the message.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .attempts import Attempt, StreamReport


class Delivery(enum.Enum):
    """What is known about an event after an attempt to send it."""

    ACCEPTED = "accepted"
    """The platform responded with success."""
    NOT_SENT = "not sent"
    """The request never left completely: the event cannot have arrived."""
    REJECTED = "rejected"
    """The platform refused the request: the event was not published."""
    UNKNOWN = "unknown"
    """The request left, but no clear response came back: the event may have been published."""


class ForgeRealtimeError(Exception):
    """Base of all errors of this package.

    Attributes:
        delivery: What is known about the event: NOT_SENT, REJECTED or UNKNOWN. If an earlier attempt ended UNKNOWN and
            a later one was refused, it stays UNKNOWN: the earlier one may have arrived. An error rebuilt from its
            message alone, as by Celery's JSON results, is UNKNOWN too, unless it is a UsageError.
        attempts: Every attempt, in order; empty if nothing was tried.
        retryable: Whether a later call may succeed, as far as the kind of failure tells.
    """

    def __init__(
        self,
        message: str = "",
        *,
        delivery: Delivery = Delivery.UNKNOWN,
        attempts: tuple[Attempt, ...] = (),
        retryable: bool = False,
    ) -> None:
        super().__init__(message)
        self.delivery = delivery
        self.attempts = attempts
        self.retryable = retryable


class UsageError(ForgeRealtimeError, ValueError):
    """The client's own checks refused the call. Nothing was sent; the message says what to do."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message, delivery=Delivery.NOT_SENT)


class NoInvocationError(UsageError):
    """The call needs an invocation to act for, and there is none."""


class InvalidTokenError(UsageError):
    """A token that the platform would refuse; found before sending, as by the official JavaScript SDK.

    Attributes:
        code: `INVALID_TOKEN`, `TOKEN_EXPIRED`, `CHANNEL_NAME_MISMATCH` or `MISSING_PERMISSION`.
    """

    def __init__(self, message: str = "", *, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class NoResponseError(ForgeRealtimeError):
    """No connection was made (NOT_SENT), or it broke before the response was complete (UNKNOWN).

    `__cause__` is the error of httpx.
    """


class TimedOutError(NoResponseError, TimeoutError):
    """Connecting (NOT_SENT) or responding (UNKNOWN) took longer than the policy allows."""


class OverQuotaError(TimedOutError):
    """The client's own quota would have let the call start only after its deadline. Nothing was sent.

    `__cause__` is None. If an earlier attempt of the call was made, that attempt's error is raised instead.
    """


class ResponseError(ForgeRealtimeError):
    """A response other than success.

    Attributes:
        status: Status of the response.
        headers: Its headers, names in lower case.
        body: The first 64 KiB of its body, as received. It may repeat what was sent: think before you log it.
        code: The platform's code for the failure (`RATE_LIMIT_EXCEEDED`, `TOKEN_EXPIRED`, ...), from the body or the
            header `forge-proxy-error`, or its documented message where there is no code (`Unauthorized request`, `Error
            publishing event to channel`, `Error signing realtime token`); None if it gave neither.
        retry_after: Seconds that the server asks to wait; None if it does not say.
    """

    def __init__(
        self,
        message: str = "",
        *,
        delivery: Delivery = Delivery.UNKNOWN,
        attempts: tuple[Attempt, ...] = (),
        retryable: bool = False,
        status: int = 0,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, delivery=delivery, attempts=attempts, retryable=retryable)
        self.status = status
        self.headers: Mapping[str, str] = headers or {}
        self.body = body
        self.code = code
        self.retry_after = retry_after


class RejectedError(ResponseError):
    """The platform refused the request: 4xx, 503 with `Retry-After`, or `errors` in the body of a 200."""


class RateLimitedError(RejectedError):
    """Over the documented 50 operations per second (3000 per minute) and installation.

    The platform says so as a 429, or as `RATE_LIMIT_EXCEEDED` in the body or the header `forge-proxy-error` under any
    status.
    """


class ServerError(ResponseError):
    """A 5xx other than a 503 with `Retry-After`: the event may have been published all the same."""


class UnexpectedResponseError(ResponseError):
    """Not JSON, not the documented shape, an undocumented status, or both a result and `errors`."""


class StreamError(ForgeRealtimeError):
    """A stream, or a wait in it (`flush`), ended before everything was published.

    `__cause__` is the error of the last attempt.

    Attributes:
        report: Counts of the updates so far.
    """

    def __init__(
        self,
        message: str = "",
        *,
        delivery: Delivery = Delivery.UNKNOWN,
        attempts: tuple[Attempt, ...] = (),
        retryable: bool = False,
        report: StreamReport | None = None,
    ) -> None:
        super().__init__(message, delivery=delivery, attempts=attempts, retryable=retryable)
        if report is None:
            # Not loaded with the errors, as attrs takes long.
            from .attempts import StreamReport

            report = StreamReport()
        self.report = report


class StreamFullError(StreamError):
    """As many updates are pending as may be; this one was not taken."""
