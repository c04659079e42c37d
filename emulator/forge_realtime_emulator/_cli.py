"""The command line `forge-realtime`."""

from __future__ import annotations

import ipaddress
import logging
import signal
import sys
import time
from pathlib import Path

import click

from ._contexts import read_contexts
from ._emulator import Emulator
from ._errors import EmulatorError
from ._settings import Settings


@click.group()
@click.version_option(package_name="forge-realtime")
def cli() -> None:
    """Tools for developing with the Atlassian Forge Realtime API."""


@cli.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=7072,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 takes a free one.",
)
@click.option("--service", metavar="URL", help="Where the app's service is, for invokeService() in a browser.")
@click.option(
    "--origin",
    "origins",
    metavar="URL",
    multiple=True,
    help="Where the app's front end is served, to let it use /bridge.js; can be given several times.",
)
@click.option(
    "--contexts",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="JSON file of what invocations and installations stand for.",
)
@click.option("--strict", is_flag=True, help="Refuse invocations and installations that are not registered.")
@click.option(
    "--limit",
    default=50,
    show_default=True,
    type=click.IntRange(0),
    help="Operations per second and installation; 0: no limit.",
)
def emulate(
    host: str,
    port: int,
    service: str | None,
    origins: tuple[str, ...],
    contexts: Path | None,
    strict: bool,
    limit: int,
) -> None:
    """Run a local stand-in for the egress sidecar until Ctrl-C.

    It answers the Realtime operations, checks every call, and delivers events to subscribers. Its address shows them in
    a browser.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if not _is_loopback(host):
            click.echo(
                f"Warning: with --host {host} other machines can connect, publish and read events."
                " Leave --host out to listen on this machine only.",
                err=True,
            )
        _print_calls()
        registry = None if contexts is None else read_contexts(contexts)
        settings = Settings(strict=strict, limit=limit or None)
        with Emulator(host, port, service=service, origins=origins, contexts=registry, settings=settings) as emulator:
            if service or origins:
                click.echo(f'In the page, before its bundle: <script src="{emulator.url}/bridge.js"></script>')
            click.echo(f"The emulator listens at {emulator.url} (Ctrl-C ends it). In the app's shell:")
            click.echo(f"export FORGE_EGRESS_PROXY_URL={emulator.url}")
            while True:
                time.sleep(3600)
    except (EmulatorError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        pass


def _print_calls() -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%H:%M:%S"))
    log = logging.getLogger("forge_realtime_emulator")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    # Without it, a reader that goes away (| head) makes logging print tracebacks.
    logging.raiseExceptions = False


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
