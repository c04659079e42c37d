"""The stream with blocking I/O."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, Self, TypeVar, overload

from .._client.async_forge import run_flow
from .._core.attempts import StreamReport
from .._core.call import Flow, Instrument
from .._core.encoding import Payload
from .._core.errors import Delivery, StreamError, UsageError
from .._core.fork import reset_if_forked
from .._core.hidden import Hidden
from .._core.policy import RetryPolicy
from .._core.stop import private_streams
from .buffer import Slots, StreamOptions
from .green import threads_are_green
from .page_stream import PageStream
from .pipe import check_source, close_source
from .publisher import Publisher
from .worker import StreamWorker, ThreadLostError, WorkerThread

# Longer than the end of an interrupted block takes.
_COLLECTED_SECONDS: Final = 3.0
# A wait has its own limit, the deadline. A thread that exceeds it by this does not run any more, or is stuck.
_LATE_SECONDS: Final = 5.0
T = TypeVar("T")


class Stream:
    """A stream of updates, as a context manager. Made by `RealtimeClient.stream`.

        with live.stream("chat") as stream:
            for token in tokens:
                stream.send(token)

    Thread-safe. Events are published from the client's worker thread.
    """

    def __init__(
        self,
        options: StreamOptions,
        slots: Slots,
        retry: RetryPolicy,
        worker: StreamWorker,
        instrument: Instrument | None,
    ) -> None:
        # Where it cannot work, it is refused now.
        threads_are_green()
        self._worker = worker
        self._thread: WorkerThread | None = None
        self._exits = False
        self._seconds = options.deadline + _LATE_SECONDS
        self._publisher = Publisher(options, slots, self._run_flow, retry, instrument)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.report}>"

    @property
    def report(self) -> StreamReport:
        """What became of the updates so far; final at the end of the block."""
        return self._publisher.report

    @property
    def cancelled(self) -> threading.Event:
        """Set when the stream has been stopped, by its page or by `stop`. `pipe` ends then; your own loop can look."""
        # Not made before it is needed: it takes 1 KiB.
        found: threading.Event | None = self.__dict__.get("_cancelled")
        return self.__dict__.setdefault("_cancelled", threading.Event()) if found is None else found

    def send(self, update: Payload) -> None:
        """Take an update, to be published with others, and return. `overflow` says whether this may wait.

        Args:
            update: A `str` with `merge="append"`, otherwise anything that can be JSON. It is encoded at once.

        Raises:
            UsageError: The update has the wrong type, or the stream is not open. Nothing changed.
            StreamFullError: There is no room, or there was none for `deadline` seconds. The update was not taken.
            StreamError: The stream ended early: the platform refused an event, or the client was closed.
        """
        hidden = Hidden(update)
        # Crash reporters show the variables of every frame.
        del update
        encoded = self._publisher.buffer.encode(hidden)
        if not self._publisher.offer(encoded):
            self._wait_for(self._publisher.put(encoded))

    @overload
    def pipe(self, source: Iterable[Payload]) -> None: ...

    @overload
    def pipe(self, source: Iterable[T], key: Callable[[T], Payload]) -> None: ...

    def pipe(self, source: Iterable[Any], key: Callable[[Any], Payload] | None = None) -> None:
        """Send all items of an iterable, such as the answer of a language model.

        It reads no faster than `send` takes the items. A stop ends it before the next item is sent. However it ends, it
        closes the source, if that has a `close()`.

        Args:
            source: Yields updates, or events that `key` picks updates from.
            key: Returns the update in an event, or None if there is none.

        Raises:
            UsageError: `source` is no iterable, or an update has the wrong type.
            StreamError: As for `send`.
            Exception: Whatever the source raises, unless the stream has been stopped.
        """
        check_source(source)
        # Its `repr` may show its items.
        hidden = Hidden(source)
        del source
        iterator, cancelled = iter(hidden.value), self.cancelled
        try:
            while not cancelled.is_set():
                try:
                    item = Hidden(next(iterator))
                except StopIteration:
                    break
                update = item if key is None else Hidden(key(item.value))
                if update.value is not None and not cancelled.is_set():
                    self.send(update.value)
        except Exception:
            if not cancelled.is_set():
                raise
        finally:
            close_source(iterator, hidden)

    def stop(self, reason: str | None = None) -> None:
        """Stop the stream early: `cancelled` is set, `pipe` ends, and the end mark says that the app stopped it.

        The block goes on after `pipe`. Any thread may call this; a stop after the first one changes nothing.

        Args:
            reason: Shown to the page.

        Raises:
            UsageError: `reason` is no `str`.
        """
        self._stop("app", reason)

    def fail(self, kind: str, message: str) -> None:
        """Let the end mark say that the stream failed, whether or not the block raises.

        Without it, the end mark of a block that raised has the exception's class and no message.

        Args:
            kind: Type of the failure, for the page's code, such as `"model_unavailable"`.
            message: Text for the page's user.

        Raises:
            UsageError: `kind` or `message` is no `str`, or `kind` is empty.
        """
        self._publisher.fail(kind, message)

    def _stop(self, by: str, reason: str | None) -> None:
        self._publisher.stop(by, reason)
        self.cancelled.set()

    def flush(self) -> None:
        """Publish everything pending at once, and return when the platform has accepted it.

        Raises:
            UsageError: The stream is not open.
            StreamError: It took more than `deadline` seconds (the stream keeps trying), or the stream ended early.
        """
        self._publisher.check()
        self._wait_for(self._publisher.flush())

    def send_snapshot(self) -> None:
        """Publish the whole value with the next update, or soon: for a page that says it has subscribed anew.

        Raises:
            UsageError: The stream is not open.
            StreamError: The stream ended early.
        """
        self._publisher.request_snapshot()

    def __enter__(self) -> Self:
        if self._thread is not None:
            raise UsageError("A stream can be used once: make another one for each block.")
        self._thread = self._worker.join(self)
        try:
            self._wait_for(self._publisher.start(threads=True))
        except BaseException as error:
            self._wait_for(self._end(error), timeout=0, error=error)
            raise
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        reset_if_forked()
        if self._publisher.forked:
            return
        if isinstance(error, GeneratorExit):
            # A forgotten generator is collected in any thread, also in the worker thread, and its block ends there. Or
            # during a `send` whose lock the worker thread waits for: do not wait so long.
            here = threading.current_thread() is self._thread
            assert self._thread is not None
            with contextlib.suppress(ThreadLostError):
                self._thread.wait_for(self._end(error), 0.0 if here else _COLLECTED_SECONDS)
            return
        self._wait_for(self._end(error), error=error)

    def exit(self) -> None:
        """Publish what is left and end the stream, because the interpreter exits. Returns at once."""
        if self._publisher.repeats:
            self.drop_repetition()
            return
        self._exits = True
        self._publisher.buffer.close(
            lambda: StreamError(
                "stream: the interpreter exits; the update was not sent",
                delivery=Delivery.NOT_SENT,
                report=self.report,
            )
        )
        self._wait_for(self._end(SystemExit()), timeout=0, error=SystemExit())

    def drop_repetition(self) -> None:
        """Do not repeat the final snapshot. Any thread may call this."""
        assert self._thread is not None
        # The loop may be closed by now.
        with contextlib.suppress(RuntimeError):
            self._thread.loop.call_soon_threadsafe(self._publisher.drop_repetition)

    def lose(self, failure: ThreadLostError) -> None:
        """End the stream without its thread."""
        self._publisher.lose(failure)

    def _wait_for(
        self, coroutine: Coroutine[Any, Any, None], timeout: float | None = None, error: BaseException | None = None
    ) -> None:
        assert self._thread is not None
        try:
            self._thread.wait_for(coroutine, self._seconds if timeout is None else timeout)
        except ThreadLostError as lost:
            self._publisher.lose(lost)
            self._publisher.conclude(error)

    async def _end(self, error: BaseException | None) -> None:
        try:
            await self._publisher.end(error)
        finally:
            # In the worker thread, where no interrupt comes in between.
            if self._exits or self._worker.closed:
                self._leave()
            else:
                self._publisher.repeat_later(self._leave)

    def _leave(self) -> None:
        assert self._thread is not None
        self._worker.leave(self, self._thread)

    async def _run_flow(self, flow: Flow[object]) -> object:
        assert self._thread is not None
        return await run_flow(flow, self._thread.send)


class PrivateStream(Stream, PageStream):
    """A stream that one page can read and stop. Made by `RealtimeClient.private_stream`.

    Attributes:
        handle: What the page needs: a `dict` to return to it as JSON.
    """

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        private_streams.remove(self)
        super().__exit__(kind, error, traceback)
