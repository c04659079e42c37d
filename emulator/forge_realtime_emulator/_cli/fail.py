"""Command `fail`: faults for the next calls to a running emulator."""

from __future__ import annotations

import json
import random
from typing import Any

import click

from .._platform.errors import EmulatorError
from .command import Command, no_emulator, tell, to_json, unreachable, url_option

_TIMEOUT = 5.0
"""Seconds in which a running emulator responds."""


@click.command(cls=Command)
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
    "--times",
    metavar="N",
    type=click.IntRange(1),
    help="Number of calls that fail.  [default: 1; with --probability no end]",
)
@click.option(
    "--probability",
    metavar="P",
    type=click.FloatRange(0, 1, min_open=True),
    help="Let each call fail with this probability, until --clear.",
)
@click.option(
    "--seed", metavar="N", type=int, help="Seed of the random numbers, to let the same calls fail in each run."
)
@click.option("--operation", metavar="NAME", help="Only calls of publish, publish_global or sign_realtime_token.")
@click.option("--channel", metavar="NAME", help="Only calls for this channel.")
@click.option("--installation", metavar="ID", help="Only calls of this installation.")
@click.option("--clear", is_flag=True, help="Drop all pending faults instead of adding one.")
@url_option
@click.option("--json", "as_json", is_flag=True, help="Print the fault as a JSON object.")
def fail(clear: bool, url: str, as_json: bool, delivered: bool, **given: Any) -> None:
    """Make the next calls to a running emulator fail.

    Give --status, --answer or --delay, or --delay with one of the other two. Faults are used in the order in which they
    were added.

    \b
      forge-realtime fail --status 429 --retry-after 1 --times 2
      forge-realtime fail --answer reset --operation publish --channel board-42
      forge-realtime fail --status 503 --probability 0.1 --seed 7
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
    if "seed" in asked and "probability" not in asked:
        raise click.UsageError("--seed goes with --probability.")
    if "probability" in asked:
        # Not left to the emulator, so that it can be printed.
        asked.setdefault("seed", random.randrange(2**32))
    fault = {} if clear else {**({} if "probability" in asked else {"times": 1}), **asked}
    _send_fault(url, fault)
    if as_json:
        click.echo(to_json(fault))
    else:
        tell("All pending faults were dropped." if clear else _describe(fault))


def _describe(fault: dict[str, Any]) -> str:
    only = "".join(
        f" {preposition} {fault[name]}"
        for name, preposition in (("operation", "of"), ("channel", "on channel"), ("installation", "for installation"))
        if name in fault
    )
    times = fault.get("times")
    if "probability" in fault:
        most = "" if times is None else f", up to {times} time(s)"
        who = f"With probability {fault['probability']:g} (seed {fault['seed']}){most}, each call{only} gets"
    else:
        who = f"The next call{only} gets" if times == 1 else f"The next {times} calls{only} get"
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
                raise no_emulator(url, f"it answered {state.status_code}")
            method, content = ("POST", json.dumps(fault)) if fault else ("DELETE", None)
            headers = {"Content-Type": "application/json"}
            response = client.request(method, f"{url}/_emulator/faults", content=content, headers=headers)
    except httpx.ConnectError as error:
        raise unreachable(url, error) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise no_emulator(url, f"it gave no HTTP answer: {type(error).__name__}") from error
    if response.status_code == 400:
        raise click.UsageError(response.json()["message"])
    if response.status_code != 200:
        raise EmulatorError(f"The emulator responded with {response.status_code}; nothing was changed.")


def _is_state(text: str) -> bool:
    try:
        state = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(state, dict) and state.get("kind") == "state"
