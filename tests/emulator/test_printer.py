"""The printer of `emulate`, with streams that are read late, are full or are gone."""

from __future__ import annotations

import errno
import io
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from forge_realtime_emulator._cli import printer as _printer
from forge_realtime_emulator._cli.printer import Printer


class Stream:
    """Text stream over a function that writes, or raises."""

    def __init__(self, write: Callable[[bytes], int | None]) -> None:
        self.encoding = "ascii"
        self.written = b""
        self.buffer = self
        self.raw = self
        self._write = write

    def write(self, data: bytes) -> int | None:
        count = self._write(data)
        self.written += data[: count or 0]
        return count


def test_lines_are_dropped_while_nobody_reads_and_counted_when_somebody_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_printer, "_MOST_WAITING", 3)
    entered, read = threading.Event(), threading.Event()

    def write(data: bytes) -> int:
        entered.set()
        assert read.wait(30)
        return len(data)

    stream: Any = Stream(write)
    printer = Printer(stream, lambda text: f"<{text}>")
    printer.print("0")
    assert entered.wait(30)
    for number in range(1, 8):
        printer.print(str(number))
    read.set()
    printer.flush()
    said = "(4 line(s) were dropped here, because they could not be written in time.)"
    assert stream.written.decode().splitlines() == ["<0>", "<1>", "<2>", "<3>", f"<{said}>"]
    printer.print("8")
    printer.flush()
    assert stream.written.decode().splitlines()[-1] == "<8>"


def test_dropped_lines_are_named_where_they_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_printer, "_MOST_WAITING", 2)
    steps = threading.Semaphore(0)
    entered = threading.Event()

    def write(data: bytes) -> int:
        entered.set()
        assert steps.acquire(timeout=30)
        return len(data)

    stream: Any = Stream(write)
    printer = Printer(stream)
    printer.print("0")
    assert entered.wait(30)
    entered.clear()
    for number in (1, 2, 3):
        printer.print(str(number))
    steps.release()
    assert entered.wait(30)
    printer.print("4")
    steps.release(10)
    printer.flush()
    lines = stream.written.decode().splitlines()
    assert [line[:8] for line in lines] == ["0", "1", "2", "(1 line(", "4"]


def test_full_disk_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_printer, "_RETRY", 0.01)
    outcomes: list[int | None] = [errno.ENOSPC, errno.EDQUOT, None, 2]

    def write(data: bytes) -> int | None:
        outcome = outcomes.pop(0) if outcomes else len(data)
        if outcome in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(outcome, "full")
        return outcome

    stream: Any = Stream(write)
    printer = Printer(stream)
    printer.print("line")
    printer.flush()
    assert (stream.written, outcomes) == (b"line\n", [])


def test_stream_that_is_gone_gets_nothing_and_holds_up_nothing() -> None:
    calls = []

    def write(data: bytes) -> int:
        calls.append(data)
        raise BrokenPipeError(errno.EPIPE, "gone")

    stream: Any = Stream(write)
    for printer in (Printer(stream), Printer(None)):
        for _ in range(3):
            printer.print("line")
            printer.flush()
    assert calls == [b"line\n"]


def test_what_the_stream_cannot_show_is_escaped() -> None:
    reading, writing = os.pipe()
    with io.TextIOWrapper(os.fdopen(writing, "wb"), encoding="latin-1") as stream, os.fdopen(reading, "rb") as end:
        printer = Printer(stream)
        printer.print("é ✓ \x1b[2J\x9b\u202e\ud800")
        printer.flush()
        assert end.readline() == b"\xe9 \\u2713 \\x1b[2J\\x9b\\u202e\\ud800\n"
