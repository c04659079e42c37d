"""Errors of the emulator.

    EmulatorError             the emulator cannot do what you asked; the message says what to do
    ├── SubscriptionRefused   a subscription was not accepted
    └── SubscriptionClosed    the emulator closed a subscription

`RefusedError` is internal: a check raises it, and the endpoint turns it into the response.
"""

from __future__ import annotations


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
        code: The `code` in the response.
        message: The `message` in the response. It names fields and never repeats a value.
        retry_after: Whole seconds for the `Retry-After` header, or `None` for no header.
        logical: Whether the operation itself failed, which a 200 with `errors` may report too.
    """

    def __init__(
        self, status: int, code: str, message: str, *, retry_after: int | None = None, logical: bool = False
    ) -> None:
        super().__init__(message)
        self.logical = logical
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after


def join_code(code: str, message: str) -> str:
    """Join a code and its message for people, without repeating what both say."""
    head, _, rest = message.partition(": ")
    if rest == code:
        return message
    return f"{code}: {rest if head.upper().replace(' ', '_').startswith(code) else message}"
