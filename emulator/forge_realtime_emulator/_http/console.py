"""The console: a page at `/` that shows calls, events and streams live, with its parts under `/console/`."""

from __future__ import annotations

from importlib.resources import files
from pathlib import PurePath

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route

# The page loads nothing but its own parts, and text never becomes code.
_POLICY = (
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src data:",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
)
_HEADERS = {
    "Content-Security-Policy": "; ".join(_POLICY),
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_PAGE = "index.html"


def console_routes() -> list[BaseRoute]:
    """Build the routes of the page and of its parts."""
    folder = files("forge_realtime_emulator").joinpath("static/console")
    parts = {file.name: file.read_bytes() for file in folder.iterdir()}

    async def page(_: Request) -> Response:
        return _served(_PAGE, parts[_PAGE])

    async def part(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in parts:
            raise HTTPException(404)
        return _served(name, parts[name])

    return [Route("/", page), Mount("/console", routes=[Route("/{name}", part)])]


def _served(name: str, content: bytes) -> Response:
    return Response(content, media_type=_MEDIA_TYPES[PurePath(name).suffix], headers=_HEADERS)
