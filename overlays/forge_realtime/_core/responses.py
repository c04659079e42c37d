"""Responses of the platform, and what each one says about the event."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, ParamSpec, Protocol, TypeVar, cast

from .errors import (
    Delivery,
    ForgeRealtimeError,
    NoResponseError,
    RateLimitedError,
    RejectedError,
    ResponseError,
    ServerError,
    TimedOutError,
    UnexpectedResponseError,
)
from .group import REALTIME
from .http import httpx
from .retry import retry_after

if TYPE_CHECKING:
    from .attempts import Attempt

P = ParamSpec("P")
M = TypeVar("M")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

# Not every transport turns every error of the operating system or of TLS into one of httpx.
TRANSPORT_ERRORS: Final = (httpx.RequestError, OSError)

_ERROR_BODY_BYTES: Final = 64 * 1024
# Messages of protocol errors that quote nothing of what was received.
_PLAIN_REASON: Final = (
    r"more than \d+ KiB before the response|not a complete HTTP response|a header cannot be sent"
    r"|Server disconnected without sending a response\."
    r"|peer closed connection without sending complete message body "
    r"\((incomplete chunked read|received \d+ bytes, expected \d+)\)"
)
_CODE: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}", re.ASCII)
_RATE_LIMITED: Final = "RATE_LIMIT_EXCEEDED"
# The message of an error is exactly one of these, and the codes of the token check may follow a prefix.
# Source: https://developer.atlassian.com/platform/forge/realtime/error-handling/
_CHECK_FAILED: Final = "Realtime token validation failed: "
_DOCUMENTED_MESSAGES: Final = frozenset(
    {
        _RATE_LIMITED,
        "INVALID_TOKEN",
        "TOKEN_EXPIRED",
        "CHANNEL_NAME_MISMATCH",
        "MISSING_PERMISSION",
        "Unauthorized request",
        "Error publishing event to channel",
        "Error signing realtime token",
    }
)
# A value of one of these says that the operation was carried out.
_RESULTS: Final = ("eventId", "token")


class _Strict:
    """Settings of a generated client: its parser tells an undocumented status from a response without a body."""

    raise_on_unexpected_status = True


class Operation(Protocol[P, T_co]):
    """A generated endpoint module, for example `forge_realtime._api.api.forge_realtime.publish`."""

    def _get_kwargs(self, *args: P.args, **kwargs: P.kwargs) -> dict[str, Any]: ...

    def _parse_response(self, *, client: Any, response: Any) -> T_co | None: ...


class Response:
    """A complete, decoded response: as much of an `httpx.Response` as generated operations read."""

    __slots__ = ("_parsed", "content", "headers", "status_code")

    def __init__(self, status_code: int, headers: httpx.Headers, content: bytes) -> None:
        self.status_code = status_code
        self.headers = headers
        self.content = content
        self._parsed: Any = None

    def json(self) -> Any:
        """Parse the body, once."""
        if self._parsed is None:
            self._parsed = json.loads(self.content)
        return self._parsed

    @property
    def text(self) -> str:
        """The body as text, in the encoding that its content type names; in UTF-8 if that cannot be decoded."""
        content_type = self.headers.get("content-type", "")
        try:
            charset = httpx.Response(200, headers={"content-type": content_type}).charset_encoding
            return self.content.decode(charset or "utf-8", "replace")
        except Exception:  # noqa: BLE001 (not every codec of Python is one of text)
            return self.content.decode("utf-8", "replace")


class Failure(NamedTuple):
    """What is known after an attempt that failed. The error is made of it when the call gives up."""

    kind: type[ForgeRealtimeError]
    message: str
    delivery: Delivery
    retryable: bool
    cause: Exception | None = None
    response: Response | None = None
    code: str | None = None
    retry_after: float | None = None

    def error(self, message: str, delivery: Delivery, attempts: tuple[Attempt, ...]) -> ForgeRealtimeError:
        """Make the complete error."""
        details: dict[str, Any] = {"delivery": delivery, "attempts": attempts, "retryable": self.retryable}
        if self.response is not None:
            details |= {
                "status": self.response.status_code,
                "headers": dict(self.response.headers),
                "body": self.response.content[:_ERROR_BODY_BYTES],
                "code": self.code,
                "retry_after": self.retry_after,
            }
        error = self.kind(message, **details)
        error.__cause__ = self.cause
        return error


def read_response(
    operation: Operation[P, M],
    response: Response,
    convert: Callable[[M, tuple[Attempt, ...], Response], T],
    attempts: tuple[Attempt, ...],
) -> T | Failure:
    """Read the result from a response, or what is known if it is not one of success.

    Args:
        operation: The generated operation, which parses the response.
        response: A complete response.
        convert: Makes the result of the parsed response, the attempts and the response; raises ValueError or TypeError
            if the response has another shape than documented.
        attempts: All attempts, this one included.
    """
    body = _json(response)
    if (failure := _find_failure(response, body)) is not None:
        return failure
    status = response.status_code
    try:
        # None is the documented response without a body here: an undocumented status raises.
        model = cast("M", operation._parse_response(client=_Strict, response=response))  # noqa: SLF001 (generated)
        if hasattr(model, "to_dict") and not isinstance(body, dict):
            # Models accept an empty list as an empty object.
            raise TypeError  # noqa: TRY301 (ends as the error of a parser does)
        if model is None and response.content:
            # Generated code reads no body without a documented schema.
            model = cast("M", _body_of(response))
        return convert(model, attempts, response)
    except Exception as error:  # noqa: BLE001 (what parsers raise for a foreign body is not known)
        # The generated operation has loaded it.
        from .._api.errors import UnexpectedStatus

        message, retryable = f"the response ({status}) is not JSON of the documented shape", REALTIME
        if isinstance(error, UnexpectedStatus):
            if status // 100 == 2 and not response.content:
                # Enough for an operation whose result says nothing more.
                with suppress(ValueError, TypeError, AttributeError):
                    return convert(cast("M", None), attempts, response)
            message, retryable = f"the status {status} is not one that the API document lists", False
        elif "content-encoding" in response.headers:
            message = f"the response ({status}) has a Content-Encoding, although the client asks for none"
    if 200 <= status < 300:
        message = f"{message}; its status says success, so it was probably accepted"
    return _failure(UnexpectedResponseError, response, None, message, Delivery.UNKNOWN, retryable=retryable)


def _body_of(response: Response) -> object:
    """Return the body as JSON or text if its content type says so, else as bytes."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json"):
        return response.json()
    return response.text if kind.startswith("text/") else response.content


def classify_transport_error(error: Exception, *, sent: bool) -> Failure:
    """Tell what is known if there was no response. `sent`: the platform may have received the whole request."""
    # These are raised before the first byte, even if a transport (a mock, say) reads the body ahead of sending it. That
    # is not so for ConnectTimeout: the aiohttp transport also raises it for connections that break later.
    before = isinstance(error, (httpx.ConnectError, httpx.PoolTimeout))
    # Others are mistakes in a transport, a hook or a tracer of the app's. They would happen again.
    foreign = not isinstance(error, TRANSPORT_ERRORS)
    text = "" if foreign else str(error)
    reason = f": {text}" if text and (before or re.fullmatch(_PLAIN_REASON, text)) else ""
    in_time = not isinstance(error, httpx.TimeoutException | TimeoutError)
    what = "no response" if in_time or sent else "not sent"
    whose = ", raised by the app's transport, hook or tracer; see __cause__" if foreign else ""
    return Failure(
        kind=NoResponseError if in_time else TimedOutError,
        message=f"{what}{'' if in_time else ' in time'} ({type(error).__name__}{reason}{whose})",
        delivery=Delivery.UNKNOWN if sent and not before else Delivery.NOT_SENT,
        retryable=not foreign,
        # Those quote what was received, which may repeat what was sent.
        cause=None if isinstance(error, (httpx.ProtocolError, httpx.DecodingError)) else error,
    )


def _find_failure(response: Response, body: object) -> Failure | None:
    """Tell what is known if the platform says, in any of its forms, that the operation failed; None if it does not."""
    status = response.status_code
    fields = body if isinstance(body, dict) else {}
    codes = _codes(response, fields)
    if not REALTIME and status < 400 and _RATE_LIMITED not in codes:
        # In other groups, `errors` can be part of a result: GraphQL, for one.
        return None
    if status < 400 and not codes and not (status == 200 and fields.get("errors")):
        return None
    code = _RATE_LIMITED if _RATE_LIMITED in codes else next(iter(codes), None)
    # The rate limit is a refusal under any status, unless the platform also says that it carried the operation out.
    carried_out = any(fields.get(name) is not None for name in _RESULTS) and not 400 <= status < 500
    kind: type[ResponseError] = RejectedError
    delivery, retryable = Delivery.REJECTED, False
    if status == 429 or (_RATE_LIMITED in codes and not carried_out):
        kind, retryable, message = RateLimitedError, True, f"too many operations ({status})"
    elif status < 400 and status != 200:
        return None
    elif status == 200 and carried_out:
        kind, delivery, retryable, code = UnexpectedResponseError, Delivery.UNKNOWN, True, None
        message = "the response contradicts itself, as it reports both success and errors"
    elif status == 200:
        message = "the platform reported errors in its response"
    elif status < 500:
        message = f"the platform refused the request ({status})"
    elif status == 503 and retry_after(response.headers) is not None:
        retryable, message = True, "the platform is not available (503)"
    else:
        kind, delivery, retryable = ServerError, Delivery.UNKNOWN, True
        message = f"the platform failed ({status})"
    return _failure(kind, response, code, message, delivery, retryable=retryable)


def _failure(
    kind: type[ResponseError],
    response: Response,
    code: str | None,
    message: str,
    delivery: Delivery,
    *,
    retryable: bool = False,
) -> Failure:
    return Failure(
        kind=kind,
        message=f"{message}, code {code}" if code else message,
        delivery=delivery,
        retryable=retryable,
        response=response,
        code=code,
        retry_after=retry_after(response.headers),
    )


def _codes(response: Response, fields: dict[str, Any]) -> list[str]:
    """List the platform's codes for the failure, in the order body, `errors`, header.

    Codes appear in messages and logs. So a code has to be spelt like one, and a message to be a documented one.
    """
    errors = fields.get("errors")
    entries = errors if isinstance(errors, list) else [errors] if errors else []
    if response.status_code >= 400:
        entries = [fields, *entries]
    found: list[str] = []
    for entry in entries:
        named = entry if isinstance(entry, dict) else {"message": entry}
        if isinstance(code := named.get("code"), str) and _CODE.fullmatch(code):
            found.append(code)
        if isinstance(message := named.get("message"), str):
            message = message.removesuffix(".").removeprefix(_CHECK_FAILED)
            if message in _DOCUMENTED_MESSAGES:
                found.append(message)
    # Not by `Headers.get`, which takes long for every response of success.
    for name, value in response.headers.raw:
        if name.lower() == b"forge-proxy-error" and _CODE.fullmatch(header := value.decode("latin-1")):
            found.append(header)
    return found


def _json(response: Response) -> object:
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None
