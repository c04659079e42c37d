"""One call of a generated operation: every decision between its first attempt and its result, and no I/O.

`call_flow` is a generator that asks for attempts and waits. The clients carry them out, one with blocking I/O and one with
asyncio, and decide nothing themselves.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any, Final, ParamSpec, Protocol, TypeAlias, TypeVar, cast

import httpx
from attrs import define, evolve, field

from .._api import Client
from .._api.errors import UnexpectedStatus
from .errors import (
    Attempt,
    Delivery,
    ForgeRealtimeError,
    NoResponseError,
    OverQuotaError,
    RateLimitedError,
    RejectedError,
    ResponseError,
    ServerError,
    TimedOutError,
    UnexpectedResponseError,
)
from .log import logger
from .retry import RetryBudget, RetryPolicy, retry_after

P = ParamSpec("P")
M = TypeVar("M")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
E = TypeVar("E", bound=ResponseError)

_ERROR_BODY_BYTES: Final = 64 * 1024
# What the generated parsers raise for a body that is not JSON or not of the documented shape.
_PARSER_ERRORS: Final = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
_CODE: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}", re.ASCII)
_DOCUMENTED_MESSAGES: Final = frozenset(
    {"Unauthorized request", "Error publishing event to channel", "Error signing realtime token"}
)
# With it, a generated parser tells a status outside the document from a documented answer without a body.
_STRICT: Final = Client(base_url="", raise_on_unexpected_status=True)


class Operation(Protocol[P, T_co]):
    """A generated endpoint module, for example `forge_realtime._api.api.forge_realtime.publish`."""

    def _get_kwargs(self, *args: P.args, **kwargs: P.kwargs) -> dict[str, Any]: ...

    def _parse_response(self, *, client: Any, response: Any) -> T_co | None: ...


class TrackedBody(httpx.ByteStream):
    """A request body that knows whether the platform can have received all of it.

    With blocking I/O a transport asks for more only after it has written what it got: a body that was never asked for its
    end has not left completely. With asyncio what was handed over may leave at any later time.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.content = content
        self.sent = False

    def __iter__(self) -> Iterator[bytes]:
        yield self.content
        self.sent = True

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.sent = True
        yield self.content


@define(eq=False, repr=False)
class PreparedRequest:
    """A request of which each attempt makes an `httpx.Request` of its own.

    Attributes:
        name: The operation's name in messages.
    """

    name: str
    method: str
    url: httpx.URL
    headers: list[tuple[bytes, bytes]]
    content: bytes

    def request(self, body: TrackedBody) -> httpx.Request:
        return httpx.Request(self.method, self.url, headers=self.headers, stream=body)


@define(eq=False, repr=False)
class Response:
    """An answer, read to its end and decoded: as much of an `httpx.Response` as generated operations read."""

    status_code: int
    headers: httpx.Headers
    content: bytes
    _parsed: Any = field(init=False, default=None)

    def json(self) -> Any:
        """The body, parsed once."""
        if self._parsed is None:
            self._parsed = json.loads(self.content)
        return self._parsed

    @property
    def text(self) -> str:
        """The body as text, in the encoding that its type names."""
        type_ = {"content-type": self.headers.get("content-type", "")}
        return httpx.Response(self.status_code, headers=type_, content=self.content).text


@define(eq=False)
class Send:
    """Send `request`, read the whole answer, and be done within `timeout` seconds."""

    request: httpx.Request
    timeout: float


@define(eq=False)
class Sleep:
    """Wait so many seconds."""

    seconds: float


# Not every transport turns every error of the operating system or of TLS into one of httpx.
FAILURES: Final = (httpx.RequestError, OSError)
Failure: TypeAlias = httpx.RequestError | OSError

# An attempt is answered with what came of it, a wait with None.
Flow: TypeAlias = Generator[Send | Sleep, Response | Failure | None, T]


class RateLimiter(Protocol):
    """What lets each attempt of a call begin: the quota."""

    def acquire(self, until: float) -> Flow[bool]:
        """Waits until an attempt may begin; False: none may before `until`, in seconds of `time.monotonic()`."""
        ...

    def slow_down(self, retry_after: float | None) -> None:
        """Learns of a 429."""
        ...


def call_flow(
    operation: Operation[P, M],
    prepared: PreparedRequest,
    convert: Callable[[M, tuple[Attempt, ...]], T],
    *,
    policy: RetryPolicy,
    budget: RetryBudget,
    duplicate_harmless: bool,
    started: float,
    limiter: RateLimiter | None = None,
) -> Flow[T]:
    """Makes a call.

    Args:
        operation: The generated operation; it reads the answers.
        prepared: What to send.
        convert: Makes the result of the parsed answer and the attempts; raises ValueError or TypeError where the answer has
            another shape than documented.
        policy: When to try again.
        budget: Shared by all calls of a client and its siblings.
        duplicate_harmless: Whether the request may be repeated although an earlier one may have been carried out.
        started: When the call began, in seconds of `time.monotonic()`.
        limiter: Asked before every attempt, if given.

    Returns:
        The result.

    Raises:
        ForgeRealtimeError: The last attempt's error, with all attempts.
    """
    name = prepared.name
    budget.deposit(policy.budget)
    attempts: list[Attempt] = []
    error: ForgeRealtimeError | None = None
    while True:
        if limiter is not None and not (yield from limiter.acquire(started + policy.deadline)):
            reason = f"waiting for the quota would pass the deadline of {policy.deadline:g} s (RetryPolicy.deadline)"
            if error is None:
                error = OverQuotaError(
                    "the quota of the installation is in use: send less often, or with a later deadline"
                )
                error._retryable = True
            else:
                attempts[-1] = evolve(attempts[-1], wait=None)
            raise _given_up(name, error, attempts, reason, time.monotonic() - started, prepared.url)
        number = len(attempts) + 1
        began = time.monotonic()
        timeout = max(0.001, min(policy.attempt_timeout, started + policy.deadline - began))
        body = TrackedBody(prepared.content)
        outcome = yield Send(prepared.request(body), timeout)
        now = time.monotonic()

        status: int | None = None
        if isinstance(outcome, Response):
            status = outcome.status_code
            accepted = Attempt(number, Delivery.ACCEPTED, status, None, now - began, None)
            try:
                result = _result(operation, outcome, convert, (*attempts, accepted))
            except ResponseError as answer_error:
                error = answer_error
            else:
                logger.debug("%s: attempt %d: accepted (%d)", name, number, status)
                _tell(name, policy, accepted)
                return result
        else:
            assert outcome is not None
            error = _no_answer(outcome, sent=body.sent)

        if limiter is not None and isinstance(error, RateLimitedError):
            limiter.slow_down(error.retry_after)
        left = started + policy.deadline - now
        wait, reason = _next_wait(error, number, left, policy, budget, duplicate_harmless=duplicate_harmless)
        cause = type(error if status else outcome).__name__
        attempts.append(Attempt(number, error.delivery, status, cause, now - began, wait))
        logger.debug("%s: attempt %d: %s (%s)", name, number, error.delivery.value, cause)
        _tell(name, policy, attempts[-1])
        if wait is not None:
            logger.info(
                "%s: attempt %d: %s (%s); trying again in %.3f s", name, number, error.delivery.value, cause, wait
            )
            if wait > 0:
                yield Sleep(wait)
            now = time.monotonic()
            if now < started + policy.deadline:
                continue
            # The hook took its time, or the machine is busy.
            attempts[-1] = evolve(attempts[-1], wait=None)
            reason = f"the deadline of {policy.deadline:g} s has passed (RetryPolicy.deadline)"
        raise _given_up(name, error, attempts, reason, now - started, prepared.url)


def _given_up(
    name: str, error: ForgeRealtimeError, attempts: list[Attempt], reason: str, elapsed: float, url: httpx.URL
) -> ForgeRealtimeError:
    error.attempts = tuple(attempts)
    if any(attempt.delivery is Delivery.UNKNOWN for attempt in attempts):
        error.delivery = Delivery.UNKNOWN
    error.args = (_message(name, error, reason, elapsed, url),)
    logger.warning("%s", error)
    return error


def operation_name(operation: object) -> str:
    """The operation's name in messages: that of its module."""
    return str(getattr(operation, "__name__", operation)).rpartition(".")[2]


def _result(
    operation: Operation[P, M],
    response: Response,
    convert: Callable[[M, tuple[Attempt, ...]], T],
    attempts: tuple[Attempt, ...],
) -> T:
    status = response.status_code
    if status >= 400:
        raise _failure(response)
    if isinstance(body := _json(response), dict) and body.get("errors"):
        raise _answer_error(RejectedError, response, "the platform reported errors in its answer", Delivery.REJECTED)
    try:
        # None is here the documented answer without a body: an undocumented status raises.
        model = cast(M, operation._parse_response(client=_STRICT, response=response))
        if hasattr(model, "to_dict") and not isinstance(body, dict):
            # Models take an empty list for an empty object.
            raise TypeError
        return convert(model, attempts)
    except UnexpectedStatus:
        message, retryable = f"the status {status} is not one that the API document lists", False
    except _PARSER_ERRORS:
        message, retryable = f"the answer ({status}) is not JSON of the documented shape", True
    # Raised outside of the handlers: those errors can quote the body.
    raise _answer_error(UnexpectedResponseError, response, message, Delivery.UNKNOWN, retryable=retryable)


def _no_answer(error: Failure, *, sent: bool) -> NoResponseError:
    # These come before the first byte, also where a transport (a mock, say) reads the body ahead of sending it. Not so
    # ConnectTimeout: the aiohttp transport raises it for connections that break later, too.
    before = isinstance(error, (httpx.ConnectError, httpx.PoolTimeout))
    reason = f": {error}" if before and str(error) else ""
    no_answer: NoResponseError
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        what = "no answer" if sent else "not sent"
        no_answer = TimedOutError(f"{what} in time ({type(error).__name__}{reason})")
    else:
        no_answer = NoResponseError(f"no answer ({type(error).__name__}{reason})")
    no_answer.delivery = Delivery.UNKNOWN if sent and not before else Delivery.NOT_SENT
    no_answer._retryable = True
    # These quote what was received, which can hold what was sent.
    if not isinstance(error, (httpx.ProtocolError, httpx.DecodingError)):
        no_answer.__cause__ = error
    return no_answer


def _failure(response: Response) -> ResponseError:
    status = response.status_code
    if status == 429:
        message = "too many operations (429)"
        return _answer_error(RateLimitedError, response, message, Delivery.REJECTED, retryable=True)
    if status < 500:
        return _answer_error(RejectedError, response, f"the platform refused the request ({status})", Delivery.REJECTED)
    if status == 503 and retry_after(response.headers) is not None:
        message = "the platform is not available (503)"
        return _answer_error(RejectedError, response, message, Delivery.REJECTED, retryable=True)
    message = f"the platform failed ({status})"
    return _answer_error(ServerError, response, message, Delivery.UNKNOWN, retryable=True)


def _answer_error(kind: type[E], response: Response, message: str, delivery: Delivery, *, retryable: bool = False) -> E:
    code = _code(response)
    error = kind(f"{message}, code {code}" if code else message)
    error.delivery = delivery
    error.status = response.status_code
    error.headers = dict(response.headers)
    error.body = response.content[:_ERROR_BODY_BYTES]
    error.code = code
    error.retry_after = retry_after(response.headers)
    error._retryable = retryable
    return error


def _code(response: Response) -> str | None:
    body = _json(response)
    errors = body.get("errors") if isinstance(body, dict) else None
    for entry in [body, *(errors if isinstance(errors, list) else [errors])]:
        fields = entry if isinstance(entry, dict) else {"message": entry}
        # Codes stand in messages and logs: nothing that is not spelt like one gets there.
        if isinstance(code := fields.get("code"), str) and _CODE.fullmatch(code):
            return code
        if isinstance(message := fields.get("message"), str):
            message = message.removesuffix(".")
            if message in _DOCUMENTED_MESSAGES:
                return message
            start, failed, code = message.partition("Realtime token validation failed: ")
            if failed and not start and _CODE.fullmatch(code):
                return code
    header = response.headers.get("forge-proxy-error", "")
    return header if _CODE.fullmatch(header) else None


def _json(response: Response) -> object:
    try:
        return response.json()
    except _PARSER_ERRORS:
        return None


def _next_wait(
    error: ForgeRealtimeError,
    number: int,
    left: float,
    policy: RetryPolicy,
    budget: RetryBudget,
    *,
    duplicate_harmless: bool,
) -> tuple[float | None, str]:
    """Seconds until the next attempt, or None and the reason why there is none."""
    if not error._retryable:
        return None, ""
    if error.delivery is Delivery.UNKNOWN and policy.delivery == "at_most_once" and not duplicate_harmless:
        return None, "not tried again, as RetryPolicy.delivery is 'at_most_once'"
    if number >= policy.max_attempts:
        return None, f"RetryPolicy.max_attempts is {policy.max_attempts}"
    asked = error.retry_after if isinstance(error, ResponseError) else None
    wait = policy.backoff(number) if asked is None else asked
    if wait >= left:
        who = "backing off" if asked is None else "the wait that the server asks for"
        return None, f"{who}, {wait:.3g} s, would pass the deadline of {policy.deadline:g} s (RetryPolicy.deadline)"
    if policy.budget != math.inf and not budget.withdraw():
        return None, "the client's retry budget is spent (RetryPolicy.budget)"
    return wait, ""


def _message(name: str, error: ForgeRealtimeError, reason: str, elapsed: float, url: httpx.URL) -> str:
    known = {
        Delivery.NOT_SENT: "it was not sent",
        Delivery.REJECTED: "it was not carried out",
        Delivery.UNKNOWN: "it may have been carried out",
    }[error.delivery]
    parts = [f"{name}: {error.args[0]}", known]
    parts.append(f"{len(error.attempts)} attempt{'' if len(error.attempts) == 1 else 's'} in {elapsed:.2f} s")
    if reason:
        parts.append(reason)
    if isinstance(error, ResponseError) and error.body:
        parts.append("what the platform says is in the error's body")
    if isinstance(error.__cause__, httpx.ConnectError | httpx.ConnectTimeout) or (
        isinstance(error, ResponseError) and error.status in (404, 405)
    ):
        origin = f"{url.scheme}://{url.netloc.decode()}"
        parts.append(
            f"is {origin} the right address (FORGE_EGRESS_PROXY_URL or base_url), and does the sidecar listen there?"
        )
    return "; ".join(parts)


def _tell(name: str, policy: RetryPolicy, attempt: Attempt) -> None:
    if policy.on_attempt is None:
        return
    try:
        policy.on_attempt(attempt)
    except Exception:
        # What became of the event must not be lost over it.
        logger.exception("%s: RetryPolicy.on_attempt failed", name)
