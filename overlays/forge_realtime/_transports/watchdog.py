"""A bound on the time of a blocking exchange.

httpx bounds each single read or write of a socket. A server that sends a byte now and then keeps such an exchange alive for
ever, so at the end of its time the socket is shut down from a thread beside.
"""

from __future__ import annotations

import contextlib
import errno
import math
import socket
import threading
import time
from queue import Empty, SimpleQueue
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
        self.expiring = threading.Lock()

    def trace(self, event: str, info: dict[str, Any]) -> None:
        """Learns of a new socket. https://www.encode.io/httpcore/extensions/#trace"""
        if event == "connection.start_tls.started":
            # Connecting has used some of it.
            info["timeout"] = max(0.001, self.until - time.monotonic())
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self.socket = info["return_value"].get_extra_info("socket")
            if self.expired:
                self.expire()

    def expire(self) -> None:
        """Ends the exchange."""
        self.expired = True
        if self.socket is not None:
            with contextlib.suppress(OSError):
                # Past TLS, which would go on in plain text in the thread that uses it.
                socket.socket.shutdown(self.socket, socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        self._watchdog.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._watchdog.remove(self)


class Watchdog:
    """Expires the watches of a client and its siblings when their time is up. Its thread lives while there are some.

    With locks and queues in C only: a KeyboardInterrupt can leave a Condition locked for ever.
    """

    def __init__(self) -> None:
        self._watches: set[Watch] = set()
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._wakes = math.inf
        self._thread: threading.Thread | None = None
        self._watching = False
        # Reentrant: a signal handler may make a call in the midst of it.
        self._starting = threading.RLock()

    def add(self, watch: Watch) -> None:
        self._watches.add(watch)
        if not self._watching:
            with self._starting:
                if not self._running():
                    thread = self._thread = threading.Thread(
                        target=self._run, name="forge-realtime-watchdog", daemon=True
                    )
                    try:
                        thread.start()
                    except RuntimeError as error:
                        self._watches.discard(watch)
                        raise OSError(errno.EAGAIN, str(error)) from None
        elif watch.until < self._wakes:
            self._wake.put(None)

    def remove(self, watch: Watch) -> None:
        # The thread sleeps on: waking it for every exchange that is done in time would cost more than the exchange.
        # Not while it expires this one: the socket could be in other use by then.
        with watch.expiring:
            self._watches.discard(watch)

    def stop(self) -> None:
        """Ends the thread at once if nothing is watched."""
        self._wake.put(None)

    def _running(self) -> bool:
        # One that was interrupted at its start is there, but not alive.
        thread = self._thread
        return thread is not None and thread.is_alive()

    def _run(self) -> None:
        while self._watches:
            self._thread = threading.current_thread()
            self._watching = True
            while self._watches:
                wait = self._expire_due()
                with contextlib.suppress(Empty):
                    self._wake.get(timeout=wait)
            # Whoever adds a watch from here on sees that there is no thread.
            self._watching = False
            self._thread = None
        # For a second thread, which an interrupt at the start of this one can have made.
        self._wake.put(None)

    def _expire_due(self) -> float:
        """Returns the seconds until the next one is due; 0 if there is none."""
        # Until that is known, whoever adds a watch wakes the thread up.
        self._wakes = math.inf
        now = time.monotonic()
        nearest = math.inf
        for watch in self._watches.copy():
            if watch.until > now:
                nearest = min(nearest, watch.until)
                continue
            with watch.expiring:
                if watch in self._watches:
                    watch.expire()
                    self._watches.discard(watch)
        self._wakes = nearest
        return 0 if nearest == math.inf else nearest - now
