"""Responses of mock routes, to calls of the container and of a page."""

from __future__ import annotations

from http import HTTPStatus

from starlette.responses import Response

from .._platform.mock_routes import MockResponse, explain_missing
from .._platform.sidecar import Sidecar
from .json import JSONResponse
from .log import log

_SIBLINGS = ("/atlassian/", "/bitbucket/", "/confluence/", "/forge/", "/jira/", "/proxy/")
_REALTIME = "/forge/realtime/"
"""Beginnings of the sidecar's paths, and of those that the emulator carries out."""


def mocked(sidecar: Sidecar, method: str, path: str) -> MockResponse:
    """Return the response of the mock route for a request, or a 501 that says how to add one."""
    response = sidecar.mocks.find(method, path)
    if response is None:
        message = explain_missing(method, path)
        log.warning("%-20s 501  %s", "mock", message)
        return MockResponse(HTTPStatus.NOT_IMPLEMENTED, has_body=True, body={"code": "NOT_MOCKED", "message": message})
    log.info("%-20s %d  %s %s", "mock", response.status, method, path)
    return response


def mock_response(sidecar: Sidecar, method: str, path: str) -> Response | None:
    """Respond to a call that the emulator does not carry out, or return `None` if the sidecar has no such path."""
    is_sibling = path.startswith(_SIBLINGS) and not path.startswith(_REALTIME)
    if not is_sibling and sidecar.mocks.find(method, path) is None:
        return None
    response = mocked(sidecar, method, path)
    if not response.has_body:
        return Response(status_code=response.status)
    return JSONResponse(response.body, response.status)
