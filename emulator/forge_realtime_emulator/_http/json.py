"""JSON: reading it from request bodies, up to a limit, and writing it in answers and logs."""

from __future__ import annotations

import json
import math
from typing import Any

from starlette import responses
from starlette.requests import Request

from .._platform.errors import Refused

BODY_LIMIT = 1024 * 1024
"""Bytes that a request's body may have. What Atlassian allows is not known."""


class JSONResponse(responses.JSONResponse):
    """An answer of JSON in ASCII: text that UTF-8 cannot encode, such as half of a surrogate pair, passes as well."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content).encode("ascii")


async def read_json(request: Request) -> Any:
    """Reads a body of JSON.

    Raises:
        Refused: It is too large, or no JSON.
    """
    return parse_json(request, await read_body(request))


async def read_body(request: Request) -> bytes:
    """Reads a body.

    Raises:
        Refused: It is too large.
    """
    body = bytearray()
    size = 0
    async for chunk in request.stream():
        # What is over the limit is read and dropped: a sender that is cut off would not see the answer.
        size += len(chunk)
        if size <= BODY_LIMIT:
            body += chunk
    if size > BODY_LIMIT:
        message = f"The request body has {size} bytes; the emulator takes up to {BODY_LIMIT}. Send a smaller payload."
        raise Refused(413, "PAYLOAD_TOO_LARGE", message)
    return bytes(body)


def parse_json(request: Request, raw: bytes) -> Any:
    """Parses a body.

    Raises:
        Refused: It is no JSON, or does not say that it is.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise invalid("the header Content-Type must be application/json")
    try:
        return parse(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise invalid("the body is not UTF-8") from error
    except RecursionError as error:
        raise invalid("the JSON is nested too deeply") from error
    except ValueError as error:
        raise invalid("the body is not valid JSON") from error


def parse(text: str) -> Any:
    """Parses JSON, and nothing that is not.

    Raises:
        ValueError: It is no JSON, or a number in it is beyond every bound.
        RecursionError: It is nested too deeply.
    """
    return _DECODER.decode(text)


def printable(text: str) -> str:
    """Text for one line of the log, in which nothing moves the cursor."""
    return text.encode("unicode_escape").decode()


def invalid(problem: str) -> Refused:
    """A request that the emulator cannot take."""
    return Refused(400, "INVALID_REQUEST", f"Invalid request: {problem}.")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is out of range")
    return number


def _refuse_constant(_: str) -> None:
    raise ValueError("NaN and Infinity are not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)
