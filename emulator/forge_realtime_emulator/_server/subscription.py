"""Subscriptions for tests: a real WebSocket, with a blocking and an asynchronous API."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from .._platform.clock import elapsed
from .._platform.errors import EmulatorError, SubscriptionClosed, SubscriptionRefused

# At DEBUG, websockets logs frames with their payloads and tokens.
_wire_log = logging.getLogger("forge_realtime_emulator.wire")
_wire_log.setLevel(logging.INFO)

_SUBSCRIBE_TIMEOUT = 10.0
"""Seconds in which the emulator accepts or refuses a subscription."""

_END_TIMEOUT = 5.0
"""Seconds in which the thread of a closed connection ends."""


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """Event as received by a subscriber.

    Events with the same channel and payload are equal, so that a test can compare with
    `ReceivedEvent("board-42", "moved")`.

    Attributes:
        channel: The channel name.
        payload: The payload exactly as published; hidden in the repr.
        event_id: The event id, the same that the publisher got; not compared.
        event_timestamp: Epoch milliseconds as a string; not compared.
    """

    channel: str
    payload: str = field(repr=False)
    event_id: str = field(default="", compare=False)
    event_timestamp: str = field(default="", compare=False)


class Subscription:
    """Subscription made by `Emulator.subscribe`, for use in `with` or `async with`.

    In asynchronous tests, `areceive` waits for an event, and `async for` for each event in turn:

        async with emulator.subscribe("board-42") as subscription:
            await move_card()
            assert (await subscription.areceive()).payload == "moved"

    Args:
        url: The WebSocket URL of the endpoint.
        described: The first message, which describes the subscription.
        explainer: Called when the subscription has begun. Returns the function that explains why no event came.

    Attributes:
        channel: The channel name.
    """

    def __init__(
        self, url: str, described: Mapping[str, Any], explainer: Callable[[Mapping[str, Any]], Callable[[], str]]
    ) -> None:
        self.channel: str = described["channel"]
        self._url = url
        self._described = described
        self._explainer = explainer
        self._connection: _Connection | None = None

    def __enter__(self) -> Self:
        """Subscribe.

        Raises:
            SubscriptionRefused: The emulator did not accept the subscription.
        """
        connection = _Connection(self._url)
        try:
            connection.send(self._described)
            _check_accepted(connection.receive(_SUBSCRIBE_TIMEOUT))
            self._why_not = self._explainer(self._described)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    async def __aenter__(self) -> Self:
        """Subscribe. The emulator runs in a thread of its own, so this does not wait for the event loop."""
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)

    def receive(self, timeout: float = 5.0) -> ReceivedEvent:
        """Wait for the next event.

        Args:
            timeout: Real seconds to wait, also while a test has frozen the clock; 0 returns only an event that has
                already arrived.

        Raises:
            TimeoutError: No event came in time.
            SubscriptionClosed: The emulator closed the subscription.
            EmulatorError: It was called in a task of an event loop, which it would block: use `areceive` there.
        """
        if timeout > 0 and _in_task():
            raise EmulatorError(
                "receive() blocks the event loop, so the code under test could not publish. Use await"
                " subscription.areceive() in asynchronous tests."
            )
        try:
            return _event(self._open().receive(timeout))
        except TimeoutError:
            raise self._timed_out(timeout) from None

    async def areceive(self, timeout: float = 5.0) -> ReceivedEvent:  # noqa: ASYNC109 - as `receive`, by the real clock
        """Wait for the next event, without blocking the event loop.

        Cancelling the wait loses no event.

        Args:
            timeout: Real seconds to wait, also while a test has frozen the clock; 0 returns only an event that has
                already arrived.

        Raises:
            TimeoutError: No event came in time.
            SubscriptionClosed: The emulator closed the subscription.
        """
        connection = self._open()
        try:
            await connection.arrival(timeout)
            return _event(connection.receive(0))
        except TimeoutError:
            raise self._timed_out(timeout) from None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ReceivedEvent:
        """Wait for the next event, as `areceive` does."""
        return await self.areceive()

    def _open(self) -> _Connection:
        if self._connection is None:
            raise EmulatorError(
                "The subscription is not open. Use it within `with emulator.subscribe(...) as subscription:`."
            )
        return self._connection

    def _timed_out(self, timeout: float) -> TimeoutError:
        return TimeoutError(f"No event on channel {self.channel!r} within {timeout:g} s.\n{self._why_not()}")


class _Connection:
    """WebSocket whose messages a thread receives, so that threads and event loops can wait for them."""

    def __init__(self, url: str) -> None:
        self._exit = ExitStack()
        # No proxy: the emulator is local. No limits: a test may read slowly.
        self._websocket: ClientConnection = self._exit.enter_context(
            connect(url, proxy=None, compression=None, max_size=None, max_queue=None, logger=_wire_log)
        )
        self._messages: deque[dict[str, Any]] = deque()
        self._end: Exception | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, name="forge-realtime-subscription", daemon=True)
        self._thread.start()

    def send(self, message: Mapping[str, Any]) -> None:
        self._websocket.send(json.dumps(message))

    def receive(self, timeout: float) -> dict[str, Any]:
        """Wait for a message, by the real clock."""
        with self._changed:
            self._wait(timeout, lambda: False)
            if self._messages:
                return self._messages.popleft()
            if self._end is not None:
                raise self._end
        raise TimeoutError

    async def arrival(self, timeout: float) -> None:  # noqa: ASYNC109 - a test may have frozen the loop's clock
        """Wait until a message or the end can be received, or the time has passed by the real clock."""
        cancelled = False

        def wait() -> None:
            with self._changed:
                self._wait(timeout, lambda: cancelled)

        try:
            await asyncio.to_thread(wait)
        finally:
            cancelled = True
            with self._changed:
                self._changed.notify_all()

    def close(self) -> None:
        self._exit.close()
        self._thread.join(_END_TIMEOUT)

    def _wait(self, timeout: float, ended: Callable[[], bool]) -> None:
        # Not `wait_for`: a test can freeze its clock.
        until = elapsed() + timeout
        while not (self._messages or self._end or ended()) and (left := until - elapsed()) > 0:
            self._changed.wait(left)

    def _read(self) -> None:
        end: Exception
        try:
            while True:
                message = json.loads(self._websocket.recv())
                with self._changed:
                    self._messages.append(message)
                    self._changed.notify_all()
        except ConnectionClosed as closed:
            code, reason = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "the connection was lost")
            end = SubscriptionClosed(code, reason)
        except Exception as error:  # noqa: BLE001 - it is raised where the message is waited for
            end = error
        with self._changed:
            self._end = end
            self._changed.notify_all()


def _check_accepted(message: Mapping[str, Any]) -> None:
    if message["type"] == "error":
        raise SubscriptionRefused(message["code"], message["message"])


def _event(message: Mapping[str, Any]) -> ReceivedEvent:
    return ReceivedEvent(message["channel"], message["payload"], message["eventId"], message["eventTimestamp"])


def _in_task() -> bool:
    # A loop alone does not say it: with the sync API of Playwright one runs in a blocking test, but no task.
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False
