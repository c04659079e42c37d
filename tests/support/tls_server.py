"""Sidecar behind https, with a certificate of an authority that nobody trusts yet."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import trustme


class Sidecar(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stopping: threading.Event

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if b"trickle" in body:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            while not self.stopping.wait(0.01):
                self.wfile.write(b"x")
            return
        self.send_response(200)
        self.send_header("Content-Length", "15")
        self.end_headers()
        self.wfile.write(b'{"eventId":"e"}')

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class names it so)
        pass


class Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Stay silent: tests hang up on purpose."""


@contextmanager
def https_sidecar(authority: trustme.CA) -> Iterator[str]:
    """Serve, and yield the address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    stopping = threading.Event()
    handler = type("Handler", (Sidecar,), {"stopping": stopping})
    with Server(("127.0.0.1", 0), handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"https://localhost:{server.server_port}"
        stopping.set()
        server.shutdown()
        thread.join()
