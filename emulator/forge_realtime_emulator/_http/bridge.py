"""Endpoints for an app's front end: `bridge.js`, the context of a page, and calls of the app's service.

* `GET /bridge.js`: a script that a page loads before its bundle; it installs the object that `@forge/bridge` calls
* `GET /streams.js`, `GET /streams.d.ts`: the module that reads streams in a page, to be copied into an app
* `GET /_emulator/context?invocation=…`: the context of a page, as `view.getContext()` returns it
* `POST /_emulator/invoke`: call the service as the platform does for `invokeService()`: `{"path": "/jobs", "method":
  "POST", "headers": {}, "body": …, "invocation": "…"}`. The response is `{"success": true, "payload": {"status",
  "headers", "body"}}` or `{"success": false, "error": {"code", "message"}}`

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
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import httpx
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from .._platform.contexts import Context
from .._platform.records import RecordedInvoke
from .._platform.schema import Schema
from .._platform.sidecar import Sidecar
from .._platform.strict_json import parse
from .json import JSONResponse, invalid, read_json
from .log import log, printable

_TIMEOUT = 30.0
"""Seconds for the whole response of the service. Atlassian's limit is unknown."""

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
            *(Route(f"/{name}", _served(name)) for name in ("bridge.js", "streams.js", "streams.d.ts")),
            Route("/_emulator/context", self._context),
            Route("/_emulator/invoke", self._invoke, methods=["POST"]),
        ]

    async def _context(self, request: Request) -> Response:
        context = self._sidecar.page(request.query_params.get("invocation"))
        return JSONResponse(_page_context(context), headers={"Cache-Control": "no-store"})

    async def _invoke(self, request: Request) -> Response:
        call = await read_json(request)
        if problem := _INVOKE.problem(call):
            raise invalid(problem)
        context = self._sidecar.page(call.get("invocation"))
        id_ = None if self._service is None else self._sidecar.invoke(context)
        calling = asyncio.create_task(self._call_service(call, id_))
        # A stop of the emulator disconnects the client, and must not wait for a slow service.
        disconnected = asyncio.create_task(_disconnected(request))
        try:
            await asyncio.wait({calling, disconnected}, return_when=asyncio.FIRST_COMPLETED)
            if not calling.done():
                raise ClientDisconnect
            result = calling.result()
        finally:
            calling.cancel()
            disconnected.cancel()
        error = result.get("error", {})
        invoke = RecordedInvoke(
            method=call["method"],
            path=call["path"].partition("?")[0],
            invocation=id_,
            status=result.get("payload", {}).get("status"),
            code=error.get("code"),
            message=error.get("message"),
            at=self._sidecar.clock.now(),
        )
        self._sidecar.record_invoke(invoke)
        log.info("%-20s %s  %s %s", "invoke", invoke.status or invoke.code, invoke.method, printable(invoke.path))
        return JSONResponse(result)

    async def _call_service(self, call: Mapping[str, Any], invocation: str | None) -> dict[str, Any]:
        if self._service is None or invocation is None:
            return _failure(
                "NO_SERVICE",
                "The emulator does not know where the app's service is. Start it with emulate --service"
                " http://localhost:8080 or Emulator(service=...).",
            )
        content = None
        if call.get("body") is not None:
            content = call["body"] if isinstance(call["body"], str) else json.dumps(call["body"])
        headers = _request_headers(call.get("headers", {}), has_content=content is not None)
        headers |= _invocation_headers(invocation)
        try:
            # httpx bounds each step, and not the whole response.
            async with (
                asyncio.timeout(_TIMEOUT),
                httpx.AsyncClient(trust_env=False, timeout=None, verify=self._verify) as client,  # noqa: S113 - see above
            ):
                response = await client.request(
                    call["method"], self._service + call["path"], headers=headers, content=content
                )
        except TimeoutError:
            return _failure(
                "SERVICE_TIMED_OUT",
                f"The service at {self._service} did not respond within {_TIMEOUT:g} s. Respond first and work in the"
                " background, or see what holds it up.",
            )
        except httpx.ConnectError:
            return _failure(
                "SERVICE_UNREACHABLE",
                f"No service can be reached at {self._service}. Start it there, or start the emulator with its"
                " address.",
            )
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeEncodeError) as error:
            return _failure(
                "SERVICE_FAILED",
                f"The call of the service at {self._service} failed: {type(error).__name__}. See the service's log, and"
                " the path and headers that were given to invokeService.",
            )
        return {"success": True, "payload": _payload(response)}


def _served(name: str) -> Callable[[Request], Awaitable[Response]]:
    async def serve(_: Request) -> Response:
        content = files("forge_realtime_emulator").joinpath("static", name).read_bytes()
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


def _payload(response: httpx.Response) -> dict[str, Any]:
    headers: dict[str, list[str]] = {}
    for name, value in _end_to_end([(name.lower(), value) for name, value in response.headers.multi_items()]):
        # The body is decoded already.
        if name not in ("content-length", "content-encoding"):
            headers.setdefault(name, []).append(value)
    payload: dict[str, Any] = {"status": response.status_code, "headers": headers}
    if response.content:
        payload["body"] = _body(response)
    return payload


def _body(response: httpx.Response) -> Any:
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "application/json" or media_type.endswith("+json"):
        try:
            return parse(response.text)
        except (ValueError, RecursionError):
            pass
    return response.text


def _end_to_end(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    dropped = set(_HOP_BY_HOP)
    for name, value in headers:
        if name == "connection":
            dropped |= {option.strip().lower() for option in value.split(",")}
    return [(name, value) for name, value in headers if name not in dropped]


def _failure(code: str, message: str) -> dict[str, Any]:
    log.warning("%s", message)
    return {"success": False, "error": {"code": code, "message": message}}
