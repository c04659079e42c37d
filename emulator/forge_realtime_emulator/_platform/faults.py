"""Faults: what the next calls get instead of their own answers."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Collection
from typing import Any

from .errors import RefusedError
from .schema import Schema

# Whole seconds, and up to an hour: more is a mistake.
_DELAY = {"type": "number", "minimum": 0, "maximum": 3600}
_FAULT = Schema(
    {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "retryAfter": {"type": "integer", "minimum": 0},
            "answer": {"type": "string", "enum": ["reset", "truncated", "not-json"]},
            "delay": _DELAY,
            "delivered": {"type": "boolean"},
            "times": {"type": "integer", "minimum": 1},
            "operation": {"type": "string"},
            "channel": {"type": "string"},
            "installation": {"type": "string"},
        },
    }
)


class Fault:
    """What one call gets.

    Args:
        described: A fault that was checked.
    """

    def __init__(self, described: dict[str, Any]) -> None:
        self.status: int | None = described.get("status")
        """The status to answer, or None."""
        self.answer: str | None = described.get("answer")
        """`reset`, `truncated` or `not-json`, or None."""
        self.delay: float = described.get("delay", 0)
        """Seconds before the answer."""
        self.delivered: bool = described.get("delivered", False)
        """Whether the call is carried out all the same."""
        self.retry_after: int | None = described.get("retryAfter")
        """Whole seconds for the `Retry-After` header, or None for no such header."""

    @property
    def only_delays(self) -> bool:
        """Whether the call gets its own answer, late."""
        return self.status is None and self.answer is None

    @property
    def refusal(self) -> RefusedError:
        """The answer with its status."""
        status = self.status or 500
        code = "RATE_LIMIT_EXCEEDED" if status == 429 else "INJECTED_FAULT"
        what = "it was carried out all the same" if self.delivered else "nothing was delivered"
        answer = f"with status {status}" if self.answer is None else f"so: {self.answer}"
        message = f"The emulator was asked to answer this call {answer}; {what}."
        return RefusedError(status, code, message, retry_after=self.retry_after)


class Faults:
    """The faults that wait for a call, oldest first. Safe to use from any thread.

    Args:
        operations: The operation ids that a fault may name.
    """

    def __init__(self, operations: Collection[str]) -> None:
        self._operations = operations
        self._lock = threading.Lock()
        self._waiting: list[dict[str, Any]] = []
        self._delays: set[asyncio.Future[None]] = set()

    def add(self, fault: Any) -> None:
        """Puts a fault in the row.

        Args:
            fault: An object with at least one of `status` (400 to 599), `answer` (`"reset"` the connection, a
                `"truncated"` body, or one that is `"not-json"`) and `delay` (seconds before the answer; alone, the call
                gets its own answer late). Further, all optional: `retryAfter` (whole seconds, with a status);
                `delivered` (true: the call is carried out although it is answered so, which is how duplicates come
                about); `times` (how many calls get it: 1); and `operation`, `channel`, `installation` (the only ones
                that do; a channel is compared by name).

        Raises:
            ValueError: The fault is not of that form. The message says what is wrong.
        """
        if problem := _FAULT.problem(fault):
            raise ValueError(problem)
        if not {"status", "answer", "delay"} & fault.keys():
            raise ValueError("say what the call gets: status, answer or delay")
        if {"status", "answer"} <= fault.keys():
            raise ValueError("give either status or answer")
        if "retryAfter" in fault and "status" not in fault:
            raise ValueError("retryAfter goes with a status")
        operation = fault.get("operation")
        if operation is not None and operation not in self._operations:
            raise ValueError(f"operation: must be one of {', '.join(self._operations)}")
        with self._lock:
            self._waiting.append({"times": 1, **fault})

    def take(self, **call: str | None) -> Fault | None:
        """What a call gets, or None.

        Args:
            **call: Its `operation`, and its `channel` and `installation` as far as they are known.
        """
        with self._lock:
            for fault in self._waiting:
                if all(fault.get(name) in (None, value) for name, value in call.items()):
                    fault["times"] -= 1
                    if not fault["times"]:
                        self._waiting.remove(fault)
                    return Fault(fault)
        return None

    async def delay(self, seconds: float) -> bool:
        """Waits; False when `end_delays` ended it. Both run in one event loop."""
        ended = asyncio.get_running_loop().create_future()
        self._delays.add(ended)
        try:
            async with asyncio.timeout(seconds):
                await ended
        except TimeoutError:
            return True
        finally:
            self._delays.remove(ended)
        return False

    def end_delays(self) -> None:
        """Ends the delays of all calls: the emulator stops, or forgets them."""
        for ended in self._delays:
            with contextlib.suppress(asyncio.InvalidStateError):
                ended.set_result(None)

    def waiting(self) -> list[dict[str, Any]]:
        """The faults that wait, in the form in which they were added."""
        with self._lock:
            return [dict(fault) for fault in self._waiting]

    def clear(self) -> None:
        """Drops them all."""
        with self._lock:
            self._waiting.clear()
