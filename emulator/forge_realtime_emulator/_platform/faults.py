"""Faults: failures that the next calls get instead of their normal responses."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import threading
from collections.abc import Collection
from typing import Any

from .contexts import bare_installation
from .errors import RefusedError, rate_limited
from .schema import Schema

# At most an hour, in seconds: more is a mistake.
_DELAY = {"type": "number", "minimum": 0, "maximum": 3600}
FAULT = Schema(
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
            "optional": {"type": "boolean"},
            "operation": {"type": "string"},
            "channel": {"type": "string"},
            "installation": {"type": "string"},
            "probability": {"type": "number", "minimum": 0, "exclusiveMinimum": True, "maximum": 1},
            "seed": {"type": "integer"},
        },
    }
)


class Fault:
    """Fault of one call.

    Args:
        described: A fault in the form of `Faults.add`, already checked.
    """

    def __init__(self, described: dict[str, Any]) -> None:
        self.status: int | None = described.get("status")
        """HTTP status to respond with, or `None`."""
        self.answer: str | None = described.get("answer")
        """`reset`, `truncated`, `not-json` or `None`."""
        self.delay: float = described.get("delay", 0)
        """Seconds before the response."""
        self.delivered: bool = described.get("delivered", False)
        """Whether the call is carried out all the same."""
        self.retry_after: int | None = described.get("retryAfter")
        """Whole seconds for the `Retry-After` header, or `None` for no header."""

    @property
    def only_delays(self) -> bool:
        """Whether the call gets its normal response, late."""
        return self.status is None and self.answer is None

    @property
    def refusal(self) -> RefusedError:
        """The refusal to respond with."""
        status = self.status or 500
        effect = "it was carried out all the same" if self.delivered else "nothing was delivered"
        fault = f"status {status}" if self.answer is None else f"the fault {self.answer}"
        message = f"The emulator was asked to answer this call with {fault}; {effect}."
        if status == 429:
            return rate_limited(message, self.retry_after)
        return RefusedError(status, "INJECTED_FAULT", message, retry_after=self.retry_after)


class Faults:
    """Pending faults, oldest first. Thread-safe.

    Args:
        operations: The `operationId`s that a fault may name.
    """

    def __init__(self, operations: Collection[str]) -> None:
        self._operations = operations
        self._lock = threading.Lock()
        self._waiting: list[tuple[dict[str, Any], random.Random | None]] = []
        self._delays: set[asyncio.Future[None]] = set()

    def add(self, fault: Any) -> None:
        """Queue a fault.

        Args:
            fault: An object with at least one of `status` (400 to 599), `answer` (`"reset"`, `"truncated"` or
                `"not-json"`) and `delay` (seconds before the response; alone, the call gets its normal response late).
                Optional: `retryAfter` (whole seconds, with `status`); `delivered` (whether the call is carried out all
                the same); `times` (number of calls that fail: 1); `optional` (whether a test may leave it unused);
                `operation`, `channel` and `installation`, which limit the fault to calls with these values; and
                `probability` (above 0, at most 1), with which each of these calls fails. It then stays until it is
                cleared, unless `times` is given. The same `seed`, by default a random one, fails the same calls.

        Raises:
            ValueError: The fault has another form. The message says what is wrong.
        """
        if problem := FAULT.problem(fault):
            raise ValueError(problem)
        if not {"status", "answer", "delay"} & fault.keys():
            raise ValueError("say what the call gets: status, answer or delay")
        if {"status", "answer"} <= fault.keys():
            raise ValueError("give either status or answer")
        if "retryAfter" in fault and "status" not in fault:
            raise ValueError("retryAfter goes with a status")
        if "seed" in fault and "probability" not in fault:
            raise ValueError("seed goes with a probability")
        operation = fault.get("operation")
        if operation is not None and operation not in self._operations:
            raise ValueError(f"operation: must be one of {', '.join(self._operations)}")
        described = dict(fault)
        chance = None
        if "probability" in fault:
            described.setdefault("seed", secrets.randbelow(2**32))
            chance = random.Random(described["seed"])
        else:
            described = {"times": 1, **fault}
        if "installation" in fault:
            described["installation"] = bare_installation(fault["installation"])
        with self._lock:
            self._waiting.append((described, chance))

    def take(self, **call: str | None) -> Fault | None:
        """Take the first fault that matches a call, or return `None`.

        Args:
            **call: The `operation` of the call, and its `channel` and `installation` if they are known.
        """
        with self._lock:
            for position, (fault, chance) in enumerate(self._waiting):
                if any(fault.get(name) not in (None, value) for name, value in call.items()):
                    continue
                if chance is not None and chance.random() >= fault["probability"]:
                    continue
                if "times" in fault:
                    fault["times"] -= 1
                    if not fault["times"]:
                        del self._waiting[position]
                return Fault(fault)
        return None

    async def delay(self, seconds: float) -> bool:
        """Wait, and return whether the whole time passed; `end_delays` ends the wait early."""
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
        """End the delays of all calls. Call it in the event loop of the calls."""
        for ended in self._delays:
            with contextlib.suppress(asyncio.InvalidStateError):
                ended.set_result(None)

    def waiting(self) -> list[dict[str, Any]]:
        """Return the pending faults, in the form of `add`."""
        with self._lock:
            return [dict(fault) for fault, _ in self._waiting]

    def clear(self) -> None:
        """Drop all pending faults."""
        with self._lock:
            self._waiting.clear()
