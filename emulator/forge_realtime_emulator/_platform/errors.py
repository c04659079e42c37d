"""Errors of the emulator.

    EmulatorError             the emulator cannot do what you asked; the message says what to do
    ├── SubscriptionRefused   a subscription was not accepted
    └── SubscriptionClosed    the emulator closed a subscription

`RefusedError` is internal: a check raises it, and the endpoint turns it into the response.
"""

from __future__ import annotations

RATE_LIMIT_EXCEEDED = "RATE_LIMIT_EXCEEDED"
"""Documented code, and message, of a refusal over the rate limit."""


class EmulatorError(Exception):
    """The emulator cannot do what you asked. The message says what to do."""


class SubscriptionRefused(EmulatorError):  # noqa: N818 - public name: says what happened
    """A subscription was not accepted.

    Attributes:
        code: The reason, for example `TOKEN_EXPIRED` or `INVALID_SUBSCRIPTION`.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class SubscriptionClosed(EmulatorError):  # noqa: N818 - public name: says what happened
    """The emulator closed a subscription.

    Attributes:
        code: The WebSocket close code.
        reason: The reason that came with the code.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"The emulator closed the subscription with code {code}: {reason or 'no reason given'}")
        self.code = code
        self.reason = reason


class RefusedError(Exception):
    """A call or a subscription is refused.

    Attributes:
        status: The HTTP status of the response.
        code: A short name of the reason, and the `code` of a response that has one.
        message: The `message` in the response. It names fields and never repeats a value.
        detail: The emulator's explanation of a message that is the platform's own, or `None`.
        retry_after: Whole seconds for the `Retry-After` header, or `None` for no header.
        logical: Whether the operation itself failed. The response then has the documented form, with `errors`.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        detail: str | None = None,
        retry_after: int | None = None,
        logical: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.detail = detail
        self.retry_after = retry_after
        self.logical = logical


def rate_limited(detail: str, retry_after: int | None = None) -> RefusedError:
    """Build the documented refusal of an operation over the rate limit."""
    code = RATE_LIMIT_EXCEEDED
    return RefusedError(429, code, code, detail=detail, retry_after=retry_after, logical=True)


def join_code(code: str, message: str, detail: str | None = None) -> str:
    """Join a code, its message and the explanation for people, without repeating what two of them say."""
    head, _, rest = message.partition(": ")
    repeats = head.upper().replace(" ", "_").startswith(code)
    joined = message if rest == code or (repeats and not rest) else f"{code}: {rest if repeats else message}"
    return joined if detail is None else f"{joined}: {detail}"
