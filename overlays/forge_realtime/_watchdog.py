"""A bound on the time of a blocking exchange.

httpx bounds each single read or write of a socket. A server that sends a byte now and then keeps such an exchange alive for
ever, so at the end of its time the socket is shut down from a thread beside.
"""

from __future__ import annotations

import contextlib
import math
import socket
import threading
import time
from types import TracebackType
from typing import Any, Self


class Watch:
    """Watches one exchange, as a context manager. Its `trace` goes into the extensions of the request.

    Attributes:
        socket: The connection's socket, once there is one.
        expired: Whether time was up before the exchange was done.
    """

    def __init__(self, watchdog: Watchdog, until: float, connected: socket.socket | None) -> None:
        self._watchdog = watchdog
        self.until = until
        self.socket = connected
        self.expired = False

    def trace(self, event: str, info: dict[str, Any]) -> None:
        """Learns of a new socket. https://www.encode.io/httpcore/extensions/#trace"""
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self.socket = info["return_value"].get_extra_info("socket")
            if self.expired:
                self.expire()

    def expire(self) -> None:
        """Ends the exchange."""
        self.expired = True
        if self.socket is not None:
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        self._watchdog.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._watchdog.remove(self)


class Watchdog:
    """Expires the watches of a client and its siblings when their time is up. Its thread lives while there are some."""

    def __init__(self) -> None:
        self._watches: set[Watch] = set()
        self._changed = threading.Condition()
        self._wakes = math.inf
        self._thread: threading.Thread | None = None

    def add(self, watch: Watch) -> None:
        with self._changed:
            self._watches.add(watch)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="forge-realtime-watchdog", daemon=True)
                self._thread.start()
            elif watch.until < self._wakes:
                self._changed.notify()

    def remove(self, watch: Watch) -> None:
        # The thread sleeps on: waking it for every exchange that is done in time would cost more than the exchange.
        with self._changed:
            self._watches.discard(watch)

    def stop(self) -> None:
        """Ends the thread at once if nothing is watched."""
        with self._changed:
            self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while self._watches:
                now = time.monotonic()
                for watch in [watch for watch in self._watches if watch.until <= now]:
                    watch.expire()
                    self._watches.remove(watch)
                self._wakes = min((watch.until for watch in self._watches), default=now)
                self._changed.wait(self._wakes - now)
            self._thread = None
