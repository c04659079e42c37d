"""The errors of the emulator.

    EmulatorError             the emulator cannot do what its user asked; the message says what to do
    ├── SubscriptionRefused   a subscription was not accepted
    └── SubscriptionClosed    the emulator closed a subscription

`Refused` is not among them: it is how a check tells the endpoint what to answer, and never reaches a user.
"""

from __future__ import annotations


class EmulatorError(Exception):
    """The emulator cannot do what was asked of it. The message says what to do."""


class SubscriptionRefused(EmulatorError):
    """A subscription was not accepted.

    Attributes:
        code: Why, for example `TOKEN_EXPIRED` or `INVALID_SUBSCRIPTION`.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class SubscriptionClosed(EmulatorError):
    """The emulator closed a subscription.

    Attributes:
        code: The WebSocket close code.
        reason: The reason that came with it.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"The emulator closed the subscription with code {code}: {reason or 'no reason given'}")
        self.code = code
        self.reason = reason


def spoken(code: str, message: str) -> str:
    """A code and its message for people, without what both of them say."""
    head, _, rest = message.partition(": ")
    if rest == code:
        return message
    return f"{code}: {rest if head.upper().replace(' ', '_').startswith(code) else message}"


class Refused(Exception):
    """A call or a subscription is not accepted; the endpoint turns this into the answer.

    Attributes:
        status: The HTTP status to answer with.
        code: The `code` of the answer.
        message: The `message` of the answer. It names fields and never repeats a value.
        retry_after: Whole seconds for the `Retry-After` header, or None for no such header.
        logical: Whether it is a failure of the operation itself, which a 200 with `errors` may tell as well.
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
