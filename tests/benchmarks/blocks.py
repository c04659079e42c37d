"""Blocks of calls, each paired with a block of the reference run right beside it.

Only one process works at a time, beside the server. What the machine does meanwhile meets both blocks of a pair, so a
ratio says more than a time; the order changes from pair to pair, so that a drift cancels out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Self

from tests.benchmarks.contenders import CONTENDERS
from tests.benchmarks.environments import HERE, clean_environment, python_of
from tests.benchmarks.server import Server, processors

_MOST_SECONDS = 15.0
"""For one block. A contender that is slower gets fewer calls, but never fewer than there are in flight."""


@dataclass(frozen=True, slots=True)
class Load:
    """What one block does.

    Attributes:
        name: What tables call it.
        lanes: Calls in flight: threads, or tasks.
        delay: Milliseconds that the server takes.
        size: Bytes of payload.
        text: Whether the payload is text, and no object.
        seconds: How long a block is meant to take.
    """

    name: str
    lanes: int = 1
    delay: int = 0
    size: int = 100
    text: bool = False
    seconds: float = 0.04


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a pair: who, and under which load."""

    contender: str
    load: Load


class Contender:
    """The process of a contender."""

    def __init__(self, name: str, urls: list[str]) -> None:
        python = python_of(CONTENDERS[name][0])
        self._name = name
        self._process = subprocess.Popen(
            [python, "-I", HERE / "contenders.py", name, *urls],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env=clean_environment(),
        )
        if (processor := processors()[0]) is not None:
            os.sched_setaffinity(self._process.pid, {processor})

    def run(self, **block: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(block) + "\n")
        if not (line := self._process.stdout.readline()):
            raise RuntimeError(f"The process of {self._name} has ended, with {self._process.wait(5)}.")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


class Stage:
    """The server, and the contenders' processes, each from its first block on."""

    def __init__(self, delays: list[int]) -> None:
        self._delays = delays
        self._stack = ExitStack()
        self._server = self._stack.enter_context(Server(*delays))
        self._contenders: dict[str, Contender] = {}
        self._calls: dict[Side, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def run(self, side: Side) -> dict[str, Any]:
        """Runs a block, of as many calls as fit into its time.

        Returns:
            Seconds and seconds of processor time for each call, or an `error`.

        Raises:
            RuntimeError: The server did not get exactly the calls that the contender says it made.
        """
        if side not in self._calls:
            first = self._block(side, max(2, side.load.lanes))
            if "error" in first:
                return first
            # Once more: the first one loads and connects.
            second = self._block(side, max(10, 2 * side.load.lanes) if first["seconds"] < 0.2 else side.load.lanes)
            if "error" in second:
                return second
            fits = side.load.seconds / second["seconds"]
            least, most = 2 * side.load.lanes, _MOST_SECONDS / second["seconds"]
            self._calls[side] = max(2, int(min(max(least, fits), most)))
        return self._block(side, self._calls[side])

    def _block(self, side: Side, calls: int) -> dict[str, Any]:
        if side.contender not in self._contenders:
            contender = Contender(side.contender, self._server.urls)
            self._stack.callback(contender.close)
            self._contenders[side.contender] = contender
        load = side.load
        before = self._server.count()[0]
        server = self._delays.index(load.delay)
        answer = self._contenders[side.contender].run(
            server=server, calls=calls, lanes=load.lanes, size=load.size, text=load.text
        )
        if "error" in answer:
            return answer
        got = self._server.count()[0] - before
        if got != calls + max(3, load.lanes):
            raise RuntimeError(f"{side.contender} made {calls} calls, and the server got {got}.")
        return {name: value / calls for name, value in answer.items()}


@dataclass(frozen=True, slots=True)
class Comparison:
    """A subject against a reference, in so many pairs."""

    subject: Side
    reference: Side
    pairs: int


def compare(stage: Stage, comparisons: list[Comparison]) -> Iterator[dict[str, Any]]:
    """Runs all pairs of the comparisons, one of each in turn.

    Yields:
        A row for each comparison: the sides, and the pairs with seconds for each call.
    """
    rows: list[dict[str, Any]] = [
        {
            "contender": comparison.subject.contender,
            "load": asdict(comparison.subject.load),
            "reference": comparison.reference.contender,
            "reference load": asdict(comparison.reference.load),
            "pairs": [],
            "errors": [],
        }
        for comparison in comparisons
    ]
    for number in range(max(comparison.pairs for comparison in comparisons)):
        for comparison, row in zip(comparisons, rows, strict=True):
            # A contender that failed twice will go on to.
            if number >= comparison.pairs or len(row["errors"]) > 1:
                continue
            sides = (comparison.subject, comparison.reference)
            blocks = [stage.run(side) for side in (sides if number % 2 else sides[::-1])]
            if errors := [block["error"] for block in blocks if "error" in block]:
                row["errors"] += errors
                continue
            subject, reference = blocks if number % 2 else blocks[::-1]
            row["pairs"].append([subject["seconds"], reference["seconds"], subject["cpu"], reference["cpu"]])
        print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    yield from rows
