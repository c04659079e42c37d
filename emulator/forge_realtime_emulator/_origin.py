"""Refusing web pages that are not the emulator's own."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send


class OwnOriginOnly:
    """ASGI middleware that answers 403 to a browser's HTTP or WebSocket request from another origin.

    Only browsers send `Origin`; services and test clients pass. Without this, any page that a developer has open could
    read events and inject faults. The own origin is the one of the `Host` header, if that names an IP address or
    localhost: a host with a domain name could be another page's, pointed at this machine (DNS rebinding).
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if origin is None or _is_own(origin, headers.get("host", "")):
            await self._app(scope, receive, send)
            return
        message = (
            "The emulator refuses a web page of another origin. Open the page from the emulator's own address,"
            " by IP address or as localhost, or send no Origin header."
        )
        refusal = JSONResponse({"code": "CROSS_ORIGIN", "message": message}, status_code=403)
        await refusal(scope, receive, send)


def _is_own(origin: str, host: str) -> bool:
    if origin != f"http://{host}":
        return False
    try:
        name = urlsplit(origin).hostname or ""
        return name == "localhost" or bool(ip_address(name))
    except ValueError:
        return False
