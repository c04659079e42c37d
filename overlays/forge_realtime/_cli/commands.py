"""The command line `forge-realtime`: the commands that need nothing but the client. It needs the extra `cli`.

Packages that are installed beside the client add commands by entry points of the group `forge_realtime.commands`, each a
`click.Command`; so the emulator's join without either package importing the other. Their modules are imported for `--help` and
for completion too, and should be light.
"""

from __future__ import annotations

import enum
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from typing import Any, BinaryIO, Final, Literal, TypeVar

import click
from attrs import asdict
from click.core import ParameterSource
from click.shell_completion import get_completion_class

from .._core.errors import Attempt, Delivery, ForgeRealtimeError, ResponseError, UsageError
from .._core.invocation import Invocation
from .._realtime.client import RealtimeClient
from .._realtime.operations import Permission
from .._realtime.results import PublishResult
from .._version import __version__
from .doctor import examine, in_options

_COMMANDS: Final = "forge_realtime.commands"

_FAILED: Final = 1
_USAGE: Final = 2
_MAY_HAVE_ARRIVED: Final = 3

F = TypeVar("F", bound=Callable[..., Any])


class _Commands(click.Group):
    """The commands of this module and those that other packages add."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *entry_points(group=_COMMANDS).names})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if (command := super().get_command(ctx, cmd_name)) is not None:
            return command
        for entry in entry_points(group=_COMMANDS, name=cmd_name):
            try:
                loaded: click.Command = entry.load()
            except ImportError as error:
                # The other commands, --help and completion go on without it.
                return _broken(cmd_name, str(error))
            return loaded
        return None


def _broken(name: str, problem: str) -> click.Command:
    def say_so() -> None:
        raise click.ClickException(
            f"{name} cannot be loaded: {problem}. Install it anew: pip install --force-reinstall 'forge-realtime[emulator]'"
        )

    # Whatever follows its name.
    return click.Command(
        name,
        callback=say_so,
        short_help="(cannot be loaded)",
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )


@click.group(cls=_Commands)
@click.version_option(__version__)
def cli() -> None:
    """Publish and receive Forge Realtime events, sign tokens, and find out what is wrong.

    The sidecar's or emulator's address is taken from FORGE_EGRESS_PROXY_URL, or from --url.

    \b
    Exit codes:
      0  done
      1  failed; an event that was to be published did not arrive
      2  wrong usage; nothing was sent
      3  an event may have arrived, but there was no clear answer
    """


def _together(*options: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


_url = click.option(
    "--url", metavar="URL", help="Address of the sidecar or emulator.  [default: FORGE_EGRESS_PROXY_URL]"
)
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, also when the call fails.")
_answer = click.option(
    "--show-answer", is_flag=True, help="Print what a failed call was answered. It may repeat what was sent."
)
_acting_as = _together(
    click.option(
        "--as",
        "as_",
        type=click.Choice(["app", "user"]),
        default="app",
        show_default=True,
        help="Whether to act as the app or as a user.",
    ),
    click.option(
        "--account",
        metavar="ID",
        envvar="FORGE_REALTIME_ACCOUNT",
        show_envvar=True,
        help="Account of the user; with --as user.",
    ),
)
_token = _together(
    click.option(
        "--token",
        metavar="TOKEN",
        envvar="FORGE_REALTIME_TOKEN",
        show_envvar=True,
        help="Token that sign-token printed, with the claims of the subscribers.",
    ),
    click.option(
        "--token-file", metavar="FILE", type=click.File("rb"), help="File with the token; - is standard input."
    ),
)
_payload = _together(
    # Any number, so that a payload without quotes is not repeated in click's complaint.
    click.argument("payload", nargs=-1, metavar="[PAYLOAD]"),
    click.option("--payload-file", metavar="FILE", type=click.File("rb"), help="File with the payload, UTF-8."),
)


def _invocation(*, required: bool = False) -> Callable[[F], F]:
    return click.option(
        "--invocation",
        metavar="ID",
        required=required,
        envvar="FORGE_REALTIME_INVOCATION",
        show_envvar=True,
        help="Invocation to act for: x-forge-invocation-id of the request. The emulator takes any.",
    )


_installation = click.option("--installation", metavar="ID", help="Installation to act for, in place of an invocation.")


@cli.command()
@click.argument("channel")
@_payload
@_invocation(required=True)
@click.option(
    "--context-override",
    "context_overrides",
    type=click.Choice(["board", "issue", "project", "content", "space", "repository", "pullRequest"]),
    multiple=True,
    help="Part of the context that replaces the default scope; can be given several times.",
)
@_token
@_acting_as
@_url
@_json
@_answer
def publish(
    channel: str,
    payload: tuple[str, ...],
    payload_file: BinaryIO | None,
    invocation: str,
    context_overrides: tuple[str, ...],
    token: str | None,
    token_file: BinaryIO | None,
    as_: Literal["app", "user"],
    account: str | None,
    url: str | None,
    as_json: bool,
    show_answer: bool,
) -> None:
    """Publish an event in the context of an invocation.

    PAYLOAD travels exactly as it is, a line break at its end included; - reads it from standard input. Prints the event's
    id, or that nobody was subscribed.

    \b
      forge-realtime publish board-42 '{"moved":7}' --invocation invocation-123
    """
    text = _payload_text(payload, payload_file)
    signed = _token_text(token, token_file)
    with _reported(as_json, show_answer), RealtimeClient(url) as realtime:
        live = realtime.for_invocation(Invocation(invocation), as_=as_, account_id=account)
        _print_result(live.publish(channel, text, token=signed, context_overrides=context_overrides or None), as_json)


@cli.command()
@click.argument("channel")
@_payload
@_invocation()
@_installation
@_token
@_acting_as
@_url
@_json
@_answer
def publish_global(
    channel: str,
    payload: tuple[str, ...],
    payload_file: BinaryIO | None,
    invocation: str | None,
    installation: str | None,
    token: str | None,
    token_file: BinaryIO | None,
    as_: Literal["app", "user"],
    account: str | None,
    url: str | None,
    as_json: bool,
    show_answer: bool,
) -> None:
    """Publish an event to the whole installation.

    PAYLOAD travels exactly as it is, a line break at its end included; - reads it from standard input. Prints the event's
    id, or that nobody was subscribed.

    \b
      forge-realtime publish-global news 'the build is green' --installation installation-1
    """
    text = _payload_text(payload, payload_file)
    signed = _token_text(token, token_file)
    with _reported(as_json, show_answer), RealtimeClient(url) as realtime:
        live = _live(realtime, invocation, installation, as_, account)
        _print_result(live.publish_global(channel, text, token=signed), as_json)


@cli.command()
@click.argument("channel")
@click.option("--claims", metavar="JSON", help="""Object of claims, such as '{"team":"red"}'.""")
@click.option("--claims-file", metavar="FILE", type=click.File("rb"), help="File with the claims; - is standard input.")
@click.option(
    "--permission",
    "permissions",
    multiple=True,
    type=click.Choice(["subscribe", "publish"]),
    help="What the token permits; can be given twice.  [default: both]",
)
@_invocation()
@_installation
@_acting_as
@_url
@_json
@_answer
def sign_token(
    channel: str,
    claims: str | None,
    claims_file: BinaryIO | None,
    permissions: tuple[Permission, ...],
    invocation: str | None,
    installation: str | None,
    as_: Literal["app", "user"],
    account: str | None,
    url: str | None,
    as_json: bool,
    show_answer: bool,
) -> None:
    """Have a token signed, and print it.

    Publishers and subscribers whose tokens have the same claims reach each other.

    \b
      export FORGE_REALTIME_TOKEN="$(forge-realtime sign-token board-42 --claims '{"team":"red"}' --invocation i-1)"
    """
    if (claims is None) == (claims_file is None):
        raise click.UsageError("Give the claims once: by --claims JSON, or by --claims-file FILE.")
    text = claims if claims_file is None else _decoded(claims_file, "The file of claims")
    try:
        value = json.loads(text or "")
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise click.UsageError("""The claims are no JSON object. Give one, such as '{"team":"red"}'.""")
    with _reported(as_json, show_answer, unknown=_FAILED), RealtimeClient(url) as realtime:
        live = _live(realtime, invocation, installation, as_, account)
        signed = live.sign_realtime_token(channel, value, permissions or None)
        expires_at = signed.expires_at
        if as_json:
            seconds = None if expires_at is None else int(expires_at.timestamp())
            click.echo(
                json.dumps({"token": signed.token, "expiresAt": seconds, "attempts": _attempts(signed.attempts)})
            )
        else:
            click.echo(signed.token)
            if expires_at is not None:
                click.echo(f"It expires at {expires_at:%Y-%m-%d %H:%M:%S} UTC.", err=True)


@cli.command()
@_invocation()
@_acting_as
@_url
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(
    invocation: str | None, as_: Literal["app", "user"], account: str | None, url: str | None, as_json: bool
) -> None:
    """Check the way to the sidecar, and say what is wrong.

    Looks at the environment, the address, the header, the connection, the other side and a round trip.

    On the emulator, an event is published and received on a channel of its own. On a sidecar of the platform nothing is
    published: with --invocation its context is asked for. Ends with exit code 1 when something is wrong.
    """
    findings = []
    for finding in examine(url, invocation, as_, account):
        findings.append(finding)
        if not as_json:
            click.echo(f"{finding.outcome:<8} {finding.check:<11} {_printable(finding.message)}")
    ok = all(finding.outcome != "problem" for finding in findings)
    if as_json:
        click.echo(json.dumps({"ok": ok, "checks": [asdict(finding) for finding in findings]}))
    if not ok:
        sys.exit(_FAILED)


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script for completion in a shell.

    \b
      bash, in ~/.bashrc:   eval "$(forge-realtime completion bash)"
      zsh, in ~/.zshrc:     eval "$(forge-realtime completion zsh)"
      fish, in config.fish: forge-realtime completion fish | source
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "forge-realtime", "_FORGE_REALTIME_COMPLETE").source())


@contextmanager
def _reported(as_json: bool, show_answer: bool, *, unknown: int = _MAY_HAVE_ARRIVED) -> Iterator[None]:
    """Says how a call failed, and ends with the exit code for it.

    Args:
        as_json: Whether to print it as JSON as well.
        show_answer: Whether to print the answer too.
        unknown: The exit code when it may have been carried out.
    """
    try:
        yield
    except ForgeRealtimeError as error:
        message = in_options(error).replace("base_url", "--url")
        described = {**_described(error), "message": message}
        if isinstance(error, ResponseError) and error.body:
            if show_answer:
                described["answer"] = error.body.decode("utf-8", "replace")
                message += f"\nThe answer: {_printable(described['answer'])}"
            else:
                message += " (--show-answer prints it)"
        code = unknown if error.delivery is Delivery.UNKNOWN else _FAILED
        exit_code = _USAGE if isinstance(error, UsageError) else code
    except KeyboardInterrupt:
        message, exit_code = "Interrupted; it may have been carried out.", unknown
        described = {"message": message, "delivery": Delivery.UNKNOWN.value}
    else:
        return
    if as_json:
        click.echo(json.dumps(described))
    click.echo(f"Error: {message}", err=True)
    sys.exit(exit_code)


def _described(error: ForgeRealtimeError) -> dict[str, Any]:
    described: dict[str, Any] = {"error": type(error).__name__, "delivery": error.delivery.value}
    if isinstance(error, ResponseError):
        described.update(status=error.status, code=error.code, retryAfter=error.retry_after)
    return {**described, "attempts": _attempts(error.attempts)}


def _print_result(result: PublishResult, as_json: bool) -> None:
    if as_json:
        described = {
            "eventId": result.event_id,
            "eventTimestamp": result.raw_event_timestamp,
            "delivery": Delivery.ACCEPTED.value,
            "attempts": _attempts(result.attempts),
        }
        click.echo(json.dumps(described))
        return
    click.echo("nobody was subscribed" if result.event_id is None else _printable(result.event_id))
    if any(attempt.delivery is Delivery.UNKNOWN for attempt in result.attempts):
        click.echo("It was sent more than once without a clear answer: subscribers may see it twice.", err=True)


def _attempts(attempts: tuple[Attempt, ...]) -> list[dict[str, Any]]:
    return [
        asdict(attempt, value_serializer=lambda _, __, value: value.value if isinstance(value, enum.Enum) else value)
        for attempt in attempts
    ]


def _live(
    realtime: RealtimeClient,
    invocation: str | None,
    installation: str | None,
    as_: Literal["app", "user"],
    account: str | None,
) -> RealtimeClient:
    given = click.get_current_context().get_parameter_source("invocation")
    if installation is not None and given is ParameterSource.ENVIRONMENT:
        # What is on the command line goes before what is in the environment.
        invocation = None
    if installation is not None and invocation is None:
        return realtime.for_installation(installation, as_=as_, account_id=account)
    if invocation is not None and installation is None:
        return realtime.for_invocation(Invocation(invocation), as_=as_, account_id=account)
    raise click.UsageError("Give exactly one of --invocation ID and --installation ID.")


def _payload_text(given: tuple[str, ...], file: BinaryIO | None) -> str:
    if len(given) > 1:
        raise click.UsageError("The payload is one argument: put it in quotes.")
    if bool(given) == (file is not None):
        raise click.UsageError("Give the payload once: as PAYLOAD, as - for standard input, or by --payload-file FILE.")
    if given == ("-",):
        file = sys.stdin.buffer
    return _decoded(file, "The payload") if file is not None else "".join(given)


def _token_text(token: str | None, file: BinaryIO | None) -> str | None:
    if file is None:
        return token
    if click.get_current_context().get_parameter_source("token") is ParameterSource.COMMANDLINE:
        raise click.UsageError("Give the token once: by --token or by --token-file.")
    return _decoded(file, "The file of the token").strip()


def _decoded(file: BinaryIO, what: str) -> str:
    try:
        return file.read().decode("utf-8")
    except UnicodeDecodeError:
        # Raised outside of the handler: that error holds what was read.
        pass
    raise click.UsageError(f"{what} is not UTF-8.")


def _printable(text: str) -> str:
    """With escapes for what could control a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
