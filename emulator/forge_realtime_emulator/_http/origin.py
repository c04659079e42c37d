"""Access of web pages: the emulator's own pages may use everything, pages of allowed origins only the bridge."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .log import log
from .mcp import MCP_PATH

SHARED = {
    "/bridge.js": "GET",
    "/streams.js": "GET",
    "/_emulator/context": "GET",
    "/_emulator/invoke": "POST",
    "/_emulator/mocked": "POST",
    "/_emulator/publish": "POST",
}
"""Paths, with their methods, that pages of an allowed origin may request: what bridge.js needs, and streams.js."""

_SHARED_SOCKETS = ("/_emulator/subscribe", "/_emulator/subscriptions")
"""Paths of the WebSockets that such pages may open."""

_SCRIPTS = ("/bridge.js", "/streams.js", "/streams.d.ts")
"""Paths of what says nothing of the emulator. A script element loads it without an `Origin`."""

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]+)?")

_HOSTS = 100
"""Number of hosts that are remembered."""

_PREFLIGHT_SECONDS = 600
_MAX_LOGGED = 100
"""Number of refused origins named in the log, each once."""


class RefuseOrigins:
    """ASGI middleware that refuses requests of web pages from origins that are not allowed, with a 403.

    Without it, any page that a developer has open could read events, inject faults and use up the rate limit. A browser
    says where a request comes from in `Origin`, or in `Sec-Fetch-Site` if it sends no `Origin`, as for an image.
    Services and test clients send neither, and pass.

    The emulator's own origin is that of the `Host` header if it names an IP address or localhost. A domain name could
    belong to another page and point at this machine (DNS rebinding). A browser says nothing about such a page's GET
    requests to its supposed own server; therefore only the operations, which are POST requests, are served under a
    domain name. A name that nobody can own, such as that of another container, passes, and so does one that was
    allowed as an origin.

    Args:
        app: The application.
        origins: The allowed origins, as returned by `parse_origin`.
    """

    def __init__(self, app: ASGIApp, origins: Iterable[str] = ()) -> None:
        self._app = app
        self._origins = frozenset(origins)
        self._logged: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin, host = headers.get("origin"), headers.get("host", "")
        path, is_websocket = scope["path"], scope["type"] == "websocket"
        method = None if is_websocket else SHARED.get(path)
        if method is not None:
            send = _with_headers(send, {"Vary": "Origin"})
        if origin is None and self._may_be_foreign(scope, host):
            await _foreign_host()(scope, receive, send)
        elif origin is None and _is_of_another_page(scope, headers):
            await _cross_origin()(scope, receive, send)
        elif origin is None or self._is_own(origin, host):
            await self._app(scope, receive, send)
        elif origin not in self._origins or (path not in _SHARED_SOCKETS if is_websocket else method is None):
            self._log_once(origin)
            await _cross_origin()(scope, receive, send)
        elif method is None:
            await self._app(scope, receive, send)
        else:
            send = _with_headers(send, {"Access-Control-Allow-Origin": origin})
            respond = _preflight(method, headers) if scope["method"] == "OPTIONS" else self._app
            await respond(scope, receive, send)

    def _is_own(self, origin: str, host: str) -> bool:
        if origin != f"http://{host}" or not _HOST.fullmatch(host):
            return False
        return _is_local(_name_in(host)) or origin in self._origins

    def _may_be_foreign(self, scope: Scope, host: str) -> bool:
        if host and not _HOST.fullmatch(host):
            return True
        name = _name_in(host)
        if "." not in name or name.endswith((".localhost", ".internal")) or _is_local(name):
            return False
        shows_events = scope["path"] in ("/", MCP_PATH) or scope["path"].startswith("/_emulator/")
        return (shows_events or scope.get("method") != "POST") and f"http://{host}" not in self._origins

    def _log_once(self, origin: str) -> None:
        if origin in self._origins or origin in self._logged or len(self._logged) == _MAX_LOGGED:
            return
        self._logged.add(origin)
        log.warning(
            "A web page of %.200r was refused. Is it your app's front end?"
            " Then: forge-realtime emulate --origin %.200r",
            origin,
            origin,
        )


def parse_origin(text: str) -> str:
    """Normalize an origin to the form that browsers send.

    Raises:
        ValueError: The text is not an origin.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not host or text.rstrip("/") != f"{parts.scheme}://{parts.netloc}":
        raise ValueError(f"An origin is scheme, host and port, such as http://localhost:5173, and not {text!r}.")
    if "@" in parts.netloc or "*" in host:
        raise ValueError("An origin has no user and no wildcard: name each one, such as http://localhost:5173.")
    suffix = "" if port in (None, {"http": 80, "https": 443}[parts.scheme]) else f":{port}"
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{suffix}"


def _cross_origin() -> Response:
    message = (
        "The emulator refuses a web page of another origin. Open the page from the emulator's own address, by IP"
        " address or as localhost, or send no Origin header. The front end of an app, which uses /bridge.js, is let in"
        " by emulate --origin URL or Emulator(origins=[URL])."
    )
    return JSONResponse({"code": "CROSS_ORIGIN", "message": message}, status_code=403)


def _foreign_host() -> Response:
    message = (
        "The emulator shows what happens in it under an IP address or a local name only, not under a domain name, which"
        " another page could have pointed here. Use http://127.0.0.1 or http://localhost, with the same port, or allow"
        " this address by emulate --origin URL or Emulator(origins=[URL])."
    )
    return JSONResponse({"code": "FOREIGN_HOST", "message": message}, status_code=403)


def _preflight(method: str, requested: Headers) -> Response:
    headers = {
        "Access-Control-Allow-Methods": method,
        "Access-Control-Allow-Headers": "Content-Type",
        "Access-Control-Max-Age": str(_PREFLIGHT_SECONDS),
    }
    # Private Network Access. Its successor, Local Network Access, asks the person and has no header.
    if requested.get("access-control-request-private-network") == "true":
        headers["Access-Control-Allow-Private-Network"] = "true"
    return Response(status_code=204, headers=headers)


def _with_headers(send: Send, added: dict[str, str]) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(added)
        await send(message)

    return sending


def _is_of_another_page(scope: Scope, headers: Headers) -> bool:
    """Return whether a browser requests this without `Origin` for a page of another origin."""
    if headers.get("sec-fetch-site", "none") in ("none", "same-origin") or scope["type"] == "websocket":
        return False
    is_get = scope["method"] in ("GET", "HEAD")
    # A link to the console.
    followed = scope["path"] == "/" and headers.get("sec-fetch-dest") == "document"
    return not (is_get and (followed or scope["path"] in _SCRIPTS))


# Cached, because all calls of a service have one host, and parsing it took 5 µs of each.
@lru_cache(_HOSTS)
def _name_in(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


@lru_cache(_HOSTS)
def _is_local(name: str) -> bool:
    try:
        return name == "localhost" or bool(ip_address(name))
    except ValueError:
        return False
