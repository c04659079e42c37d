"""The server of the contenders, server.c: built on demand, and run on a processor of its own."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.benchmarks.environments import HERE, ROOT, python_of

SOURCE = HERE / "server.c"


def processors() -> tuple[int | None, int | None]:
    """Return a processor for the contenders and one for the server, or `None` if there is only one."""
    available = sorted(os.sched_getaffinity(0))
    return (available[0], available[-1]) if len(available) > 1 else (None, None)


def built() -> Path:
    """Return the compiled server. It is compiled with `cc`, or else with the compiler of the package ziglang."""
    program = ROOT / f".benchmarks/server-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]}"
    if not program.exists():
        program.parent.mkdir(exist_ok=True)
        compiler = ["cc"] if shutil.which("cc") else [str(python_of("compiler")), "-m", "ziglang", "cc"]
        scratch = program.with_name(f"{program.name}-{os.getpid()}")
        subprocess.run([*compiler, "-O2", "-std=gnu11", "-o", str(scratch), str(SOURCE)], check=True)
        scratch.rename(program)
    return program


class Server:
    """A running server.

    Args:
        delays: Milliseconds until it responds, each on a port of its own.

    Attributes:
        urls: The address for each delay.
    """

    def __init__(self, *delays: float) -> None:
        command = [str(built()), *map(str, delays)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        if (processor := processors()[1]) is not None:
            os.sched_setaffinity(self._process.pid, {processor})
        self.urls = [f"http://127.0.0.1:{port}" for port in self._line().split()]

    def count(self) -> tuple[int, int]:
        """Return the number of calls so far, and the bytes of their bodies."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        calls, size = self._line().split()
        return int(calls), int(size)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(5)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _line(self) -> str:
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            raise RuntimeError(f"The server ended with exit code {self._process.wait(5)}.")
        return line
