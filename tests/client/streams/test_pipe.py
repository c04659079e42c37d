"""`pipe` of both streams: what it reads, how it ends, and that it closes its source."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any

import pytest

from forge_realtime import (
    AsyncRealtimeClient,
    AsyncStream,
    Quota,
    RealtimeClient,
    Stream,
    StreamFullError,
    UsageError,
)
from forge_realtime_emulator import Emulator
from tests.support.callers import INVOCATION, QUICK
from tests.support.recorded import recorded

UNLIMITED = Quota(per_second=100_000, burst=1000)


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


class Source:
    """Yields updates, and notes how far it was read and whether it was closed. It can be read both ways."""

    def __init__(self, *items: Any, then: Callable[[], Any] = lambda: None) -> None:
        self._items = items
        self._then = then
        self.read = 0
        self.closed = 0

    def __iter__(self) -> Iterator[Any]:
        for item in self._items:
            self.read += 1
            yield item
        self._then()

    async def __aiter__(self) -> AsyncIterator[Any]:
        for item in self:
            yield item
            await asyncio.sleep(0)

    def close(self) -> None:
        self.closed += 1


class OwnIterator:
    """An iterator that is its own iterable, as the streams of some clients are."""

    def __init__(self) -> None:
        self.closed = 0

    def __iter__(self) -> OwnIterator:
        return self

    def __aiter__(self) -> OwnIterator:
        return self

    def __next__(self) -> str:
        raise StopIteration

    async def __anext__(self) -> str:
        raise StopAsyncIteration

    def close(self) -> None:
        self.closed += 1


class Piper:
    """Pipes a source into a stream of either client. Returns the stream as the emulator saw it."""

    def __init__(self, kind: str, emulator: Emulator) -> None:
        self.kind = kind
        self.emulator = emulator

    def __call__(
        self, source: Any, *keys: Any, within: Callable[[Any], object] = lambda _: None, **options: Any
    ) -> Any:
        self.emulator.reset()
        settings: Any = {"retry": QUICK, "quota": UNLIMITED}
        if self.kind == "sync":
            with (
                RealtimeClient(self.emulator.url, **settings) as client,
                client.for_invocation(INVOCATION).stream("chat", **options) as stream,
            ):
                within(stream)
                stream.pipe(source, *keys)
        else:
            asyncio.run(self._pipe(settings, source, *keys, within=within, **options))
        found = recorded(self.emulator)
        assert found.ended
        return found

    async def _pipe(
        self, settings: Any, source: Any, *keys: Any, within: Callable[[Any], object], **options: Any
    ) -> None:
        async with (
            AsyncRealtimeClient(self.emulator.url, **settings) as client,
            client.for_invocation(INVOCATION).stream("chat", **options) as stream,
        ):
            within(stream)
            await stream.pipe(source, *keys)


@pytest.fixture(params=["sync", "async"])
def pipe(request: pytest.FixtureRequest, emulator: Emulator) -> Piper:
    return Piper(request.param, emulator)


def fail() -> None:
    raise LookupError("secret of the model")


def test_text_is_sent_and_source_closed(pipe: Piper) -> None:
    source = Source("Hel", "lo")
    assert pipe(source).value == "Hello"
    assert source.closed == 1
    own = OwnIterator()
    assert pipe(own).value is None
    assert own.closed == 1


def test_key_picks_updates_and_skips_events(pipe: Piper) -> None:
    events = [{"text": "Hel"}, {"usage": 7}, {"text": ""}, {"text": "lo"}]
    assert pipe(Source(*events), lambda event: event.get("text")).value == "Hello"


def test_structured_events(pipe: Piper) -> None:
    events = [{"tool": "look_up"}, {"text": "Hi"}]
    assert pipe(Source(*events), merge="batch").value == events


def test_error_of_the_source_ends_the_stream_with_its_class(pipe: Piper) -> None:
    source = Source("Hel", then=fail)
    with pytest.raises(LookupError):
        pipe(source)
    stream = recorded(pipe.emulator)
    assert (stream.value, stream.error) == ("Hel", {"type": "LookupError"})
    assert source.closed
    assert "secret" not in "".join(event.payload for event in pipe.emulator.events)


@pytest.mark.parametrize("then", [lambda: None, fail])
def test_app_says_why_the_stream_failed_whether_or_not_the_block_raises(pipe: Piper, then: Callable[[], Any]) -> None:
    def say(stream: Any) -> None:
        for wrong in (("", "Ask again."), (7, "Ask again."), ("model_unavailable", None)):
            with pytest.raises(UsageError, match="fail takes a type of failure"):
                stream.fail(*wrong)
        stream.fail("model_unavailable", "Ask again.")

    with suppress(LookupError):
        pipe(Source("Hel", then=then), within=say)
    assert recorded(pipe.emulator).error == {"type": "model_unavailable", "message": "Ask again."}


def test_refused_update_closes_the_source(pipe: Piper) -> None:
    for wrong in (Source("Hel", 7), Source("Hel", {"text": 7})):
        with pytest.raises(UsageError, match="merge='append' takes strings"):
            pipe(wrong)
        assert wrong.closed


def test_full_stream_is_not_read_further(pipe: Piper) -> None:
    source = Source(*"abcdefghij")
    with pytest.raises(StreamFullError):
        pipe(source, overflow="raise", max_pending=3, interval=60)
    assert source.read < 6
    assert source.closed


def test_stop_ends_it_with_what_was_sent(pipe: Piper) -> None:
    stopping: list[Stream | AsyncStream] = []
    source = Source("Hel", "lo", "never", then=fail)

    def key(item: str) -> str:
        if item == "never":
            stopping[0].stop("enough")
        return item

    stream = pipe(source, key, within=stopping.append)
    assert (stream.value, stream.error, stream.stopped) == ("Hello", None, {"by": "app", "reason": "enough"})
    assert stopping[0].cancelled.is_set()
    assert source.closed


def test_stopped_stream_reads_nothing(pipe: Piper) -> None:
    source = Source("never")
    assert pipe(source, within=lambda stream: stream.stop()).value is None
    assert (source.read, source.closed) == (0, 1)


def test_reason_that_no_page_can_read_is_refused(pipe: Piper) -> None:
    reasons: list[Any] = [7, object(), b"enough"]

    def stop(stream: Any) -> None:
        for reason in reasons:
            with pytest.raises(UsageError, match="reason of type str"):
                stop_it(stream, reason)

    def stop_it(stream: Any, reason: Any) -> None:
        stream.stop(reason)

    assert pipe(Source("Hello"), within=stop).stopped is None


def test_error_of_a_stopped_source_is_no_error_of_the_stream(pipe: Piper) -> None:
    stopping: list[Stream | AsyncStream] = []

    def stop_and_fail() -> None:
        stopping[0].stop()
        fail()

    assert pipe(Source("Hel", then=stop_and_fail), within=stopping.append).error is None


def test_wrong_sources_are_refused(pipe: Piper) -> None:
    async def source() -> AsyncIterator[str]:
        yield "x"

    async def create() -> AsyncIterator[str]:
        return source()

    if pipe.kind == "sync":
        wrong: dict[Any, str] = {source(): "An asynchronous one needs the stream of an AsyncRealtimeClient"}
    else:
        wrong = {create(): "await the call first", 7: "Use the asynchronous client of the model"}
    for each, message in wrong.items():
        with pytest.raises(UsageError, match=message):
            pipe(each)


class Waiting:
    """An asynchronous source that waits for ever after its first item, and may ignore a cancellation."""

    def __init__(self, *, stubborn: bool = False) -> None:
        self.waits = asyncio.Event()
        self.cancelled = 0
        self.closed = False
        self._stubborn = stubborn

    async def __aiter__(self) -> AsyncIterator[str]:
        yield "Hel"
        while True:
            self.waits.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                if not self._stubborn:
                    raise
                yield "lo"

    async def aclose(self) -> None:
        self.closed = True


@pytest.mark.parametrize("stubborn", [False, True])
@pytest.mark.parametrize("from_thread", [False, True])
def test_stop_interrupts_a_wait_for_the_model(emulator: Emulator, *, stubborn: bool, from_thread: bool) -> None:
    async def main() -> None:
        source = Waiting(stubborn=stubborn)
        async with (
            AsyncRealtimeClient(emulator.url) as client,
            client.for_invocation(INVOCATION).stream("chat") as stream,
        ):
            piping = asyncio.create_task(stream.pipe(source))
            noticing = asyncio.create_task(stream.cancelled.wait())
            await source.waits.wait()
            if from_thread:
                await asyncio.to_thread(stream.stop, "enough")
            else:
                stream.stop("enough")
            await asyncio.wait_for(asyncio.gather(piping, noticing), 10)
            assert piping.exception() is None
        assert (source.cancelled, source.closed) == (1, True)

    emulator.reset()
    asyncio.run(main())
    stream = recorded(emulator)
    assert (stream.value, stream.ended) == ("Hel", True)


def test_stop_while_the_source_gives_up_changes_nothing(emulator: Emulator) -> None:
    async def main() -> None:
        waits, gives_up, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def model() -> AsyncIterator[str]:
            yield "Hel"
            try:
                waits.set()
                await asyncio.Event().wait()
            finally:
                gives_up.set()
                await go_on.wait()

        async with (
            AsyncRealtimeClient(emulator.url) as client,
            client.for_invocation(INVOCATION).stream("chat") as stream,
        ):
            piping = asyncio.create_task(stream.pipe(model()))
            await waits.wait()
            stream.stop("enough")
            await gives_up.wait()
            stream.stop("again")
            go_on.set()
            await piping

    emulator.reset()
    asyncio.run(main())
    assert recorded(emulator).stopped == {"by": "app", "reason": "enough"}


class NeverClosed:
    """An asynchronous source that waits for ever: for its next item, or not; when it is cancelled, or when closed."""

    def __init__(self, *, waits: bool, lets_go: bool) -> None:
        self._waits = waits
        self._lets_go = lets_go
        self._items = ["Hello"]

    def __aiter__(self) -> NeverClosed:
        return self

    async def __anext__(self) -> str:
        if self._items:
            return self._items.pop()
        if not self._waits:
            raise StopAsyncIteration
        try:
            await asyncio.Event().wait()
        finally:
            if not self._lets_go:
                await asyncio.Event().wait()
        raise AssertionError

    async def aclose(self) -> None:
        await asyncio.Event().wait()


@pytest.mark.parametrize(("waits", "lets_go"), [(False, True), (True, True), (True, False)])
def test_source_that_does_not_let_go_holds_nothing_up(emulator: Emulator, *, waits: bool, lets_go: bool) -> None:
    async def main() -> None:
        async with (
            asyncio.timeout(10),
            AsyncRealtimeClient(emulator.url) as client,
            client.for_invocation(INVOCATION).stream("chat", deadline=0.1) as stream,
        ):
            if waits:
                asyncio.get_running_loop().call_later(0.05, stream.stop, "enough")
            await stream.pipe(NeverClosed(waits=waits, lets_go=lets_go))
            await stream.send("" if waits else ".")

    emulator.reset()
    asyncio.run(main())
    stream = recorded(emulator)
    assert (stream.value, stream.ended, stream.error) == ("Hello" if waits else "Hello.", True, None)


def cancel_while_it_waits(
    emulator: Emulator, source: Waiting, cancel: Callable[[asyncio.Task[None]], Coroutine[Any, Any, None]]
) -> None:
    """Pipe a source in a task, which `cancel` ends while it waits for an item. The source is closed then."""

    async def main() -> None:
        async def answer() -> None:
            async with client.for_invocation(INVOCATION).stream("chat") as stream:
                await stream.pipe(source)

        async with AsyncRealtimeClient(emulator.url) as client:
            task = asyncio.create_task(answer())
            await source.waits.wait()
            await cancel(task)
        assert source.closed

    emulator.reset()
    asyncio.run(main())


def test_cancelled_task_closes_the_source_and_stays_cancelled(emulator: Emulator) -> None:
    async def cancel(task: asyncio.Task[None]) -> None:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    cancel_while_it_waits(emulator, Waiting(), cancel)
    stream = recorded(emulator)
    assert (stream.value, stream.ended) == ("Hel", True)


def test_source_is_closed_although_the_task_is_cancelled_again_and_again(emulator: Emulator) -> None:
    """As anyio does. Closing the iterator takes a while, and closing the source is what ends the model's response."""

    class Slow:
        def __aiter__(self) -> Slow:
            return self

        async def __anext__(self) -> str:
            source.waits.set()
            await asyncio.Event().wait()
            raise AssertionError

        async def aclose(self) -> None:
            await asyncio.sleep(60)

    class Response(Waiting):
        def __aiter__(self) -> Any:
            return Slow()

    async def cancel(task: asyncio.Task[None]) -> None:
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)

    source = Response()
    cancel_while_it_waits(emulator, source, cancel)


def test_timeout_of_the_source_is_raised(emulator: Emulator) -> None:
    async def late() -> AsyncIterator[str]:
        yield "Hel"
        raise TimeoutError

    async def main() -> None:
        async with (
            AsyncRealtimeClient(emulator.url) as client,
            client.for_invocation(INVOCATION).stream("chat") as stream,
        ):
            await stream.pipe(late())

    with pytest.raises(TimeoutError):
        asyncio.run(main())


def test_two_pipes_share_a_stream(emulator: Emulator) -> None:
    async def main() -> None:
        sources = [Waiting(), Waiting()]
        async with (
            AsyncRealtimeClient(emulator.url) as client,
            client.for_invocation(INVOCATION).stream("chat", merge="batch") as stream,
        ):
            piping = asyncio.gather(*map(stream.pipe, sources))
            for source in sources:
                await source.waits.wait()
            stream.stop()
            await asyncio.wait_for(piping, 10)

    emulator.reset()
    asyncio.run(main())
    assert recorded(emulator).value == ["Hel", "Hel"]


def test_blocking_pipe_ends_with_the_item_after_a_stop_of_another_thread(emulator: Emulator) -> None:
    waits, go_on = threading.Event(), threading.Event()

    def model() -> Iterator[str]:
        yield "Hel"
        waits.set()
        go_on.wait(10)
        yield "lo"
        yield "never"

    def stop(stream: Stream) -> None:
        waits.wait(10)
        stream.stop("enough")
        go_on.set()

    emulator.reset()
    with RealtimeClient(emulator.url) as client, client.for_invocation(INVOCATION).stream("chat") as stream:
        thread = threading.Thread(target=stop, args=[stream])
        thread.start()
        stream.pipe(model())
        thread.join()
    assert recorded(emulator).value == "Hel"
