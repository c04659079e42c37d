"""The commands that need only the client and the extra `cli`.

Other packages, such as the emulator, add commands by entry points of the group `forge_realtime.commands`. Each is a
`click.Command` in a module that is cheap to import, as `--help` and completion import all of them.
"""
# ruff: noqa: D301 -- click looks for the character \b, so the docstrings cannot be raw strings

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from typing import Any, BinaryIO, Final, Literal, TextIO, TypeVar

import click
from attrs import asdict
from click.core import ParameterSource
from click.shell_completion import get_completion_class

from .._core.errors import Delivery, ForgeRealtimeError, ResponseError, UsageError
from .._core.http import httpx
from .._core.invocation import Invocation
from .._realtime.client import RealtimeClient
from .._realtime.operations import Permission
from .._realtime.results import PublishResult, RealtimeToken
from .._version import __version__
from .doctor import VARIABLE, Target, check_account, examine, open_client
from .probe import MOST_OPERATIONS, OBSERVATIONS, UNSEEN, Probe

_ENTRY_POINTS: Final = "forge_realtime.commands"

_FAILED: Final = 1
_WRONG_USAGE: Final = 2
_UNKNOWN: Final = 3

_FILE: Final = click.File("rb")

F = TypeVar("F", bound=Callable[..., Any])


class _Commands(click.Group):
    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with _escaped_errors():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        with _escaped_errors():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *entry_points(group=_ENTRY_POINTS).names})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if (command := super().get_command(ctx, cmd_name)) is not None:
            return command
        try:
            return next((entry.load() for entry in entry_points(group=_ENTRY_POINTS, name=cmd_name)), None)
        except ImportError as error:
            # The other commands, --help and completion still work.
            return _broken(cmd_name, str(error))


@contextmanager
def _escaped_errors() -> Iterator[None]:
    """Escape error messages: click's repeat arguments, and others what a server said."""
    try:
        yield
    except click.ClickException as error:
        # Declared final, but there is no other way for all of click's classes of errors.
        vars(error)["message"] = _showable(error.message, sys.stderr)
        raise


def _broken(name: str, problem: str) -> click.Command:
    def fail() -> None:
        raise click.ClickException(
            f"{name} cannot be loaded: {problem}. Reinstall it:"
            " pip install --force-reinstall 'forge-realtime[emulator]'"
        )

    any_arguments = {"ignore_unknown_options": True, "allow_extra_args": True}
    return click.Command(name, any_arguments, fail, short_help="(cannot be loaded)", add_help_option=False)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """Publish and receive Forge Realtime events, sign tokens, and diagnose problems.

    The address of the sidecar or emulator comes from FORGE_EGRESS_PROXY_URL or --url.

    \b
    Exit codes:
      0  done
      1  failed; an event that was to be published did not arrive
      2  wrong usage; nothing was sent
      3  an event may have arrived, but there was no clear response
    """


def _together(*options: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


_payload = _together(
    # Any number: click's own message about a second argument would show a payload without quotes.
    click.argument("payload", nargs=-1, metavar="[PAYLOAD]"),
    click.option("--payload-file", metavar="FILE", type=_FILE, help="File with the payload, in UTF-8."),
)
_token = _together(
    click.option(
        "--token",
        metavar="TOKEN",
        envvar="FORGE_REALTIME_TOKEN",
        show_envvar=True,
        help="Token printed by sign-token, with the claims of the subscribers.",
    ),
    click.option("--token-file", metavar="FILE", type=_FILE, help="File with the token; - is standard input."),
)


def _invocation(*, required: bool = False) -> Callable[[F], F]:
    return click.option(
        "--invocation",
        metavar="ID",
        required=required,
        envvar="FORGE_REALTIME_INVOCATION",
        show_envvar=True,
        help="Invocation to act for: x-forge-invocation-id of the request. The emulator accepts any id.",
    )


_installation = click.option("--installation", metavar="ID", help="Installation to act for instead of an invocation.")
_url = click.option(
    "--url", metavar="URL", envvar=VARIABLE, show_envvar=True, help="Address of the sidecar or emulator."
)
_common = _together(
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
        help="Account of the user; only with --as user.",
    ),
    _url,
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object, even on failure."),
)
_show_response = click.option(
    "--show-response", is_flag=True, help="Print the response of a failed call. It may repeat what was sent."
)


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
@_common
@_show_response
def publish(*, channel: str, context_overrides: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Publish an event in the context of an invocation.

    PAYLOAD is sent unchanged, including a line break at its end. Without it, or with -, the payload is read from a pipe
    or file on standard input. Prints the event's id, or on standard error that nobody was subscribed.

    \b
      forge-realtime publish board-42 '{"moved":7}' --invocation invocation-123
    """
    payload, token = _pop_payload(given), _pop_token(given)
    with _calling(as_json, **given) as live:
        _print_result(live.publish(channel, payload, token=token, context_overrides=context_overrides or None), as_json)


@cli.command()
@click.argument("channel")
@_payload
@_invocation()
@_installation
@_token
@_common
@_show_response
def publish_global(*, channel: str, as_json: bool, **given: Any) -> None:
    """Publish an event to the whole installation.

    PAYLOAD is sent unchanged, including a line break at its end. Without it, or with -, the payload is read from a pipe
    or file on standard input. Prints the event's id, or on standard error that nobody was subscribed.

    \b
      forge-realtime publish-global news 'the build is green' --installation installation-1
    """
    payload, token = _pop_payload(given), _pop_token(given)
    with _calling(as_json, **given) as live:
        _print_result(live.publish_global(channel, payload, token=token), as_json)


@cli.command()
@click.argument("channel")
@click.option("--claims", metavar="JSON", help="""Object of claims, such as '{"team":"red"}'.""")
@click.option("--claims-file", metavar="FILE", type=_FILE, help="File with the claims; - is standard input.")
@click.option(
    "--permission",
    "permissions",
    multiple=True,
    type=click.Choice(["subscribe", "publish"]),
    help="What the token permits; can be given twice.  [default: both]",
)
@_invocation()
@_installation
@_common
@_show_response
def sign_token(*, channel: str, permissions: tuple[Permission, ...], as_json: bool, **given: Any) -> None:
    """Sign a token and print it.

    Publishers and subscribers whose tokens have the same claims reach each other.

    \b
      export FORGE_REALTIME_TOKEN="$(forge-realtime sign-token board-42 --claims '{"team":"red"}' --invocation i-1)"
    """
    claims = _pop_claims(given)
    with _calling(as_json, **given, unknown=_FAILED) as live:
        _print_token(live.sign_realtime_token(channel, claims, permissions or None), as_json)


@cli.command()
@_invocation()
@_common
def doctor(*, as_json: bool, **given: Any) -> None:
    """Check the connection to the sidecar.

    The checks are the environment, the address, the header, the connection, the sidecar and a round trip.

    On the emulator, the round trip publishes an event on a channel of its own and receives it. On the platform nothing
    is published: with --invocation, its context is requested. The exit code is 1 if a check finds a problem.
    """
    findings = []
    for finding in examine(Target(**given)):
        findings.append(finding)
        if not as_json:
            _echo(f"{finding.outcome:<8} {finding.check:<11} {finding.message}")
    ok = all(finding.outcome != "problem" for finding in findings)
    if as_json:
        _print_json({"ok": ok, "checks": findings})
    if not ok:
        sys.exit(_FAILED)


@cli.command()
@_invocation()
@click.option("--page", metavar="CHANNEL", help="Channel that an open page is subscribed to, as shown above.")
@click.option("--payload-size", is_flag=True, help="Also search for the largest payload, up to 2 MiB.")
@click.option(
    "--rate-limit", is_flag=True, help="Also exceed the rate limit once. Other calls may be refused meanwhile."
)
@click.option("--output", metavar="FILE", type=click.File("w"), default="-", help="Write the result to FILE.")
@click.option("--dry-run", is_flag=True, help="List the calls without making them.")
@_url
def probe(
    invocation: str | None, page: str | None, output: TextIO, dry_run: bool, url: str | None, **options: bool
) -> None:
    """Observe what the platform's documentation leaves open.

    Run it in a container, in a development environment, while the request of the invocation is in progress. It makes
    at most 100 operations in 2 minutes, on channels of its own, and prints JSON: settings for `forge-realtime emulate
    --config FILE`, the evidence for each answer, and what stayed open. Some answers need an open page with:

    \b
      realtime.subscribeGlobal('CHANNEL', console.log)
      realtime.subscribe('CHANNEL', console.log, { contextOverrides: ['issue', 'project'] })

    Confluence has ['content', 'space'], and Bitbucket ['pullRequest', 'repository'].
    """
    chosen = [o for o in OBSERVATIONS if o.option is None or options[o.option[2:].replace("-", "_")]]
    if sum(observation.operations for observation in chosen) >= MOST_OPERATIONS:
        raise click.UsageError("--payload-size and --rate-limit need more than 100 operations: run it once with each.")
    if dry_run:
        click.echo("  1  GET /_emulator/state: Is it the emulator?")
        for observation in chosen:
            click.echo(f"{observation.operations:>3}  {observation.calls}: {observation.question}")
        click.echo("\n".join(["Open in any case:", *UNSEEN]))
        return
    if invocation is None:
        raise click.UsageError("Give --invocation ID: x-forge-invocation-id of a request in progress.")
    try:
        open_client(url).close()
        assert url is not None
        found = Probe(url, invocation, page).run(chosen, lambda line: _echo(line, err=True))
    except UsageError as error:
        raise click.UsageError(str(error)) from None
    except httpx.RequestError as error:
        raise click.ClickException(
            f"There is no HTTP response at {url} ({type(error).__name__}). To find out why: forge-realtime doctor"
        ) from None
    click.echo(_to_json(found, indent=2), file=output)


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for a shell.

    \b
      bash, in ~/.bashrc:   eval "$(forge-realtime completion bash)"
      zsh, in ~/.zshrc:     eval "$(forge-realtime completion zsh)"
      fish, in config.fish: forge-realtime completion fish | source
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "forge-realtime", "_FORGE_REALTIME_COMPLETE").source())


@contextmanager
def _calling(
    as_json: bool,
    *,
    as_: Literal["app", "user"],
    account: str | None,
    url: str | None,
    show_response: bool,
    invocation: str | None,
    installation: str | None = None,
    unknown: int = _UNKNOWN,
) -> Iterator[RealtimeClient]:
    """Provide the client for a call. If it fails, print why and exit, with `unknown` after an unclear result."""
    try:
        with open_client(url) as realtime:
            check_account(as_, account)
            if installation is None and invocation is not None:
                yield realtime.for_invocation(Invocation(invocation), as_=as_, account_id=account)
            elif installation is not None and (invocation is None or _is_from_environment("invocation")):
                yield realtime.for_installation(installation, as_=as_, account_id=account)
            else:
                raise click.UsageError("Give exactly one of --invocation ID and --installation ID.")
    except ForgeRealtimeError as error:
        message = str(error)
        described: dict[str, Any] = {"error": type(error).__name__, "message": message}
        described.update(delivery=error.delivery, attempts=error.attempts)
        if isinstance(error, ResponseError):
            described.update(status=error.status, code=error.code, retryAfter=error.retry_after)
            if error.body and show_response:
                described["response"] = error.body.decode("utf-8", "replace")
            elif error.body:
                message += " (--show-response prints the response)"
        code = unknown if error.delivery is Delivery.UNKNOWN else _FAILED
        exit_code = _WRONG_USAGE if isinstance(error, UsageError) else code
    except KeyboardInterrupt:
        message, exit_code = "Interrupted; it may have been carried out.", unknown
        described = {"message": message, "delivery": Delivery.UNKNOWN}
    else:
        return
    if as_json:
        _print_json(described)
    response = [f"The response: {described['response']}"] if "response" in described else []
    _echo(f"Error: {message}", *response, err=True)
    sys.exit(exit_code)


def _print_result(result: PublishResult, as_json: bool) -> None:
    if as_json:
        described = {"eventId": result.event_id, "eventTimestamp": result.raw_event_timestamp}
        _print_json({**described, "delivery": Delivery.ACCEPTED, "attempts": result.attempts})
        return
    if result.event_id is None:
        _echo("Nobody was subscribed.", err=True)
    else:
        _echo(result.event_id)
    if any(attempt.delivery is Delivery.UNKNOWN for attempt in result.attempts):
        click.echo("It was sent more than once without a clear response: subscribers may see it twice.", err=True)


def _print_token(signed: RealtimeToken, as_json: bool) -> None:
    expires_at = signed.expires_at
    if as_json:
        seconds = None if expires_at is None else int(expires_at.timestamp())
        _print_json({"token": signed.token, "expiresAt": seconds, "attempts": signed.attempts})
        return
    _echo(signed.token)
    if expires_at is not None:
        click.echo(f"It expires at {expires_at:%Y-%m-%d %H:%M:%S} UTC.", err=True)


def _print_json(described: dict[str, Any]) -> None:
    # Attempts and findings are attrs objects.
    click.echo(_to_json(described, lambda value: value.value if isinstance(value, Delivery) else asdict(value)))


def _is_from_environment(parameter: str) -> bool:
    return click.get_current_context().get_parameter_source(parameter) is ParameterSource.ENVIRONMENT


def _pop_payload(given: dict[str, Any]) -> str:
    arguments, file = given.pop("payload"), given.pop("payload_file")
    if len(arguments) > 1:
        raise click.UsageError("The payload is one argument: put it in quotes.")
    # None if it is closed.
    stdin: BinaryIO | None = getattr(sys.stdin, "buffer", None)
    if arguments == ("-",) and file is None:
        arguments, file = (), stdin
    if arguments and file is None:
        return str(arguments[0])
    if file is not None and not arguments:
        return _decode(file, "The payload")
    is_free = not arguments and stdin is not given["token_file"]
    # An empty pipe is that of a program without input, not an empty payload.
    if is_free and stdin is not None and _is_pipe_or_file(stdin) and (piped := _decode(stdin, "The payload")):
        return piped
    raise click.UsageError(
        "Give the payload once: as PAYLOAD, by a pipe or as - for standard input, or by --payload-file FILE."
    )


def _is_pipe_or_file(stream: BinaryIO) -> bool:
    try:
        mode = os.fstat(stream.fileno()).st_mode
    except (OSError, ValueError):
        # A replacement in memory.
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def _pop_token(given: dict[str, Any]) -> str | None:
    token: str | None = given.pop("token")
    file = given.pop("token_file")
    if file is None:
        return token
    if token is not None and not _is_from_environment("token"):
        raise click.UsageError("Give the token once: by --token or by --token-file.")
    return _decode(file, "The file of the token").strip()


def _pop_claims(given: dict[str, Any]) -> dict[str, Any]:
    text, file = given.pop("claims"), given.pop("claims_file")
    if (text is None) == (file is None):
        raise click.UsageError("Give the claims once: by --claims JSON or by --claims-file FILE.")
    try:
        claims = json.loads(text if file is None else _decode(file, "The file of claims"))
    except (ValueError, RecursionError):
        claims = None
    if not isinstance(claims, dict):
        raise click.UsageError("""The claims must be a JSON object, such as '{"team":"red"}'.""")
    return claims


def _decode(file: BinaryIO, what: str) -> str:
    try:
        return file.read().decode("utf-8")
    except UnicodeDecodeError:
        # Raise outside the handler: this error holds the secret text.
        pass
    raise click.UsageError(f"{what} is not UTF-8.")


def _to_json(value: Any, default: Callable[[Any], Any] | None = None, indent: int | None = None) -> str:
    # The only control character that json leaves as it is.
    return json.dumps(value, default=default, indent=indent).replace("\x7f", "\\u007f")


def _echo(*lines: str, err: bool = False) -> None:
    """Print lines, with what could control a terminal and what it cannot show escaped."""
    for text in lines:
        click.echo(_showable(text, sys.stderr if err else sys.stdout), err=err)


def _showable(text: str, stream: TextIO) -> str:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return line.encode(encoding, "backslashreplace").decode(encoding)
