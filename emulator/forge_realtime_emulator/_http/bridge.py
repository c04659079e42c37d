"""Endpoints for an app's front end: `bridge.js`, the context of a page, and calls of the app's service.

* `GET /bridge.js`: a script that a page loads before its bundle; it installs the object that `@forge/bridge` calls
* `GET /streams.js`, `GET /streams.d.ts`: the module that reads streams in a page, to be copied into an app
* `GET /_emulator/context?invocation=…`: the context of a page, as `view.getContext()` returns it
* `POST /_emulator/invoke`: call the service as the platform does for `invokeService()`: `{"path": "/jobs", "method":
  "POST", "headers": {}, "body": …, "invocation": "…"}`. The response is `{"success": true, "payload": {"status",
  "headers", "body"}}`, or for a status from 400 on `{"success": false, "error": {"status", "headers", "error"}}`. If
  `invokeService()` rejects, it is an error status with `{"code", "message"}`
* `POST /_emulator/mocked`: get the response of a mock route: `{"method": "GET", "path": "/jira/rest/api/3/myself"}`.
  The response is `{"status", "json"}`, without `json` if there is no body

`error` is an object because `@forge/bridge` spreads it into what `invokeService()` returns. Atlassian's sample passes
`JSON.stringify(…)` as the body and no content type, so a string travels as it is, and JSON is the default content type.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import ssl
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from importlib.resources import files
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from .._platform.clock import elapsed
from .._platform.contexts import Context
from .._platform.errors import RefusedError
from .._platform.schema import Schema
from .._platform.sidecar import Sidecar
from .._platform.strict_json import parse
from .._platform.text import printable
from .json import JSONResponse, invalid, read_json
from .log import log, log_invoke
from .mocks import mocked
from .openapi import Endpoint

_TIMEOUT = 30.0
"""Seconds for the whole response of the service. Atlassian's limit is unknown."""

_REQUEST_LIMIT = 500_000
_RESPONSE_LIMIT = 5_000_000
"""Bytes of a body. Documented: 500 KB and 5 MB."""

_HOP_BY_HOP = {
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}
_PLATFORM_PREFIXES = ("x-forge-", "x-b3-", "forge-proxy-")
"""Prefixes of headers that a page cannot set."""

_PARTS = {
    "board": "id",
    "issue": "key",
    "project": "key",
    "content": "id",
    "space": "key",
    "repository": "uuid",
    "pullRequest": "id",
}
"""The field of each part of the product context that holds its registered value."""

_INVOKE = Schema(
    {
        "type": "object",
        "required": ["path", "method"],
        "additionalProperties": False,
        "properties": {
            "path": {"type": "string", "pattern": "^/"},
            "method": {"type": "string", "enum": ["GET", "POST", "PUT", "PATCH", "DELETE"]},
            "headers": {"type": "object", "additionalProperties": {"type": "string"}},
            "body": {},
            "invocation": {"type": "string"},
        },
    }
)

_MOCKED = Schema(
    {
        "type": "object",
        "required": ["method", "path"],
        "additionalProperties": False,
        "properties": {"method": {"type": "string"}, "path": {"type": "string", "pattern": "^/"}},
    }
)


class _ServiceError(Exception):
    """The page gets no response of the service.

    Attributes:
        status: The status that `invokeService()` resolves with, or `None` if it rejects.
        code: A short code.
        message: What happened and what to do.
    """

    def __init__(self, status: int | None, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


class Bridge:
    """The front end's endpoints of one sidecar.

    Args:
        sidecar: The sidecar.
        service: The base URL of the app's service, or `None`.

    Raises:
        ValueError: The service is not a base URL.
    """

    def __init__(self, sidecar: Sidecar, service: str | None) -> None:
        self._sidecar = sidecar
        self._service = None if service is None else _base_url(service)
        # httpx would load all certificates for every client.
        self._verify = ssl.create_default_context() if (service or "").startswith("https:") else False

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        return [
            Route("/bridge.js", _served("bridge.js", "view.js", "uikit.js")),
            Route("/streams.js", _served("streams.js")),
            Route("/streams.d.ts", _served("streams.d.ts")),
            Endpoint(
                "GET",
                "/_emulator/context",
                self._context,
                "Get the context of a page",
                query={"invocation": "The invocation; by default the default context."},
            ),
            Endpoint("POST", "/_emulator/invoke", self._invoke, "Call the service", body=_INVOKE.definition),
            Endpoint(
                "POST",
                "/_emulator/mocked",
                self._mocked,
                "Get what a page gets from a mock route",
                body=_MOCKED.definition,
            ),
        ]

    async def _context(self, request: Request) -> Response:
        context = self._sidecar.page(request.query_params.get("invocation"))
        return JSONResponse(_page_context(context), headers={"Cache-Control": "no-store"})

    async def _mocked(self, request: Request) -> Response:
        call = await read_json(request)
        if problem := _MOCKED.problem(call):
            raise invalid(problem)
        response = mocked(self._sidecar, call["method"].upper(), unquote(call["path"].partition("?")[0]))
        return JSONResponse({"status": response.status, **({"json": response.body} if response.has_body else {})})

    async def _invoke(self, request: Request) -> Response:
        call = await read_json(request)
        if problem := _INVOKE.problem(call):
            raise invalid(problem)
        if any(not _is_encodable(text) for header in call.get("headers", {}).items() for text in header):
            raise invalid("headers: have a lone surrogate, which UTF-8 cannot encode; send valid Unicode")
        context = self._sidecar.page(call.get("invocation"))
        began = elapsed()
        id_ = None if self._service is None else self._sidecar.invoke(context)
        calling = asyncio.create_task(self._call_service(call, id_))
        # A stop of the emulator disconnects the client, and must not wait for a slow service.
        disconnected = asyncio.create_task(_disconnected(request))
        try:
            await asyncio.wait({calling, disconnected}, return_when=asyncio.FIRST_COMPLETED)
            if not calling.done():
                raise ClientDisconnect
            result, failure = calling.result(), None
        except _ServiceError as error:
            result, failure = {}, error
        finally:
            calling.cancel()
            disconnected.cancel()
        invoke = self._sidecar.record_invoke(
            call,
            began,
            invocation=id_,
            status=result.get("status"),
            code=None if failure is None else failure.code,
            message=None if failure is None else failure.message,
        )
        log_invoke(invoke)
        if failure is not None:
            log.warning("%s", failure.message)
            if failure.status is None:
                raise RefusedError(HTTPStatus.BAD_GATEWAY, failure.code, failure.message)
            result = {"status": failure.status, "headers": {}, "error": f"{failure.code}: {failure.message}"}
        if "error" in result:
            return JSONResponse({"success": False, "error": result})
        return JSONResponse({"success": True, "payload": result})

    async def _call_service(self, call: Mapping[str, Any], invocation: str | None) -> dict[str, Any]:
        if self._service is None or invocation is None:
            raise _ServiceError(
                503,
                "NO_SERVICE",
                "The emulator does not know where the app's service is. Start it with emulate --service"
                " http://localhost:8080 or Emulator(service=...).",
            )
        settings = self._sidecar.settings
        if self._sidecar.cold_start.refuses(self._sidecar.clock.now(), settings):
            raise _ServiceError(
                503,
                "SERVICE_STARTING",
                f"The container was scaled to zero after {settings.cold_start_after} s without traffic and starts for"
                f" {settings.cold_start_duration} s, as the emulator was told (cold_start_after). Retry later.",
            )
        content = None
        if call.get("body") is not None:
            body = call["body"] if isinstance(call["body"], str) else json.dumps(call["body"])
            content = body.encode("utf-8", "replace")
            if len(content) > _REQUEST_LIMIT:
                raise _ServiceError(
                    None,
                    "REQUEST_TOO_LARGE",
                    f"The body of the request has {len(content)} bytes; invokeService takes up to {_REQUEST_LIMIT}."
                    " Send less.",
                )
        headers = _request_headers(call.get("headers", {}), has_content=content is not None)
        headers |= _invocation_headers(invocation)
        try:
            # httpx bounds each step, and not the whole response.
            async with (
                asyncio.timeout(_TIMEOUT),
                httpx.AsyncClient(trust_env=False, timeout=None, verify=self._verify) as client,  # noqa: S113 - see above
                client.stream(
                    call["method"], self._service + call["path"], headers=headers, content=content
                ) as response,
            ):
                return await _result(response)
        except TimeoutError:
            raise _ServiceError(
                504,
                "SERVICE_TIMED_OUT",
                f"The service at {self._service} did not respond within {_TIMEOUT:g} s. Respond first and work in the"
                " background, or see what holds it up.",
            ) from None
        except httpx.ConnectError:
            raise _ServiceError(
                503,
                "SERVICE_UNREACHABLE",
                f"No service can be reached at {self._service}. Start it there, or start the emulator with its"
                " address.",
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeEncodeError) as error:
            raise _ServiceError(
                502,
                "SERVICE_FAILED",
                f"The call of the service at {self._service} failed: {type(error).__name__}. See the service's log, and"
                " the path and headers that were given to invokeService.",
            ) from None


def _served(*names: str) -> Callable[[Request], Awaitable[Response]]:
    async def serve(_: Request) -> Response:
        static = files("forge_realtime_emulator").joinpath("static")
        content = b"\n".join(static.joinpath(name).read_bytes() for name in names)
        return Response(content, media_type="text/javascript", headers={"Cache-Control": "no-cache"})

    return serve


def _invocation_headers(id_: str) -> dict[str, str]:
    return {
        "x-forge-invocation-id": id_,
        "x-forge-invocation-log-attributes": base64.b64encode(json.dumps({"invocationId": id_}).encode()).decode(),
        "x-b3-traceid": secrets.token_hex(16),
        "x-b3-spanid": secrets.token_hex(8),
    }


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _base_url(service: str) -> str:
    try:
        parts = urlsplit(service)
        is_base = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_base = False
    if not is_base or "?" in service or "#" in service:
        raise ValueError(f"The service is given by its base URL, such as http://localhost:8080, and not {service!r}.")
    return service.rstrip("/")


def _page_context(context: Context) -> dict[str, Any]:
    product = {name: {_PARTS[name]: value} for name, value in context.product.items()}
    return {
        **({} if context.account is None else {"accountId": context.account}),
        "cloudId": "emulated",
        "environmentId": "emulated",
        "environmentType": "DEVELOPMENT",
        "localId": f"ari:cloud:ecosystem::extension/emulated/emulated/static/{context.module}",
        "locale": "en-US",
        "moduleKey": context.module,
        "siteUrl": "https://emulated.invalid",
        "timezone": "Etc/UTC",
        "extension": {"type": context.module_type, **product},
    }


def _request_headers(headers: Mapping[str, str], *, has_content: bool) -> dict[str, str]:
    kept = _end_to_end([(name.lower(), value) for name, value in headers.items()])
    sent = {
        name: value
        for name, value in kept
        if name not in ("host", "content-length", "accept-encoding") and not name.startswith(_PLATFORM_PREFIXES)
    }
    return {"content-type": "application/json", **sent} if has_content else sent


async def _result(response: httpx.Response) -> dict[str, Any]:
    """Read the service's response by the documented rules of `invokeService()`."""
    content = bytearray()
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > _RESPONSE_LIMIT:
            raise _ServiceError(
                None,
                "RESPONSE_TOO_LARGE",
                f"The service's response has more than {_RESPONSE_LIMIT} bytes, which is what invokeService takes."
                " Respond with less, for example page by page.",
            )
    headers: dict[str, list[str]] = {}
    for name, value in _end_to_end([(name.lower(), value) for name, value in response.headers.multi_items()]):
        # The body is decoded already.
        if name not in ("content-length", "content-encoding"):
            headers.setdefault(name, []).append(value)
    result = {"status": response.status_code, "headers": headers}
    text = content.decode("utf-8", "replace")
    if response.status_code >= HTTPStatus.BAD_REQUEST:
        return {**result, "error": text}
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise _ServiceError(
            None,
            "RESPONSE_NOT_JSON",
            f"The service responded with {response.status_code} and"
            f" {f'the content type {printable(media_type)}' if media_type else 'no content type'}. invokeService takes"
            " JSON only: send Content-Type: application/json.",
        )
    try:
        return {**result, "body": parse(text)}
    except (ValueError, RecursionError):
        raise _ServiceError(
            None,
            "RESPONSE_NOT_JSON",
            f"The service responded with {response.status_code} and a body that is not the JSON that its content type"
            " promises. Send valid JSON; for an empty body, null.",
        ) from None


def _end_to_end(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    dropped = set(_HOP_BY_HOP)
    for name, value in headers:
        if name == "connection":
            dropped |= {option.strip().lower() for option in value.split(",")}
    return [(name, value) for name, value in headers if name not in dropped]
