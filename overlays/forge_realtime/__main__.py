"""The command `forge-realtime`, also available as `python -m forge_realtime`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line, or say which extra to install and exit with 1."""
    try:
        from ._cli.commands import cli
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        sys.exit("Error: the command line needs the cli extra: pip install 'forge-realtime[cli]'")
    cli()


if __name__ == "__main__":
    main()
