"""The command `forge-realtime`, also run by `python -m forge_realtime`."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line; without the extra's package it says what to install and ends with exit code 1."""
    try:
        from ._cli.commands import cli
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        sys.exit("Error: the command line needs the cli extra: pip install 'forge-realtime[cli]'")
    cli()


if __name__ == "__main__":
    main()
