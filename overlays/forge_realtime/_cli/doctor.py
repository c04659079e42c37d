"""The checks of `forge-realtime doctor`."""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any, Final, Literal, TypeAlias

from attrs import define, frozen

from .._core.authorization import Authorization
from .._core.errors import ForgeRealtimeError, ResponseError, UsageError
from .._core.group import HEADER
from .._core.http import httpx
from .._core.invocation import Invocation
from .._core.responses import TRANSPORT_ERRORS, Response
from .._realtime.client import RealtimeClient
from .._transports.pool import ConnectionPool

VARIABLE: Final = "FORGE_EGRESS_PROXY_URL"
_START_EMULATOR: Final = "start `forge-realtime emulate` and export the address that it prints"

Outcome: TypeAlias = Literal["ok", "problem", "skipped"]

# Seconds to wait for a connection, for a response and for the event.
_TIMEOUT: Final = 5.0
# The emulator accepts any invocation unless it is strict.
_MADE_UP: Final = "forge-realtime-doctor"
_CONTAINER: Final = ("SERVER_PORT", "FORGE_APP_ARI", "FORGE_CONTAINER_KEY", "FORGE_ENV_ARI", "FORGE_SERVICE_KEY")


@frozen
class Finding:
    """The outcome of a check."""

    check: str
    outcome: Outcome
    message: str


@define
class Target:
    """The address to check and the identity to act as."""

    url: str | None
    invocation: str | None
    as_: Literal["app", "user"]
    account: str | None
    is_emulator: bool = False
    """Set by the check of the sidecar."""

    @property
    def address(self) -> str:
        """The address, without a slash at its end."""
        return (self.url or "").rstrip("/")


def open_client(url: str | None) -> RealtimeClient:
    """Make a client, or raise `UsageError` with a message that names the option or variable."""
    if not url:
        raise UsageError(
            f"{VARIABLE} is not set. The platform sets it in the container; elsewhere {_START_EMULATOR}, or pass --url."
        )
    try:
        return RealtimeClient(url)
    except UsageError:
        name = VARIABLE if url == os.environ.get(VARIABLE) else "--url"
        raise UsageError(
            f"{name} must be an http:// or https:// address without user, query or fragment,"
            " such as http://localhost:7072."
        ) from None


def check_account(as_: Literal["app", "user"], account: str | None) -> None:
    """Raise `UsageError` for an account without `--as user`."""
    if account is not None and as_ != "user":
        raise UsageError("--account names the user to act as: give it together with --as user, or leave it out.")


def examine(target: Target) -> Iterator[Finding]:
    """Run the checks in order. Each one needs those before it: after a problem, the others are skipped."""
    outcome: Outcome = "ok"
    for name, check in CHECKS:
        if outcome == "problem":
            yield Finding(name, "skipped", "needs the check that failed")
            continue
        try:
            outcome, message = check(target)
        except UsageError as error:
            outcome, message = "problem", str(error)
        yield Finding(name, outcome, message)


def _check_environment(target: Target) -> tuple[Outcome, str]:
    variables = _container_variables()
    where = f"in a Forge Container ({', '.join(variables)} are set)" if variables else "outside a Forge Container"
    if target.url and target.url != os.environ.get(VARIABLE):
        return "ok", f"--url is given, so {VARIABLE} is ignored; {where}"
    if target.url:
        return "ok", f"{VARIABLE} is set; {where}"
    if variables:
        return "problem", f"{VARIABLE} is not set {where}. The platform sets it: does your code clear it?"
    return "problem", f"{VARIABLE} is not set. The platform sets it in the container; elsewhere {_START_EMULATOR}."


def _check_address(target: Target) -> tuple[Outcome, str]:
    open_client(target.url).close()
    # Safe to print: a valid address has no user and no query.
    return "ok", target.address


def _check_header(target: Target) -> tuple[Outcome, str]:
    check_account(target.as_, target.account)
    # Building it checks the values.
    Authorization(invocation_id=target.invocation or _MADE_UP, as_=target.as_, account_id=target.account)
    account = "accountId=…," if target.account else ""
    made_up = "" if target.invocation else "; the id is made up: no --invocation is given"
    return "ok", f"{HEADER}: Forge as={target.as_},{account}id=…{made_up}"


def _check_connection(target: Target) -> tuple[Outcome, str]:
    url = httpx.URL(target.address)
    port = url.port or {"http": 80, "https": 443}[url.scheme]
    began = time.perf_counter()
    try:
        with socket.create_connection((url.host, port), timeout=_TIMEOUT) as connection:
            peer = connection.getpeername()[0]
    except socket.gaierror as error:
        return "problem", f"The name {url.host} cannot be resolved ({error.strerror or error}). Check its spelling."
    except OSError as error:
        return "problem", (
            f"Nothing accepts connections at {url.host} port {port} ({error.strerror or error})."
            f" In a container, wait until the sidecar is up; elsewhere {_START_EMULATOR}."
        )
    took = f"{(time.perf_counter() - began) * 1000:.1f} ms"
    if find_spec("aiohttp") is None:
        return "ok", f"connected to {peer} port {port} in {took}"
    return "ok", (
        f"connected to {peer} port {port} in {took}. The clients use httpx's connections;"
        " AsyncRealtimeClient(transport='aiohttp') uses aiohttp's, which take about two thirds of the time"
    )


def _check_sidecar(target: Target) -> tuple[Outcome, str]:
    try:
        # A sidecar has no such path, and the request has no authorization: it cannot change anything there.
        response = _get(f"{target.address}/_emulator/state")
    except TRANSPORT_ERRORS as error:
        return "problem", (
            f"{target.address} accepts connections but gives no HTTP response ({type(error).__name__})."
            " Check the port, and whether it is http:// or https://."
        )
    status, state = response.status_code, _json_object(response.text)
    target.is_emulator = status == 200 and state.get("kind") == "state"
    if target.is_emulator and (faults := len(state.get("faults", ()))):
        return "problem", (
            f"The emulator has {faults} fault(s) waiting, so the next calls fail."
            " To drop the faults: forge-realtime fail --clear"
        )
    if target.is_emulator:
        return "ok", "the emulator"
    if _container_variables():
        return "ok", f"not the emulator (status {status}), so assumed to be the platform's sidecar"
    return "problem", (
        f"{target.address} is not the emulator (status {status}). Is this your own service's port?"
        f" If so, {_START_EMULATOR}. The platform's sidecar exists in a Forge Container only."
    )


def _check_round_trip(target: Target) -> tuple[Outcome, str]:
    try:
        if target.is_emulator:
            return _publish_and_receive(target)
        if target.invocation:
            return _get_context(target)
    except httpx.TimeoutException:
        return "problem", f"Nothing came within {_TIMEOUT:g} s. Is the other side busy? Retry."
    except TRANSPORT_ERRORS as error:
        return "problem", f"The connection broke ({type(error).__name__}). Is the other side still running?"
    return "skipped", "To request its context, give the --invocation of a request in progress. Nothing is published."


# In order.
CHECKS: Final[tuple[tuple[str, Callable[[Target], tuple[Outcome, str]]], ...]] = (
    ("environment", _check_environment),
    ("address", _check_address),
    ("header", _check_header),
    ("connection", _check_connection),
    ("sidecar", _check_sidecar),
    ("round trip", _check_round_trip),
)


def _get(url: str, headers: Mapping[str, str] | None = None) -> Response:
    # The pool bounds the whole exchange in time and size, as for the client's own calls.
    pool = ConnectionPool(None)
    try:
        return pool.send(httpx.Request("GET", url, headers=headers), _TIMEOUT)
    finally:
        pool.close()


def _get_context(target: Target) -> tuple[Outcome, str]:
    identity = Authorization(invocation_id=target.invocation, as_=target.as_, account_id=target.account)
    response = _get(f"{target.address}/invocation/context", {HEADER: identity.header})
    status = response.status_code
    if status == 200 and isinstance(_json_object(response.text).get("app"), dict):
        return "ok", "GET /invocation/context returned the context of the invocation; nothing was published"
    if status in (401, 403):
        return "problem", (
            f"GET /invocation/context was refused ({status}). Give the x-forge-invocation-id of a request in progress,"
            " exactly as received."
        )
    return "problem", (
        f"GET /invocation/context did not respond as documented (status {status})."
        f" Is {target.address} the egress sidecar's address?"
    )


def _publish_and_receive(target: Target) -> tuple[Outcome, str]:
    channel, payload = f"forge-realtime-doctor-{uuid.uuid4()}", f"ping-{uuid.uuid4()}"
    invocation = target.invocation or _MADE_UP
    query = {"channel": channel, "invocation": invocation}
    with (
        _http_client() as client,
        client.stream("GET", f"{target.address}/_emulator/subscribe", params=query) as stream,
        open_client(target.url) as realtime,
    ):
        if stream.status_code != 200:
            stream.read()
            if stream.status_code == 401 and target.invocation is None:
                return "problem", "The emulator is strict: give an --invocation that is registered in it."
            return "problem", f"The emulator refused the subscription: {_message(stream.text)}"
        messages = (_json_object(line[6:]) for line in stream.iter_lines() if line.startswith("data: "))
        next(messages, None)
        began = time.perf_counter()
        try:
            live = realtime.for_invocation(Invocation(invocation), as_=target.as_, account_id=target.account)
            result = live.publish(channel, payload)
        except ResponseError as error:
            return "problem", f"{error}. The emulator says: {_message(error.body.decode('utf-8', 'replace'))}"
        except ForgeRealtimeError as error:
            return "problem", str(error)
        event = next(messages, {})
        elapsed = (time.perf_counter() - began) * 1000
    if (event.get("payload"), event.get("eventId")) != (payload, result.event_id):
        return "problem", "An event was published, but its subscriber received something else."
    return "ok", f"published an event and received it unchanged after {elapsed:.1f} ms"


def _container_variables() -> list[str]:
    """Find the variables of a Forge Container. A single one may be set by chance, and does not count."""
    names = [name for name in _CONTAINER if os.environ.get(name)]
    return names if len(names) > 1 else []


def _http_client() -> httpx.Client:
    # As the Realtime client connects: without proxies, but with the authorities in SSL_CERT_FILE.
    return httpx.Client(trust_env=False, verify=httpx.create_ssl_context(), timeout=_TIMEOUT)


def _message(text: str) -> str:
    body = _json_object(text)
    return str(body.get("detail", body.get("message", "nothing")))


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
