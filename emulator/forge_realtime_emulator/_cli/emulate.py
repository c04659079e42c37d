"""Command `emulate`: the emulator, until a signal ends it."""

from __future__ import annotations

import contextlib
import ipaddress
import signal
import sys
import time
from pathlib import Path
from typing import Any, Literal

import click

from .command import Command
from .options import FILE, create_emulator, emulator_options, print_calls
from .printer import Printer

_SLEEP = 0.5
"""Seconds of one wait. A signal that comes just before a wait does not end it."""


@click.command(cls=Command)
@click.option("--host", metavar="HOST", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    metavar="PORT",
    default=7072,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 takes a free one.",
)
@emulator_options
@click.option("--replay", metavar="FILE", type=FILE, help="Show a recording, with its settings and contexts.")
@click.option("--quiet", is_flag=True, help="Print no line for each call, only the address and warnings.")
@click.option(
    "--log",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Form of the lines on standard error.",
)
def emulate(
    host: str, port: int, replay: Path | None, quiet: bool, form: Literal["text", "json"], **options: Any
) -> None:
    """Run a local stand-in for the egress sidecar until Ctrl-C.

    It serves the Realtime operations, checks every call, and delivers events to subscribers. Open its address in a
    browser for the console. The line to paste into the app's shell goes to standard output, all other lines to standard
    error.

    The file of --config has settings by their names in Python, such as {"limit": 10, "token_lifetime": 60}. Options win
    over it. The settings are limit, limit_retry_after, strict, invocation_lifetime, token_lifetime,
    token_by_installation, replay_retention, keep_unheard, overrides_in_order, empty_overrides_are_global,
    errors_in_200, cold_start_after and cold_start_duration.

    With --log json, each line is a JSON object. A call has time, operation, status (0 if a fault reset its connection),
    code (of its error), channel (its first 100 characters), delivered (number of subscribers that got its event) and
    duration (in seconds), each null where there is none. The channel of the operation invoke is the method and the path
    that the page called. Any other line has time, level and message.

    A recording is what GET /_emulator/recording returns, or the console exports.
    """
    own = [f"--{name}" for name in ("config", "contexts", "strict", "limit") if options[name] is not None]
    if replay is not None and own:
        raise click.UsageError(f"--replay brings its own settings and contexts. Leave out {' and '.join(own)}.")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        _serve(host, port, replay, print_calls(form, quiet=quiet), **options)


def _serve(host: str, port: int, replay: Path | None, lines: Printer, **options: Any) -> None:
    if not _is_loopback(host):
        lines.print(
            f"Warning: with --host {host} other machines can connect, publish and read events."
            " Leave --host out to listen on this machine only."
        )
    with create_emulator(host, port, **options) as emulator:
        from .._http.mcp import MCP_PATH, has_mcp

        if replay is not None:
            emulator.replay(replay)
        if options["service"] or options["origins"]:
            lines.print(f'In the page, before its bundle: <script src="{emulator.url}/bridge.js"></script>')
        lines.print(f"The emulator listens at {emulator.url} (Ctrl-C ends it).")
        if has_mcp():
            lines.print(f"For coding assistants, MCP over HTTP: {emulator.url}{MCP_PATH}")
        lines.print(f"Console: open {emulator.url} in a browser. In the app's shell:")
        lines.flush()
        Printer(sys.stdout).print(f"export FORGE_EGRESS_PROXY_URL={emulator.url}")
        while True:
            time.sleep(_SLEEP)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
