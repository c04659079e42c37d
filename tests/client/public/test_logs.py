from __future__ import annotations

import io
import json
import logging
import logging.config
import queue
import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from logging.handlers import QueueHandler
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge_realtime import Invocation, RealtimeClient
from forge_realtime.logs import InvocationFilter, JsonFormatter
from tests.support.callers import QUICK
from tests.support.fault_server import FaultServer, answer, refused_url, reset_after

INVOCATION = Invocation("hidden-id", log_attributes="b3BhcXVl", trace_id="463ac35c9f6413ad")


class Alone(logging.Logger):
    """Logger outside the tree of loggers."""


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def logger(stream: io.StringIO) -> logging.Logger:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    # Not for pytest's handlers: they raise for a record that cannot be formatted.
    logger = Alone("tests.logs", 1)
    logger.addHandler(handler)
    return logger


def look_up(problem: str) -> NoReturn:
    raise LookupError(problem)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    text = stream.getvalue()
    assert text.isascii()
    assert text.count("\n") == len(text.splitlines())
    return [json.loads(line) for line in text.splitlines()]


def test_line_has_documented_properties(logger: logging.Logger, stream: io.StringIO) -> None:
    began = int(time.time() * 1000)
    with INVOCATION.active():
        logger.info("moved %d cards", 7)
    [line] = lines(stream)
    assert began <= line.pop("ts") <= time.time() * 1000
    assert line == {"level": "INFO", "msg": "moved 7 cards", "logger": "tests.logs", "forge_invocation": "b3BhcXVl"}


@pytest.mark.parametrize(
    ("level", "name"),
    [
        (5, "TRACE"),
        (logging.DEBUG, "DEBUG"),
        (15, "DEBUG"),
        (logging.INFO, "INFO"),
        (logging.WARNING, "WARN"),
        (logging.ERROR, "ERROR"),
        (logging.CRITICAL, "FATAL"),
        (60, "FATAL"),
    ],
)
def test_levels_are_documented_ones(logger: logging.Logger, stream: io.StringIO, level: int, name: str) -> None:
    logger.log(level, "x")
    assert lines(stream)[0]["level"] == name


def test_forge_invocation_is_omitted_without_log_attributes(logger: logging.Logger, stream: io.StringIO) -> None:
    logger.info("x")
    with Invocation("i").active():
        logger.info("x")
    without_invocation, within = lines(stream)
    assert sorted(without_invocation) == sorted(within) == ["level", "logger", "msg", "ts"]


def test_exception_and_stack_are_in_the_line(logger: logging.Logger, stream: io.StringIO) -> None:
    try:
        look_up("no board\nwith that name")
    except LookupError:
        logger.exception("failed")
        logger.info("here", stack_info=True)
    failed, here = lines(stream)
    assert failed["msg"] == "failed"
    assert failed["exception"].startswith("Traceback (most recent call last):\n")
    assert failed["exception"].endswith("\nLookupError: no board\nwith that name")
    assert here["exception"].startswith("Stack (most recent call last):\n")


class Odd:
    def __str__(self) -> str:
        raise LookupError("no text")

    __repr__ = __str__


def refuse(*_: Any, **__: Any) -> NoReturn:
    raise LookupError("no text")


OddText: Any = type("OddText", (str,), dict.fromkeys(("__str__", "__format__", "__mod__", "encode"), refuse))


class OddError(Exception):
    def __str__(self) -> str:
        raise LookupError("no text")


@pytest.mark.parametrize(
    ("message", "arguments", "text"),
    [
        (b"bytes", (), "b'bytes'"),
        ("%s", (b"\xff",), "b'\\xff'"),
        ("%d", ("seven",), "%d (cannot be formatted)"),
        ("%s %s", ("one",), "%s %s (cannot be formatted)"),
        ("%s", (Odd(),), "%s (cannot be formatted)"),
        (Odd(), (), "Odd (cannot be formatted)"),
        ("two\nlines\r\nand\u2028more\x00\x85", (), "two\nlines\r\nand\u2028more\x00\x85"),
        ("lone \ud83d\ude00 surrogates", (), "lone \\ud83d\\ude00 surrogates"),
        ("naïve 🚀", (), "naïve 🚀"),
        (None, (), "None"),
        ({"a": 1}, (), "{'a': 1}"),
    ],
)
def test_any_message_can_be_formatted(
    logger: logging.Logger, stream: io.StringIO, message: Any, arguments: tuple[Any, ...], text: str
) -> None:
    logger.info(message, *arguments)
    [line] = lines(stream)
    assert line["msg"] == text


def test_text_with_methods_that_raise_can_be_formatted(logger: logging.Logger, stream: io.StringIO) -> None:
    logger.info(OddText("odd"))
    logger.info("%s", OddText("odd"))
    assert [line["msg"] for line in lines(stream)] == ["odd (cannot be formatted)", "%s (cannot be formatted)"]


@pytest.mark.parametrize(
    ("attributes", "exception"),
    [
        ({"exc_info": 5}, "(cannot be formatted)"),
        (
            {"exc_info": (OddError, OddError(), None)},
            "tests.client.public.test_logs.OddError: <exception str() failed>",
        ),
        ({"exc_info": (None, None, None)}, "NoneType: None"),
        ({"exc_text": "a \ud800", "stack_info": "Stack"}, "a \\ud800\nStack"),
        ({"stack_info": 5}, "(cannot be formatted)"),
    ],
)
def test_any_exception_can_be_formatted(attributes: dict[str, Any], exception: str) -> None:
    record = logging.makeLogRecord({"msg": "x", **attributes})
    line = json.loads(JsonFormatter().format(record))
    assert line["msg"] == "x"
    assert line["level"] == "INFO"
    assert line["exception"].rpartition("tests.client.")[2] == exception.rpartition("tests.client.")[2]


@given(text=st.text(st.characters()), log_attributes=st.text(st.characters(), min_size=1))
def test_any_text_is_one_line(text: str, log_attributes: str) -> None:
    with Invocation("i", log_attributes=log_attributes).active():
        formatted = JsonFormatter().format(logging.makeLogRecord({"msg": text, "exc_text": text}))
    assert formatted.isascii()
    assert formatted.isprintable()
    line = json.loads(formatted)
    readable = text.encode(errors="backslashreplace").decode()
    assert (line["msg"], line.get("exception", "")) == (readable, readable)
    assert line["forge_invocation"] == log_attributes.encode(errors="backslashreplace").decode()


def ring() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


def test_fields_of_extra_are_an_object(logger: logging.Logger, stream: io.StringIO) -> None:
    extra = {"board": 42, "moved": {"cards": [7, None, True]}, "level": "own", "ts": "own", "logger": "own"}
    logger.info("moved", extra=extra)
    logger.info("moved", extra={})
    first, second = lines(stream)
    assert first["extra"] == extra
    assert (first["level"], first["logger"], first["msg"]) == ("INFO", "tests.logs", "moved")
    assert "extra" not in second
    # Each property once: JSON readers take the last of two.
    names = [name for name, _ in json.loads(stream.getvalue().splitlines()[0], object_pairs_hook=list)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (LookupError("no board"), "LookupError: no board"),
        ([LookupError("no board")], ["LookupError: no board"]),
        (datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01 00:00:00+00:00"),
        ({1: {"b": b"x"}}, {"1": {"b": "b'x'"}}),
        ({(1, 2): 3}, "{(1, 2): 3}"),
        (float("nan"), "nan"),
        (["naïve 🚀 \ud800", {"\udfff": 1}], ["naïve 🚀 \\ud800", {"\\udfff": 1}]),
        ("\\ud800", "\\ud800"),
        (ring(), "[[...]]"),
        (Odd(), "(cannot be formatted)"),
        ([OddError()], ["(cannot be formatted)"]),
        ([OddText("odd")], ["odd"]),
    ],
)
def test_any_field_can_be_formatted(logger: logging.Logger, stream: io.StringIO, value: object, shown: object) -> None:
    logger.info("x", extra={"field": value})
    [line] = lines(stream)
    assert line["extra"] == {"field": shown}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.text(st.characters()).map("x".__add__), JSON, min_size=1))
def test_json_of_extra_is_kept(extra: dict[str, Any]) -> None:
    formatted = JsonFormatter().format(logging.makeLogRecord({"msg": "x", **extra}))
    assert formatted.isascii()
    assert formatted.isprintable()
    readable = {name.encode(errors="backslashreplace").decode(): value for name, value in extra.items()}
    assert json.loads(formatted)["extra"] == readable


def test_formatter_of_another_handler_adds_no_field(logger: logging.Logger, stream: io.StringIO) -> None:
    plain = logging.StreamHandler(io.StringIO())
    plain.setFormatter(logging.Formatter("%(asctime)s %(message)s %(taskName)s", defaults={"taskName": None}))
    plain.addFilter(InvocationFilter())
    logger.handlers.insert(0, plain)
    logger.info("x")
    assert sorted(lines(stream)[0]) == ["level", "logger", "msg", "ts"]


def test_filter_works_with_any_format(stream: io.StringIO) -> None:
    handler = logging.StreamHandler(stream)
    handler.addFilter(InvocationFilter())
    handler.setFormatter(logging.Formatter("%(message)s [%(forge_invocation)s]"))
    for invocation in (INVOCATION, Invocation("i")):
        with invocation.active():
            handler.handle(logging.makeLogRecord({"msg": "x"}))
    handler.handle(logging.makeLogRecord({"msg": "x"}))
    handler.handle(logging.makeLogRecord({"msg": "x", "forge_invocation": 5}))
    assert stream.getvalue() == "x [b3BhcXVl]\nx [None]\nx [None]\nx [None]\n"


def test_filter_keeps_invocation_for_another_thread() -> None:
    records: queue.Queue[logging.LogRecord] = queue.Queue()
    handler = QueueHandler(records)
    handler.addFilter(InvocationFilter())
    with INVOCATION.active():
        handler.handle(logging.makeLogRecord({"msg": "within"}))
    handler.handle(logging.makeLogRecord({"msg": "outside"}))
    # As a QueueListener does, in a thread with another current invocation.
    with Invocation("i", log_attributes="another").active():
        within, outside = (json.loads(JsonFormatter().format(records.get())) for _ in range(2))
    assert within["forge_invocation"] == "b3BhcXVl"
    assert "forge_invocation" not in outside


def test_two_handlers_can_format_one_record(logger: logging.Logger, stream: io.StringIO) -> None:
    plain = logging.StreamHandler(io.StringIO())
    logger.handlers.insert(0, plain)
    try:
        look_up("no board")
    except LookupError:
        logger.exception("failed")
    assert lines(stream)[0]["exception"].count("LookupError: no board") == 1


PROGRAM = """
import logging, logging.config, sys
from forge_realtime import Invocation
from forge_realtime.logs import JsonFormatter

if sys.argv[1] == "code":
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
else:
    formatter = {sys.argv[1]: "forge_realtime.logs.JsonFormatter"}
    handler = {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "json", "filters": ["i"]}
    logging.config.dictConfig({
        "version": 1,
        "filters": {"i": {"()": "forge_realtime.logs.InvocationFilter"}},
        "formatters": {"json": formatter},
        "handlers": {"stdout": handler},
        "root": {"level": "INFO", "handlers": ["stdout"]},
    })
with Invocation("i", log_attributes="b3BhcXVl").active():
    logging.getLogger("app").warning("na\\u00efve\\n%s", "\\ud800", extra={"board": 42})
"""


@pytest.mark.parametrize("configuration", ["code", "()", "class"])
def test_configurations_write_to_standard_output(configuration: str) -> None:
    # ASCII can encode neither of the two characters.
    command = [sys.executable, "-c", PROGRAM, configuration]
    environment = {"PYTHONIOENCODING": "ascii"}
    run = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
    assert run.stderr == ""
    line = json.loads(run.stdout)
    assert isinstance(line.pop("ts"), int)
    assert line == {
        "level": "WARN",
        "msg": "naïve\n\\ud800",
        "logger": "app",
        "forge_invocation": "b3BhcXVl",
        "extra": {"board": 42},
    }


FIRST_LOOK = """
import logging, sys
if sys.argv[1] == "app":
    logging.basicConfig(stream=sys.stdout, format="app: %(message)s")
from forge_realtime import Delivery, NoResponseError, RealtimeClient, RetryPolicy
if sys.argv[1] == "later":
    logging.basicConfig(format="app: %(message)s")
if sys.argv[1] == "file":
    logging.basicConfig(filename="app.log")
with RealtimeClient(sys.argv[2], retry=RetryPolicy(max_attempts=2, backoff_initial=0.001)) as client:
    try:
        client.for_installation("hidden-id").publish_global("hidden-channel", "hidden-payload")
    except NoResponseError:
        pass
"""


@pytest.mark.parametrize(
    ("value", "levels"),
    [
        ("debug", ["DEBUG", "INFO", "DEBUG", "WARNING"]),
        (" Info ", ["INFO", "WARNING"]),
        ("", []),
        (None, []),
    ],
)
@pytest.mark.parametrize("app", ["none", "app", "later", "file"])
def test_variable_shows_the_log_once(value: str | None, levels: list[str], app: str, tmp_path: Path) -> None:
    environment = {} if value is None else {"FORGE_REALTIME_LOG": value}
    command = [sys.executable, "-W", "error", "-c", FIRST_LOOK, app, refused_url()]
    run = subprocess.run(command, check=True, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert "hidden" not in run.stdout + run.stderr
    if app in ("app", "later"):
        # The app shows them itself, on its own stream. Without the variable, those from WARNING on.
        shown = run.stdout if app == "app" else run.stderr
        assert shown.count("app: publish_global: ") == len(levels or ["WARNING"])
        assert run.stdout + run.stderr == shown
        return
    shown_levels = re.findall(r"^\[[\d:, -]+ forge_realtime (\w+)\] publish_global: ", run.stderr, re.MULTILINE)
    assert shown_levels == levels
    assert len(run.stderr.splitlines()) == len(levels)
    assert run.stdout == ""


def test_variable_with_another_value_warns_without_showing_it() -> None:
    program = "from forge_realtime import RealtimeClient; import forge_realtime._core.log"
    environment = {"FORGE_REALTIME_LOG": "hidden"}
    run = subprocess.run([sys.executable, "-c", program], check=True, env=environment, capture_output=True, text=True)
    assert run.stderr.count("RuntimeWarning: FORGE_REALTIME_LOG takes debug or info. Its value is neither.") == 1
    assert "hidden" not in run.stderr


def test_client_logs_no_secrets(stream: io.StringIO) -> None:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("forge_realtime")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    # Not literals in the call: a traceback quotes its line.
    channel, payload = "hidden-channel", "hidden-payload"
    try:
        with (
            FaultServer(reset_after, answer(429), then=answer(400, {"message": "hidden-answer"})) as server,
            RealtimeClient(server.url, retry=QUICK) as client,
            INVOCATION.active(),
        ):
            try:
                client.publish_global(channel, payload)
            except Exception:
                logger.exception("failed")
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    assert {line["forge_invocation"] for line in lines(stream)} == {"b3BhcXVl"}
    assert {line["level"] for line in lines(stream)} == {"DEBUG", "INFO", "WARN", "ERROR"}
    assert "hidden" not in stream.getvalue()
