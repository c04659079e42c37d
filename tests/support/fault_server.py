"""HTTP server on a real socket that follows a script and records the requests."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self


@dataclass(frozen=True)
class Received:
    """A complete request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> object:
        return json.loads(self.body)


class Connection:
    """An accepted connection, for the use of behaviours."""

    def __init__(self, peer: socket.socket, server: FaultServer) -> None:
        self.peer = peer
        self.stopping = server.stopping
        self._server = server

    def read(self, *, publishes: bool = True) -> Received:
        """Read a whole request and record it.

        Args:
            publishes: Whether the server carries the request out. Pass False before a refusal.
        """
        method, path, headers, start = self.read_head()
        body = bytearray(start)
        while len(body) < int(headers.get("content-length", "0")):
            body += self._receive()
        received = Received(method, path, headers, bytes(body))
        self._server.received.append(received)
        if publishes:
            self._server.published.append(received)
        return received

    def wait_for_request(self) -> bool:
        """Wait for a request. Return False when the client closes the connection instead."""
        return bool(self.peer.recv(1, socket.MSG_PEEK))

    def read_head(self) -> tuple[str, str, dict[str, str], bytes]:
        """Read at least the headers of a request. Record nothing."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._receive()
        head, _, start = data.partition(b"\r\n\r\n")
        request_line, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        method, path, _ = request_line.split(" ")
        return method, path, headers, start

    def drain(self) -> None:
        """Read and discard until the client closes the connection."""
        while self.peer.recv(65536):
            pass

    def send(self, data: bytes) -> None:
        self.peer.sendall(data)

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.peer.close()

    def stall(self) -> None:
        """Send nothing until the client gives up."""
        self.peer.recv(1, socket.MSG_PEEK)

    def leave(self) -> None:
        """Neither read nor write until the server stops."""
        self.stopping.wait()

    def trickle(self, data: bytes, interval: float) -> None:
        """Send one byte per interval (in seconds) until the client gives up."""
        for byte in data:
            if self.stopping.wait(interval):
                return
            self.peer.sendall(bytes([byte]))

    def _receive(self) -> bytes:
        data = self.peer.recv(65536)
        if not data:
            raise ConnectionError("the client closed the connection")
        return data


# Returns whether the connection goes on to the next request.
Behaviour = Callable[[Connection], bool]


def http(status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
    """Return the bytes of a whole response."""
    fields = {"Content-Length": str(len(body)), **(headers or {})}
    head = f"HTTP/1.1 {status} Whatever\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return head.encode() + b"\r\n" + body


def answer(
    status: int = 200, body: object = None, headers: Mapping[str, str] | None = None, *, publishes: bool = True
) -> Behaviour:
    """Read the request and respond. A body that is not bytes is sent as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""

    def behave(connection: Connection) -> bool:
        connection.read(publishes=publishes)
        connection.send(http(status, content, {"Content-Type": "application/json", **(headers or {})}))
        return True

    return behave


def raw(*parts: bytes, publishes: bool = True) -> Behaviour:
    """Read the request, send exactly these bytes, and close."""

    def behave(connection: Connection) -> bool:
        connection.read(publishes=publishes)
        for part in parts:
            connection.send(part)
        return False

    return behave


def slowly(head: bytes, tail: bytes, interval: float = 0.01, *, publishes: bool = True) -> Behaviour:
    """Read the request, send the head at once and the tail byte by byte."""

    def behave(connection: Connection) -> bool:
        connection.read(publishes=publishes)
        connection.send(head)
        connection.trickle(tail, interval)
        return False

    return behave


class ResetBefore:
    """Resets the connection before there is a request."""

    on_accept = True

    def __call__(self, connection: Connection) -> bool:
        connection.reset()
        return False


reset_before = ResetBefore()


def reset_in_headers(connection: Connection) -> bool:
    connection.peer.recv(20)
    connection.reset()
    return False


def reset_in_body(connection: Connection) -> bool:
    connection.read_head()
    connection.peer.recv(1000)
    connection.reset()
    return False


def close_in_body(connection: Connection) -> bool:
    connection.read_head()
    connection.peer.recv(1000)
    return False


def close_unread(connection: Connection) -> bool:
    """Close an idle connection while the request is on its way."""
    return False


def reset_after(connection: Connection) -> bool:
    connection.read()
    connection.reset()
    return False


def reset_in_answer(connection: Connection) -> bool:
    connection.read()
    connection.send(http(200, b'{"eventId":', {"Content-Length": "100"}))
    connection.reset()
    return False


def refuse_early(connection: Connection) -> bool:
    """Refuse a large request after its headers. Read the rest, so that the client can finish."""
    connection.read_head()
    connection.send(http(413, b"{}", {"Connection": "close"}))
    connection.drain()
    return False


def never_read(connection: Connection) -> bool:
    connection.leave()
    return False


def read_slowly(connection: Connection) -> bool:
    while connection.peer.recv(1) and not connection.stopping.wait(0.005):
        pass
    return False


def stall(connection: Connection) -> bool:
    connection.read()
    connection.stall()
    return False


def stall_in_headers(connection: Connection) -> bool:
    connection.read()
    connection.send(b"HTTP/1.1 200 OK\r\nContent-")
    connection.stall()
    return False


def stall_in_body(connection: Connection) -> bool:
    connection.read()
    connection.send(http(200, b'{"eventId":', {"Content-Length": "100"}))
    connection.stall()
    return False


def close_after(connection: Connection) -> bool:
    connection.read()
    return False


def then_close(behaviour: Behaviour) -> Behaviour:
    """Close after the behaviour, without announcing it."""

    def behave(connection: Connection) -> bool:
        behaviour(connection)
        return False

    return behave


garbage = raw(b"\x00\xff this is no HTTP \r\n\r\n")
truncated = raw(http(200, b'{"eventId":', {"Content-Length": "100"}))
trickled = slowly(http(200, b"", {"Content-Length": "100000"}), b"x" * 100_000)


PUBLISHED = answer(200, {"eventId": "event-1", "eventTimestamp": "1767225600000"})


class Held:
    """Responds when told to.

    Attributes:
        arrived: Set when a request begins.
        go_on: Set it to let the server respond.
    """

    def __init__(self, then: Behaviour = PUBLISHED) -> None:
        self.arrived, self.go_on = threading.Event(), threading.Event()
        self._then = then

    def __call__(self, connection: Connection) -> bool:
        self.arrived.set()
        assert self.go_on.wait(30)
        return self._then(connection)


class FaultServer:
    """Runs one behaviour for each request, and `then` for all requests after the last one.

    Args:
        *behaviours: One for each request.
        then: For all further requests. It may be replaced while the server runs.
        deaf: Whether connecting hangs, as if packets got lost, until `listen()` is called.
    """

    def __init__(self, *behaviours: Behaviour, then: Behaviour = PUBLISHED, deaf: bool = False) -> None:
        # All complete requests, and those that the server carried out.
        self.received: list[Received] = []
        self.published: list[Received] = []
        self.connections = 0
        self.stopping = threading.Event()
        self.script = deque(behaviours)
        self.then = then
        self._threads: list[threading.Thread] = []
        self._peers: list[socket.socket] = []
        self._deaf = deaf
        self._fillers: list[socket.socket] = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=0 if self._deaf else 128)
        if self._deaf:
            self._fill_queue()
        else:
            self.listen()
        return self

    def listen(self) -> None:
        """Start to accept connections."""
        self._listener.listen(128)
        self._acceptor.start()
        for filler in self._fillers:
            filler.close()

    def _fill_queue(self) -> None:
        # The kernel drops new connections while the queue of unaccepted ones is full.
        full = False
        while not full:
            filler = socket.socket()
            filler.settimeout(0.05)
            self._fillers.append(filler)
            try:
                filler.connect(self._listener.getsockname())
            except TimeoutError:
                full = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        if self._acceptor.ident:
            self._acceptor.join()
        self._listener.close()
        for filler in self._fillers:
            filler.close()
        for peer in self._peers:
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
        self.wait_for_closed_connections()

    def wait_for_closed_connections(self) -> None:
        """Wait until the server has closed every connection."""
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._peers.append(peer)
            thread = threading.Thread(target=self._serve, args=(peer,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, peer: socket.socket) -> None:
        connection = Connection(peer, self)
        with peer, contextlib.suppress(OSError, ValueError):
            goes_on = True
            while goes_on:
                upcoming = self.script[0] if self.script else self.then
                if not hasattr(upcoming, "on_accept") and not connection.wait_for_request():
                    return
                goes_on = (self.script.popleft() if self.script else self.then)(connection)


# Bound, and never listening: no server of another test gets the port meanwhile.
_refusing = socket.socket()
_refusing.bind(("127.0.0.1", 0))


def refused_url() -> str:
    """Return an address on which nothing listens."""
    return f"http://127.0.0.1:{_refusing.getsockname()[1]}"
