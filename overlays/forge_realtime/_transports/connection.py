"""Single connections, as httpx transports.

httpx's own transports have a pool of connections, which takes nearly as long for a request as the connection itself and
gets slow with many requests in flight. The transports here are httpx's with a single connection in place of the pool:
mocks and tracers that patch httpx's transports or httpcore's connections see every request. Patches of httpcore's
pools, which are not used, see none.
"""

from __future__ import annotations

import select
import socket
import ssl
import sys
import time
from collections.abc import Callable
from functools import wraps
from typing import Any, Final, ParamSpec, Self, TypeVar, cast

from .._core.http import httpx
from .http import httpcore

P = ParamSpec("P")
T = TypeVar("T")

# Proxies allow no more headers than this (Envoy: 60 KiB). Parsing a flood of 103 responses would take a whole CPU.
HEAD_BYTES: Final = 64 * 1024
# Few enough that parsing them does not delay the next look at the clock.
_PIECE_BYTES: Final = 4 * 1024


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


class PooledConnection(httpx.HTTPTransport):
    """One blocking connection to the server of a URL, made with the first request.

    It is no longer used after `keepalive` idle seconds. `idle_since` and `until` are times of `time.monotonic()`.
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

    async def send(self, request: httpx.Request) -> httpx.Response:
        self._network.head_left = HEAD_BYTES
        response = await self.handle_async_request(request)
        self._network.head_left = sys.maxsize
        return response

    async def aclose(self) -> None:
        """Close the socket. httpcore forgets it when connecting is cancelled."""
        await self._network.aclose()


class _Network(httpcore.NetworkBackend, httpcore.NetworkStream):
    """httpcore's backend and stream for one blocking connection. Every step gets what is left of the attempt.

    httpcore would give every read and write the full timeout again. A server that sends or reads a byte now and then
    could stretch an attempt for ever.
    """

    def __init__(self) -> None:
        self.until = 0.0
        self.head_left = 0
        self._socket: socket.socket | None = None

    @_mapped(httpcore.ConnectTimeout, httpcore.ConnectError)
    def connect_tcp(self, host: str, port: int, *_: Any, **__: Any) -> Self:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
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
        assert self._socket is not None
        self._socket.settimeout(self._left())
        data = self._socket.recv(_allowed(max_bytes, self.head_left))
        self.head_left -= len(data)
        return data

    def get_extra_info(self, info: str) -> Any:
        return _is_readable(self._socket) if info == "is_readable" and self._socket is not None else None

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()

    def _left(self) -> float:
        if (left := self.until - time.monotonic()) <= 0:
            raise TimeoutError
        return left


class _AsyncNetwork(httpcore.AsyncNetworkBackend, httpcore.AsyncNetworkStream):
    """httpcore's backend and stream for one connection with asyncio, where a timeout bounds the whole exchange."""

    def __init__(self) -> None:
        self.head_left = 0
        self._stream = httpcore.AsyncNetworkStream()

    async def connect_tcp(self, *args: Any, **kwargs: Any) -> Self:
        backend = cast(httpcore.AsyncNetworkBackend, httpcore.AnyIOBackend())
        self._stream = await backend.connect_tcp(*args, **kwargs)
        return self

    async def start_tls(self, *args: Any, **kwargs: Any) -> Self:
        self._stream = await self._stream.start_tls(*args, **kwargs)
        return self

    def write(self, *args: Any, **kwargs: Any) -> Any:
        return self._stream.write(*args, **kwargs)

    async def read(self, max_bytes: int, *_: Any, **__: Any) -> bytes:
        data = await self._stream.read(_allowed(max_bytes, self.head_left))
        self.head_left -= len(data)
        return data

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    async def aclose(self) -> None:
        if type(self._stream) is not httpcore.AsyncNetworkStream:
            await self._stream.aclose()


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
