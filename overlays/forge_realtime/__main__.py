"""The command `forge-realtime`, also available as `python -m forge_realtime`."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points


def main() -> None:
    """Run the command line, or say which extra to install and exit with 1."""
    try:
        from ._cli.commands import cli
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        # The emulator's commands are entry points. Its extra brings click too.
        if (command := "".join(sys.argv[1:2])) in entry_points(group="forge_realtime.commands").names:
            sys.exit(
                f"Error: forge-realtime {command} needs the emulator extra: pip install 'forge-realtime[emulator]'"
            )
        sys.exit("Error: the command line needs the cli extra: pip install 'forge-realtime[cli]'")
    cli()


if __name__ == "__main__":
    main()
