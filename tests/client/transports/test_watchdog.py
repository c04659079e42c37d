from __future__ import annotations

import math
import socket
import time

from forge_realtime._transports.watchdog import Watch, Watchdog


class Stream:
    """As httpcore's network stream."""

    def __init__(self, connected: socket.socket) -> None:
        self._connected = connected

    def get_extra_info(self, name: str) -> socket.socket:
        assert name == "socket"
        return self._connected


def test_a_socket_that_comes_after_the_time_is_up_is_shut_down_at_once() -> None:
    here, there = socket.socketpair()
    with here, there:
        watch = Watch(Watchdog(), 0.0, None)
        watch.expire()
        watch.trace("http11.send_request_headers.started", {})
        watch.trace("connection.connect_tcp.complete", {"return_value": Stream(here)})
        assert watch.expired
        assert there.recv(1) == b""


def test_an_earlier_watch_wakes_the_watchdog_in_time() -> None:
    watchdog = Watchdog()
    here, there = socket.socketpair()
    with here, there:
        there.settimeout(10)
        with Watch(watchdog, time.monotonic() + 60, None), Watch(watchdog, time.monotonic() + 0.05, here) as early:
            assert there.recv(1) == b""
            assert early.expired
    watchdog.stop()


def test_a_socket_that_is_closed_already_is_no_error() -> None:
    here, there = socket.socketpair()
    here.close()
    there.close()
    watch = Watch(Watchdog(), math.inf, here)
    watch.expire()
    assert watch.expired
