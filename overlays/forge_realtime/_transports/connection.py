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
import re
import select
import socket
import ssl
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, ParamSpec, Self, TypeAlias, TypeVar, cast

from .._core import clock
from .._core.call import TrackedBody
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
# A larger body is not copied to join it with its head.
_JOINED_BYTES: Final = 16 * 1024
# Head of a response whose framing leaves no doubt. Whatever else a parser would accept has its last byte held back.
_HEAD: Final = re.compile(
    rb"HTTP/1\.1 (?!1|204|304)\d{3}(?: [^\r\n]*)?\r\n"
    rb"(?:(?!content-length:|transfer-encoding:)[\w-]+:[^\r\n]*\r\n)*"
    rb"content-length:[ \t]*(\d{1,9})[ \t]*\r\n"
    rb"(?:(?!content-length:|transfer-encoding:)[\w-]+:[^\r\n]*\r\n)*"
    rb"\r\n",
    re.IGNORECASE,
)


def is_whole_response(data: bytes) -> bool:
    """Tell whether this is exactly one response to a request other than HEAD. False if that is not certain."""
    head = _HEAD.match(data)
    return head is not None and head.end() + int(head[1]) == len(data)


def _of_httpcore(error: OSError, timed_out: type[Exception], failed: type[Exception]) -> Exception:
    return timed_out(error) if isinstance(error, TimeoutError) else failed(error)


class _BaseConnection:
    """One connection to the server of a URL, made with the first request.

    It is no longer used after `keepalive` idle seconds. `idle_since` and `until` are times of `clock.monotonic()`.
    """

    _connection: httpcore.HTTPConnection | httpcore.AsyncHTTPConnection
    _network: _BaseNetwork
    _origin: tuple[str, bytes]
    idle_since = 0.0

    def is_usable(self, url: httpx.URL) -> bool:
        """Return whether a request to `url` can be sent. A connection that the server has closed is not usable."""
        connection = self._connection
        return self._origin == _origin(url) and connection.is_available() and not connection.has_expired()

    def close(self) -> None:
        """Close the socket. Needs no event loop, and no lock, which an interrupt or a fork could have left locked."""
        self._network.close()


class PooledConnection(_BaseConnection, httpx.HTTPTransport):
    """A connection with blocking I/O."""

    def __init__(self, url: httpx.URL, context: ssl.SSLContext | None, keepalive: float) -> None:
        # Without httpx's constructor, which makes a TLS context and a pool. The other methods use only `_pool`.
        self._origin = _origin(url)
        self._network = _Network()
        self._connection = httpcore.HTTPConnection(
            _core_origin(url), context, keepalive_expiry=keepalive, network_backend=self._network
        )
        self._pool = cast(httpcore.ConnectionPool, self._connection)

    def send(self, request: httpx.Request, until: float) -> httpx.Response:
        """Send a request and read the head of the response. The body must be read by `until`, too."""
        self._network.begin(request, until)
        response = self.handle_request(request)
        self._network.head_left = sys.maxsize
        return response


class AsyncPooledConnection(_BaseConnection, httpx.AsyncHTTPTransport):
    """A connection with asyncio."""

    def __init__(self, url: httpx.URL, context: ssl.SSLContext | None, keepalive: float) -> None:
        self._origin = _origin(url)
        self._network = _AsyncNetwork()
        self._connection = httpcore.AsyncHTTPConnection(
            _core_origin(url), context, keepalive_expiry=keepalive, network_backend=self._network
        )
        self._pool = cast(httpcore.AsyncConnectionPool, self._connection)

    async def send(self, request: httpx.Request, until: float) -> httpx.Response:
        self._network.begin(request, until)
        try:
            response = await self.handle_async_request(request)
        except BaseException:
            if cast(_AsyncNetwork, self._network).nothing_left:
                cast(TrackedBody, request.stream).sent = False
            raise
        self._network.head_left = sys.maxsize
        return response


class _BaseNetwork:
    """State of one connection: its socket, its limits, and what was read behind a response.

    Unless the first bytes of a response are certainly all of it, the last byte of what was read is held back until h11
    asks for more. If the response is complete before that, there are bytes behind it: a second response, perhaps, which
    must not be taken for that of the next call.

    The head of a request is held back until its body is there: both leave in one packet.
    """

    def __init__(self) -> None:
        self.until = 0.0
        self.head_left = 0
        self._head: bytes | None = None
        self._may_be_whole = False
        self._held = b""
        self._socket: socket.socket | None = None

    def begin(self, request: httpx.Request, until: float) -> None:
        """Begin an exchange that must end by `until`."""
        self.until = until
        self.head_left = HEAD_BYTES
        self._head = None
        self._may_be_whole = request.method != "HEAD"

    def get_extra_info(self, info: str) -> Any:
        if info != "is_readable" or self._socket is None:
            return None
        return bool(self._held or self._pending_tls() or _is_readable(self._socket))

    def _pending_tls(self) -> int:
        """Count the bytes that TLS has read and not given yet. It may read more than it was asked for."""
        raise NotImplementedError

    def _ready(self, buffer: bytes) -> list[memoryview]:
        """Return what is to be sent now of what httpcore writes: the head of the request first, its body then."""
        if self._head is None:
            self._head = buffer
            return []
        head, self._head = self._head, b""
        parts = [head, buffer] if len(buffer) > _JOINED_BYTES else [head + buffer]
        return [memoryview(part) for part in parts if part]

    def _hold(self, data: bytes) -> bytes:
        self.head_left -= len(data)
        if self._may_be_whole:
            self._may_be_whole = False
            if is_whole_response(data):
                return data
        if len(data) < 2:
            return data
        self._held = data[-1:]
        return data[:-1]

    def _take_held(self) -> bytes:
        held, self._held = self._held, b""
        return held

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()

    def _left(self) -> float:
        if (left := self.until - clock.monotonic()) <= 0:
            raise TimeoutError
        return left


class _Network(_BaseNetwork, httpcore.NetworkBackend, httpcore.NetworkStream):
    """httpcore's backend and stream for one blocking connection. Every step gets what is left of the attempt.

    httpcore would give every read and write the full timeout again. A server that sends or reads a byte now and then
    could stretch an attempt for ever.
    """

    def connect_tcp(self, host: str, port: int, *_: Any, **__: Any) -> Self:
        try:
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
        except OSError as error:
            raise _of_httpcore(error, httpcore.ConnectTimeout, httpcore.ConnectError) from error
        return self

    def start_tls(self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, *_: Any, **__: Any) -> Self:
        try:
            assert self._socket is not None
            # It bounds the handshake as a whole.
            self._socket.settimeout(self._left())
            self._socket = ssl_context.wrap_socket(self._socket, server_hostname=server_hostname)
        except OSError as error:
            raise _of_httpcore(error, httpcore.ConnectTimeout, httpcore.ConnectError) from error
        return self

    def write(self, buffer: bytes, *_: Any, **__: Any) -> None:
        try:
            assert self._socket is not None
            views = self._ready(buffer)
            del buffer
            for view in views:
                unsent = view
                while unsent:
                    self._socket.settimeout(self._left())
                    unsent = unsent[self._socket.send(unsent) :]
        except OSError as error:
            raise _of_httpcore(error, httpcore.WriteTimeout, httpcore.WriteError) from error

    def read(self, max_bytes: int, *_: Any, **__: Any) -> bytes:
        try:
            if self._held:
                return self._take_held()
            assert self._socket is not None
            self._socket.settimeout(self._left())
            return self._hold(self._socket.recv(_allowed(max_bytes, self.head_left)))
        except OSError as error:
            raise _of_httpcore(error, httpcore.ReadTimeout, httpcore.ReadError) from error

    def _pending_tls(self) -> int:
        return self._socket.pending() if isinstance(self._socket, ssl.SSLSocket) else 0


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

    Attributes:
        nothing_left: Whether a request is being sent, of which no byte has left.
    """

    def __init__(self) -> None:
        super().__init__()
        self.nothing_left = False
        self._tls: ssl.SSLObject | None = None
        self._incoming = self._outgoing = ssl.MemoryBIO()

    async def connect_tcp(self, host: str, port: int, *_: Any, **__: Any) -> Self:
        try:
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
        except OSError as error:
            raise _of_httpcore(error, httpcore.ConnectTimeout, httpcore.ConnectError) from error
        return self

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, *_: Any, **__: Any
    ) -> Self:
        try:
            self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            self._tls = ssl_context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)
            await self._with_tls(self._tls.do_handshake)
        except OSError as error:
            raise _of_httpcore(error, httpcore.ConnectTimeout, httpcore.ConnectError) from error
        return self

    async def write(self, buffer: bytes, *_: Any, **__: Any) -> None:
        try:
            self.nothing_left |= self._head is None
            views = self._ready(buffer)
            del buffer
            for view in views:
                if self._tls is None:
                    await self._send(view)
                else:
                    await self._with_tls(self._tls.write, view)
        except OSError as error:
            raise _of_httpcore(error, httpcore.WriteTimeout, httpcore.WriteError) from error

    async def read(self, max_bytes: int, *_: Any, **__: Any) -> bytes:
        try:
            if self._held:
                return self._take_held()
            size = _allowed(max_bytes, self.head_left)
            if self._tls is None:
                return self._hold(await self._receive(size))
            try:
                return self._hold(await self._with_tls(self._tls.read, size))
            except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
                return b""
        except OSError as error:
            raise _of_httpcore(error, httpcore.ReadTimeout, httpcore.ReadError) from error

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
        try:
            size = self._socket.send(data)
        except BlockingIOError:
            size = 0
        self.nothing_left = False
        if size < len(data):
            await asyncio.get_running_loop().sock_sendall(self._socket, data[size:])

    async def _receive(self, size: int) -> bytes:
        assert self._socket is not None
        return await asyncio.get_running_loop().sock_recv(self._socket, size)

    def _pending_tls(self) -> int:
        return 0 if self._tls is None else self._tls.pending() + self._incoming.pending

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
    # A child of a fork has none of its parent's threads.
    key = (os.getpid(), host, port, family)
    lookup = _lookups.get(key)
    if lookup is None:
        try:
            lookup = _lookups[key] = _Lookup(host, port, family)
        except RuntimeError:
            # No thread can start: the interpreter is shutting down, or it is one that allows none.
            return resolve(host, port, family)
    place = object()
    lookup.waiting.add(place)
    try:
        addresses = await lookup.result()
    finally:
        lookup.waiting.discard(place)
        if not lookup.waiting and _lookups.get(key) is lookup:
            # The next one starts another: a response of the name server may have been lost.
            _lookups.pop(key, None)
    return addresses


class _Lookup:
    """A name lookup in a thread. All calls that wait for the same addresses share it."""

    def __init__(self, host: str, port: int, family: int) -> None:
        self.waiting: set[object] = set()
        self._addresses: concurrent.futures.Future[Addresses] = concurrent.futures.Future()
        # As running, so that nobody who waits for it can cancel it.
        self._addresses.set_running_or_notify_cancel()
        # Not the event loop's executor: to end that one, asyncio needs a thread as well.
        self._executor = concurrent.futures.ThreadPoolExecutor(1)
        self._executor.submit(_look_up, self._addresses, host, port, family)
        self._executor.shutdown(wait=False)

    async def result(self) -> Addresses:
        addresses = await asyncio.wrap_future(self._addresses)
        # The thread is at its end. It must not outlive a subinterpreter, which could not end then.
        self._executor.shutdown()
        return addresses


def _look_up(addresses: concurrent.futures.Future[Addresses], host: str, port: int, family: int) -> None:
    try:
        addresses.set_result(resolve(host, port, family))
    except BaseException as error:  # noqa: BLE001 (it is raised where it is waited for)
        addresses.set_exception(error)
    finally:
        # The error's traceback refers to this frame.
        del addresses


_lookups: Final[dict[tuple[int, str, int, int], _Lookup]] = {}


def _allowed(max_bytes: int, head_left: int) -> int:
    if head_left > HEAD_BYTES:
        return max_bytes
    if not head_left:
        raise httpcore.RemoteProtocolError(f"more than {HEAD_BYTES // 1024} KiB before the response")
    return min(head_left, _PIECE_BYTES)


def _is_readable(connected: socket.socket) -> bool:
    try:
        poll = select.poll()
    except AttributeError:  # pragma: no cover (Windows and eventlet have none)
        return bool(select.select([connected], [], [], 0)[0])
    poll.register(connected, select.POLLIN)
    return bool(poll.poll(0))


def _origin(url: httpx.URL) -> tuple[str, bytes]:
    return url.scheme, url.netloc


def _core_origin(url: httpx.URL) -> httpcore.Origin:
    return httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path).origin
