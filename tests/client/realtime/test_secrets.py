"""Secrets go through every kind of failure and appear in no log, message, repr or traceback."""

from __future__ import annotations

import logging
import pickle
import traceback
from pathlib import Path
from typing import Any

import httpx
import pytest
from attrs import evolve

import forge_realtime
from forge_realtime import Authorization, ForgeRealtimeError, Invocation, UsageError
from forge_realtime._core.call import PreparedRequest
from forge_realtime._core.responses import Response
from forge_realtime._streams.buffer import Envelope, Update
from tests.support.callers import QUICK, Caller
from tests.support.fault_server import (
    Behaviour,
    Connection,
    FaultServer,
    close_after,
    http,
    refused_url,
    reset_after,
    stall,
)
from tests.support.tokens import token

SECRET = "S3CRET"
PACKAGE = str(Path(forge_realtime.__file__).parent)
HEADERS = {
    "x-forge-invocation-id": f"invocation-{SECRET}",
    "x-forge-invocation-log-attributes": f"attributes-{SECRET}",
}


def echo(status: int, prefix: bytes = b"") -> Behaviour:
    """Respond with everything that was sent, in the body and in a header."""

    def behave(connection: Connection) -> bool:
        request = connection.read()
        sent = request.headers["forge-proxy-authorization"]
        connection.send(
            http(status, prefix + request.body, {"forge-proxy-error": sent, "Echo": sent, "Retry-After": sent})
        )
        return True

    return behave


def echo_as_no_http(connection: Connection) -> bool:
    request = connection.read()
    connection.send(b"HTTP/1.1 200 OK\r\n" + request.body + b"\r\n\r\n")
    return False


def echo_in_the_status_line(connection: Connection) -> bool:
    connection.send(connection.read().body + b"\r\n\r\n")
    return False


def echo_and_break_off(connection: Connection) -> bool:
    sent = connection.read().headers["forge-proxy-authorization"]
    connection.send(f"HTTP/1.1 200 OK\r\nEcho: {sent}\r\nContent-".encode())
    return False


def echo_part_of_the_body(connection: Connection) -> bool:
    connection.send(http(200, connection.read().body, {"Content-Length": "100000"}))
    return False


def reset_within_the_body(connection: Connection) -> bool:
    connection.read_head()
    connection.reset()
    return False


def echo_and_stop_reading(connection: Connection) -> bool:
    *_, start = connection.read_head()
    connection.send(b"HTTP/1.1 200 OK\r\n" + (start or connection.peer.recv(100))[:100] + b"\r\n\r\n")
    connection.leave()
    return False


def echo_as_errors(connection: Connection) -> bool:
    body = b'{"errors": [{"code": "' + SECRET.encode() + b' x", "message": "' + SECRET.encode() + b'"}]}'
    connection.read()
    connection.send(http(200, body))
    return True


def echo_as_gzip(connection: Connection) -> bool:
    connection.send(http(200, connection.read().body, {"Content-Encoding": "gzip"}))
    return True


FAULTS: dict[str, Behaviour] = {
    **{str(status): echo(status) for status in (200, 201, 302, 400, 401, 429, 500, 503, 520)},
    "not JSON": echo(200, b"<html>"),
    "a list": echo(200, b"[1]"),
    "not HTTP": echo_as_no_http,
    "no status line": echo_in_the_status_line,
    "errors": echo_as_errors,
    "breaks off": echo_and_break_off,
    "part of the body": echo_part_of_the_body,
    "resets within the body": reset_within_the_body,
    "stops reading": echo_and_stop_reading,
    "no gzip": echo_as_gzip,
    "reset": reset_after,
    "close": close_after,
    "stall": stall,
}


def calls() -> dict[str, Any]:
    signed = token("c", claims={"team": SECRET}) + SECRET
    good = token("c", claims={"team": SECRET})
    claims = {"team": SECRET, SECRET: 1}
    return {
        "publish": lambda live: live.publish("c", {SECRET: SECRET}, token=good),
        "publish_global": lambda live: live.publish_global("c", SECRET, token=good),
        "sign": lambda live: live.sign_realtime_token("c", claims),
        "private stream": lambda live: live.private_stream("c", claims=claims),
        "claims that are a private stream's own": lambda live: live.private_stream("c", claims={"nonce": SECRET}),
        "payload of another type": lambda live: live.publish("c", {SECRET: {SECRET}}),
        "payload with another key": lambda live: live.publish("c", {(SECRET,): 1}),
        "payload with a surrogate": lambda live: live.publish("c", SECRET + "\ud800"),
        "claims of another type": lambda live: live.sign_realtime_token("c", {SECRET: {SECRET}}),
        "claims with another key": lambda live: live.sign_realtime_token("c", {(SECRET,): 1}),
        "another channel's token": lambda live: live.publish("d", SECRET, token=signed),
        "no token": lambda live: live.publish("c", SECRET, token=f"{SECRET}.{SECRET}.{SECRET}"),
        "installation": lambda live: live.for_installation(f"i-{SECRET}").publish("c", SECRET),
    }


def spoken(error: Exception, live: Any) -> str:
    """Return everything that a failure shows."""
    chain: list[BaseException | None] = [error]
    while (last := chain[-1]) is not None:
        chain.append(last.__cause__ or last.__context__)
    parts = [
        repr(chain),
        str(error),
        repr(error),
        *traceback.format_exception(error),
        repr(live),
        repr(pickle.loads(pickle.dumps(error))),
    ]
    if isinstance(error, ForgeRealtimeError):
        parts += [repr(attempt) for attempt in error.attempts]
    return "\n".join(parts)


@pytest.mark.parametrize("fault", [*FAULTS, "refused"])
def test_no_secret_in_messages_and_logs(caller: Caller, fault: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    seen: list[str] = []
    failed: list[Exception] = []

    def watched(call: Any) -> Any:
        def run(live: Any) -> Any:
            secret = live.for_invocation(HEADERS, as_="user", account_id=f"account-{SECRET}")
            seen.append(repr(secret))
            return call(secret)

        return run

    retry = evolve(QUICK, max_attempts=2, attempt_timeout=0.1, on_attempt=lambda attempt: seen.append(repr(attempt)))
    with FaultServer(then=FAULTS.get(fault, stall)) as server:
        url = refused_url() if fault == "refused" else server.url
        for outcome in caller(url, *[watched(call) for call in calls().values()], retry=retry):
            seen.append(repr(outcome))
            if isinstance(outcome, Exception):
                failed.append(outcome)
                seen.append(spoken(outcome, caller))
    assert len(failed) >= len(calls()) - 2
    seen += [record.getMessage() for record in caplog.records if record.name.startswith("forge_realtime")]
    seen += [str(record.__dict__) for record in caplog.records if record.name.startswith("forge_realtime")]
    assert any("attempt 1" in text for text in seen)
    assert [text for text in seen if SECRET in text] == []


def own_variables(error: BaseException) -> list[str]:
    """Return `repr` of each variable in frames of the package, of an error and its causes, as crash reporters do."""
    shown: list[str] = []
    seen: list[BaseException] = []
    following: list[BaseException | None] = [error]
    while following:
        if (each := following.pop()) is None or each in seen:
            continue
        seen.append(each)
        following += [each.__cause__, each.__context__]
        for frame, _ in traceback.walk_tb(each.__traceback__):
            if frame.f_code.co_filename.startswith(PACKAGE):
                shown += [f"{frame.f_code.co_name}: {name} = {value!r}" for name, value in frame.f_locals.items()]
    return shown


@pytest.mark.parametrize("fault", [*FAULTS, "refused", "no invocation", "closed"])
def test_no_secret_in_the_variables_of_frames(caller: Caller, fault: str) -> None:
    shown: list[str] = []

    def bare(live: Any) -> Any:
        return live if fault != "no invocation" else live._sibling(_authorization=None)

    def watched(call: Any) -> Any:
        if caller.kind == "sync":

            def run(live: Any) -> None:
                try:
                    call(bare(live))
                except Exception as error:  # noqa: BLE001 (whatever it is, its frames are shown)
                    shown.extend(own_variables(error))

            return run

        async def run_async(live: Any) -> None:
            try:
                await call(bare(live))
            except Exception as error:  # noqa: BLE001 (as above)
                shown.extend(own_variables(error))

        return run_async

    retry = evolve(QUICK, max_attempts=1, attempt_timeout=0.1)
    with FaultServer(then=FAULTS.get(fault, stall)) as server:
        url = refused_url() if fault == "refused" else server.url
        large = SECRET * 1_000_000
        caller(url, *map(watched, calls().values()), watched(lambda live: live.publish("c", large)), retry=retry)
    assert any(line.startswith("publish: ") for line in shown)
    assert [line for line in shown if SECRET in line] == []


def test_no_secret_in_repr_of_requests() -> None:
    headers = httpx.Headers({"name": SECRET})
    under_way = [
        PreparedRequest(
            "publish",
            "POST",
            httpx.URL("http://sidecar.test"),
            headers,
            SECRET.encode(),
            base_url="http://sidecar.test",
        ),
        Response(200, headers, SECRET.encode()),
        Update(SECRET, 6),
        Envelope(SECRET, 1, last=False),
    ]
    assert SECRET not in repr(under_way)


def test_no_secret_in_usage_errors() -> None:
    for secret in (f"{SECRET},", f"{SECRET}=", f"{SECRET}\n"):
        with pytest.raises(UsageError) as caught:
            Authorization(invocation_id=secret)
        assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert SECRET not in repr(Invocation.from_headers(HEADERS))
