"""A real Redis server on a loopback port."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

import redis

from tests.support import programs

PASSWORD = "S3CRET"
_SHIFT = """
for _, key in ipairs(redis.call('KEYS', '*')) do
  redis.call('SET', key, string.format('%.0f', redis.call('GET', key) + ARGV[1]), 'KEEPTTL')
end
"""


def require_redis() -> None:
    """Skip the test when there is no redis-server, or fail it when FORGE_REALTIME_REDIS=required is set."""
    programs.require("FORGE_REALTIME_REDIS", "redis-server")


class RedisServer:
    """Server with a password that writes no file. It can be paused, killed and restarted on the same port."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start the server, and return once it accepts connections."""
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        command += ["--requirepass", PASSWORD, "--loglevel", "warning"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
        until = time.monotonic() + 20
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.01)
            else:
                return
        raise AssertionError("redis-server does not answer")

    def command(self, *arguments: str) -> object:
        """Run a command as an administrator does, and return its response."""
        with redis.Redis.from_url(self.url) as client:
            return client.execute_command(*arguments)

    def step_clock(self, seconds: float) -> None:
        """Step the clock, as far as the quota can tell: shift the times that it keeps."""
        self.command("EVAL", _SHIFT, "0", f"{-seconds * 1e6:.0f}")

    def pause(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()


class RedisProxy:
    """An address in front of a server, as a failover or a cluster has. It delays responses, or replaces them."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        # What every reservation is answered with, for example "LOADING Redis is loading".
        self.error: str | None = None
        # Seconds until a response is passed on.
        self.delay = 0.0
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Wakes the thread that waits in accept.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with (
            suppress(OSError),
            client,
            socket.create_connection(("127.0.0.1", self.server.port)) as upstream,
        ):
            for peer in (client, upstream):
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._pass_on, args=(upstream, client), daemon=True).start()
            while request := client.recv(65536):
                if self.error is not None and b"EVAL" in request[:40]:
                    client.sendall(f"-{self.error}\r\n".encode())
                else:
                    upstream.sendall(request)

    def _pass_on(self, upstream: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while response := upstream.recv(65536):
                if self.delay:
                    time.sleep(self.delay)
                client.sendall(response)
            client.shutdown(socket.SHUT_RDWR)
