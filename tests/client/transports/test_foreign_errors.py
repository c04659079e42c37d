"""Whatever is raised while a call sends, the caller learns what became of the event."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import aiohttp
import anyio
import h11
import httpcore
import httpx
import pytest
from attrs import evolve

from forge_realtime import (
    AsyncRealtimeClient,
    Delivery,
    ForgeRealtimeError,
    NoResponseError,
    RealtimeClient,
    TimedOutError,
)
from forge_realtime._transports import connection
from tests.support.callers import INVOCATION, QUICK, Caller
from tests.support.fault_server import FaultServer

THREE = evolve(QUICK, max_attempts=3)
# httpcore ignores that writing failed, and waits for a response.
SHORT = evolve(QUICK, max_attempts=1, attempt_timeout=0.2)

# Errors that a transport may raise: they are retried.
OF_TRANSPORTS: list[Exception] = [
    OSError(errno.EMFILE, "Too many open files"),
    ConnectionResetError(),
    BrokenPipeError(),
    BlockingIOError(),
    TimeoutError(),
    ssl.SSLError("wrong version number"),
    ssl.CertificateError("hostname mismatch"),
    socket.gaierror(socket.EAI_NONAME, "unknown"),
    httpx.ReadError("reset"),
    httpx.UnsupportedProtocol("ftp"),
    httpx.TooManyRedirects("21"),
    httpx.DecodingError("no gzip"),
]
# Mistakes in an app's transport, hook or tracer: they are not.
FOREIGN: list[Exception] = [
    KeyError("host"),
    ValueError("no"),
    TypeError("no"),
    AttributeError("no"),
    RuntimeError("can't start new thread"),
    RuntimeError("Event loop is closed"),
    UnicodeError("label too long"),
    AssertionError("no"),
    RecursionError(),
    LookupError("unknown encoding"),
    h11.RemoteProtocolError("illegal status line"),
    h11.LocalProtocolError("illegal header"),
    httpcore.ConnectError("refused"),
    httpcore.ReadTimeout("late"),
    httpx.InvalidURL("no"),
    httpx.StreamConsumed(),
    httpx.CookieConflict("two"),
    anyio.BrokenResourceError(),
    anyio.ClosedResourceError(),
    ExceptionGroup("several", [OSError()]),
    StopIteration(),
    StopAsyncIteration(),
]


class Raising(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Raises before the request is read, after it, or while the response is read."""

    def __init__(self, error: Exception, moment: str) -> None:
        self.error = error
        self.moment = moment
        self.times = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.times += 1
        if self.moment == "before":
            raise self.error
        assert isinstance(request.stream, httpx.SyncByteStream)
        b"".join(request.stream)
        if self.moment == "after":
            raise self.error
        return httpx.Response(200, stream=Broken(self.error))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.times += 1
        if self.moment == "before":
            raise self.error
        assert isinstance(request.stream, httpx.AsyncByteStream)
        _ = [chunk async for chunk in request.stream]
        if self.moment == "after":
            raise self.error
        return httpx.Response(200, stream=Broken(self.error))


class Broken(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A response that breaks off. Not a generator: it would turn a StopIteration into a RuntimeError."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __iter__(self) -> Any:
        raise self._error

    def __aiter__(self) -> Any:
        raise self._error


def publish(how: str, transport: Raising) -> Any:
    given: Any = {"transport": transport}
    if how == "sync":
        with RealtimeClient("http://sidecar.test", retry=THREE, **given) as client:
            try:
                return client.for_invocation(INVOCATION).publish("c", "p")
            except ForgeRealtimeError as error:
                return error

    async def run() -> Any:
        async with AsyncRealtimeClient("http://sidecar.test", retry=THREE, **given) as client:
            try:
                return await client.for_invocation(INVOCATION).publish("c", "p")
            except ForgeRealtimeError as error:
                return error

    return asyncio.run(run())


def name(error: Exception) -> str:
    return f"{type(error).__module__}.{type(error).__name__}"


@pytest.mark.parametrize("moment", ["before", "after", "in the response"])
@pytest.mark.parametrize("error", OF_TRANSPORTS + FOREIGN, ids=name)
@pytest.mark.parametrize("how", ["sync", "async"])
def test_error_of_a_transport_is_classed(how: str, error: Exception, moment: str) -> None:
    if isinstance(error, StopIteration | StopAsyncIteration) and (how == "async" or moment == "in the response"):
        pytest.skip("Python itself makes a RuntimeError of it, or takes it for the end of the response")
    transport = Raising(error, moment)
    raised = publish(how, transport)
    assert type(raised) in (NoResponseError, TimedOutError)
    assert raised.delivery is (Delivery.NOT_SENT if moment == "before" else Delivery.UNKNOWN)
    assert transport.times == len(raised.attempts) == (1 if error in FOREIGN else 3)
    assert raised.retryable is (error not in FOREIGN)
    if error in FOREIGN:
        assert raised.__cause__ is error
        assert "raised by the app's transport, hook or tracer; see __cause__" in str(raised)


def test_memory_error_is_let_through() -> None:
    for how in ("sync", "async"):
        transport: Any = Raising(MemoryError(), "after")
        with pytest.raises(MemoryError):
            publish(how, transport)


def raise_(error: Exception) -> Callable[..., Any]:
    def step(*_: Any, **__: Any) -> Any:
        raise error

    return step


# Steps of the client's own connections, and what is known when one of them raises.
STEPS: dict[str, tuple[Any, str, Delivery]] = {
    "looking the host up": (socket, "getaddrinfo", Delivery.NOT_SENT),
    "the head's limit": (connection, "_allowed", Delivery.UNKNOWN),
    "the origin": (connection, "_core_origin", Delivery.NOT_SENT),
    "h11's sending": (h11.Connection, "send", Delivery.NOT_SENT),
    "h11's events": (h11.Connection, "next_event", Delivery.UNKNOWN),
    "h11's bytes": (h11.Connection, "receive_data", Delivery.UNKNOWN),
}
ERRORS = (
    OSError(errno.EMFILE, "Too many open files"),
    RuntimeError("no thread"),
    UnicodeError("label too long"),
    ValueError("no"),
    ssl.SSLError("no"),
)


@pytest.mark.parametrize("error", ERRORS, ids=name)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_error_in_a_step_of_the_connection_is_classed(
    kind: Any, step: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, attribute, delivery = STEPS[step]
    with FaultServer() as server, monkeypatch.context() as patch:
        patch.setattr(owner, attribute, raise_(error))
        [raised] = Caller(kind)(
            server.url.replace("127.0.0.1", "localhost"), lambda live: live.publish("c", "p"), retry=THREE
        )
    assert type(raised) is NoResponseError
    assert raised.delivery is delivery


@pytest.mark.parametrize("step", ["connect", "send", "recv"])
@pytest.mark.parametrize("error", ERRORS[:3], ids=name)
def test_error_of_a_socket_is_classed(step: str, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultServer() as server, monkeypatch.context() as patch:
        broken = type("Broken", (socket.socket,), {step: raise_(error)})
        # Not in the module itself, which the server uses, too.
        patch.setattr(connection, "socket", SimpleNamespace(**{**vars(socket), "socket": broken}))
        [raised] = Caller("sync")(server.url, lambda live: live.publish("c", "p"), retry=SHORT)
    assert type(raised) in (NoResponseError, TimedOutError)
    assert raised.delivery is (Delivery.UNKNOWN if step == "recv" else Delivery.NOT_SENT)


async def publish_in(url: str, payload: str) -> Any:
    async with AsyncRealtimeClient(url, retry=SHORT) as client:
        try:
            return await client.for_invocation(INVOCATION).publish("c", payload)
        except ForgeRealtimeError as raised:
            return raised


@pytest.mark.parametrize("step", ["sock_connect", "sock_sendall", "sock_recv"])
@pytest.mark.parametrize("error", ERRORS[:3], ids=name)
def test_error_of_an_event_loop_is_classed(step: str, error: Exception) -> None:
    # More than the socket takes at once: the event loop sends the rest.
    payload = "p" * 20_000_000 if step == "sock_sendall" else "p"

    async def run() -> Any:
        setattr(asyncio.get_running_loop(), step, raise_(error))
        return await publish_in(server.url, payload)

    with FaultServer() as server:
        raised = asyncio.run(run())
    assert type(raised) in (NoResponseError, TimedOutError)
    assert raised.delivery is (Delivery.NOT_SENT if step == "sock_connect" else Delivery.UNKNOWN)


@pytest.mark.parametrize("error", ERRORS[:3], ids=name)
def test_event_of_which_no_byte_has_left_was_not_sent(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the server resets a connection just before the request."""
    monkeypatch.setattr(connection.QuietSocket, "send", raise_(error))
    with FaultServer() as server:
        raised = asyncio.run(publish_in(server.url, "p"))
    assert type(raised) in (NoResponseError, TimedOutError)
    assert raised.delivery is Delivery.NOT_SENT


@pytest.mark.parametrize("error", ERRORS[:3], ids=name)
def test_error_of_aiohttp_is_classed(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aiohttp.TCPConnector, "connect", raise_(error))
    [raised] = Caller("aiohttp")("http://127.0.0.1:1", lambda live: live.publish("c", "p"), retry=THREE)
    assert type(raised) is NoResponseError
    assert raised.delivery is Delivery.NOT_SENT
