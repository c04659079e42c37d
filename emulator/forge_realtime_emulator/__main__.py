"""The command `forge-realtime`, also run by `python -m forge_realtime_emulator`."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line; without the extra's packages it says what to install and ends with exit code 1."""
    try:
        from ._cli import cli
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "forge_realtime_emulator":
            raise
        sys.exit("forge-realtime emulate needs the emulator extra: pip install 'forge-realtime[emulator]'")
    cli(prog_name="forge-realtime")


if __name__ == "__main__":
    main()
