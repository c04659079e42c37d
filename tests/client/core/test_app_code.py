"""Code of the app that the client calls never changes what is said of the event: log handlers, filters and hooks."""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import httpx2
import pytest
from attrs import evolve

from forge_realtime import (
    AsyncRealtimeClient,
    Attempt,
    Delivery,
    PublishResult,
    Quota,
    RealtimeClient,
    RejectedError,
    RetryPolicy,
)
from forge_realtime._core import log as _log
from tests.support.callers import INVOCATION, QUICK, Caller
from tests.support.fault_server import FaultServer, answer, reset_after

# It would be taken for a failure of the connection.
DOWN = ConnectionRefusedError("the log collector is down")


class RaisingHandler(logging.Handler):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        # The test's own event loop logs, too.
        if record.name != "asyncio":
            self.records.append(record)
            raise self.error


class RaisingFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return bool(vars(record)["user_id"])


class RaisingFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        raise LookupError("no format")


class RaisingErrorHandler(logging.StreamHandler[Any]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (a method of logging)
        if record.name != "asyncio":
            raise OSError("standard error is closed")


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[warnings.WarningMessage]]:
    """The warnings, as if nothing had been shown before."""
    monkeypatch.setattr(_log, "_reported", set())
    with warnings.catch_warnings(record=True, category=RuntimeWarning) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        yield caught


@contextmanager
def logging_to(name: str, *, handler: logging.Handler | None = None, filter_: logging.Filter | None = None) -> Any:
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.DEBUG)
    try:
        if handler is not None:
            logger.addHandler(handler)
        if filter_ is not None:
            logger.addFilter(filter_)
        yield
    finally:
        logger.setLevel(level)
        if handler is not None:
            logger.removeHandler(handler)
        if filter_ is not None:
            logger.removeFilter(filter_)


def raising_error_handler() -> logging.Handler:
    handler = RaisingErrorHandler()
    handler.setFormatter(RaisingFormatter())
    return handler


BROKEN: dict[str, Callable[[], Any]] = {
    "handler": lambda: logging_to("forge_realtime", handler=RaisingHandler(DOWN)),
    "handler of the root": lambda: logging_to("", handler=RaisingHandler(DOWN)),
    "handler of httpcore": lambda: logging_to("httpcore", handler=RaisingHandler(TimeoutError())),
    "handler of a logger of httpcore": lambda: logging_to("httpcore.http11", handler=RaisingHandler(DOWN)),
    "filter": lambda: logging_to("forge_realtime", filter_=RaisingFilter()),
    "error handler": lambda: logging_to("", handler=raising_error_handler()),
    "recursion": lambda: logging_to("", handler=RaisingHandler(RecursionError())),
}


def publish(live: Any) -> Any:
    return live.publish("board-42", {"moved": 7})


@pytest.mark.parametrize("broken", BROKEN)
def test_log_handlers_and_filters_that_raise_change_no_result(caller: Caller, broken: str, warned: list[Any]) -> None:
    with FaultServer(reset_after, answer(429), then=answer(200, {"eventId": "e"})) as server, BROKEN[broken]():
        [result, again] = caller(server.url, publish, publish)
    assert isinstance(result, PublishResult)
    assert [attempt.delivery.name for attempt in result.attempts] == ["UNKNOWN", "REJECTED", "ACCEPTED"]
    assert [attempt.delivery.name for attempt in again.attempts] == ["ACCEPTED"]
    assert len(server.received) == 4
    if caller.kind != "aiohttp" or "httpcore" not in broken:
        assert len(warned) == 1


@pytest.mark.parametrize("broken", BROKEN)
def test_log_handlers_and_filters_that_raise_change_no_error(caller: Caller, broken: str, warned: list[Any]) -> None:
    with FaultServer(then=answer(400, {"code": "NO"})) as server, BROKEN[broken]():
        [error] = caller(server.url, publish)
    assert type(error) is RejectedError
    assert (error.delivery, error.code, len(error.attempts)) == (Delivery.REJECTED, "NO", 1)
    assert len(warned) <= 1


def test_exception_of_a_handler_is_shown_once(warned: list[Any]) -> None:
    with FaultServer() as server, logging_to("forge_realtime", handler=RaisingHandler(DOWN)):
        Caller("sync")(server.url, publish, publish)
    [warning] = warned
    assert str(warning.message) == (
        "A log handler or filter raised ConnectionRefusedError during a call of forge_realtime. The call went on. This "
        "is shown once."
    )
    assert warning.filename == __file__


@pytest.mark.filterwarnings("error")
def test_warnings_as_errors_change_nothing(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_log, "_reported", set())
    with FaultServer() as server, logging_to("forge_realtime", handler=RaisingHandler(DOWN)):
        [result] = caller(server.url, publish)
    assert result.event_id == "event-1"


@pytest.mark.filterwarnings("always")
def test_warnings_in_the_log_change_nothing(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_log, "_reported", set())
    logging.captureWarnings(True)
    try:
        with FaultServer() as server, logging_to("", handler=RaisingHandler(DOWN)):
            [result] = caller(server.url, publish)
    finally:
        logging.captureWarnings(False)
    assert result.event_id == "event-1"


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_interrupts_in_a_log_handler_are_let_through(interrupt: type[BaseException], warned: list[Any]) -> None:
    with (
        FaultServer() as server,
        RealtimeClient(server.url) as client,
        logging_to("forge_realtime", handler=RaisingHandler(interrupt())),
        pytest.raises(interrupt),
    ):
        publish(client.for_invocation(INVOCATION))
    assert warned == []


def test_record_factory_that_raises_changes_nothing(caller: Caller, warned: list[Any]) -> None:
    def refuse(*_: Any, **__: Any) -> logging.LogRecord:
        raise LookupError("no record")

    factory = logging.getLogRecordFactory()
    with FaultServer() as server, logging_to("forge_realtime", handler=logging.NullHandler()):
        logging.setLogRecordFactory(refuse)
        try:
            [result] = caller(server.url, publish)
        finally:
            logging.setLogRecordFactory(factory)
    assert result.event_id == "event-1"
    assert len(warned) == 1


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_http_client_logs_are_guarded_too(library: Any, warned: list[Any]) -> None:
    with (
        FaultServer() as server,
        logging_to(library.__name__, handler=RaisingHandler(DOWN)),
        library.Client() as http_client,
        RealtimeClient(server.url, http_client=http_client) as client,
    ):
        assert publish(client.for_invocation(INVOCATION)).event_id == "event-1"
        assert len(warned) == 1
        # Outside of a call, the app's own requests fail as before.
        with pytest.raises(ConnectionRefusedError):
            http_client.post(server.url, content=b"{}")


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_filters_of_the_app_hold_for_http_client_logs(library: Any, caplog: pytest.LogCaptureFixture) -> None:
    refuse, accept = logging.Filter("nobody"), logging.Filter()
    with (
        FaultServer() as server,
        logging_to(library.__name__, filter_=refuse),
        library.Client() as http_client,
        RealtimeClient(server.url, http_client=http_client) as client,
    ):
        publish(client.for_invocation(INVOCATION))
        assert [record.name for record in caplog.records] == []
        logging.getLogger(library.__name__).removeFilter(refuse)
        with logging_to(library.__name__, filter_=accept):
            publish(client.for_invocation(INVOCATION))
        assert [record.name for record in caplog.records] == [library.__name__]


def test_lookup_of_the_installation_is_guarded_too(warned: list[Any]) -> None:
    with (
        FaultServer(answer(200, {"app": {"installationId": "i"}})) as server,
        logging_to("", handler=RaisingHandler(DOWN)),
        RealtimeClient(server.url, quota=Quota()) as client,
    ):
        assert publish(client.for_invocation(INVOCATION)).event_id == "event-1"
    assert [request.path for request in server.received] == ["/invocation/context", "/forge/realtime/v1/publish"]
    assert len(warned) == 1


class AlwaysRaisingHandler(RaisingHandler):
    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        raise self.error


@pytest.mark.parametrize("name", ["", "asyncio"])
def test_handler_that_raises_for_the_log_of_asyncio_does_not_stop_a_stream(name: str, warned: list[Any]) -> None:
    handler = AlwaysRaisingHandler(DOWN)
    with (
        FaultServer() as server,
        RealtimeClient(server.url) as client,
        logging_to("asyncio"),
        logging_to(name, handler=handler),
        client.for_invocation(INVOCATION).stream("c") as stream,
    ):
        stream.send("x")
        stream.flush()
        assert stream.report.sent == 1
    # "Using selector": the event loop of the stream.
    assert "asyncio" in {record.name for record in handler.records}
    assert len(warned) == 1


class PublishingHandler(logging.Handler):
    """Publishes every record."""

    def __init__(self, live: Any) -> None:
        super().__init__()
        self.live = live
        self.events = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.events += 1
        assert self.events < 100, "no end"
        self.live.publish("logs", record.getMessage())


def test_root_handler_that_publishes_ends(warned: list[Any]) -> None:
    with FaultServer() as server, RealtimeClient(server.url) as client:
        live = client.for_invocation(INVOCATION)
        handler = PublishingHandler(live)
        with logging_to("", handler=handler):
            assert publish(live).event_id == "event-1"
        assert handler.events > 1
        assert len(server.received) == handler.events + 1
        assert warned == []


def test_root_handler_that_publishes_in_a_task_ends() -> None:
    tasks: list[asyncio.Task[Any]] = []

    async def run() -> None:
        class Handler(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                tasks.append(asyncio.create_task(live.publish("logs", record.getMessage())))

        async with AsyncRealtimeClient(server.url) as client:
            live = client.for_invocation(INVOCATION)
            with logging_to("forge_realtime", handler=Handler()):
                await live.publish("c", "p")
                await asyncio.gather(*tasks)

    with FaultServer() as server:
        asyncio.run(run())
    assert len(tasks) == 1
    assert len(server.received) == 2


def test_records_name_the_line_that_logs() -> None:
    handler = RaisingHandler(DOWN)
    with FaultServer() as server, logging_to("forge_realtime", handler=handler):
        Caller("sync")(server.url, publish)
    assert {record.filename for record in handler.records} == {"call.py"}


@pytest.mark.parametrize("error", [DOWN, RecursionError(), MemoryError(), httpx.ReadError("reset")])
def test_on_attempt_that_raises_changes_no_result(
    caller: Caller, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def on_attempt(_: Attempt) -> None:
        raise error

    with FaultServer(answer(429)) as server:
        [result] = caller(server.url, publish, retry=evolve(QUICK, on_attempt=on_attempt))
    assert [attempt.delivery.name for attempt in result.attempts] == ["REJECTED", "ACCEPTED"]
    assert caplog.messages.count("publish: RetryPolicy.on_attempt failed") == 2


def test_on_attempt_and_log_handler_that_raise_change_no_result(caller: Caller, warned: list[Any]) -> None:
    retry = RetryPolicy(on_attempt=lambda _: 1 / 0)
    with FaultServer() as server, logging_to("", handler=RaisingHandler(DOWN)):
        [result] = caller(server.url, publish, retry=retry)
    assert result.event_id == "event-1"
    assert len(warned) == 1


@pytest.fixture(autouse=True)
def stop_reporting() -> Iterator[None]:
    """Forget what was reported here: another test may raise at the same line."""
    yield
    _log._reported.clear()
