"""HTTP or HTTPS server on loopback that serves the documents of a test."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Reply:
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    then: str = "close"  # or "hang" or "trickle", until the server stops
    length: int | None = None  # a wrong Content-Length


@dataclass
class Published:
    """Replies by path and query. The last reply of a path is repeated. `requests` holds paths and headers."""

    url: str
    replies: dict[str, list[Reply]] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def put(self, path: str, *replies: Reply) -> str:
        self.replies[path] = list(replies)
        return self.url + path

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.requests]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    published: Published
    stopping: threading.Event

    def do_GET(self) -> None:
        self.published.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        replies = self.published.replies.get(self.path, [Reply(status=404)])
        reply = replies.pop(0) if len(replies) > 1 else replies[0]
        if reply.then == "hang":
            self.stopping.wait(60)
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if reply.status != 304 and "Transfer-Encoding" not in reply.headers:
            self.send_header("Content-Length", str(len(reply.body) if reply.length is None else reply.length))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(reply.body)
        while reply.then == "trickle" and not self.stopping.wait(0.01):
            self.wfile.write(b" ")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class names it so)
        pass


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Stay silent: tests hang up on purpose."""


@contextmanager
def publishing(context: ssl.SSLContext | None = None) -> Iterator[Published]:
    published, stopping = Published(""), threading.Event()
    handler = type("Handler", (_Handler,), {"published": published, "stopping": stopping})
    with _Server(("127.0.0.1", 0), handler) as server:
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        published.url = f"{'https' if context else 'http'}://localhost:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield published
        finally:
            stopping.set()
            server.shutdown()
            thread.join()
