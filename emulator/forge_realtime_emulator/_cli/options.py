"""What `emulate` and `exec` share: the options of an emulator, and the lines about its calls."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from .command import needs_the_extra, to_json
from .printer import Printer

if TYPE_CHECKING:
    from .._server.emulator import Emulator

F = TypeVar("F", bound=Callable[..., Any])

_OPEN_FILES = 8192
"""Number of open files to allow, of which each subscriber is one."""

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

_OPTIONS = (
    click.option("--service", metavar="URL", help="Base URL of the app's service, for invokeService() in a browser."),
    click.option(
        "--origin",
        "origins",
        metavar="URL",
        multiple=True,
        help="Origin of the app's front end, to let it use /bridge.js; can be given several times.",
    ),
    click.option(
        "--contexts", metavar="FILE", type=FILE, help="JSON file with the contexts of invocations and installations."
    ),
    click.option(
        "--config",
        metavar="FILE",
        type=FILE,
        help="JSON file with settings (emulate --help names them), or the result of forge-realtime probe.",
    ),
    click.option(
        "--mocks",
        metavar="FILE",
        type=FILE,
        help="JSON file with mock routes, for what the emulator does not carry out, such as Jira and KVS.",
    ),
    click.option(
        "--strict/--no-strict",
        default=None,
        help="Whether to refuse invocations and installations that are not registered.  [default: no-strict]",
    ),
    click.option(
        "--limit",
        metavar="N",
        type=click.IntRange(0),
        help="Operations per second and installation; 0 disables the limit.  [default: 50]",
    ),
)


def emulator_options(function: F) -> F:
    """Add the options that `create_emulator` takes."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def create_emulator(
    host: str,
    port: int,
    *,
    contexts: Path | None,
    config: Path | None,
    mocks: Path | None,
    strict: bool | None,
    limit: int | None,
    **given: Any,
) -> Emulator:
    """Create an emulator from the command's options. The options win over the file of settings.

    Raises:
        EmulatorError: A file cannot be used.
        click.ClickException: An option has a wrong value, or the extra is not installed.
    """
    with needs_the_extra(click.get_current_context().info_name or ""):
        from .._platform.contexts import read_contexts
        from .._platform.mock_routes import read_mock_routes
        from .._platform.settings import Settings
        from .._server.emulator import Emulator
    _allow_open_files()
    settings = Settings() if config is None else Settings.from_file(config)
    if strict is not None:
        settings = dataclasses.replace(settings, strict=strict)
    if limit is not None:
        settings = dataclasses.replace(settings, limit=limit or None)
    registry = None if contexts is None else read_contexts(contexts)
    routes = () if mocks is None else read_mock_routes(mocks)
    try:
        return Emulator(host, port, contexts=registry, settings=settings, mocks=routes, **given)
    except ValueError as error:
        raise click.ClickException(str(error)) from error


def _allow_open_files() -> None:
    # Shells often allow only 256 or 1,024.
    with contextlib.suppress(ImportError, OSError, ValueError):  # Windows has no such limit.
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def _to_json_line(keys: Mapping[str, Any], seconds: float | None = None) -> str:
    time = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return to_json({"time": time.isoformat(timespec="milliseconds"), **keys})


class _JsonFormatter(logging.Formatter):
    """Formatter of log records as JSON: a call with its keys, anything else with its level and message."""

    def format(self, record: logging.LogRecord) -> str:
        other = {"level": record.levelname.lower(), "message": super().format(record).strip()}
        return _to_json_line(getattr(record, "call", other), record.created)


def print_calls(form: Literal["text", "json"], *, quiet: bool) -> Printer:
    """Print the emulator's calls and the warnings of all packages, and return the printer.

    Args:
        form: The form of each line on standard error.
        quiet: Whether to print warnings only.
    """
    if form == "json":
        lines = Printer(sys.stderr, lambda text: _to_json_line({"level": "info", "message": text}))
        lines.setFormatter(_JsonFormatter())
    else:
        lines = Printer(sys.stderr)
        lines.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%H:%M:%S"))
    logging.getLogger().addHandler(lines)
    logging.getLogger("forge_realtime_emulator").setLevel(logging.WARNING if quiet else logging.INFO)
    logging.captureWarnings(capture=True)
    return lines
