"""What the commands share: how errors are shown, output that a terminal can show, and the emulator's address."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import click

from .._platform.errors import EmulatorError
from .._platform.text import printable


class Command(click.Command):
    """Command whose error messages cannot control a terminal, whatever the arguments and the server say."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with _shown_errors():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        with _shown_errors():
            return super().invoke(ctx)


@contextlib.contextmanager
def _shown_errors() -> Iterator[None]:
    try:
        yield
    except click.ClickException as error:
        # Declared final, but there is no other way for all of click's classes of errors.
        vars(error)["message"] = _showable(error.message)
        raise
    except EmulatorError as error:
        raise click.ClickException(_showable(str(error))) from error


def _showable(text: str) -> str:
    """Escape what could control a terminal, and what standard error cannot encode: click would send it as UTF-8."""
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    return printable(text).encode(encoding, "backslashreplace").decode(encoding)


@contextlib.contextmanager
def needs_the_extra(command: str) -> Iterator[None]:
    """Say which extra to install if an import fails."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "forge_realtime_emulator":
            raise
        raise click.ClickException(
            f"forge-realtime {command} needs the emulator extra: pip install 'forge-realtime[emulator]'"
        ) from error


def tell(text: str) -> None:
    """Print a line for people, on standard error."""
    click.echo(_showable(text), err=True)


def to_json(value: Any) -> str:
    """Encode a value as JSON in one line of printable ASCII."""
    # The only control character that json leaves as it is.
    return json.dumps(value).replace("\x7f", "\\u007f")


def _base_url(_: click.Context, __: click.Parameter, url: str | None) -> str:
    if url is None:
        raise click.UsageError(
            "FORGE_EGRESS_PROXY_URL is not set. Start forge-realtime emulate and export the address that it prints, or"
            " pass --url."
        )
    try:
        parts = urlsplit(url)
        is_base = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        is_base = is_base and not ("@" in parts.netloc or parts.query or parts.fragment)
    except ValueError:
        is_base = False
    if not is_base:
        raise click.UsageError(
            "The emulator's address must be an http:// or https:// address without user, query or fragment, such as"
            " http://localhost:7072."
        )
    return url.rstrip("/")


url_option = click.option(
    "--url",
    metavar="URL",
    envvar="FORGE_EGRESS_PROXY_URL",
    show_envvar=True,
    callback=_base_url,
    help="Address of the emulator.",
)


def unreachable(url: str, error: Exception) -> EmulatorError:
    """Make the error for an address that accepts no connection."""
    return EmulatorError(
        f"No emulator can be reached at {url} ({error}). Start forge-realtime emulate, and export the address that it"
        " prints or pass it with --url."
    )


def no_emulator(url: str, what: str) -> EmulatorError:
    """Make the error for a server that is not an emulator."""
    return EmulatorError(
        f"There is no emulator at {url}: {what}. This command works with forge-realtime emulate only, because the"
        " platform's sidecar has nothing like it. Start an emulator, and pass its address with --url."
    )
