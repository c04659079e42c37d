"""The emulator's commands alone: `python -m forge_realtime_emulator`. With the client's they are `forge-realtime`."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line; without the extra's packages it says what to install and ends with exit code 1."""
    try:
        from ._cli import cli
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        sys.exit("Error: the emulator needs the emulator extra: pip install 'forge-realtime[emulator]'")
    cli()


if __name__ == "__main__":
    main()
