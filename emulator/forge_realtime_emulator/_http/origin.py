"""Which web pages may talk to the emulator: its own, and to the bridge's endpoints those of the origins that were named."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .log import log

SHARED = {
    "/bridge.js": "GET",
    "/streams.js": "GET",
    "/_emulator/context": "GET",
    "/_emulator/invoke": "POST",
    "/_emulator/publish": "POST",
}
"""What a page of an allowed origin may ask: what bridge.js needs, the module streams.js, and nothing that controls the
emulator. It may open WebSockets too; there are none but those of subscribers."""

_PREFLIGHT_SECONDS = 600
_SAID = 100
"""RefusedError origins that are named in the log, each once."""


class RefuseOrigins:
    """ASGI middleware that answers 403 to a browser's HTTP or WebSocket request from an origin that is not allowed.

    Only browsers send `Origin`; services and test clients pass. Without this, any page that a developer has open could
    read events and inject faults. The own origin is the one of the `Host` header, if that names an IP address or
    localhost: a host with a domain name could be another page's, pointed at this machine (DNS rebinding). A browser
    sends no `Origin` when such a page gets something from what it takes for its own server, so under a domain name
    nothing but the operations is served; a name that nobody can own, such as another container's, passes.

    Args:
        app: The application.
        origins: The allowed origins, as `parse_origin` returns them.
    """

    def __init__(self, app: ASGIApp, origins: Iterable[str] = ()) -> None:
        self._app = app
        self._origins = frozenset(origins)
        self._said: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin, host = headers.get("origin"), headers.get("host", "")
        is_websocket = scope["type"] == "websocket"
        method = None if is_websocket else SHARED.get(scope["path"])
        if method is not None:
            send = _with_headers(send, {"Vary": "Origin"})
        if origin is None and _shows_events(scope["path"]) and _is_of_anybody(host):
            await _misnamed()(scope, receive, send)
        elif origin is None or _is_own(origin, host):
            await self._app(scope, receive, send)
        elif origin not in self._origins or (method is None and not is_websocket):
            self._say_once(origin)
            await _refusal()(scope, receive, send)
        elif method is None:
            await self._app(scope, receive, send)
        else:
            send = _with_headers(send, {"Access-Control-Allow-Origin": origin})
            answer = _preflight(method) if scope["method"] == "OPTIONS" else self._app
            await answer(scope, receive, send)

    def _say_once(self, origin: str) -> None:
        if origin in self._origins or origin in self._said or len(self._said) == _SAID:
            return
        self._said.add(origin)
        log.warning(
            "A web page of %.200r was refused. Is it your app's front end? Then: forge-realtime emulate --origin %.200r",
            origin,
            origin,
        )


def parse_origin(text: str) -> str:
    """Brings an origin into the form in which browsers send it.

    Raises:
        ValueError: It is no origin.
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


def _refusal() -> Response:
    message = (
        "The emulator refuses a web page of another origin. Open the page from the emulator's own address, by IP address"
        " or as localhost, or send no Origin header. The front end of an app, which uses /bridge.js, is let in by"
        " emulate --origin URL or Emulator(origins=[URL])."
    )
    return JSONResponse({"code": "CROSS_ORIGIN", "message": message}, status_code=403)


def _misnamed() -> Response:
    message = (
        "The emulator shows what happens in it under an IP address or a local name only, not under a domain name, which"
        " another page could have pointed here. Use http://127.0.0.1 or http://localhost, with the same port."
    )
    return JSONResponse({"code": "FOREIGN_HOST", "message": message}, status_code=403)


def _preflight(method: str) -> Response:
    headers = {
        "Access-Control-Allow-Methods": method,
        "Access-Control-Allow-Headers": "Content-Type",
        "Access-Control-Max-Age": str(_PREFLIGHT_SECONDS),
    }
    return Response(status_code=204, headers=headers)


def _with_headers(send: Send, added: dict[str, str]) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(added)
        await send(message)

    return sending


def _is_own(origin: str, host: str) -> bool:
    return origin == f"http://{host}" and _is_local(_name_in(host))


def _shows_events(path: str) -> bool:
    return path == "/" or path.startswith("/_emulator/")


def _is_of_anybody(host: str) -> bool:
    name = _name_in(host)
    return "." in name and not name.endswith((".localhost", ".internal")) and not _is_local(name)


def _name_in(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_local(name: str) -> bool:
    try:
        return name == "localhost" or bool(ip_address(name))
    except ValueError:
        return False
