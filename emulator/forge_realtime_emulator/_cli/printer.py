"""Output that never holds up the program: a thread of its own writes it."""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

from .._platform.text import printable

_MOST_WAITING = 10_000
"""Number of lines that may wait to be written; further ones are dropped."""

_PATIENCE = 1.0
"""Seconds that `flush` waits for the lines to be written."""

_RETRY = 0.5
"""Seconds until the next attempt to write to a full disk, or to a full pipe that does not block."""

_FULL = (errno.ENOSPC, errno.EDQUOT)


class Printer(logging.Handler):
    """Log handler and printer of lines that never blocks, whoever reads the stream.

    A pipe that nobody reads fills up, and then writing to it blocks. Therefore lines wait in a bounded queue, and a
    thread writes them. Characters that the stream cannot show are escaped.

    Args:
        stream: Standard output or standard error. `None` prints nothing.
        say: Makes a line of a text for people.
    """

    def __init__(self, stream: TextIO | None, say: Callable[[str], str] = str) -> None:
        super().__init__()
        self._say = say
        self._lines: deque[str] = deque()
        self._dropped = 0
        self._is_writing = False
        # Whether nobody can read it any more.
        self._gone = stream is None
        self._changed = threading.Condition()
        if stream is not None:
            self._encoding = stream.encoding
            # Not through its buffer: the thread would hold the buffer's lock when the interpreter ends.
            self._raw = getattr(stream.buffer, "raw", stream.buffer)
            threading.Thread(target=self._write_lines, name="forge-realtime-printer", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Print a log record."""
        for line in self.format(record).split("\n"):
            self._queue(line)

    def print(self, text: str) -> None:
        """Queue a text for people, or drop it if too many lines wait."""
        self._queue(self._say(text))

    def _queue(self, line: str) -> None:
        with self._changed:
            if self._gone:
                return
            if len(self._lines) >= _MOST_WAITING:
                self._dropped += 1
                return
            self._tell_dropped()
            self._lines.append(line)
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait until the lines are written, for 1 s at most."""
        with self._changed:
            self._changed.wait_for(lambda: self._gone or not (self._lines or self._is_writing), _PATIENCE)

    def _tell_dropped(self) -> None:
        if self._dropped:
            text = f"({self._dropped} line(s) were dropped here, because they could not be written in time.)"
            self._lines.append(self._say(text))
            self._dropped = 0

    def _write_lines(self) -> None:
        while not self._gone:
            with self._changed:
                self._is_writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._lines)
                self._is_writing = True
                line = self._lines.popleft()
                if not self._lines:
                    self._tell_dropped()
            self._write(f"{printable(line)}\n".encode(self._encoding, "backslashreplace"))

    def _write(self, rest: bytes) -> None:
        while rest:
            try:
                written = self._raw.write(rest)
            except OSError as error:
                if error.errno not in _FULL:
                    with self._changed:
                        self._gone = True
                        self._changed.notify_all()
                    return
                written = None
            if written is None:
                time.sleep(_RETRY)
            rest = rest[written or 0 :]
