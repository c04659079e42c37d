"""Tasks that outlive their request, and the middleware for Django in Django's own tests."""

from __future__ import annotations

import asyncio
import io
import logging
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from django.http import FileResponse, HttpResponse, StreamingHttpResponse  # type: ignore[import-untyped]
from django.test import AsyncClient, AsyncRequestFactory, Client, RequestFactory  # type: ignore[import-untyped]
from django.test.utils import override_settings  # type: ignore[import-untyped]
from django.urls import path  # type: ignore[import-untyped]
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route
from werkzeug.test import EnvironBuilder

from forge_realtime import (
    AsyncRealtimeClient,
    Delivery,
    Invocation,
    NoInvocationError,
    RealtimeClient,
    UsageError,
    asgi,
    current_invocation,
    wsgi,
)
from forge_realtime.django import InvocationMiddleware
from forge_realtime_emulator import Emulator
from tests.support import web_apps
from tests.support.web_apps import seen

ID = "x-forge-invocation-id"
HEADERS = {ID: "first"}

Caught = list[warnings.WarningMessage]


@pytest.fixture(autouse=True)
def caught() -> Iterator[Caught]:
    """The warnings of a test, each as often as it was given."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield found


def accepted(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json={"eventId": None, "eventTimestamp": None})


class Sidecar:
    """A transport that keeps the invocations for which it was called."""

    def __init__(self) -> None:
        self.invocations: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.invocations.append(request.headers["forge-proxy-authorization"].rpartition("=")[2])
        return accepted(request)

    def client(self) -> RealtimeClient:
        return RealtimeClient("http://sidecar.test", transport=httpx.MockTransport(self))

    def async_client(self) -> AsyncRealtimeClient:
        return AsyncRealtimeClient("http://sidecar.test", transport=httpx.MockTransport(self))


async def get(app: Any, *requests: dict[str, str]) -> list[str]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as browser:
        return [(await browser.get("/", headers=headers)).text for headers in requests]


def after_the_request(
    work: Callable[[AsyncRealtimeClient], Awaitable[Any]], sidecar: Sidecar, **options: Any
) -> list[Any]:
    """Run `work` in a task that a request starts, after the end of the request."""
    tasks: list[asyncio.Task[Any]] = []
    ended = asyncio.Event()

    async def later() -> Any:
        await ended.wait()
        return await work(sidecar.async_client())

    async def handler(request: object) -> PlainTextResponse:
        tasks.append(asyncio.create_task(later()))
        return PlainTextResponse("ok")

    async def run() -> list[Any]:
        app = asgi.InvocationMiddleware(Starlette(routes=[Route("/", handler)]), **options)
        await get(app, HEADERS)
        ended.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    return asyncio.run(run())


async def publish_twice(realtime: AsyncRealtimeClient) -> None:
    for _ in range(2):
        await realtime.publish("board", "moved")


def test_call_after_the_end_of_its_request_warns_once(caught: Caught, caplog: pytest.LogCaptureFixture) -> None:
    sidecar = Sidecar()
    assert after_the_request(publish_twice, sidecar) == [None]
    assert sidecar.invocations == ["first"] * 2
    [warning] = caught
    assert warning.category is RuntimeWarning
    assert Path(warning.filename) == Path(__file__)
    [record] = [record for record in caplog.records if record.levelno == logging.WARNING]
    for text in (str(warning.message), record.getMessage()):
        assert text.startswith("publish: the request that started this task has ended")
        assert "with invocation.active()" in text
        assert "after_end='allow'" in text
        assert "first" not in text


def test_call_after_the_end_of_its_request_can_be_refused(caught: Caught) -> None:
    sidecar = Sidecar()
    [error] = after_the_request(publish_twice, sidecar, after_end="refuse")
    assert isinstance(error, NoInvocationError)
    assert error.delivery is Delivery.NOT_SENT
    assert "the request that started this task has ended" in str(error)
    assert (sidecar.invocations, caught) == ([], [])


def test_call_after_the_end_of_its_request_can_be_allowed(caught: Caught) -> None:
    sidecar = Sidecar()
    assert after_the_request(publish_twice, sidecar, after_end="allow") == [None]
    assert (sidecar.invocations, caught) == (["first"] * 2, [])


def test_invocation_that_was_taken_along_does_not_warn(caught: Caught) -> None:
    async def work(realtime: AsyncRealtimeClient) -> None:
        invocation = current_invocation()
        assert invocation is not None
        with invocation.active():
            await publish_twice(realtime)
        await realtime.for_invocation(invocation).publish("board", "moved")

    sidecar = Sidecar()
    assert after_the_request(work, sidecar) == [None]
    assert (sidecar.invocations, caught) == (["first"] * 3, [])


def test_stream_that_is_opened_after_the_end_warns_once(caught: Caught) -> None:
    async def work(realtime: AsyncRealtimeClient) -> None:
        for _ in range(2):
            async with realtime.stream("chat") as stream:
                await stream.send("a")

    sidecar = Sidecar()
    assert after_the_request(work, sidecar) == [None]
    assert len(caught) == 1
    assert str(caught[0].message).startswith("stream: the request")


@pytest.mark.parametrize("middleware", [asgi.InvocationMiddleware, wsgi.InvocationMiddleware])
def test_unknown_setting_is_refused(middleware: Any) -> None:
    with pytest.raises(UsageError, match="after_end must be 'warn', 'allow' or 'refuse'"):
        middleware(None, after_end="inherit")


@pytest.mark.parametrize(("after_end", "page"), [("warn", ["of A", "of B"]), ("refuse", ["of A"])])
def test_worker_that_the_first_request_starts_does_not_publish_silently_for_it(
    after_end: Any, page: list[str], caught: Caught
) -> None:
    """The second tenant's event would reach the page of the first one."""
    failed: list[Exception] = []

    async def work(queue: asyncio.Queue[str], realtime: AsyncRealtimeClient) -> None:
        while True:
            text = await queue.get()
            try:
                await realtime.publish_global("board", text)
            except NoInvocationError as error:
                failed.append(error)
            queue.task_done()

    async def run(url: str) -> None:
        queue: asyncio.Queue[str] = asyncio.Queue()
        workers: list[asyncio.Task[None]] = []
        async with AsyncRealtimeClient(url) as realtime:

            async def handler(request: Any) -> PlainTextResponse:
                if not workers:
                    workers.append(asyncio.create_task(work(queue, realtime)))
                await queue.put(f"of {request.headers['x-tenant']}")
                await queue.join()
                return PlainTextResponse("ok")

            app = asgi.InvocationMiddleware(Starlette(routes=[Route("/", handler)]), after_end=after_end)
            await get(app, *({ID: f"invocation-{tenant}", "x-tenant": tenant} for tenant in "AB"))
            workers[0].cancel()

    with Emulator() as emulator:
        emulator.register(
            installations=["A", "B"], invocations={f"invocation-{each}": {"installation": each} for each in "AB"}
        )
        with emulator.subscribe("board", is_global=True, invocation="invocation-A") as page_of_a:
            asyncio.run(run(emulator.url))
            assert [page_of_a.receive(timeout=5).payload for _ in page] == page
            assert emulator.events[-1].payload == page[-1]
    assert (len(caught), len(failed)) == ((1, 0) if after_end == "warn" else (0, 1))


def test_background_tasks_dependencies_and_streams_belong_to_the_request(caught: Caught) -> None:
    sidecar = Sidecar()
    realtime = sidecar.async_client()

    async def publish() -> None:
        await realtime.publish("board", "moved")

    async def dependency() -> AsyncIterator[None]:
        yield
        await publish()

    async def chunks() -> AsyncIterator[str]:
        for _ in range(2):
            await publish()
            yield "x"

    app = FastAPI()
    app.add_middleware(asgi.InvocationMiddleware)

    @app.get("/", dependencies=[Depends(dependency)])
    async def view() -> StreamingResponse:
        return StreamingResponse(chunks(), background=BackgroundTask(publish))

    assert asyncio.run(get(app, HEADERS)) == ["xx"]
    assert (sidecar.invocations, caught) == (["first"] * 4, [])


def test_wsgi_request_ends_when_its_response_is_closed(caught: Caught) -> None:
    sidecar = Sidecar()
    realtime = sidecar.client()
    contexts: list[Any] = []

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        from contextvars import copy_context

        contexts.append(copy_context())
        start_response("200 OK", [])
        yield b"x"

    response: Any = wsgi.InvocationMiddleware(app)({"HTTP_X_FORGE_INVOCATION_ID": "first"}, lambda *_: lambda _: None)
    assert list(response) == [b"x"]
    contexts[0].run(realtime.publish, "board", "moved")
    assert caught == []
    response.close()
    contexts[0].run(realtime.publish, "board", "moved")
    assert len(caught) == 1
    assert sidecar.invocations == ["first"] * 2


def test_error_names_what_applies() -> None:
    realtime = Sidecar().client()
    # Django is loaded in this process.
    with pytest.raises(NoInvocationError, match=r"'forge_realtime.django.InvocationMiddleware' to MIDDLEWARE") as error:
        realtime.publish("board", "moved")
    assert "RequestFactory runs no middleware" in str(error.value)
    assert "to_text() carries it through a queue" in str(error.value)

    def app(environ: Any, start_response: Any) -> list[bytes]:
        realtime.publish("board", "moved")
        return []

    with pytest.raises(NoInvocationError, match="carries no x-forge-invocation-id") as error:
        wsgi.InvocationMiddleware(app)({}, lambda *_: lambda _: None)
    assert "in a test, set this header" in str(error.value)
    assert "for_installation" in str(error.value)


# Django finds them by ROOT_URLCONF.
contexts: list[Any] = []


def view(request: Any) -> HttpResponse:
    from contextvars import copy_context

    contexts.append(copy_context())
    return HttpResponse(seen().encode())


async def async_view(request: Any) -> HttpResponse:
    return view(request)


def chunks() -> Iterator[str]:
    try:
        for _ in range(2):
            yield seen()
    finally:
        contexts.append(seen())


async def async_chunks() -> AsyncIterator[str]:
    for _ in range(2):
        yield seen()


urlpatterns = [
    path("sync", view),
    path("async", async_view),
    path("stream", lambda request: StreamingHttpResponse(chunks())),
    path("async-stream", lambda request: StreamingHttpResponse(async_chunks())),
    path("file", lambda request: FileResponse(io.BytesIO(b"content"))),
]


@pytest.fixture
def django() -> Iterator[None]:
    web_apps.configure_django()
    contexts.clear()
    middleware = ["forge_realtime.django.InvocationMiddleware", "django.middleware.common.CommonMiddleware"]
    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=middleware, ALLOWED_HOSTS=["testserver"]):
        yield


@pytest.mark.usefixtures("django")
@pytest.mark.parametrize("name", ["sync", "async"])
def test_django_clients_see_the_invocation_until_the_response_is_closed(name: str, caught: Caught) -> None:
    client: Any = Client()
    assert client.get(f"/{name}", headers=HEADERS).content == b"first"
    assert client.get(f"/{name}").content == b"none"

    async def run() -> bytes:
        response = await AsyncClient().get(f"/{name}", headers=HEADERS)
        content: bytes = response.content
        return content

    assert asyncio.run(run()) == b"first"
    assert current_invocation() is None
    realtime = Sidecar().client()
    assert caught == []
    # The task of a view that outlives its request.
    contexts[0].run(realtime.publish, "board", "moved")
    assert len(caught) == 1


@pytest.mark.usefixtures("django")
def test_django_streams_see_the_invocation(caught: Caught) -> None:
    client: Any = Client()
    response = client.get("/stream", headers=HEADERS)
    received = []
    for chunk in response.streaming_content:
        received.append(chunk)
        assert current_invocation() is None
    assert received == [b"first"] * 2
    assert contexts == ["first"]
    assert b"".join(client.get("/file", headers=HEADERS).streaming_content) == b"content"

    async def run() -> list[bytes]:
        response = await AsyncClient().get("/async-stream", headers=HEADERS)
        return [chunk async for chunk in response.streaming_content]

    assert asyncio.run(run()) == [b"first"] * 2


def test_django_middleware_handles_requests_of_a_factory() -> None:
    web_apps.configure_django()
    request = RequestFactory().get("/", headers=HEADERS)
    assert InvocationMiddleware(view)(request).content == b"first"

    def broken(request: Any) -> HttpResponse:
        raise LookupError

    async def async_broken(request: Any) -> HttpResponse:
        raise LookupError

    with pytest.raises(LookupError):
        InvocationMiddleware(broken)(request)
    other = AsyncRequestFactory().get("/", headers=HEADERS)

    async def run() -> bytes:
        with pytest.raises(LookupError):
            await InvocationMiddleware(async_broken)(other)
        response = await InvocationMiddleware(async_view)(other)
        content: bytes = response.content
        return content

    assert asyncio.run(run()) == b"first"
    assert current_invocation() is None


def test_for_invocation_takes_a_request_its_headers_or_its_meta() -> None:
    web_apps.configure_django()
    sidecar = Sidecar()
    requests: list[Any] = [RequestFactory().get("/", headers=HEADERS), AsyncRequestFactory().get("/", headers=HEADERS)]
    flask = EnvironBuilder(headers=[*HEADERS.items()]).get_request()
    starlette = Request({"type": "http", "headers": [(b"x-forge-invocation-id", b"first")]})
    sources: list[Any] = [flask, flask.headers, flask.environ, starlette, starlette.headers]
    for request in requests:
        sources += [request, request.headers, request.META]
    for source in sources:
        sidecar.client().for_invocation(source).publish("board", "moved")
    assert sidecar.invocations == ["first"] * len(sources)
    without: Any = RequestFactory().get("/")
    for source in (without, without.headers, without.META):
        with pytest.raises(NoInvocationError, match="carry no x-forge-invocation-id"):
            sidecar.client().for_invocation(source)
    with pytest.raises(UsageError, match=r"such as request\.headers"):
        Invocation.from_headers(cast("Any", object()))


def test_header_with_underscores_is_not_the_invocation() -> None:
    """Only the environment of WSGI spells them so: a client could send one beside the platform's."""
    headers = {"HTTP_X_FORGE_INVOCATION_ID": "spoofed", "x_forge_invocation_id": "spoofed", **HEADERS}
    assert Invocation.from_headers(headers).id == "first"
