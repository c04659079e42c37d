"""Command `listen`: the events of a channel, as a page would receive them."""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, BinaryIO

import click
from click.core import ParameterSource

from .._platform.errors import EmulatorError, SubscriptionRefused
from .._platform.text import printable
from .command import Command, needs_the_extra, no_emulator, tell, to_json, unreachable, url_option

if TYPE_CHECKING:
    from .._server.subscription import ReceivedEvent, Subscription

_DAY = 86_400
_SLEEP = 0.5
"""Seconds of one wait. A signal that comes just before a wait does not end it."""


@click.command(cls=Command)
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
@url_option
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
    with contextlib.suppress(KeyboardInterrupt), _subscription(url, described) as subscription:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        what = "the global channel" if is_global else "the channel"
        tell(f"Listening to {what} {channel} at {url} (Ctrl-C ends it).")
        ends = math.inf if timeout is None else time.monotonic() + timeout
        received = 0
        while received != count and (left := ends - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                event = subscription.receive(min(left, _SLEEP))
                received += 1
                _write(_line(event, as_json=as_json))
        if count is not None and received < count:
            raise click.ClickException(f"{received} of {count} event(s) came within {timeout} s.")


@contextlib.contextmanager
def _subscription(url: str, described: dict[str, Any]) -> Iterator[Subscription]:
    with needs_the_extra("listen"):
        from websockets.exceptions import InvalidHandshake, InvalidStatus

        from .._server.subscription import Subscription
    with contextlib.ExitStack() as stack:
        try:
            subscription = stack.enter_context(
                Subscription(f"ws{url.removeprefix('http')}/_emulator/subscribe", described, lambda _: lambda: "")
            )
        except SubscriptionRefused as error:
            raise EmulatorError(f"The emulator refused the subscription: {error}") from error
        except InvalidStatus as error:
            raise no_emulator(url, f"it answered {error.response.status_code}") from error
        except TimeoutError as error:
            raise no_emulator(url, "it did not respond in time") from error
        except OSError as error:
            raise unreachable(url, error) from error
        except (InvalidHandshake, EOFError, ValueError, KeyError, TypeError) as error:
            raise no_emulator(url, "its answer is not that of an emulator") from error
        yield subscription


def _line(event: ReceivedEvent, *, as_json: bool) -> str:
    if as_json:
        return to_json(
            {
                "channel": event.channel,
                "payload": event.payload,
                "eventId": event.event_id,
                "eventTimestamp": event.event_timestamp,
            }
        )
    at = datetime.fromtimestamp(int(event.event_timestamp) / 1000, tz=UTC).astimezone()
    return f"{at:%H:%M:%S}  {event.payload}"


def _write(line: str) -> None:
    """Write a line past the buffer of standard output.

    A buffer is flushed when the interpreter ends, and if nobody reads the pipe, that would outlast every signal.
    """
    raw = getattr(sys.stdout.buffer, "raw", sys.stdout.buffer)
    rest = f"{printable(line)}\n".encode(sys.stdout.encoding, "backslashreplace")
    while rest:
        if (written := raw.write(rest)) is None:
            # The pipe is full and does not block.
            time.sleep(_SLEEP)
        rest = rest[written or 0 :]


def _token(token: str | None, file: BinaryIO | None) -> str | None:
    if file is None:
        return token
    if click.get_current_context().get_parameter_source("token") is ParameterSource.COMMANDLINE:
        raise click.UsageError("Give the token once: by --token or by --token-file.")
    return file.read().decode("utf-8", "replace").strip()
