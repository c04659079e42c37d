"""The middleware in real applications on real sockets, and its conformance to ASGI and WSGI."""

from __future__ import annotations

import asyncio
import functools
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import httpx
import pytest
from django.core.asgi import get_asgi_application  # type: ignore[import-untyped]
from django.core.wsgi import get_wsgi_application  # type: ignore[import-untyped]
from django.test import override_settings  # type: ignore[import-untyped]
from fastapi import FastAPI
from flask import Flask
from starlette.applications import Starlette
from websockets.sync.client import connect

from forge_realtime import Invocation, UsageError, asgi, current_invocation, django, wsgi
from tests.support import web_apps
from tests.support.fault_server import FaultServer
from tests.support.web_apps import Meeting, seen

# Starlette's number of threads for views that are not async.
AT_ONCE = 40
VIEWS = [
    ("starlette", "sync"),
    ("starlette", "async"),
    ("starlette", "stream-sync"),
    ("starlette", "stream-async"),
    ("fastapi", "sync"),
    ("fastapi", "async"),
    ("fastapi", "stream-sync"),
    ("fastapi", "stream-async"),
    ("django-asgi", "sync"),
    ("django-asgi", "async"),
    ("django-asgi", "stream-async"),
    ("django-wsgi", "sync"),
    ("django-wsgi", "async"),
    ("django-wsgi", "stream-sync"),
    ("django-asgi-middleware", "sync"),
    ("django-asgi-middleware", "async"),
    ("django-asgi-middleware", "stream-async"),
    ("django-wsgi-middleware", "sync"),
    ("django-wsgi-middleware", "async"),
    ("django-wsgi-middleware", "stream-sync"),
    ("flask", "sync"),
    ("flask", "async"),
    ("flask", "stream-sync"),
]
FRAMEWORKS = [
    "starlette",
    "fastapi",
    "django-asgi",
    "django-wsgi",
    "django-asgi-middleware",
    "django-wsgi-middleware",
    "flask",
]


def headers(id_: str | None) -> dict[str, str]:
    return {"X-Forge-Invocation-Id": id_} if id_ else {}


@pytest.fixture(scope="module")
def url() -> Iterator[Callable[[str], str]]:
    """Serve a framework's application until the end of this module, and return its address."""
    with ExitStack() as stack:

        @functools.cache
        def serve(framework: str) -> str:
            return stack.enter_context(web_apps.serve(framework)).url

        yield serve


@pytest.mark.parametrize(("framework", "view"), VIEWS)
def test_concurrent_requests_never_mix(
    url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, framework: str, view: str
) -> None:
    monkeypatch.setattr(web_apps, "meeting", Meeting(AT_ONCE))
    ids = [f"invocation-{number}" if number % 4 else None for number in range(AT_ONCE)]

    async def run(address: str) -> list[str]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(trust_env=False, timeout=30, limits=limits) as client:
            responses = await asyncio.gather(*(client.get(f"{address}/{view}", headers=headers(id_)) for id_ in ids))
        return [response.text for response in responses]

    assert asyncio.run(run(url(framework))) == [f"{id_ or 'none'} " * 3 for id_ in ids]


@pytest.mark.parametrize(("framework", "view"), VIEWS)
def test_consecutive_requests_leave_nothing_behind(url: Callable[[str], str], framework: str, view: str) -> None:
    # No kept connections: a server may close one after a 500, just as the next request is sent on it.
    limits = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(base_url=url(framework), trust_env=False, limits=limits) as client:
        assert client.get(view, headers=headers("first")).text == "first " * 3
        assert client.get("broken", headers=headers("second")).status_code == 500
        assert client.get(view).text == "none " * 3
        assert client.get(view, headers=headers("third")).text == "third " * 3


@pytest.mark.parametrize("view", ["publish-sync", "publish-async"])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_client_acts_for_invocation_of_request(
    url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, framework: str, view: str
) -> None:
    with FaultServer() as server:
        monkeypatch.setenv("FORGE_EGRESS_PROXY_URL", server.url)
        response = httpx.get(f"{url(framework)}/{view}", headers=headers("invocation-7"), trust_env=False)
    assert (response.status_code, response.text) == (200, "invocation-7")
    [request] = server.received
    assert request.headers["forge-proxy-authorization"] == "Forge as=app,id=invocation-7"
    assert request.json == {"name": "board-42", "payload": "moved"}


@pytest.mark.parametrize("framework", ["starlette", "fastapi"])
def test_websockets_see_their_own_invocation(
    url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, framework: str
) -> None:
    ids = ["first", "second", None]
    monkeypatch.setattr(web_apps, "meeting", Meeting(len(ids)))
    address = url(framework).replace("http", "ws") + "/websocket"

    def talk(id_: str | None) -> list[str | bytes]:
        with connect(address, additional_headers=headers(id_), proxy=None) as websocket:
            received = []
            for _ in range(2):
                websocket.send("who?")
                received.append(websocket.recv())
            return received

    with ThreadPoolExecutor(len(ids)) as executor:
        assert list(executor.map(talk, ids)) == [[id_ or "none"] * 2 for id_ in ids]


def test_background_tasks_see_invocation_and_lifespan_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_apps, "background", queue.Queue())
    with web_apps.serve("starlette") as server:
        assert web_apps.background.get(timeout=20) == "none"
        assert httpx.get(f"{server.url}/background", headers=headers("first"), trust_env=False).text == "first"
        assert [web_apps.background.get(timeout=20) for _ in range(2)] == ["first"] * 2


def test_pipelined_request_does_not_inherit_invocation(url: Callable[[str], str]) -> None:
    # Pipelined on one connection: uvicorn starts the second request in the context of the first.
    first = b"GET /async HTTP/1.1\r\nHost: x\r\nX-Forge-Invocation-Id: first\r\n\r\n"
    second = b"GET /async HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    address = httpx.URL(url("starlette"))
    with socket.create_connection((address.host, address.port or 80), timeout=20) as connection:
        connection.sendall(first + second)
        with connection.makefile("rb") as responses:
            text = responses.read().decode()
    assert [part.partition("HTTP/1.1")[0] for part in text.split("\r\n\r\n")[1:]] == ["first " * 3, "none " * 3]


def test_asgi_invocation_is_current_for_http_and_websocket_only() -> None:
    seen_in: list[tuple[str, str]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen_in.append((scope["type"], seen()))

    async def run() -> None:
        middleware = asgi.InvocationMiddleware(app)
        pairs = [(b"x-forge-invocation-id", b"first"), (b"x-b3-traceid", b"463ac35c9f6413ad")]
        receive: Any = None
        with Invocation("outer").active():
            for scope in (
                {"type": "http", "headers": pairs},
                {"type": "websocket", "headers": pairs},
                {"type": "http", "headers": []},
                {"type": "websocket"},
                {"type": "lifespan"},
            ):
                await middleware(scope, receive, receive)
                assert seen() == "outer"

    asyncio.run(run())
    assert seen_in == [
        ("http", "first"),
        ("websocket", "first"),
        ("http", "none"),
        ("websocket", "none"),
        ("lifespan", "outer"),
    ]


class Body:
    """Response body that records the current invocation at its start, in each chunk and when it is closed."""

    def __init__(self) -> None:
        self.closed: list[str] = []

    def __iter__(self) -> Iterator[bytes]:
        self.begun = seen()
        return self._chunks()

    def _chunks(self) -> Iterator[bytes]:
        try:
            for _ in range(2):
                yield seen().encode()
        finally:
            self.closed.append(seen())

    def close(self) -> None:
        self.closed.append(seen())


def call(app: Any, id_: str | None = "first") -> Any:
    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    if id_:
        environ["HTTP_X_FORGE_INVOCATION_ID"] = id_
    return wsgi.InvocationMiddleware(app)(environ, lambda status, headers, error=None: lambda chunk: None)


def wsgi_app(body: Iterable[bytes]) -> Any:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return body

    return app


def test_wsgi_invocation_is_not_current_between_chunks() -> None:
    body = Body()
    response = call(wsgi_app(body))
    for chunk in response:
        assert chunk == b"first"
        assert current_invocation() is None
        # A server may handle another request in this thread meanwhile.
        assert list(call(wsgi_app(Body()), None)) == [b"none"] * 2
    response.close()
    assert current_invocation() is None
    assert body.begun == "first"
    assert body.closed == ["first"] * 2


def test_wsgi_unfinished_response_leaves_no_invocation() -> None:
    body = Body()
    response = call(wsgi_app(body))
    chunks = iter(response)
    assert next(chunks) == b"first"
    response.close()
    assert body.closed == ["first"]
    del chunks, response
    assert current_invocation() is None


def test_wsgi_body_without_close() -> None:
    response = call(wsgi_app([b"a", b"b"]))
    assert list(response) == [b"a", b"b"]
    response.close()


@pytest.mark.parametrize("fails", ["app", "iter", "next", "close"])
def test_wsgi_error_leaves_no_invocation(fails: str) -> None:
    class Failing:
        def __iter__(self) -> Iterator[bytes]:
            if fails == "iter":
                raise LookupError
            return self

        def __next__(self) -> bytes:
            if fails == "next":
                raise LookupError
            raise StopIteration

        def close(self) -> None:
            raise LookupError

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        if fails == "app":
            raise LookupError
        return Failing()

    def run() -> None:
        response = call(app)
        list(response)
        response.close()

    with pytest.raises(LookupError):
        run()
    assert current_invocation() is None


def test_wsgi_request_without_invocation_hides_outer_one() -> None:
    with Invocation("outer").active():
        assert list(call(wsgi_app(Body()), None)) == [b"none"] * 2
        assert seen() == "outer"


@pytest.mark.parametrize("chunks", [[b"moved"], [], [b"a", b"b"]])
def test_wsgi_passes_validator(chunks: list[bytes]) -> None:
    # The validator wraps both sides: the application and the middleware.
    middleware = validator(wsgi.InvocationMiddleware(validator(wsgi_app(chunks))))
    environ: dict[str, Any] = {"HTTP_X_FORGE_INVOCATION_ID": "first", "QUERY_STRING": ""}
    setup_testing_defaults(environ)
    statuses: list[str] = []

    def start_response(status: str, headers: list[tuple[str, str]], error: Any = None) -> Callable[[bytes], object]:
        statuses.append(status)
        return lambda chunk: None

    response: Any = middleware(environ, start_response)
    try:
        assert list(response) == chunks
    finally:
        response.close()
    assert statuses == ["200 OK"]


def test_wsgi_threads_of_a_pool_never_mix() -> None:
    # With fewer threads than requests, each thread handles many.
    def request(number: int) -> tuple[list[bytes], str, int]:
        id_ = f"invocation-{number}" if number % 3 else None
        response = call(wsgi_app(Body()), id_)
        chunks = list(response)
        response.close()
        assert chunks == [(id_ or "none").encode()] * 2
        return chunks, seen(), threading.get_ident()

    with ThreadPoolExecutor(4) as executor:
        results = list(executor.map(request, range(300)))
    assert {afterwards for _, afterwards, _ in results} == {"none"}
    assert len({thread for _, _, thread in results}) <= 4


def add_to_starlette(middleware: Any) -> None:
    app = Starlette()
    app.add_middleware(middleware)
    # As at the first message of the server.
    app.build_middleware_stack()


def list_in_django(middleware: Any, make_handler: Callable[[], object]) -> None:
    with override_settings(MIDDLEWARE=[f"{middleware.__module__}.{middleware.__name__}"]):
        make_handler()


USE = {
    "asgi": "an ASGI application. Use forge_realtime.asgi.InvocationMiddleware: app.add_middleware("
    "InvocationMiddleware) in FastAPI and Starlette.",
    "wsgi": "a WSGI application. Use forge_realtime.wsgi.InvocationMiddleware: app.wsgi_app = InvocationMiddleware("
    "app.wsgi_app) in Flask.",
    "django": "a handler of Django. Use forge_realtime.django.InvocationMiddleware: list "
    "'forge_realtime.django.InvocationMiddleware' in MIDDLEWARE.",
}
# Middleware, interface of what it wraps, and how the app adds it.
MISTAKES: list[tuple[Any, str, Callable[[Any], object]]] = [
    (asgi, "wsgi", lambda middleware: middleware(Flask("app"))),
    (asgi, "wsgi", lambda middleware: middleware(Flask("app").wsgi_app)),
    (asgi, "wsgi", lambda middleware: middleware(get_wsgi_application())),
    (asgi, "django", lambda middleware: list_in_django(middleware, get_wsgi_application)),
    (asgi, "django", lambda middleware: list_in_django(middleware, get_asgi_application)),
    (wsgi, "asgi", lambda middleware: middleware(FastAPI())),
    (wsgi, "asgi", add_to_starlette),
    (wsgi, "asgi", lambda middleware: middleware(get_asgi_application())),
    (wsgi, "django", lambda middleware: list_in_django(middleware, get_wsgi_application)),
    (wsgi, "django", lambda middleware: list_in_django(middleware, get_asgi_application)),
    (django, "asgi", lambda middleware: middleware(FastAPI())),
    (django, "asgi", add_to_starlette),
    (django, "asgi", lambda middleware: middleware(get_asgi_application())),
    (django, "wsgi", lambda middleware: middleware(Flask("app").wsgi_app)),
]


@pytest.mark.parametrize(("module", "interface", "add"), MISTAKES)
def test_middleware_of_another_interface_is_refused_when_the_app_is_made(
    module: Any, interface: str, add: Callable[[Any], object]
) -> None:
    web_apps.configure_django()
    with pytest.raises(UsageError) as caught:
        add(module.InvocationMiddleware)
    wraps = {"asgi": "an ASGI application", "wsgi": "a WSGI application", "django": "a handler of Django"}
    name = module.__name__.rpartition(".")[2]
    assert str(caught.value) == (
        f"forge_realtime.{name}.InvocationMiddleware wraps {wraps[name]}, and this is {USE[interface]}"
    )


def test_middleware_wraps_no_name_of_an_application() -> None:
    with pytest.raises(UsageError, match="wraps an ASGI application, not a str"):
        asgi.InvocationMiddleware("app.main:app")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("app", [max, lambda *args: None, functools.partial(wsgi_app([]))])
def test_application_whose_signature_does_not_tell_is_accepted(app: Any) -> None:
    for module in (asgi, wsgi):
        if module is wsgi or not isinstance(app, functools.partial):
            module.InvocationMiddleware(app)


def test_middleware_and_logs_import_no_framework() -> None:
    program = (
        "import sys, forge_realtime.asgi, forge_realtime.wsgi, forge_realtime.django, forge_realtime.logs\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    others = {"starlette", "fastapi", "flask", "werkzeug", "django", "asgiref", "uvicorn", "opentelemetry"}
    assert others.isdisjoint(loaded)
