"""Web applications, served on real sockets from a thread."""

from __future__ import annotations

import asyncio
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn
from types import TracebackType
from typing import Any, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import WSGIApplication

import uvicorn

_TIMEOUT = 30.0
"""Seconds in which a server starts, and ends."""


class AsgiServer(uvicorn.Server):
    """uvicorn; `url` is its address."""

    def __init__(self, app: Any) -> None:
        super().__init__(uvicorn.Config(app, log_config=None))
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = "http://{}:{}".format(*self._listener.getsockname())
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(_TIMEOUT)
        assert self.started
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.should_exit = True
        self._thread.join(_TIMEOUT)
        assert not self._thread.is_alive()
        self._listener.close()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready.set()

    def _run(self) -> None:
        try:
            asyncio.run(self.serve(sockets=[self._listener]))
        finally:
            self._ready.set()


class ServerInThread(ThreadingMixIn, HTTPServer):
    """A server in a thread, with a thread for each request; `url` is its address."""

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown()
        self._thread.join(_TIMEOUT)
        self.server_close()


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class names it so)
        pass


class WsgiServer(ServerInThread, WSGIServer):
    """wsgiref's."""

    request_queue_size = 128

    def __init__(self, app: WSGIApplication) -> None:
        super().__init__(_Handler)
        self.set_app(app)
