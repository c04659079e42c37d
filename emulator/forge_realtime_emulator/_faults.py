"""Faults: answers that the next calls get instead of their own."""

from __future__ import annotations

import threading
from collections.abc import Collection
from typing import Any

from ._errors import Refused
from ._schema import Schema

_FAULT = Schema(
    {
        "type": "object",
        "required": ["status"],
        "additionalProperties": False,
        "properties": {
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "retryAfter": {"type": "integer", "minimum": 0},
            "times": {"type": "integer", "minimum": 1},
            "operation": {"type": "string"},
        },
    }
)


class Faults:
    """The faults that wait for a call, oldest first. Safe to use from any thread.

    Args:
        operations: The operation ids that a fault may name.
    """

    def __init__(self, operations: Collection[str]) -> None:
        self._operations = operations
        self._lock = threading.Lock()
        self._waiting: list[dict[str, Any]] = []

    def add(self, fault: Any) -> None:
        """Puts a fault in the row.

        Args:
            fault: `{"status": 429, "retryAfter": 1, "times": 1, "operation": "publish"}`. `status` is 400 to 599;
                `retryAfter` whole seconds (optional); `times` how many calls get it (1); `operation` the only
                operation that does (every one).

        Raises:
            ValueError: The fault is not of that form. The message says what is wrong.
        """
        problem = _FAULT.problem(fault)
        if problem is not None:
            raise ValueError(problem)
        operation = fault.get("operation")
        if operation is not None and operation not in self._operations:
            raise ValueError(f"operation: must be one of {', '.join(self._operations)}")
        with self._lock:
            self._waiting.append({"times": 1, **fault})

    def take(self, operation: str) -> Refused | None:
        """What a call of this operation is to be answered instead of its own answer, or None."""
        with self._lock:
            for fault in self._waiting:
                if fault.get("operation") in (None, operation):
                    fault["times"] -= 1
                    if not fault["times"]:
                        self._waiting.remove(fault)
                    return _refusal(fault["status"], fault.get("retryAfter"))
        return None


def _refusal(status: int, retry_after: int | None) -> Refused:
    code = "RATE_LIMIT_EXCEEDED" if status == 429 else "INJECTED_FAULT"
    message = f"The emulator was asked to answer this call with status {status}; nothing was delivered."
    return Refused(status, code, message, retry_after=retry_after)
