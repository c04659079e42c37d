"""Command line of the emulator alone: `python -m forge_realtime_emulator`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line. Without the extra's packages, say what to install and exit with code 1."""
    try:
        from ._cli.group import cli
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        sys.exit("Error: the emulator needs the emulator extra: pip install 'forge-realtime[emulator]'")
    cli()


if __name__ == "__main__":
    main()
