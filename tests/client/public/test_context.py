"""The current invocation: where it is visible, and how to carry it elsewhere."""

from __future__ import annotations

import asyncio
import pickle
import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge_realtime import (
    AsyncRealtimeClient,
    Invocation,
    NoInvocationError,
    RealtimeClient,
    UsageError,
    current_invocation,
)
from tests.support.fault_server import FaultServer

FIRST, SECOND = Invocation("first"), Invocation("second", log_attributes="b3BhcXVl")


def test_there_is_none_by_default() -> None:
    assert current_invocation() is None


def test_blocks_can_be_nested() -> None:
    with FIRST.active():
        assert current_invocation() is FIRST
        with SECOND.active():
            assert current_invocation() is SECOND
            with FIRST.active():
                assert current_invocation() is FIRST
            assert current_invocation() is SECOND
        assert current_invocation() is FIRST
    assert current_invocation() is None


def test_previous_one_is_restored_after_error() -> None:
    with FIRST.active():
        with pytest.raises(LookupError), SECOND.active():
            raise LookupError
        assert current_invocation() is FIRST


def test_block_may_end_in_another_context() -> None:
    block = FIRST.active()
    copy_context().run(block.__enter__)
    assert current_invocation() is None
    block.__exit__(None, None, None)
    assert current_invocation() is None


def test_thread_needs_invocation_passed_to_it() -> None:
    with ThreadPoolExecutor(1) as executor:
        # Start the worker outside any invocation.
        assert executor.submit(current_invocation).result() is None
        with FIRST.active():
            assert executor.submit(current_invocation).result() is None
            assert executor.submit(copy_context().run, current_invocation).result() is FIRST

        def work(invocation: Invocation) -> Invocation | None:
            with invocation.active():
                return current_invocation()

        assert executor.submit(work, SECOND).result() is SECOND
        assert executor.submit(current_invocation).result() is None


def test_concurrent_threads_do_not_mix() -> None:
    invocations = [Invocation(f"invocation-{number}") for number in range(20)]
    barrier = threading.Barrier(len(invocations), timeout=20)

    def work(invocation: Invocation) -> list[Invocation | None]:
        with invocation.active():
            barrier.wait()
            seen = [current_invocation()]
            barrier.wait()
        barrier.wait()
        return [*seen, current_invocation()]

    with ThreadPoolExecutor(len(invocations)) as executor:
        assert list(executor.map(work, invocations)) == [[invocation, None] for invocation in invocations]


def test_concurrent_tasks_do_not_mix() -> None:
    invocations = [Invocation(f"invocation-{number}") for number in range(300)]

    async def work(invocation: Invocation, barrier: asyncio.Barrier) -> list[Invocation | None]:
        with invocation.active():
            await barrier.wait()
            seen = [current_invocation()]
            # Child tasks and threads inherit the invocation.
            seen.append(await asyncio.create_task(child()))
            seen += await asyncio.gather(child(), asyncio.to_thread(current_invocation))
        await barrier.wait()
        return [*seen, current_invocation()]

    async def child() -> Invocation | None:
        await asyncio.sleep(0)
        return current_invocation()

    async def run() -> list[Any]:
        barrier = asyncio.Barrier(len(invocations))
        return await asyncio.gather(*(work(invocation, barrier) for invocation in invocations))

    assert asyncio.run(run()) == [[invocation] * 4 + [None] for invocation in invocations]


def test_task_keeps_invocation_after_block() -> None:
    async def run() -> Invocation | None:
        ended = asyncio.Event()

        async def later() -> Invocation | None:
            await ended.wait()
            return current_invocation()

        with FIRST.active():
            task = asyncio.create_task(later())
        ended.set()
        return await task

    assert asyncio.run(run()) is FIRST


def test_queue_worker_gets_invocation_as_text() -> None:
    jobs: queue.Queue[tuple[str, str]] = queue.Queue()
    with FaultServer() as server, RealtimeClient(server.url) as client:

        def work() -> None:
            for _ in range(2):
                text, payload = jobs.get()
                with Invocation.from_text(text).active():
                    client.publish("board-42", payload)

        worker = threading.Thread(target=work)
        worker.start()
        for invocation in (FIRST, SECOND):
            with invocation.active():
                current = current_invocation()
                assert current is not None
                jobs.put((current.to_text(), "moved"))
        worker.join()
    assert [request.headers["forge-proxy-authorization"] for request in server.received] == [
        "Forge as=app,id=first",
        "Forge as=app,id=second",
    ]


def test_clients_act_for_current_invocation() -> None:
    async def run(url: str) -> None:
        async with AsyncRealtimeClient(url) as client:
            await client.publish("board-42", "moved")
            await asyncio.gather(client.publish("board-42", "moved"))

    with FaultServer() as server, RealtimeClient(server.url) as client:
        with FIRST.active():
            asyncio.run(run(server.url))
            client.publish("board-42", "moved")
            # An explicit invocation takes precedence.
            client.for_invocation(SECOND).publish("board-42", "moved")
        with pytest.raises(NoInvocationError, match="InvocationMiddleware"):
            client.publish("board-42", "moved")
    ids = [request.headers["forge-proxy-authorization"].rpartition("=")[2] for request in server.received]
    assert ids == ["first"] * 3 + ["second"]


VALUES = st.none() | st.text()


@given(id_=st.text().filter(str.strip), log_attributes=VALUES, trace_id=VALUES, span_id=VALUES)
def test_text_round_trips_in_one_line(id_: str, **others: Any) -> None:
    invocation = Invocation(id_, **others)
    text = invocation.to_text()
    assert text.isascii()
    assert text.isprintable()
    assert text == text.strip()
    assert Invocation.from_text(text) == invocation


def test_text_omits_missing_values_and_ignores_unknown_ones() -> None:
    assert Invocation("invocation-123", trace_id="463ac35c9f6413ad").to_text() == (
        '{"id":"invocation-123","trace_id":"463ac35c9f6413ad"}'
    )
    # A later version may write more.
    assert Invocation.from_text('{"id": "invocation-123", "cloud": {"id": 1}}') == Invocation("invocation-123")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret-1",
        '"id secret-1"',
        "null",
        "5",
        "[]",
        '["id"]',
        "{}",
        '{"id": ""}',
        '{"id": 5}',
        '{"id": ["secret-1"]}',
        '{"id": "secret-1", "trace_id": 7}',
        '{"id": "secret-1", "log_attributes": null}',
        '{"id": "secret-1"',
        "[" * 100_000,
        "secret-1\ud800",
        b"secret-1\xff",
        None,
        {"id": "secret-1"},
    ],
)
def test_invalid_text_is_refused_and_not_quoted(text: Any) -> None:
    with pytest.raises(UsageError, match=r"Invocation.to_text\(\)") as caught:
        Invocation.from_text(text)
    assert "secret" not in str(caught.value)
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


@given(text=st.text() | st.text('{}[]":,id0n\\u').map(lambda inner: f'{{"id":{inner}'))
def test_any_text_is_refused_or_read(text: str) -> None:
    try:
        invocation = Invocation.from_text(text)
    except UsageError:
        return
    assert Invocation.from_text(invocation.to_text()) == invocation


def test_invocation_can_be_pickled() -> None:
    assert pickle.loads(pickle.dumps(SECOND)) == SECOND
