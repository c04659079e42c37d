"""Single connections, as httpx transports.

httpx's own transports have a pool of connections, which takes nearly as long for a request as the connection itself and
gets slow with many requests in flight. The transports here are httpx's with a single connection in place of the pool:
mocks and tracers that patch httpx's transports or httpcore's connections see every request. Patches of httpcore's
pools, which are not used, see none.
"""

from __future__ import annotations

import _thread
import asyncio
import concurrent.futures
import os
import select
import socket
import ssl
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import wraps
from typing import Any, Final, ParamSpec, Self, TypeAlias, TypeVar, cast

from .._core import clock
from .._core.http import httpx
from .http import httpcore
from .timeouts import limit_time

P = ParamSpec("P")
T = TypeVar("T")
Addresses: TypeAlias = Sequence[tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]]

# Proxies allow no more headers than this (Envoy: 60 KiB). Parsing a flood of 103 responses would take a whole CPU.
HEAD_BYTES: Final = 64 * 1024
# Few enough that parsing them does not delay the next look at the clock.
_PIECE_BYTES: Final = 4 * 1024
_TLS_BYTES: Final = 64 * 1024


def _mapped(timed_out: type[Exception], failed: type[Exception]) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorate a step of the network to raise these errors of httpcore."""

    def decorate(step: Callable[P, T]) -> Callable[P, T]:
        @wraps(step)
        def mapped(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return step(*args, **kwargs)
            except TimeoutError as error:
                raise timed_out(error) from error
            except OSError as error:
                raise failed(error) from error
            finally:
                # Crash reporters show the variables of every frame.
                del args, kwargs

        return mapped

    return decorate


def _async_mapped(
    timed_out: type[Exception], failed: type[Exception]
) -> Callable[[Callable[P, Coroutine[Any, Any, Any]]], Callable[P, Any]]:
    """Do the same for a step with asyncio."""

    def decorate(step: Callable[P, Coroutine[Any, Any, Any]]) -> Callable[P, Any]:
        @wraps(step)
        async def mapped(*args: P.args, **kwargs: P.kwargs) -> Any:
            try:
                return await step(*args, **kwargs)
            except TimeoutError as error:
                raise timed_out(error) from error
            except OSError as error:
                raise failed(error) from error
            finally:
                del args, kwargs

        return mapped

    return decorate


class PooledConnection(httpx.HTTPTransport):
    """One blocking connection to the server of a URL, made with the first request.

    It is no longer used after `keepalive` idle seconds. `idle_since` and `until` are times of `clock.monotonic()`.
    """

    def __init__(self, url: httpx.URL, context: ssl.SSLContext | None, keepalive: float) -> None:
        # Without httpx's constructor, which makes a TLS context and a pool. The other methods use only `_pool`.
        self._origin = _origin(url)
        self._network = _Network()
        self._connection = httpcore.HTTPConnection(
            _core_origin(url), context, keepalive_expiry=keepalive, network_backend=self._network
        )
        self._pool = cast(httpcore.ConnectionPool, self._connection)
        self.idle_since = 0.0

    def is_usable(self, url: httpx.URL) -> bool:
        """Return whether a request to `url` can be sent. A connection that the server has closed is not usable."""
        connection = self._connection
        return self._origin == _origin(url) and connection.is_available() and not connection.has_expired()

    def send(self, request: httpx.Request, until: float) -> httpx.Response:
        """Send a request and read the head of the response. The body must be read by `until`, too."""
        self._network.until = until
        self._network.head_left = HEAD_BYTES
        response = self.handle_request(request)
        self._network.head_left = sys.maxsize
        return response

    def close(self) -> None:
        """Close the socket. Needs no lock, which an interrupt or a fork could have left locked."""
        self._network.close()


class AsyncPooledConnection(httpx.AsyncHTTPTransport):
    """One connection with asyncio, otherwise as `PooledConnection`."""

    def __init__(self, url: httpx.URL, context: ssl.SSLContext | None, keepalive: float) -> None:
        self._origin = _origin(url)
        self._network = _AsyncNetwork()
        self._connection = httpcore.AsyncHTTPConnection(
            _core_origin(url), context, keepalive_expiry=keepalive, network_backend=self._network
        )
        self._pool = cast(httpcore.AsyncConnectionPool, self._connection)
        self.idle_since = 0.0

    def is_usable(self, url: httpx.URL) -> bool:
        connection = self._connection
        return self._origin == _origin(url) and connection.is_available() and not connection.has_expired()

    async def send(self, request: httpx.Request, until: float) -> httpx.Response:
        self._network.until = until
        self._network.head_left = HEAD_BYTES
        response = await self.handle_async_request(request)
        self._network.head_left = sys.maxsize
        return response

    def close(self) -> None:
        """Close the socket. Needs no event loop."""
        self._network.close()


class _BaseNetwork:
    """State of one connection: its socket, its limits, and what was read behind a response.

    The last byte of what was read is held back until h11 asks for more. If the response is complete before that, there
    are bytes behind it: a second response, perhaps, which must not be taken for that of the next call.
    """

    def __init__(self) -> None:
        self.until = 0.0
        self.head_left = 0
        self._held = b""
        self._socket: socket.socket | None = None

    def get_extra_info(self, info: str) -> Any:
        return self._is_readable() if info == "is_readable" and self._socket is not None else None

    def _is_readable(self) -> bool:
        assert self._socket is not None
        return bool(self._held) or _is_readable(self._socket)

    def _hold(self, data: bytes) -> bytes:
        self.head_left -= len(data)
        if len(data) < 2:
            return data
        self._held = data[-1:]
        return data[:-1]

    def _take_held(self) -> bytes:
        held, self._held = self._held, b""
        return held

    def _left(self) -> float:
        if (left := self.until - clock.monotonic()) <= 0:
            raise TimeoutError
        return left


class _Network(_BaseNetwork, httpcore.NetworkBackend, httpcore.NetworkStream):
    """httpcore's backend and stream for one blocking connection. Every step gets what is left of the attempt.

    httpcore would give every read and write the full timeout again. A server that sends or reads a byte now and then
    could stretch an attempt for ever.
    """

    @_mapped(httpcore.ConnectTimeout, httpcore.ConnectError)
    def connect_tcp(self, host: str, port: int, *_: Any, **__: Any) -> Self:
        addresses = resolve(host, port)
        for left in range(len(addresses), 0, -1):
            family, kind, protocol, _name, address = addresses[-left]
            connecting = self._socket = socket.socket(family, kind, protocol)
            try:
                # An address that does not respond leaves time for the others.
                connecting.settimeout(self._left() / left)
                connecting.connect(address)
                connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                break
            except OSError:
                connecting.close()
                if left == 1:
                    raise
        return self

    @_mapped(httpcore.ConnectTimeout, httpcore.ConnectError)
    def start_tls(self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, *_: Any, **__: Any) -> Self:
        assert self._socket is not None
        # It bounds the handshake as a whole.
        self._socket.settimeout(self._left())
        self._socket = ssl_context.wrap_socket(self._socket, server_hostname=server_hostname)
        return self

    @_mapped(httpcore.WriteTimeout, httpcore.WriteError)
    def write(self, buffer: bytes, *_: Any, **__: Any) -> None:
        assert self._socket is not None
        view = memoryview(buffer)
        del buffer
        while view:
            self._socket.settimeout(self._left())
            view = view[self._socket.send(view) :]

    @_mapped(httpcore.ReadTimeout, httpcore.ReadError)
    def read(self, max_bytes: int, *_: Any, **__: Any) -> bytes:
        if self._held:
            return self._take_held()
        assert self._socket is not None
        self._socket.settimeout(self._left())
        return self._hold(self._socket.recv(_allowed(max_bytes, self.head_left)))

    def _is_readable(self) -> bool:
        # TLS may have read more than it was asked for.
        return (isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0) or super()._is_readable()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()


class QuietSocket(socket.socket):
    """Socket without a ResourceWarning: nobody can close a client in the event loop of each test, or of each job."""

    def __del__(self) -> None:
        # At the limit of open files, none was made.
        with suppress(AttributeError):
            self.close()


class _AsyncNetwork(_BaseNetwork, httpcore.AsyncNetworkBackend, httpcore.AsyncNetworkStream):
    """httpcore's backend and stream for one connection with asyncio, where a timeout bounds the whole exchange.

    It has a socket and no transport of asyncio's. So an idle connection keeps no event loop alive, can be closed after
    its loop, and hides no bytes that were received.
    """

    def __init__(self) -> None:
        super().__init__()
        self._tls: ssl.SSLObject | None = None
        self._incoming = self._outgoing = ssl.MemoryBIO()

    @_async_mapped(httpcore.ConnectTimeout, httpcore.ConnectError)
    async def connect_tcp(self, host: str, port: int, *_: Any, **__: Any) -> Self:
        addresses = await async_resolve(host, port)
        for left in range(len(addresses), 0, -1):
            family, kind, protocol, _name, address = addresses[-left]
            connecting = self._socket = QuietSocket(family, kind, protocol)
            try:
                connecting.settimeout(0)
                async with limit_time(self._left() / left):
                    await asyncio.get_running_loop().sock_connect(connecting, address)
                connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                break
            except OSError as error:
                connecting.close()
                if left == 1 and error.errno:
                    # asyncio's text only names the address.
                    raise OSError(error.errno, os.strerror(error.errno)) from None
                if left == 1:
                    raise
        return self

    @_async_mapped(httpcore.ConnectTimeout, httpcore.ConnectError)
    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, *_: Any, **__: Any
    ) -> Self:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = ssl_context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)
        await self._with_tls(self._tls.do_handshake)
        return self

    @_async_mapped(httpcore.WriteTimeout, httpcore.WriteError)
    async def write(self, buffer: bytes, *_: Any, **__: Any) -> None:
        if not buffer:
            return
        view = memoryview(buffer)
        del buffer
        if self._tls is None:
            await self._send(view)
        else:
            await self._with_tls(self._tls.write, view)

    @_async_mapped(httpcore.ReadTimeout, httpcore.ReadError)
    async def read(self, max_bytes: int, *_: Any, **__: Any) -> bytes:
        if self._held:
            return self._take_held()
        size = _allowed(max_bytes, self.head_left)
        if self._tls is None:
            return self._hold(await self._receive(size))
        try:
            return self._hold(await self._with_tls(self._tls.read, size))
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            return b""

    async def _with_tls(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        while True:
            try:
                result = step(*args, **kwargs)
            except ssl.SSLWantReadError:
                await self._flush()
                if data := await self._receive(_TLS_BYTES):
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
            except ssl.SSLError:
                # The server is told why.
                await self._flush()
                raise
            else:
                await self._flush()
                return result

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await self._send(self._outgoing.read())

    async def _send(self, data: bytes | memoryview) -> None:
        assert self._socket is not None
        await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def _receive(self, size: int) -> bytes:
        assert self._socket is not None
        return await asyncio.get_running_loop().sock_recv(self._socket, size)

    def _is_readable(self) -> bool:
        hidden = self._tls is not None and (self._tls.pending() > 0 or self._incoming.pending > 0)
        return hidden or super()._is_readable()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()

    async def aclose(self) -> None:
        self.close()


def resolve(host: str, port: int, family: int = 0) -> Addresses:
    """Look up the addresses of a host, in the calling thread."""
    # As bytes: the codec for other names is slow to load, and the address has been checked.
    return socket.getaddrinfo(host.encode("ascii"), port, family, socket.SOCK_STREAM)


async def async_resolve(host: str, port: int, family: int = 0) -> Addresses:
    """Look up the addresses of a host in a thread, unless it is an address itself."""
    if _thread.start_new_thread.__module__ != "_thread":
        # With gevent or eventlet, other greenlets would run in the midst of a task. The loop of a stream prevents that.
        return await asyncio.get_running_loop().run_in_executor(None, resolve, host, port, family)
    try:
        return socket.getaddrinfo(host.encode("ascii"), port, family, socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        pass
    try:
        # Not the event loop's executor: to end that one, asyncio needs a thread as well.
        executor = concurrent.futures.ThreadPoolExecutor(1)
        lookup = executor.submit(resolve, host, port, family)
    except RuntimeError:
        # No thread can start: the interpreter is shutting down, or it is one that allows none.
        return resolve(host, port, family)
    executor.shutdown(wait=False)
    addresses = await asyncio.wrap_future(lookup)
    # The thread is at its end. It must not outlive a subinterpreter, which could not end then.
    executor.shutdown()
    return addresses


def _allowed(max_bytes: int, head_left: int) -> int:
    if head_left > HEAD_BYTES:
        return max_bytes
    if not head_left:
        raise httpcore.RemoteProtocolError(f"more than {HEAD_BYTES // 1024} KiB before the response")
    return min(head_left, _PIECE_BYTES)


def _is_readable(connected: socket.socket) -> bool:
    if not hasattr(select, "poll"):  # pragma: no cover (Windows and eventlet have none)
        return bool(select.select([connected], [], [], 0)[0])
    poll = select.poll()
    poll.register(connected, select.POLLIN)
    return bool(poll.poll(0))


def _origin(url: httpx.URL) -> tuple[str, bytes]:
    return url.scheme, url.netloc


def _core_origin(url: httpx.URL) -> httpcore.Origin:
    return httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path).origin
