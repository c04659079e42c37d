"""Documented forms of responses, each a fixture of its own, which run through the client without the emulator."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from attrs import evolve, frozen

from forge_realtime import (
    Delivery,
    ForgeRealtimeError,
    RateLimitedError,
    RejectedError,
    RetryPolicy,
    ServerError,
    UnexpectedResponseError,
)
from tests.support.callers import QUICK
from tests.support.fault_server import Behaviour, answer

Operation: TypeAlias = Literal["publish", "sign_realtime_token"]
OPERATIONS: Final[dict[Operation, Callable[[Any], Any]]] = {
    "publish": lambda live: live.publish("board-42", {"moved": 7}),
    "sign_realtime_token": lambda live: live.sign_realtime_token("board-42", {"team": "red"}),
}
POLICIES: Final[dict[str, RetryPolicy]] = {
    delivery: evolve(QUICK, delivery=delivery, max_attempts=2) for delivery in ("at_least_once", "at_most_once")
}


@frozen
class Outcome:
    """What a form of response means.

    Attributes:
        error: Class of the error; None for success.
        delivery: What is known about the event.
        retried: Always, never, or only if a duplicate is harmless.
    """

    error: type[ForgeRealtimeError] | None
    delivery: Delivery
    retried: Literal["always", "never", "if harmless"]


OUTCOMES: Final = {
    "accepted": Outcome(None, Delivery.ACCEPTED, "never"),
    "rate limited": Outcome(RateLimitedError, Delivery.REJECTED, "always"),
    "rejected": Outcome(RejectedError, Delivery.REJECTED, "never"),
    "contradiction": Outcome(UnexpectedResponseError, Delivery.UNKNOWN, "if harmless"),
    "server error": Outcome(ServerError, Delivery.UNKNOWN, "if harmless"),
    "undocumented status": Outcome(UnexpectedResponseError, Delivery.UNKNOWN, "never"),
}


@frozen
class Form:
    """One form of response.

    Attributes:
        name: Status and what says so.
        source: Where it is documented, or why it is possible.
        status: The status.
        headers: Headers beside the content type.
        bodies: The body for each operation.
        outcome: One of `OUTCOMES`.
        codes: The code for each operation; None if there is none.
    """

    name: str
    source: str
    status: int
    headers: dict[str, str]
    bodies: dict[Operation, dict[str, Any]]
    outcome: Outcome
    codes: dict[Operation, str | None]

    def response(self, operation: Operation) -> Behaviour:
        """Return what makes a server respond in this form."""
        return answer(self.status, self.bodies[operation], self.headers)

    def attempts(self, operation: Operation, policy: RetryPolicy) -> int:
        """Return how many of two attempts are made."""
        harmless = operation == "sign_realtime_token" or policy.delivery == "at_least_once"
        retried = self.outcome.retried == "always" or (self.outcome.retried == "if harmless" and harmless)
        return 2 if retried else 1


def _form(row: dict[str, Any]) -> Form:
    code = row["code"]
    return Form(
        name=row["name"],
        source=row["source"],
        status=row["status"],
        headers=row["headers"],
        bodies={operation: row[operation] for operation in OPERATIONS},
        outcome=OUTCOMES[row["outcome"]],
        codes=code if isinstance(code, dict) else dict.fromkeys(OPERATIONS, code),
    )


FORMS: Final = [_form(row) for row in json.loads((Path(__file__).parent / "responses.json").read_text("utf-8"))]
