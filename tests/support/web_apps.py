"""The same views in every framework. Each returns the id of the invocation that it sees."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any

from django.conf import settings  # type: ignore[import-untyped]
from django.core.asgi import get_asgi_application  # type: ignore[import-untyped]
from django.core.wsgi import get_wsgi_application  # type: ignore[import-untyped]
from django.http import HttpResponse, StreamingHttpResponse  # type: ignore[import-untyped]
from django.urls import path  # type: ignore[import-untyped]
from fastapi import FastAPI, WebSocket
from fastapi.responses import PlainTextResponse, StreamingResponse
from flask import Flask, Response
from starlette.applications import Starlette
from starlette.background import BackgroundTasks
from starlette.middleware import Middleware
from starlette.routing import Route, WebSocketRoute

from forge_realtime import AsyncRealtimeClient, RealtimeClient, asgi, current_invocation, wsgi
from tests.support.web_servers import AsgiServer, WsgiServer


class Meeting:
    """Reusable barrier for threads and for tasks of any event loop."""

    def __init__(self, size: int) -> None:
        self._size = self._missing = size
        self._all_here: Future[None] = Future()
        self._lock = threading.Lock()

    def wait(self) -> None:
        self._arrive().result(20)

    async def wait_async(self) -> None:
        await asyncio.wait_for(asyncio.wrap_future(self._arrive()), 20)

    def _arrive(self) -> Future[None]:
        with self._lock:
            all_here = self._all_here
            self._missing -= 1
            if self._missing == 0:
                self._missing, self._all_here = self._size, Future()
                all_here.set_result(None)
        return all_here


# The views wait for each other here. Tests replace it.
meeting = Meeting(1)
# The invocation ids that background tasks saw.
background: queue.Queue[str] = queue.Queue()


def seen() -> str:
    invocation = current_invocation()
    return invocation.id if invocation else "none"


def chunks() -> Iterator[str]:
    for _ in range(3):
        yield f"{seen()} "
        meeting.wait()


async def async_chunks() -> AsyncIterator[str]:
    for _ in range(3):
        yield f"{seen()} "
        await meeting.wait_async()


def sync_text() -> str:
    return "".join(chunks())


async def async_text() -> str:
    return "".join([chunk async for chunk in async_chunks()])


def sync_publish() -> str:
    with RealtimeClient() as client:
        client.publish("board-42", "moved")
    return seen()


async def async_publish() -> str:
    async with AsyncRealtimeClient() as client:
        await client.publish("board-42", "moved")
    return seen()


def broken() -> str:
    raise LookupError("broken on purpose")


async def note_in_the_background() -> None:
    background.put(seen())


def starlette_app() -> Any:
    def view(text: Callable[[], str]) -> Any:
        return lambda request: PlainTextResponse(text())

    def async_view(text: Callable[[], Any]) -> Any:
        async def endpoint(request: object) -> PlainTextResponse:
            return PlainTextResponse(await text())

        return endpoint

    async def with_background(request: object) -> PlainTextResponse:
        tasks = BackgroundTasks()
        tasks.add_task(note_in_the_background)
        tasks.add_task(lambda: background.put(seen()))
        return PlainTextResponse(seen(), background=tasks)

    async def websocket(websocket: WebSocket) -> None:
        await websocket.accept()
        for _ in range(2):
            await websocket.receive_text()
            await meeting.wait_async()
            await websocket.send_text(seen())

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        background.put(seen())
        yield

    routes = [
        Route("/sync", view(sync_text)),
        Route("/async", async_view(async_text)),
        Route("/stream-sync", lambda request: StreamingResponse(chunks())),
        Route("/stream-async", lambda request: StreamingResponse(async_chunks())),
        Route("/publish-sync", view(sync_publish)),
        Route("/publish-async", async_view(async_publish)),
        Route("/broken", view(broken)),
        Route("/background", with_background),
        WebSocketRoute("/websocket", websocket),
    ]
    return Starlette(routes=routes, middleware=[Middleware(asgi.InvocationMiddleware)], lifespan=lifespan)


def fastapi_app() -> Any:
    app = FastAPI(default_response_class=PlainTextResponse)
    app.add_middleware(asgi.InvocationMiddleware)
    for name, text in {
        "/sync": sync_text,
        "/async": async_text,
        "/publish-sync": sync_publish,
        "/publish-async": async_publish,
        "/broken": broken,
    }.items():
        app.get(name)(text)

    @app.get("/stream-sync")
    def stream_sync() -> StreamingResponse:
        return StreamingResponse(chunks())

    @app.get("/stream-async")
    async def stream_async() -> StreamingResponse:
        return StreamingResponse(async_chunks())

    @app.websocket("/websocket")
    async def websocket(websocket: WebSocket) -> None:
        await websocket.accept()
        for _ in range(2):
            await websocket.receive_text()
            await meeting.wait_async()
            await websocket.send_text(seen())

    return app


def flask_app() -> Any:
    app = Flask(__name__)
    app.wsgi_app = wsgi.InvocationMiddleware(app.wsgi_app)  # type: ignore[method-assign]
    views: dict[str, Any] = {
        "/sync": sync_text,
        "/async": async_text,
        "/publish-sync": sync_publish,
        "/publish-async": async_publish,
        "/broken": broken,
        "/stream-sync": lambda: Response(chunks()),
    }
    for name, view in views.items():
        app.add_url_rule(name, name, view)
    return app


def django_view(text: Callable[[], str]) -> Any:
    return lambda request: HttpResponse(text().encode())


def django_async_view(text: Callable[[], Any]) -> Any:
    async def view(request: object) -> HttpResponse:
        return HttpResponse(await text())

    return view


# Django finds them by ROOT_URLCONF.
urlpatterns = [
    path("sync", django_view(sync_text)),
    path("async", django_async_view(async_text)),
    path("stream-sync", lambda request: StreamingHttpResponse(chunk.encode() for chunk in chunks())),
    path("stream-async", lambda request: StreamingHttpResponse(async_chunks())),
    path("publish-sync", django_view(sync_publish)),
    path("publish-async", django_async_view(async_publish)),
    path("broken", django_view(broken)),
]


def configure_django() -> None:
    if not settings.configured:
        # Without LOGGING_CONFIG=None, Django would change the logging of the test run.
        settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1"], SECRET_KEY="x", LOGGING_CONFIG=None)


def django_asgi_app() -> Any:
    configure_django()
    return asgi.InvocationMiddleware(get_asgi_application())


def django_wsgi_app() -> Any:
    configure_django()
    application: Any = get_wsgi_application()
    return wsgi.InvocationMiddleware(application)


def _with_middleware(make: Callable[[], Any]) -> Any:
    configure_django()
    settings.MIDDLEWARE = ["forge_realtime.django.InvocationMiddleware"]
    try:
        return make()
    finally:
        settings.MIDDLEWARE = []


def serve(framework: str) -> AbstractContextManager[AsgiServer | WsgiServer]:
    """Serve the application of a framework on its own socket."""
    return _SERVERS[framework]()


_SERVERS: dict[str, Callable[[], AsgiServer | WsgiServer]] = {
    "starlette": lambda: AsgiServer(starlette_app()),
    "fastapi": lambda: AsgiServer(fastapi_app()),
    "django-asgi": lambda: AsgiServer(django_asgi_app()),
    "flask": lambda: WsgiServer(flask_app()),
    "django-wsgi": lambda: WsgiServer(django_wsgi_app()),
    "django-asgi-middleware": lambda: AsgiServer(_with_middleware(get_asgi_application)),
    "django-wsgi-middleware": lambda: WsgiServer(_with_middleware(get_wsgi_application)),
}
