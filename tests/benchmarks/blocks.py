"""Blocks of calls, each paired with a block of the reference that runs right before or after it.

Only one contender works at a time. Other load on the machine affects both blocks of a pair, so a ratio is more reliable
than a time. The order alternates from pair to pair, so that a drift cancels out.
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
"""The longest block. A slower contender gets fewer calls, but at least as many as are in flight."""


@dataclass(frozen=True, slots=True)
class Load:
    """The work of one block.

    Attributes:
        name: The name in tables.
        lanes: Calls in flight, in as many threads or tasks.
        delay: Milliseconds until the server responds.
        size: Bytes of payload.
        text: Whether the payload is text instead of an object.
        seconds: The planned length of a block.
    """

    name: str
    lanes: int = 1
    delay: int = 0
    size: int = 100
    text: bool = False
    seconds: float = 0.04


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a pair: a contender under a load."""

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
            raise RuntimeError(f"The process of {self._name} ended with exit code {self._process.wait(5)}.")
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
    """The server and the processes of the contenders. Each process starts with its first block."""

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
        """Run a block with as many calls as fit into its time.

        Returns:
            `seconds` and `cpu`, the seconds of processor time, of one call; or `error`.

        Raises:
            RuntimeError: The server received another number of calls than the contender reports.
        """
        if side not in self._calls:
            first = self._block(side, max(2, side.load.lanes))
            if "error" in first:
                return first
            # The first block also imports and connects.
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
            raise RuntimeError(f"{side.contender} made {calls} calls, but the server received {got}.")
        return {name: value / calls for name, value in answer.items()}


@dataclass(frozen=True, slots=True)
class Comparison:
    """A subject against a reference, in a number of pairs."""

    subject: Side
    reference: Side
    pairs: int


def compare(stage: Stage, comparisons: list[Comparison]) -> Iterator[dict[str, Any]]:
    """Run all pairs, one of each comparison in turn.

    Yields:
        A row for each comparison: both sides, and their seconds per call in each pair.
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
            # A contender that failed twice is given up.
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
