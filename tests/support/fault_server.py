"""An HTTP server on a real socket that answers as a script says, and records what reached it."""

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
    """A request that arrived completely."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> object:
        return json.loads(self.body)


class Connection:
    """One accepted connection, as a behaviour uses it."""

    def __init__(self, peer: socket.socket, server: FaultServer) -> None:
        self.peer = peer
        self.stopping = server.stopping
        self._server = server

    def read(self, *, publishes: bool = True) -> Received:
        """Reads a whole request and records it.

        Args:
            publishes: Whether the server takes it, whatever it answers then; False: it is going to refuse it.
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
        """Returns whether one begins; False: the client closed the connection."""
        return bool(self.peer.recv(1, socket.MSG_PEEK))

    def read_head(self) -> tuple[str, str, dict[str, str], bytes]:
        """Reads a request to the end of its headers, or somewhat further, and records nothing."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._receive()
        head, _, start = data.partition(b"\r\n\r\n")
        request_line, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        method, path, _ = request_line.split(" ")
        return method, path, headers, start

    def drain(self) -> None:
        """Reads, and forgets, until the other side closes."""
        while self.peer.recv(65536):
            pass

    def send(self, data: bytes) -> None:
        self.peer.sendall(data)

    def reset(self) -> None:
        """Closes with RST in place of FIN."""
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.peer.close()

    def stall(self) -> None:
        """Says nothing until the other side gives up."""
        self.peer.recv(1, socket.MSG_PEEK)

    def leave(self) -> None:
        """Neither reads nor writes until the server stops."""
        self.stopping.wait()

    def trickle(self, data: bytes, interval: float) -> None:
        """Sends byte by byte until the other side gives up."""
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
    """The bytes of a whole answer."""
    fields = {"Content-Length": str(len(body)), **(headers or {})}
    head = f"HTTP/1.1 {status} Whatever\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return head.encode() + b"\r\n" + body


def answer(
    status: int = 200, body: object = None, headers: Mapping[str, str] | None = None, *, publishes: bool = True
) -> Behaviour:
    """Reads the request and answers; a body that is not bytes is sent as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""

    def behave(connection: Connection) -> bool:
        connection.read(publishes=publishes)
        connection.send(http(status, content, {"Content-Type": "application/json", **(headers or {})}))
        return True

    return behave


def raw(*parts: bytes, publishes: bool = True) -> Behaviour:
    """Reads the request, sends exactly these bytes, and closes."""

    def behave(connection: Connection) -> bool:
        connection.read(publishes=publishes)
        for part in parts:
            connection.send(part)
        return False

    return behave


def slowly(head: bytes, tail: bytes, interval: float = 0.01, *, publishes: bool = True) -> Behaviour:
    """Reads the request, sends the head at once and the tail byte by byte."""

    def behave(connection: Connection) -> bool:
        connection.read(publishes=publishes)
        connection.send(head)
        connection.trickle(tail, interval)
        return False

    return behave


class ResetBefore:
    """Begins with the connection, before there is a request."""

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
    """What a client meets whose request crosses with the end of an idle connection."""
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
    """Refuses a large request from its headers, and reads the rest of it only to let the client finish."""
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
    """Closes after that, without having said so."""

    def behave(connection: Connection) -> bool:
        behaviour(connection)
        return False

    return behave


garbage = raw(b"\x00\xff this is no HTTP \r\n\r\n")
truncated = raw(http(200, b'{"eventId":', {"Content-Length": "100"}))
trickled = slowly(http(200, b"", {"Content-Length": "100000"}), b"x" * 100_000)


PUBLISHED = answer(200, {"eventId": "event-1", "eventTimestamp": "1767225600000"})


class Held:
    """Answers when it is told to.

    Attributes:
        arrived: Set when there is a request.
        go_on: To be set for the answer.
    """

    def __init__(self, then: Behaviour = PUBLISHED) -> None:
        self.arrived, self.go_on = threading.Event(), threading.Event()
        self._then = then

    def __call__(self, connection: Connection) -> bool:
        self.arrived.set()
        assert self.go_on.wait(30)
        return self._then(connection)


class FaultServer:
    """Behaves once as each given behaviour says, and after the last one as `then`.

    Args:
        *behaviours: Each for one request.
        then: For all further requests; may be replaced while the server runs.
        deaf: Whether no connection comes about, as when packets get lost, until `listen()` is called.
    """

    def __init__(self, *behaviours: Behaviour, then: Behaviour = PUBLISHED, deaf: bool = False) -> None:
        # The record: the requests that arrived completely, and those of them that the server took.
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
        """Starts to accept connections."""
        self._listener.listen(128)
        self._acceptor.start()
        for filler in self._fillers:
            filler.close()

    def _fill_queue(self) -> None:
        # A kernel drops what asks for a connection when those that nobody has accepted yet fill the queue.
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
        """Returns when this side has closed every connection so far."""
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


def refused_url() -> str:
    """An address on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return f"http://127.0.0.1:{port}"
