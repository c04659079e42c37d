"""What `forge-realtime doctor` looks at: one check after the other, each resting on those before it."""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from typing import Any, Final, Literal

import httpx
from attrs import frozen

from .._core.authorization import HEADER, Authorization
from .._core.errors import ForgeRealtimeError, ResponseError, UsageError
from .._core.invocation import Invocation
from .._realtime.client import RealtimeClient
from .._transports.pool import ConnectionPool

CHECKS: Final = ("environment", "address", "header", "connection", "sidecar", "round trip")

_TIMEOUT: Final = 5.0
"""Seconds that connecting, each answer and the event may take."""

_CONTAINER: Final = ("SERVER_PORT", "FORGE_APP_ARI", "FORGE_CONTAINER_KEY", "FORGE_ENV_ARI", "FORGE_SERVICE_KEY")
_START: Final = "start `forge-realtime emulate` and export the address that it prints"


@frozen
class Finding:
    """What came of a check.

    Attributes:
        check: One of `CHECKS`.
        outcome: Whether it is well, or wrong, or could not be looked at.
        message: What was found, and, when something is wrong, what to do.
    """

    check: str
    outcome: Literal["ok", "problem", "skipped"]
    message: str


_Found = tuple[Literal["ok", "problem", "skipped"], str]


def examine(
    url: str | None, invocation: str | None, as_: Literal["app", "user"], account: str | None
) -> Iterator[Finding]:
    """Makes the checks, in the order of `CHECKS`. After one that the others rest on, those are skipped.

    Args:
        url: The address, or None for that of the environment.
        invocation: The invocation to act for, if one is at hand.
        as_: Whether to act as the app or as a user.
        account: The account of the user.
    """
    found = _examine(url, invocation, as_, account)
    for check in CHECKS:
        outcome, message = next(found, ("skipped", "not looked at: it needs what is wrong above"))
        yield Finding(check, outcome, message)


def _examine(
    url: str | None, invocation: str | None, as_: Literal["app", "user"], account: str | None
) -> Iterator[_Found]:
    text = os.environ.get("FORGE_EGRESS_PROXY_URL", "") if url is None else url
    yield (environment := _environment(url))
    if environment[0] == "problem":
        return
    try:
        realtime = RealtimeClient(text)
    except UsageError as error:
        yield "problem", str(error).replace("base_url", "the address")
        return
    with realtime:
        # Safe to show: it has neither a user nor a query.
        yield "ok", text
        try:
            acting = Authorization(invocation_id=invocation or f"doctor-{uuid.uuid4()}", as_=as_, account_id=account)
        except UsageError as error:
            yield "problem", in_options(error)
            return
        live = realtime.for_invocation(Invocation(acting.invocation_id or ""), as_=as_, account_id=account)
        made_up = "" if invocation else "; no --invocation is given, so its id is one made up for this"
        yield "ok", f"{HEADER}: Forge as={as_},{'accountId=…,' if account else ''}id=…{made_up}"
        base = httpx.URL(text.rstrip("/"))
        yield (connection := _connection(base))
        if connection[0] == "problem":
            return
        yield from _other_side(live, base, acting, is_given=invocation is not None)


def in_options(error: ForgeRealtimeError) -> str:
    """What is wrong, with the names of the command line's options in place of the client's arguments."""
    return str(error).replace("account_id", "--account").replace("as_='user'", "--as user")


def _container() -> list[str]:
    """The variables that say that this is a Forge Container; none elsewhere, where one of them can be set by chance."""
    names = [name for name in _CONTAINER if os.environ.get(name)]
    return names if len(names) > 1 else []


def _environment(url: str | None) -> _Found:
    container = _container()
    where = f"in a Forge Container, as {', '.join(container)} say" if container else "outside of a Forge Container"
    if url is not None:
        return "ok", f"--url is given, and FORGE_EGRESS_PROXY_URL not looked at; {where}"
    if os.environ.get("FORGE_EGRESS_PROXY_URL"):
        return "ok", f"FORGE_EGRESS_PROXY_URL is set; {where}"
    if container:
        return "problem", f"FORGE_EGRESS_PROXY_URL is not set, {where}. The platform sets it: does your code clear it?"
    return "problem", f"FORGE_EGRESS_PROXY_URL is not set. The platform sets it in the container; elsewhere {_START}."


def _connection(base: httpx.URL) -> _Found:
    host, port = base.host, base.port or {"http": 80, "https": 443}[base.scheme]
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        return "problem", f"The name {host} cannot be resolved ({error.strerror or error}). Is it spelt right?"
    began = time.perf_counter()
    try:
        with socket.create_connection((host, port), timeout=_TIMEOUT) as connection:
            reached = connection.getpeername()[0]
    except OSError as error:
        reason = error.strerror or str(error)
        return "problem", (
            f"Nothing takes connections at {host} port {port} ({reason}). In a container, wait until the sidecar is up;"
            f" elsewhere {_START}."
        )
    return "ok", f"connected to {reached} port {port} in {(time.perf_counter() - began) * 1000:.1f} ms"


def _other_side(live: RealtimeClient, base: httpx.URL, acting: Authorization, *, is_given: bool) -> Iterator[_Found]:
    try:
        # A path that a sidecar does not have, without authorization: nothing can come of it.
        answer = live._pool.send(httpx.Request("GET", f"{base}/_emulator/state"), _TIMEOUT)
    except (httpx.RequestError, OSError) as error:
        yield (
            "problem",
            (
                f"It takes connections and gives no HTTP answer ({type(error).__name__}). Is it the right port, and {base.scheme}"
                " the right scheme?"
            ),
        )
        return
    state = _json_object(answer.text)
    is_emulator = answer.status_code == 200 and state.get("kind") == "state"
    if not is_emulator and not _container():
        yield (
            "problem",
            (
                f"Something answers at {base} that is not the emulator (with {answer.status_code}). Is this your own service's"
                f" port? If so, {_START}. The platform's sidecar is in the Forge Container only."
            ),
        )
    elif not is_emulator:
        yield "ok", f"not the emulator (it answered {answer.status_code}), so taken for the platform's sidecar"
        yield (
            _context(live._pool, base, acting)
            if is_given
            else (
                "skipped",
                "Give --invocation ID of a request that is being answered, to have its context asked for. Nothing is published.",
            )
        )
    elif waiting := len(state.get("faults", ())):
        yield (
            "problem",
            (
                f"The emulator, in which {waiting} fault(s) wait: the next calls fail on request. If that is not what you want:"
                " forge-realtime fail --clear"
            ),
        )
    else:
        yield "ok", "the emulator"
        try:
            yield _round_trip(live, base, acting, is_given=is_given)
        except httpx.TimeoutException:
            yield "problem", f"The event did not come within {_TIMEOUT:g} s. Is the emulator busy? Try again."
        except (httpx.RequestError, OSError) as error:
            yield "problem", f"The subscription broke ({type(error).__name__}). Does the emulator still run?"


def _context(connections: ConnectionPool, base: httpx.URL, acting: Authorization) -> _Found:
    request = httpx.Request("GET", f"{base}/invocation/context", headers={HEADER: acting.header})
    try:
        answer = connections.send(request, _TIMEOUT)
    except (httpx.RequestError, OSError) as error:
        return "problem", f"GET /invocation/context got no answer ({type(error).__name__})."
    status = answer.status_code
    if status == 200 and isinstance(_json_object(answer.text).get("app"), dict):
        return "ok", "GET /invocation/context answered with the context of the invocation; nothing was published"
    if status in (401, 403):
        return "problem", (
            f"GET /invocation/context was refused ({status}). Is the invocation that of a request which is being answered?"
            " Pass its x-forge-invocation-id as it came."
        )
    return "problem", (
        f"GET /invocation/context was answered {status}, and not as documented. Is {base} the egress sidecar's address?"
    )


def _round_trip(live: RealtimeClient, base: httpx.URL, acting: Authorization, *, is_given: bool) -> _Found:
    channel, payload = f"forge-realtime-doctor-{uuid.uuid4()}", f"ping-{uuid.uuid4()}"
    query = {"channel": channel, "invocation": acting.invocation_id or ""}
    with (
        httpx.Client(trust_env=False, timeout=_TIMEOUT) as client,
        client.stream("GET", f"{base}/_emulator/subscribe", params=query) as stream,
    ):
        if stream.status_code != 200:
            stream.read()
            if stream.status_code == 401 and not is_given:
                return (
                    "problem",
                    "The emulator is strict. Give --invocation ID of an invocation that is registered in it.",
                )
            return "problem", f"The emulator refused a subscription: {_said(stream.text)}"
        messages = _messages(stream)
        next(messages, None)
        began = time.perf_counter()
        try:
            result = live.publish(channel, payload)
        except ForgeRealtimeError as error:
            said = (
                f" The emulator says: {_said(error.body.decode('utf-8', 'replace'))}"
                if isinstance(error, ResponseError)
                else ""
            )
            return "problem", f"{error}.{said}"
        event = next(messages, {})
        elapsed = (time.perf_counter() - began) * 1000
    if (event.get("payload"), event.get("eventId")) != (payload, result.event_id):
        return "problem", "An event was published, and what came to its subscriber is not that event."
    return "ok", f"an event was published, and received as it was sent, after {elapsed:.1f} ms"


def _messages(stream: httpx.Response) -> Iterator[dict[str, Any]]:
    for line in stream.iter_lines():
        if line.startswith("data: "):
            yield _json_object(line.removeprefix("data: "))


def _said(text: str) -> str:
    return str(_json_object(text).get("message", "nothing"))


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
