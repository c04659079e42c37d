"""An interrupted call leaves no trace in the client, whatever phase it was in."""

from __future__ import annotations

import asyncio

# The first connection imports it. If that is interrupted, Python leaves the file of the module open.
import encodings.idna  # noqa: F401
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from forge_realtime import PublishResult, RealtimeClient
from forge_realtime._transports import pool
from tests.faults.phases import (
    CONNECTIONS,
    NUMBERS,
    PHASES,
    Calls,
    Interrupts,
    echo,
    echoed,
    use_all_connections,
    use_all_connections_async,
)
from tests.support.callers import ASYNC_KINDS, INVOCATION, AsyncKind, async_client
from tests.support.fault_server import Connection, FaultServer

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", ASYNC_KINDS)
@pytest.mark.parametrize("phase", PHASES)
def test_task_can_be_cancelled_in_any_phase(kind: AsyncKind, phase: str) -> None:
    calls = Calls(phase)

    async def run() -> None:
        async with async_client(kind, server.url, retry=calls.policy) as client:
            live = client.for_invocation(INVOCATION)
            call = asyncio.create_task(live.publish("board-42", calls.payload))
            await calls.await_()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            if phase == "connecting":
                server.listen()
                server.script.clear()
            assert (await live.publish("board-42", "next")).event_id == "next"
            await use_all_connections_async(live, server)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with calls.watching(), calls.server() as server:
        asyncio.run(run())


@pytest.mark.parametrize("kind", ASYNC_KINDS)
@pytest.mark.parametrize("phase", [phase for phase in PHASES if phase != "sending"])
def test_more_tasks_can_be_cancelled_than_there_are_connections(kind: AsyncKind, phase: str) -> None:
    calls = Calls(phase)

    async def run() -> None:
        async with async_client(kind, server.url, retry=calls.policy) as client:
            live = client.for_invocation(INVOCATION)
            for _ in range(3):
                tasks = [asyncio.create_task(live.publish("board-42", calls.payload)) for _ in range(50)]
                await calls.await_(50)
                for task in tasks:
                    task.cancel()
                outcomes = await asyncio.gather(*tasks, return_exceptions=True)
                assert {type(outcome) for outcome in outcomes} == {asyncio.CancelledError}
            if phase == "connecting":
                server.listen()
                server.script.clear()
            await use_all_connections_async(live, server)

    with calls.watching(), calls.server(times=150) as server:
        asyncio.run(run())


@pytest.mark.parametrize("kind", ASYNC_KINDS)
def test_tasks_that_wait_for_a_connection_can_be_cancelled(kind: AsyncKind) -> None:
    calls = Calls("waiting for the response")

    async def run() -> None:
        async with async_client(kind, server.url, retry=calls.policy) as client:
            live = client.for_invocation(INVOCATION)
            first = [asyncio.create_task(live.publish("board-42", "interrupted")) for _ in range(CONNECTIONS)]
            await calls.await_(CONNECTIONS)
            waiting = [asyncio.create_task(live.publish("board-42", "interrupted")) for _ in range(150)]
            await asyncio.sleep(0)
            # In this order some get a connection just when they are cancelled.
            for task in [*waiting[:50], *first, *waiting[50:]]:
                task.cancel()
            outcomes = await asyncio.gather(*first, *waiting, return_exceptions=True)
            assert {type(outcome) for outcome in outcomes} == {asyncio.CancelledError}
            assert len(server.received) == CONNECTIONS
            await use_all_connections_async(live, server)

    with calls.watching(), calls.server(times=CONNECTIONS) as server:
        asyncio.run(run())


@pytest.mark.parametrize("kind", ASYNC_KINDS)
@pytest.mark.parametrize("connected", [False, True])
def test_task_can_be_cancelled_in_any_turn_of_the_loop(kind: AsyncKind, connected: bool) -> None:
    calls = Calls("waiting for the response")
    # More than a call takes.
    turns = 40 if connected else 100

    async def run() -> list[object]:
        outcomes: list[object] = []
        for number in range(3 * turns):
            async with async_client(kind, server.url, retry=calls.policy) as client:
                live = client.for_invocation(INVOCATION)
                if connected:
                    await live.publish("board-42", "first")
                task = asyncio.create_task(live.publish("board-42", "interrupted"))
                for _ in range(number % turns):
                    await asyncio.sleep(0)
                task.cancel()
                outcomes += await asyncio.gather(task, return_exceptions=True)
                assert (await live.publish("board-42", "next")).event_id == "next"
        return outcomes

    with calls.watching(), FaultServer(then=echo) as server:
        outcomes = asyncio.run(run())
    assert {type(outcome) for outcome in outcomes} == {asyncio.CancelledError, PublishResult}


@contextmanager
def interrupted_after(wait: Callable[[], object]) -> Iterator[None]:
    """Expects a KeyboardInterrupt in the block, when `wait` has returned."""
    main = threading.get_ident()
    raised = threading.Event()

    def handle(number: int, frame: object) -> None:
        if not raised.is_set():
            raised.set()
            raise KeyboardInterrupt

    def interrupt() -> None:
        wait()
        # More than once: Python overlooks a signal that comes just before it blocks in a system call.
        while not raised.is_set():
            signal.pthread_kill(main, signal.SIGINT)
            raised.wait(0.05)

    before = signal.signal(signal.SIGINT, handle)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
        thread.join()
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.parametrize("phase", PHASES)
def test_keyboard_can_interrupt_in_any_phase(phase: str) -> None:
    calls = Calls(phase)
    with calls.watching(), calls.server() as server, RealtimeClient(server.url, retry=calls.policy) as client:
        live = client.for_invocation(INVOCATION)
        with interrupted_after(calls.wait):
            live.publish("board-42", calls.payload)
        if phase == "connecting":
            server.listen()
            server.script.clear()
        assert live.publish("board-42", "next").event_id == "next"
        use_all_connections(live, server)


@pytest.mark.parametrize("phase", ["waiting for the response", "reading the body", "waiting for a retry"])
def test_keyboard_can_interrupt_more_often_than_there_are_connections(phase: str) -> None:
    calls = Calls(phase)
    times = CONNECTIONS + 20
    with calls.watching(), calls.server(times) as server, RealtimeClient(server.url, retry=calls.policy) as client:
        live = client.for_invocation(INVOCATION)
        for _ in range(times):
            with interrupted_after(calls.wait):
                live.publish("board-42", "interrupted")
        assert len(server.received) == times
        use_all_connections(live, server)


def test_keyboard_can_interrupt_the_wait_for_a_connection() -> None:
    calls = Calls("waiting for the response")
    main = threading.get_ident()
    until = time.monotonic() + 30

    def wait_until_it_waits() -> None:
        functions: list[str] = []
        while not ("publish" in functions and functions[0] == "take"):
            assert time.monotonic() < until
            functions = [frame.f_code.co_name for frame, _ in traceback.walk_stack(sys._current_frames()[main])]

    go_on = threading.Event()

    def hold(connection: Connection) -> bool:
        body = connection.read().body
        calls.there()
        go_on.wait(30)
        connection.send(echoed(body))
        return True

    with (
        calls.watching(),
        FaultServer(then=hold) as server,
        RealtimeClient(server.url, retry=calls.policy) as client,
        ThreadPoolExecutor(CONNECTIONS) as pool,
    ):
        live = client.for_invocation(INVOCATION)
        others = [pool.submit(live.publish, "board-42", number) for number in NUMBERS]
        calls.wait(CONNECTIONS)
        try:
            for _ in range(CONNECTIONS + 20):
                with interrupted_after(wait_until_it_waits):
                    live.publish("board-42", "interrupted")
        finally:
            go_on.set()
        assert [other.result().event_id for other in others] == NUMBERS
        assert len(server.received) == CONNECTIONS
        use_all_connections(live, server)


@pytest.mark.timeout(30)
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_keyboard_can_interrupt_at_any_moment() -> None:
    calls = Calls("waiting for the response")
    interrupted = 0
    with (
        calls.watching(),
        FaultServer(then=echo) as server,
        RealtimeClient(server.url, retry=calls.policy) as client,
    ):
        live = client.for_invocation(INVOCATION)
        with Interrupts(0.002) as interrupts:
            for number in range(2000):
                try:
                    interrupts.inside = True
                    live.publish("board-42", "interrupted")
                    interrupts.inside = False
                except KeyboardInterrupt:
                    interrupted += 1
                if number % 10 == 0:
                    assert live.publish("board-42", f"next {number}").event_id == f"next {number}"
        use_all_connections(live, server)
    assert interrupted > 200


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_interrupt_at_any_step_of_the_transports_loses_no_connection() -> None:
    """Each call is interrupted one bytecode later than the one before."""
    calls = Calls("waiting for the response")
    room = str(Path(pool.__file__).parent)
    step = left = 0

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.startswith(room):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
        return trace

    def interrupt_every_step(live: RealtimeClient) -> None:
        nonlocal step, left
        before = sys.gettrace()
        interrupted = True
        while interrupted:
            step += 1
            left = step
            try:
                sys.settrace(trace)
                live.publish("board-42", "interrupted")
                interrupted = left <= 0
            except KeyboardInterrupt:
                pass
            finally:
                sys.settrace(before)

    with (
        FaultServer(then=echo) as server,
        RealtimeClient(server.url, retry=calls.policy) as client,
        ThreadPoolExecutor(1) as executor,
    ):
        live = client.for_invocation(INVOCATION)
        # An interrupt between two bytecodes can leave an exception as the context of all later ones of the thread.
        executor.submit(interrupt_every_step, live).result()
        use_all_connections(live, server)
    assert step > 300
