"""Print what becomes of a call under each documented form of response: `python -m tests.documented`."""

from __future__ import annotations

from forge_realtime import ResponseError
from tests.documented import FORMS, OPERATIONS, POLICIES
from tests.support.callers import Caller
from tests.support.fault_server import FaultServer


def main() -> None:
    """Print one row for each form, operation and policy."""
    print(f"{'response':<55} {'operation':<20} {'policy':<14} {'outcome':<24} {'code':<34} delivery, attempts")
    for form in FORMS:
        for operation, call in OPERATIONS.items():
            for name, policy in POLICIES.items():
                with FaultServer(then=form.response(operation)) as server:
                    [outcome] = Caller("sync")(server.url, call, retry=policy)
                code = outcome.code if isinstance(outcome, ResponseError) else None
                known = [attempt.delivery.name for attempt in outcome.attempts]
                kind = type(outcome).__name__
                print(f"{form.name:<55} {operation:<20} {name:<14} {kind:<24} {code or '-':<34} {', '.join(known)}")


if __name__ == "__main__":
    main()
