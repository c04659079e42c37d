"""Calls that stay in a phase until they are interrupted, interrupts at any moment, and checks of the client after."""

from __future__ import annotations

import asyncio
import gc
import json
import math
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import ParamSpec, Self, TypeVar

import pytest

from forge_realtime import AsyncRealtimeClient, Attempt, RealtimeClient, RetryPolicy
from forge_realtime._transports.connection import _Network
from tests.faults.matrix import LARGE, watched_for_leaks
from tests.support.fault_server import Behaviour, Connection, FaultServer, answer, http

P = ParamSpec("P")
T = TypeVar("T")

# The client's maximum.
CONNECTIONS = 100
PHASES = ["connecting", "sending", "waiting for the response", "reading the body", "waiting for a retry"]


class Calls:
    """Keeps calls in a phase, and lets a test wait until they are there."""

    def __init__(self, phase: str) -> None:
        self.phase = phase
        self.payload = "interrupted" + "x" * LARGE * (phase == "sending")
        # Long enough to end no call here.
        self.policy = RetryPolicy(deadline=60, attempt_timeout=60, budget=math.inf, on_attempt=self._on_attempt)
        self._in_it = threading.Semaphore(0)

    def server(self, times: int = 1) -> FaultServer:
        behaviour: Behaviour = getattr(self, f"_{self.phase.replace(' ', '_')}")
        return FaultServer(*[behaviour] * times, then=echo, deaf=self.phase == "connecting")

    def wait(self, count: int = 1) -> None:
        for _ in range(count):
            assert self._in_it.acquire(timeout=30)

    def there(self) -> None:
        """Reports that one more call is in the phase."""
        self._in_it.release()

    async def await_(self, count: int = 1) -> None:
        await asyncio.to_thread(self.wait, count)

    def _on_attempt(self, attempt: Attempt) -> None:
        if attempt.wait is not None:
            self.there()

    _connecting = staticmethod(answer(500))
    _waiting_for_a_retry = staticmethod(answer(429, headers={"Retry-After": "30"}, publishes=False))

    def _sending(self, connection: Connection) -> bool:
        self.there()
        connection.leave()
        return False

    def _waiting_for_the_response(self, connection: Connection) -> bool:
        body = connection.read().body
        self.there()
        connection.stall()
        # The client has given up by now.
        connection.send(echoed(body))
        return True

    def _reading_the_body(self, connection: Connection) -> bool:
        whole = echoed(connection.read().body)
        connection.send(whole[:-3])
        self.there()
        connection.stall()
        connection.send(whole[-3:])
        return True

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Reports when a call begins to connect, and checks that nothing leaks."""
        leaks: list[str] = []
        with pytest.MonkeyPatch.context() as patch, watched_for_leaks(leaks):
            if self.phase == "connecting":
                patch.setattr(_Network, "connect_tcp", self._telling(_Network.connect_tcp))
                connect = self._telling(asyncio.SelectorEventLoop.sock_connect)
                patch.setattr(asyncio.SelectorEventLoop, "sock_connect", connect)
            yield
        assert not leaks, leaks

    def _telling(self, connect: Callable[P, T]) -> Callable[P, T]:
        def tell(*args: P.args, **kwargs: P.kwargs) -> T:
            self.there()
            return connect(*args, **kwargs)

        return tell


def echo(connection: Connection) -> bool:
    connection.send(echoed(connection.read().body))
    return True


def echoed(body: bytes) -> bytes:
    return http(200, json.dumps({"eventId": json.loads(body)["payload"]}).encode())


def all_together(count: int) -> Behaviour:
    """Responds when so many requests are in flight."""
    everyone = threading.Barrier(count)

    def behave(connection: Connection) -> bool:
        body = connection.read().body
        if json.loads(body)["payload"] not in NUMBERS:
            # Sent by a call that was interrupted.
            return False
        everyone.wait(30)
        connection.send(echoed(body))
        return True

    return behave


NUMBERS = [str(number) for number in range(CONNECTIONS)]


def use_all_connections(live: RealtimeClient, server: FaultServer) -> None:
    server.then = all_together(CONNECTIONS)
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        results = list(pool.map(lambda number: live.publish("board-42", number), NUMBERS))
    assert [result.event_id for result in results] == NUMBERS


async def use_all_connections_async(live: AsyncRealtimeClient, server: FaultServer) -> None:
    server.then = all_together(CONNECTIONS)
    results = await asyncio.gather(*[live.publish("board-42", number) for number in NUMBERS])
    assert [result.event_id for result in results] == NUMBERS


class Interrupts:
    """Context manager that sends SIGINT to the main thread at random moments, for as long as it is `inside`.

    Args:
        most: Maximum time between two signals, in seconds.
    """

    def __init__(self, most: float) -> None:
        self.inside = False
        self._most = most
        self._main = threading.get_ident()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._interrupt)

    def __enter__(self) -> Self:
        # Another test's garbage: an interrupt in its finalizer could not be raised.
        gc.collect()
        # Coverage has a lock, which an interrupt can leave locked.
        self._trace = sys.gettrace()
        sys.settrace(None)
        self._before = signal.signal(signal.SIGINT, self._handle)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        signal.signal(signal.SIGINT, self._before)
        sys.settrace(self._trace)

    def _handle(self, number: int, frame: object) -> None:
        if self.inside:
            self.inside = False
            raise KeyboardInterrupt

    def _interrupt(self) -> None:
        while not self._done.wait(random.uniform(0, self._most)):
            signal.pthread_kill(self._main, signal.SIGINT)
