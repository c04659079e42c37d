"""Command that runs in this process's place: it gets the signals and the terminal."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from types import FrameType, TracebackType
from typing import Any, Self

import click

_FORWARDED = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_PATIENCE = 5.0
"""Seconds that left-behind processes have to end after SIGTERM, before they are killed."""
_POLL = 0.02
"""Seconds between two looks at the command and its group."""
_SIGNALLED = 128
"""Exit code of a shell if a signal ended the command; the signal's number is added."""


class Child:
    """Command in a process group of its own, which gets every signal once and leaves no process of the group behind.

    In its own group, Ctrl-C reaches the command but not this process, and the processes that it started can be found
    when it has ended. Use it as a context manager in the main thread: while it is entered, SIGINT, SIGTERM and SIGHUP
    are passed on. Those that come before the command prevent its start.
    """

    def __init__(self) -> None:
        self._pid: int | None = None
        self._waiting: list[int] = []
        self._former: dict[int, Any] = {}
        self._terminal: int | None = None
        self._shares_terminal = False

    def __enter__(self) -> Self:
        for number in _FORWARDED:
            # nohup, and a shell's & in scripts, ignore a signal for a command and for what it starts.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._former[number] = signal.signal(number, self._forward)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        if self._terminal is not None:
            os.close(self._terminal)

    def run(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """Run a command, end what it leaves behind, and return its exit code as a shell does.

        Raises:
            click.ClickException: The command cannot be started.
        """
        if self._waiting:
            sys.exit(_SIGNALLED + self._waiting[0])
        group: dict[str, Any] = {} if sys.platform == "win32" else {"process_group": 0}
        try:
            process = subprocess.Popen(command, env=environment, **group)  # noqa: S603 - the user's own command
        except OSError as error:
            raise _not_started(command[0], error) from error
        self._pid = process.pid
        for number in self._waiting:
            self._send(number)
        if sys.platform == "win32":
            return process.wait()
        self._open_terminal()
        process.returncode = self._wait(process.pid)
        self._end_group()
        self._give_terminal(process.pid, os.getpgrp())
        return process.returncode if process.returncode >= 0 else _SIGNALLED - process.returncode

    def _forward(self, number: int, _: FrameType | None) -> None:
        # Before the command has started, nothing is raised here: in an import or a destructor it could get lost.
        if self._pid is None:
            self._waiting.append(number)
        else:
            self._send(number)

    def _send(self, number: int) -> bool:
        """Send a signal to the command's group, and return whether it still has processes."""
        assert self._pid is not None
        try:
            if sys.platform != "win32":
                os.killpg(self._pid, number)
            elif number != signal.SIGINT:
                # The console itself sends Ctrl-C to the command.
                os.kill(self._pid, number)
        except (ProcessLookupError, PermissionError):
            # macOS denies it for a group of zombies.
            return False
        return True

    def _open_terminal(self) -> None:
        with contextlib.suppress(OSError):
            self._terminal = os.open("/dev/tty", os.O_RDWR)
        # In a pipeline the next command may need the terminal, as a pager does. There, this one gets it when it reads.
        self._shares_terminal = not os.isatty(1)
        # By default it stops a process in the background that changes the foreground group.
        self._former[signal.SIGTTOU] = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        self._former[signal.SIGCONT] = signal.signal(signal.SIGCONT, lambda *_: self._resume())
        self._resume()

    def _resume(self) -> None:
        """Continue the command, in the foreground if this process is there."""
        assert self._pid is not None
        if not self._shares_terminal:
            self._give_terminal(os.getpgrp(), self._pid)
        self._send(signal.SIGCONT)

    def _give_terminal(self, owner: int, other: int) -> None:
        # A group that has ended cannot be given it.
        with contextlib.suppress(OSError):
            if self._terminal is not None and os.tcgetpgrp(self._terminal) == owner:
                os.tcsetpgrp(self._terminal, other)

    def _wait(self, pid: int) -> int:
        while True:
            # A wait that blocks could go on without Python's handlers: when another thread takes the signal, or when it
            # comes just before the wait.
            found, status = os.waitpid(pid, os.WUNTRACED | os.WNOHANG)
            if found == 0:
                time.sleep(_POLL)
                continue
            if not os.WIFSTOPPED(status):
                return os.waitstatus_to_exitcode(status)
            if self._terminal is None:
                continue
            if os.WSTOPSIG(status) == signal.SIGTTIN and os.tcgetpgrp(self._terminal) == os.getpgrp():
                self._shares_terminal = False
            else:
                # Ctrl-Z. The shell waits until this process's group stops, and continues it later.
                os.killpg(os.getpgrp(), signal.SIGTSTP)
            self._resume()

    def _end_group(self) -> None:
        assert self._pid is not None
        for number in (signal.SIGTERM, signal.SIGKILL):
            ends = time.monotonic() + _PATIENCE
            is_alive = self._send(number)
            while is_alive and time.monotonic() < ends:
                time.sleep(_POLL)
                # As process 1 of a container, this process inherits what the command leaves behind.
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(-self._pid, os.WNOHANG)
                is_alive = self._send(0)
            if not is_alive:
                return


class _NotFoundError(click.ClickException):
    exit_code = 127


class _NotExecutableError(click.ClickException):
    exit_code = 126


def _not_started(name: str, error: OSError) -> click.ClickException:
    if isinstance(error, FileNotFoundError):
        return _NotFoundError(
            f"There is no command {name!r}, or the interpreter that it needs is missing. Check the spelling and PATH."
        )
    return _NotExecutableError(f"The command {name!r} cannot be executed: {error.strerror}.")
