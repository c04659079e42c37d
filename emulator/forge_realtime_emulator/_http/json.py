"""JSON request bodies, up to a size limit, and JSON responses."""

from __future__ import annotations

import json
from typing import Any

from starlette import responses
from starlette.requests import Request

from .._platform.errors import RefusedError
from .._platform.strict_json import parse

BODY_LIMIT = 1024 * 1024
"""Largest request body, in bytes. Atlassian's limit is unknown."""


class JSONResponse(responses.JSONResponse):
    """JSON response in ASCII, so that text UTF-8 cannot encode (a lone surrogate) is escaped."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content).encode("ascii")


async def read_json(request: Request) -> Any:
    """Read and parse a request body.

    Raises:
        RefusedError: The body is too large or not JSON.
    """
    return parse_json(request, await read_body(request))


async def read_body(request: Request, limit: int = BODY_LIMIT) -> bytes:
    """Read a request body of up to `limit` bytes.

    Raises:
        RefusedError: The body is too large.
    """
    body = bytearray()
    size = 0
    async for chunk in request.stream():
        # Read to the end even over the limit: a sender that is cut off would not see the response.
        size += len(chunk)
        if size <= limit:
            body += chunk
    if size > limit:
        message = f"The request body has {size} bytes; the emulator takes up to {limit}. Send a smaller payload."
        raise RefusedError(413, "PAYLOAD_TOO_LARGE", message)
    return bytes(body)


def parse_json(request: Request, raw: bytes) -> Any:
    """Parse a request body.

    Raises:
        RefusedError: The body is not JSON, or its `Content-Type` does not say so.
    """
    require_json(request)
    try:
        return parse(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise invalid("the body is not UTF-8") from error
    except RecursionError as error:
        raise invalid("the JSON is nested too deeply") from error
    except ValueError as error:
        raise invalid("the body is not valid JSON") from error


def require_json(request: Request) -> None:
    """Check the `Content-Type` of a request.

    Raises:
        RefusedError: It is not `application/json`.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise invalid("the header Content-Type must be application/json")


def invalid(problem: str) -> RefusedError:
    """Build the 400 for an invalid request."""
    return RefusedError(400, "INVALID_REQUEST", f"Invalid request: {problem}.")
