"""Commands `emulate`, `listen` and `fail` of the command line `forge-realtime`.

The client's command line imports this module even for `--help` and completion, so each command imports the extra's
packages only when it runs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import json
import logging
import math
import signal
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO
from urllib.parse import urlsplit

import click
from click.core import ParameterSource

from ._platform.errors import EmulatorError, SubscriptionRefused
from ._platform.text import printable
from ._printer import Printer

if TYPE_CHECKING:
    from ._server.subscription import ReceivedEvent, Subscription

_DAY = 86_400
_SLEEP = 0.5
"""Seconds of one wait. A signal that comes just before a wait does not end it."""
_TIMEOUT = 5.0
"""Seconds in which a running emulator responds."""
_OPEN_FILES = 8192
"""Number of open files to allow, of which each subscriber is one."""


@click.group()
@click.version_option(package_name="forge-realtime")
def cli() -> None:
    """Run the emulator, listen to its channels, and make calls fail."""


@contextlib.contextmanager
def _needs_the_extra(command: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "forge_realtime_emulator":
            raise
        raise click.ClickException(
            f"forge-realtime {command} needs the emulator extra: pip install 'forge-realtime[emulator]'"
        ) from error


@cli.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=7072,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 takes a free one.",
)
@click.option("--service", metavar="URL", help="Base URL of the app's service, for invokeService() in a browser.")
@click.option(
    "--origin",
    "origins",
    metavar="URL",
    multiple=True,
    help="Origin of the app's front end, to let it use /bridge.js; can be given several times.",
)
@click.option(
    "--contexts",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON file with the contexts of invocations and installations.",
)
@click.option(
    "--config",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Settings as forge-realtime probe found them.",
)
@click.option(
    "--mocks",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON file with mock routes, for what the emulator does not carry out, such as Jira and KVS.",
)
@click.option("--strict", is_flag=True, help="Refuse invocations and installations that are not registered.")
@click.option(
    "--limit",
    type=click.IntRange(0),
    help="Operations per second and installation; 0 disables the limit.  [default: 50]",
)
@click.option("--quiet", is_flag=True, help="Print no line for each call, only the address and warnings.")
def emulate(  # noqa: PLR0917 - click passes options by name
    host: str,
    port: int,
    service: str | None,
    origins: tuple[str, ...],
    contexts: Path | None,
    config: Path | None,
    mocks: Path | None,
    strict: bool,
    limit: int | None,
    quiet: bool,
) -> None:
    """Run a local stand-in for the egress sidecar until Ctrl-C.

    It serves the Realtime operations, checks every call, and delivers events to subscribers. Open its address in a
    browser for the console. The line to paste into the app's shell goes to standard output, all other lines to standard
    error.
    """
    with _needs_the_extra("emulate"):
        from ._http.mcp import MCP_PATH, has_mcp
        from ._platform.contexts import read_contexts
        from ._platform.mock_routes import read_mock_routes
        from ._platform.settings import Settings
        from ._server.emulator import Emulator
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        lines = _print_calls(quiet=quiet)
        if not _is_loopback(host):
            lines.print(
                f"Warning: with --host {host} other machines can connect, publish and read events."
                " Leave --host out to listen on this machine only."
            )
        _allow_open_files()
        registry = None if contexts is None else read_contexts(contexts)
        settings = Settings() if config is None else Settings.from_file(config)
        settings = dataclasses.replace(settings, strict=strict or settings.strict)
        if limit is not None:
            settings = dataclasses.replace(settings, limit=limit or None)
        routes = () if mocks is None else read_mock_routes(mocks)
        with Emulator(
            host, port, service=service, origins=origins, contexts=registry, settings=settings, mocks=routes
        ) as emulator:
            if service or origins:
                lines.print(f'In the page, before its bundle: <script src="{emulator.url}/bridge.js"></script>')
            if has_mcp():
                lines.print(f"For coding assistants (MCP over HTTP): {emulator.url}{MCP_PATH}")
            lines.print(f"The emulator listens at {emulator.url} (Ctrl-C ends it). In the app's shell:")
            lines.flush()
            Printer(sys.stdout).print(f"export FORGE_EGRESS_PROXY_URL={emulator.url}")
            while True:
                time.sleep(_SLEEP)
    except (EmulatorError, ValueError) as error:
        raise click.ClickException(_showable(str(error), sys.stderr)) from error
    except KeyboardInterrupt:
        pass


def _print_calls(*, quiet: bool) -> Printer:
    """Print the emulator's calls and the warnings of all packages, and return the printer."""
    lines = Printer(sys.stderr)
    lines.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%H:%M:%S"))
    logging.getLogger().addHandler(lines)
    logging.getLogger("forge_realtime_emulator").setLevel(logging.WARNING if quiet else logging.INFO)
    logging.captureWarnings(capture=True)
    return lines


def _allow_open_files() -> None:
    # Shells often allow only 256 or 1,024.
    with contextlib.suppress(ImportError, OSError, ValueError):  # Windows has no such limit.
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


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


_url = click.option(
    "--url",
    metavar="URL",
    envvar="FORGE_EGRESS_PROXY_URL",
    callback=_base_url,
    help="Address of the emulator.  [default: FORGE_EGRESS_PROXY_URL]",
)


@cli.command()
@click.argument("channel")
@click.option("--global", "is_global", is_flag=True, help="Listen to the global channel of that name.")
@click.option(
    "--invocation",
    metavar="ID",
    envvar="FORGE_REALTIME_INVOCATION",
    show_envvar=True,
    help="Registered invocation whose context to listen in; by default the default context.",
)
@click.option(
    "--context-override",
    "context_overrides",
    type=click.Choice(["board", "issue", "project", "content", "space", "repository", "pullRequest"]),
    multiple=True,
    help="Part of the context that replaces the default scope; can be given several times.",
)
@click.option(
    "--token",
    metavar="TOKEN",
    envvar="FORGE_REALTIME_TOKEN",
    show_envvar=True,
    help="Token printed by sign-token, with the claims of the publisher.",
)
@click.option("--token-file", metavar="FILE", type=click.File("rb"), help="File with the token; - is standard input.")
@click.option(
    "--replay",
    metavar="SECONDS",
    type=click.IntRange(0, _DAY),
    help="Start with the events of the last SECONDS that reached somebody.",
)
@click.option("--count", metavar="N", type=click.IntRange(1), help="End after N events.")
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.IntRange(1, _DAY),
    help="End after SECONDS, with exit code 1 if fewer than --count events came.",
)
@_url
@click.option("--json", "as_json", is_flag=True, help="Print each event as a JSON object on a line of its own.")
def listen(  # noqa: PLR0917 - click passes options by name
    channel: str,
    is_global: bool,
    invocation: str | None,
    context_overrides: tuple[str, ...],
    token: str | None,
    token_file: BinaryIO | None,
    replay: int | None,
    count: int | None,
    timeout: int | None,
    url: str,
    as_json: bool,
) -> None:
    """Print the events of CHANNEL as they come, until Ctrl-C.

    It listens to the emulator, as a front end does to the platform; the platform has no address to listen at. Each line
    is the time and the payload, with unprintable characters escaped. --json prints the exact payload.

    \b
      forge-realtime listen board-42
      forge-realtime listen news --global --json --count 1 --timeout 10
    """  # noqa: D301 - click looks for the character that \b stands for
    options = {
        "token": _token(token, token_file),
        "contextOverrides": context_overrides or None,
        "replaySeconds": replay,
    }
    described = {
        "channel": channel,
        "isGlobal": is_global,
        "options": {name: value for name, value in options.items() if value is not None},
        **({} if invocation is None else {"invocation": invocation}),
    }
    try:
        with _subscription(url, described) as subscription:
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            what = "the global channel" if is_global else "the channel"
            _echo(f"Listening to {what} {channel} at {url} (Ctrl-C ends it).", err=True)
            ends = math.inf if timeout is None else time.monotonic() + timeout
            received = 0
            while received != count and (left := ends - time.monotonic()) > 0:
                with contextlib.suppress(TimeoutError):
                    event = subscription.receive(min(left, _SLEEP))
                    received += 1
                    _echo(_line(event, as_json=as_json))
            if count is not None and received < count:
                raise click.ClickException(f"{received} of {count} event(s) came within {timeout} s.")
    except EmulatorError as error:
        raise click.ClickException(_showable(str(error), sys.stderr)) from error
    except KeyboardInterrupt:
        pass


def _echo(text: str, *, err: bool = False) -> None:
    click.echo(_showable(text, sys.stderr if err else sys.stdout), err=err)


def _showable(text: str, stream: TextIO) -> str:
    """Escape what could control a terminal, and what this stream cannot show."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return printable(text).encode(encoding, "backslashreplace").decode(encoding)


@contextlib.contextmanager
def _subscription(url: str, described: dict[str, Any]) -> Iterator[Subscription]:
    with _needs_the_extra("listen"):
        from websockets.exceptions import InvalidHandshake, InvalidStatus

        from ._server.subscription import Subscription
    with contextlib.ExitStack() as stack:
        try:
            subscription = stack.enter_context(
                Subscription(f"ws{url.removeprefix('http')}/_emulator/subscribe", described, lambda _: lambda: "")
            )
        except SubscriptionRefused as error:
            raise EmulatorError(f"The emulator refused the subscription: {error}") from error
        except InvalidStatus as error:
            raise _no_emulator(url, f"it answered {error.response.status_code}") from error
        except TimeoutError as error:
            raise _no_emulator(url, "it did not respond in time") from error
        except OSError as error:
            raise _unreachable(url, error) from error
        except (InvalidHandshake, EOFError, ValueError, KeyError, TypeError) as error:
            raise _no_emulator(url, "its answer is not that of an emulator") from error
        yield subscription


def _line(event: ReceivedEvent, *, as_json: bool) -> str:
    if as_json:
        return json.dumps(
            {
                "channel": event.channel,
                "payload": event.payload,
                "eventId": event.event_id,
                "eventTimestamp": event.event_timestamp,
            }
        )
    at = datetime.fromtimestamp(int(event.event_timestamp) / 1000, tz=UTC).astimezone()
    return f"{at:%H:%M:%S}  {event.payload}"


def _token(token: str | None, file: BinaryIO | None) -> str | None:
    if file is None:
        return token
    if click.get_current_context().get_parameter_source("token") is ParameterSource.COMMANDLINE:
        raise click.UsageError("Give the token once: by --token or by --token-file.")
    return file.read().decode("utf-8", "replace").strip()


@cli.command()
@click.option("--status", metavar="STATUS", type=click.IntRange(400, 599), help="Status of the response: 400 to 599.")
@click.option(
    "--retry-after", metavar="SECONDS", type=click.IntRange(0), help="Retry-After header to send with the status."
)
@click.option(
    "--answer",
    type=click.Choice(["reset", "truncated", "not-json"]),
    help="Reset the connection, cut the response short, or send HTML instead of JSON.",
)
@click.option(
    "--delay",
    metavar="SECONDS",
    type=click.FloatRange(0, 3600),
    help="Wait before the response; alone, the call gets its normal response late.",
)
@click.option(
    "--delivered", is_flag=True, help="Carry out the call all the same; a client that retries then makes a duplicate."
)
@click.option(
    "--times", metavar="N", type=click.IntRange(1), default=1, show_default=True, help="Number of calls that fail."
)
@click.option("--operation", metavar="NAME", help="Only calls of publish, publish_global or sign_realtime_token.")
@click.option("--channel", metavar="NAME", help="Only calls for this channel.")
@click.option("--installation", metavar="ID", help="Only calls of this installation.")
@click.option("--clear", is_flag=True, help="Drop all pending faults instead of adding one.")
@_url
@click.option("--json", "as_json", is_flag=True, help="Print the fault as a JSON object.")
def fail(clear: bool, url: str, as_json: bool, times: int, delivered: bool, **given: Any) -> None:
    """Make the next calls to a running emulator fail.

    Give --status, --answer or --delay, or --delay with one of the other two. Faults are used in the order in which they
    were added.

    \b
      forge-realtime fail --status 429 --retry-after 1 --times 2
      forge-realtime fail --answer reset --operation publish --channel board-42
      forge-realtime fail --clear
    """  # noqa: D301 - click looks for the character that \b stands for
    asked = {
        ("retryAfter" if name == "retry_after" else name): value for name, value in given.items() if value is not None
    }
    if delivered:
        asked["delivered"] = True
    if clear and asked:
        raise click.UsageError("--clear takes no other option. First drop the pending faults, then add a new one.")
    if not clear and not {"status", "answer", "delay"} & asked.keys():
        raise click.UsageError("Say what the next calls get: --status, --answer or --delay.")
    fault = {} if clear else {"times": times, **asked}
    try:
        _send_fault(url, fault)
    except EmulatorError as error:
        raise click.ClickException(_showable(str(error), sys.stderr)) from error
    if as_json:
        click.echo(json.dumps(fault))
    else:
        _echo("All pending faults were dropped." if clear else _describe(fault))


def _describe(fault: dict[str, Any]) -> str:
    only = "".join(
        f" {preposition} {fault[name]}"
        for name, preposition in (("operation", "of"), ("channel", "on channel"), ("installation", "for installation"))
        if name in fault
    )
    who = f"The next call{only} gets" if fault["times"] == 1 else f"The next {fault['times']} calls{only} get"
    answers = {
        "reset": "a reset connection",
        "truncated": "a truncated response",
        "not-json": "a response that is not JSON",
    }
    what = fault.get("status") or answers.get(fault.get("answer", ""), "the normal response")
    retry_after = f" with Retry-After {fault['retryAfter']}" if "retryAfter" in fault else ""
    delay = f", {fault['delay']:g} s late" if fault.get("delay") else ""
    return f"{who} {what}{retry_after}{delay}{', and is carried out all the same' if fault.get('delivered') else ''}."


def _send_fault(url: str, fault: dict[str, Any]) -> None:
    """Add a fault, or drop all pending faults if it is empty."""
    import httpx

    try:
        with httpx.Client(trust_env=False, timeout=_TIMEOUT) as client:
            # Check first that this is an emulator, before anything is sent that changes state.
            state = client.get(f"{url}/_emulator/state")
            if state.status_code != 200 or not _is_state(state.text):
                raise _no_emulator(url, f"it answered {state.status_code}")
            method, content = ("POST", json.dumps(fault)) if fault else ("DELETE", None)
            headers = {"Content-Type": "application/json"}
            response = client.request(method, f"{url}/_emulator/faults", content=content, headers=headers)
    except httpx.ConnectError as error:
        raise _unreachable(url, error) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _no_emulator(url, f"it gave no HTTP answer: {type(error).__name__}") from error
    if response.status_code == 400:
        raise click.UsageError(_showable(response.json()["message"], sys.stderr))
    if response.status_code != 200:
        raise EmulatorError(f"The emulator responded with {response.status_code}; nothing was changed.")


def _is_state(text: str) -> bool:
    try:
        state = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(state, dict) and state.get("kind") == "state"


def _unreachable(url: str, error: Exception) -> EmulatorError:
    return EmulatorError(
        f"No emulator can be reached at {url} ({error}). Start forge-realtime emulate, and export the address that it"
        " prints or pass it with --url."
    )


def _no_emulator(url: str, what: str) -> EmulatorError:
    return EmulatorError(
        f"There is no emulator at {url}: {what}. This command works with forge-realtime emulate only, because the"
        " platform's sidecar has nothing like it. Start an emulator, and pass its address with --url."
    )
