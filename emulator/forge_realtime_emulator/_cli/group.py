"""Command line of the emulator alone."""

from __future__ import annotations

import click

from .emulate import emulate
from .exec import exec_
from .fail import fail
from .init import init
from .listen import listen


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="forge-realtime")
def cli() -> None:
    """Run the emulator, listen to its channels, make calls fail, and write a service to begin with."""


for _command in (emulate, exec_, fail, init, listen):
    cli.add_command(_command)
