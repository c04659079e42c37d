"""Parsers of what the platform sends: whatever it is, no exception leaves them but the client's own."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from forge_realtime import ForgeRealtimeError, RealtimeClient, RetryPolicy
from forge_realtime._core.responses import Failure, Response, read_response
from forge_realtime._core.retry import http_date, retry_after
from forge_realtime._realtime.operations import publish_result, realtime_token
from forge_realtime._realtime.results import epoch_or_iso
from forge_realtime._realtime.tokens import PlatformClock, check_token
from tests.support.callers import INVOCATION, Caller
from tests.support.fault_server import FaultServer, answer, raw
from tests.support.tokens import encode, token

# They have broken parsers: dateutil, int(), float(), datetime, json and codecs.
HOSTILE_TEXTS = [
    "Sun, 1" + "9" * 40 + "h2020s",
    "Sun, 99 Nov 2026 12:00:30 GMT",
    "Sun, 06 Nov 0000 08:49:37 GMT",
    "Sun, 06 Nov 9999 23:59:60 GMT",
    "Sun, 06 Nov 1994 24:61:61 GMT",
    "Sun, 06 Nov 1994 08:49:37 +9999999999999999999",
    "Sun, 06 Nov 1994 08:49:37 GMT" + "x" * 10_000,
    "Sunday, 06-Nov-94 08:49:37 GMT",
    "Sun Nov  6 08:49:37 1994",
    "9" * 5_000,
    "1" + "0" * 400,
    "0." + "0" * 5_000 + "1",
    "-1",
    "1e999",
    "NaN",
    "Infinity",
    "\ud800",
    "\x00",
    "٣",
    "2026-W01-1T00",
    "2026-01-01T24:00:00+99:99",
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-23:59",
]
HOSTILE_BODIES = [
    b"",
    b"\xff\xfe",
    b"\xef\xbb\xbf{}",
    b"NaN",
    b"-Infinity",
    b"[" * 200_000,
    b'{"a":' * 200_000,
    b'{"eventId":' + b"9" * 5_000 + b"}",
    b'{"eventId": "\\ud800", "eventTimestamp": NaN}',
    b'{"eventId": "e", "eventTimestamp": Infinity}',
    b'{"eventId": "e", "eventTimestamp": 1e999}',
    b'{"eventId": "e", "eventTimestamp": ' + b"9" * 4_000 + b"}",
    b'{"token": "\\ud800", "expiresAt": -1e300}',
    b'{"token": "t", "expiresAt": "' + b"9" * 5_000 + b'"}',
    b'{"errors": {"errors": {"errors": [1]}}}',
    b'{"errors": [[[[]]], null, {"message": []}, {"code": {}}]}',
    b'{"errors": "RATE_LIMIT_EXCEEDED"}',
    b'{"eventId": {}, "eventTimestamp": []}',
]
CONTENT_TYPES = ["", "text/plain; charset=rot13", "text/plain; charset=zlib", "a; charset*=x'y'z", 'a; charset="\x00"']

texts = st.sampled_from(HOSTILE_TEXTS) | st.text(st.characters())
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.sampled_from(HOSTILE_TEXTS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)
names = st.sampled_from(["eventId", "eventTimestamp", "token", "expiresAt", "errors", "code", "message"])
bodies = (
    st.sampled_from(HOSTILE_BODIES)
    | st.binary()
    | st.dictionaries(names, json_values).map(lambda body: json.dumps(body).encode())
)
header_values = st.binary(max_size=40) | st.sampled_from([text.encode("utf-8", "replace") for text in HOSTILE_TEXTS])
header_names = st.sampled_from([b"Retry-After", b"Date", b"Content-Type", b"forge-proxy-error", b"x"])
headers = st.lists(st.tuples(header_names, header_values), max_size=5)
statuses = st.sampled_from([200, 201, 204, 302, 400, 401, 429, 500, 503, 599]) | st.integers(100, 999)


@given(value=texts, date=texts)
@example(value="Sun, 06 Nov 1994 08:49:37 GMT", date="Sun, 06 Nov 9999 08:49:37 GMT")
def test_any_retry_after_is_a_number_of_seconds_or_none(value: str, date: str) -> None:
    seconds = retry_after({"retry-after": value, "date": date})
    assert seconds is None or 0 <= seconds < 1e300


def test_retry_after_of_many_digits_is_a_long_wait() -> None:
    assert retry_after({"retry-after": "9" * 400}) == 1e12


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)),
        ("Sunday, 06-Nov-94 08:49:37 GMT", datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)),
        ("Sun Nov  6 08:49:37 1994", datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)),
        ("Sun, 06 Nov 1994 08:49:37 +0000", datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)),
        ("Sun, 30 Feb 2026 08:49:37 GMT", None),
        ("Sun, 06 Nov 1994 08:49 GMT", None),
        ("Sun, 06 Nov 1994 08:49:37", None),
        ("Sun, 06 Nov 1994 08:49:37 EST", None),
        ("06 Nov 1994 08:49:37 GMT", None),
        ("Sun, 06 Nov", None),
        ("Sun, 06 Foo 1994 08:49:37 GMT", None),
        ("1994-11-06T08:49:37Z", None),
        ("Sun, \u06606 Nov 1994 08:49:37 GMT", None),
        ("", None),
    ],
)
def test_dates_are_read_strictly(text: str, moment: datetime | None) -> None:
    assert http_date(text) == moment


@given(texts)
def test_any_text_is_a_date_or_none(text: str) -> None:
    assert http_date(text) is None or text.isascii()


@given(st.datetimes(datetime(1970, 1, 1), datetime(2068, 1, 1)).map(lambda moment: moment.replace(microsecond=0)))  # noqa: DTZ001 (naive bounds)
def test_every_format_of_a_date_is_read(moment: datetime) -> None:
    for form in ("%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"):
        assert http_date(moment.strftime(form)) == moment.replace(tzinfo=UTC)


@given(value=texts | st.floats() | st.integers() | st.none(), per_second=st.sampled_from([1, 1000]))
def test_any_time_is_read_or_none(value: Any, per_second: int) -> None:
    moment = epoch_or_iso(value, per_second=per_second)
    assert moment is None or moment.tzinfo is UTC


@given(text=texts, payload=json_values, now=st.floats())
def test_any_token_is_accepted_or_refused(text: str, payload: Any, now: float) -> None:
    for candidate in (text, token("c", exp=payload, permissions=payload), f"a.{encode({'channel': payload})}.c"):
        try:
            check_token(candidate, "c", now)
        except ForgeRealtimeError as error:
            assert str(error).startswith("Realtime token validation failed: ")  # noqa: PT017 (either is right)


class Operation:
    """A generated operation that raises while it parses."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def _get_kwargs(self) -> dict[str, Any]:
        return {}

    def _parse_response(self, *, client: Any, response: Any) -> None:
        raise self.error


@pytest.mark.parametrize("error", [ArithmeticError(), LookupError(), OSError(), RecursionError(), UnicodeError()])
def test_parser_that_raises_is_an_unexpected_response(error: Exception) -> None:
    outcome = read_response(Operation(error), Response(200, httpx.Headers(), b"{}"), lambda *_: None, ())
    assert isinstance(outcome, Failure)
    assert outcome.kind.__name__ == "UnexpectedResponseError"


@given(status=statuses, body=bodies, fields=headers)
@settings(deadline=None)
def test_any_response_is_a_result_or_a_failure(status: int, body: bytes, fields: list[tuple[bytes, bytes]]) -> None:
    from forge_realtime._api.api.forge_realtime import publish, sign_realtime_token

    def token_of(*arguments: Any) -> Any:
        return realtime_token(PlatformClock(), *arguments)

    cases: list[tuple[Any, Any]] = [(publish, publish_result), (sign_realtime_token, token_of)]
    for operation, convert in cases:
        outcome = read_response(operation, Response(status, httpx.Headers(fields), body), convert, ())
        if isinstance(outcome, Failure):
            error = outcome.error("message", outcome.delivery, ())
            assert isinstance(error, ForgeRealtimeError)


@given(body=bodies, content_type=st.sampled_from(CONTENT_TYPES) | st.text(st.characters(codec="latin-1")))
@settings(deadline=None)
def test_any_body_is_text(body: bytes, content_type: str) -> None:
    response = Response(200, httpx.Headers([(b"Content-Type", content_type.encode("latin-1"))]), body)
    assert isinstance(response.text, str)


def test_text_is_decoded_as_its_content_type_says() -> None:
    for charset in ("utf-8", "latin-1", "utf-16"):
        headers = httpx.Headers({"Content-Type": f"text/plain; charset={charset}"})
        assert Response(200, headers, "Zoë".encode(charset)).text == "Zoë"


@pytest.mark.parametrize("status", [200, 400, 429, 500, 503])
@pytest.mark.parametrize("value", [text for text in HOSTILE_TEXTS if text.isascii() and text.isprintable()])
def test_any_retry_after_ends_in_an_error_with_delivery(status: int, value: str) -> None:
    # One attempt each: a wait would be the server's.
    policy = RetryPolicy(max_attempts=1)

    def respond(_: httpx.Request) -> httpx.Response:
        return httpx.Response(status, headers={"Retry-After": value, "Date": value})

    with RealtimeClient("http://x.test", retry=policy, transport=httpx.MockTransport(respond)) as client:
        live = client.for_invocation(INVOCATION)
        for call in (lambda: live.publish("c", "x"), lambda: live.sign_realtime_token("c", {})):
            with pytest.raises(ForgeRealtimeError) as caught:
                call()
            assert len(caught.value.attempts) == 1


@pytest.mark.parametrize("body", HOSTILE_BODIES, ids=range(len(HOSTILE_BODIES)))
def test_any_body_over_the_wire_is_a_result_or_an_error(caller: Caller, body: bytes) -> None:
    calls = (lambda live: live.publish("c", "x"), lambda live: live.sign_realtime_token("c", {}))
    for status in (200, 400, 500):
        with FaultServer(then=answer(status, body)) as server:
            outcomes = caller(server.url, *calls, retry=RetryPolicy(max_attempts=1))
        assert len(outcomes) == 2
        if status != 200:
            assert all(isinstance(outcome, ForgeRealtimeError) for outcome in outcomes)


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 4_000, "more than 64 KiB before the response"),
        (b"", "Server disconnected without sending a response."),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
            "peer closed connection without sending complete message body (received 2 bytes, expected 100)",
        ),
    ],
)
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_reason_of_a_broken_response_is_in_the_message(kind: Any, sent: bytes, says: str) -> None:
    with FaultServer(then=raw(sent)) as server:
        [error] = Caller(kind)(server.url, lambda live: live.publish("c", "x"), retry=RetryPolicy(max_attempts=1))
    assert f"no response (RemoteProtocolError: {says}); it may have been carried out" in str(error)
