"""An HTTP server on a real socket that answers as a script says, and records what reached it."""

from __future__ import annotations

import contextlib
import json
import select
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
        self._server = server

    def read(self) -> Received:
        """Reads a whole request and records it."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._receive()
        head, _, body = data.partition(b"\r\n\r\n")
        request_line, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        while len(body) < int(headers.get("content-length", "0")):
            body += self._receive()
        method, path, _ = request_line.split(" ")
        received = Received(method, path, headers, body)
        self._server.received.append(received)
        return received

    def send(self, data: bytes) -> None:
        self.peer.sendall(data)

    def reset(self) -> None:
        """Closes with RST in place of FIN."""
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.peer.close()

    def stall(self) -> None:
        """Says nothing until the other side gives up."""
        select.select([self.peer], [], [])

    def trickle(self, data: bytes, interval: float) -> None:
        """Sends byte by byte until the other side gives up."""
        for byte in data:
            if self._server.stopping.wait(interval):
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


def answer(status: int = 200, body: object = None, headers: Mapping[str, str] | None = None) -> Behaviour:
    """Takes the request and answers; a body that is not bytes is sent as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""

    def behave(connection: Connection) -> bool:
        connection.read()
        connection.send(http(status, content, {"Content-Type": "application/json", **(headers or {})}))
        return True

    return behave


def reset_before(connection: Connection) -> bool:
    connection.reset()
    return False


reset_before.on_accept = True  # type: ignore[attr-defined]


def reset_after(connection: Connection) -> bool:
    connection.read()
    connection.reset()
    return False


def close_after(connection: Connection) -> bool:
    connection.read()
    return False


def stall(connection: Connection) -> bool:
    connection.read()
    connection.stall()
    return False


def garbage(connection: Connection) -> bool:
    connection.read()
    connection.send(b"\x00\xff this is no HTTP \r\n\r\n")
    return False


def truncated(connection: Connection) -> bool:
    connection.read()
    connection.send(http(200, b'{"eventId":', {"Content-Length": "100"}))
    return False


def trickled(connection: Connection) -> bool:
    connection.read()
    connection.send(http(200, b"", {"Content-Length": "100000"}))
    connection.trickle(b"x" * 100_000, 0.01)
    return False


PUBLISHED = answer(200, {"eventId": "event-1", "eventTimestamp": "1767225600000"})


class FaultServer:
    """Behaves once as each given behaviour says, and after the last one as `then`."""

    def __init__(self, *behaviours: Behaviour, then: Behaviour = PUBLISHED) -> None:
        self.received: list[Received] = []
        self.connections = 0
        self.stopping = threading.Event()
        self._script = deque(behaviours)
        self._then = then
        self._threads: list[threading.Thread] = []
        self._peers: list[socket.socket] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
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
                if not (self._script and hasattr(self._script[0], "on_accept")):
                    select.select([peer], [], [])
                    if not peer.recv(1, socket.MSG_PEEK):
                        return
                goes_on = (self._script.popleft() if self._script else self._then)(connection)


def refused_url() -> str:
    """An address on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return f"http://127.0.0.1:{port}"
