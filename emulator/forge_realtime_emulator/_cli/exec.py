"""Command `exec`: a command with an emulator of its own."""

from __future__ import annotations

import os
from typing import Any, Literal

import click

from .child import Child
from .command import Command
from .options import create_emulator, emulator_options, print_calls


@click.command("exec", cls=Command, context_settings={"allow_interspersed_args": False})
@click.option(
    "--port",
    metavar="PORT",
    default=0,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 takes a free one.  [default: 0]",
)
@emulator_options
@click.option(
    "--log",
    "form",
    type=click.Choice(["text", "json"]),
    help="Print the address, and a line for each call in this form, to standard error.  [default: warnings only]",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="[--] COMMAND [ARGS]...")
def exec_(port: int, form: Literal["text", "json"] | None, command: tuple[str, ...], **options: Any) -> None:
    """Run COMMAND with an emulator of its own.

    The emulator listens on a free port of this machine, and COMMAND finds its address in FORGE_EGRESS_PROXY_URL. When
    COMMAND ends, the emulator and the processes that COMMAND left behind in its process group are ended too: a daemon
    with a session of its own goes on. Signals are passed on.

    The exit code is that of COMMAND: 128 and the number of the signal if a signal ended it, 127 if there is no such
    command, 126 if it cannot be executed.

    \b
      forge-realtime exec -- pytest -q
      forge-realtime exec --contexts contexts.json -- sh -c 'python service.py & npm test'
    """  # noqa: D301 - click looks for the character that \b stands for
    lines = print_calls(form or "text", quiet=form is None)
    with Child() as child, create_emulator("127.0.0.1", port, **options) as emulator:
        if form is not None:
            lines.print(f"The emulator listens at {emulator.url}. Console: open it in a browser.")
        code = child.run(command, {**os.environ, "FORGE_EGRESS_PROXY_URL": emulator.url})
    lines.flush()
    click.get_current_context().exit(code)
