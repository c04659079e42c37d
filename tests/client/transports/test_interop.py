"""Mocks and tracers for httpx keep working, and the app's own client, of httpx or httpx2, can be used."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import httpcore
import httpx
import httpx2
import pytest
import respx
import trustme
from attrs import evolve
from opentelemetry.instrumentation.httpx import HTTPX2ClientInstrumentor, HTTPXClientInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pytest_httpx import HTTPXMock

from forge_realtime import (
    AsyncRealtimeClient,
    Delivery,
    ForgeRealtimeError,
    NoResponseError,
    PublishResult,
    RateLimitedError,
    RealtimeClient,
    RejectedError,
    RetryPolicy,
    ServerError,
    TimedOutError,
    UnexpectedResponseError,
    UsageError,
)
from forge_realtime._transports import async_pool, connection
from tests.support.callers import ASYNC_KINDS, INVOCATION, QUICK, AsyncKind, Caller, async_client
from tests.support.fault_server import PUBLISHED, Connection, FaultServer, answer, http, refused_url, stall
from tests.support.tls_server import https_sidecar

BASE = "http://sidecar.test"
PATH = "/forge/realtime/v1/publish"
ONCE = evolve(QUICK, max_attempts=1)


def publish(live: Any) -> Any:
    return live.publish("board-42", {"moved": 7})


def after(step: Callable[[], object]) -> Callable[[Any], Any]:
    """Runs the step, then publishes."""

    def call(live: Any) -> Any:
        step()
        return publish(live)

    return call


def event_ids(results: list[Any]) -> list[str | None]:
    return [result.event_id for result in results]


def test_httpx_is_not_intercepted_by_default() -> None:
    """pytest-httpx is a plugin of the whole suite."""
    assert not async_pool.is_intercepted()


def test_httpx_transports_send_through_their_pool() -> None:
    """The connections replace this private attribute."""
    assert isinstance(httpx.HTTPTransport()._pool, httpcore.ConnectionPool)
    assert isinstance(httpx.AsyncHTTPTransport()._pool, httpcore.AsyncConnectionPool)


def test_respx_mocks_requests(caller: Caller) -> None:
    with respx.mock(base_url=BASE) as sidecar:
        route = sidecar.post(PATH).respond(json={"eventId": "mocked"})
        assert event_ids(caller(BASE, publish, publish)) == ["mocked"] * 2
    assert route.call_count == 2
    request = route.calls.last.request
    assert json.loads(request.content) == {"name": "board-42", "payload": '{"moved":7}'}
    assert request.headers["forge-proxy-authorization"] == "Forge as=app,id=invocation-123"


@pytest.mark.parametrize(
    ("failure", "delivery"), [(httpx.ConnectError, Delivery.NOT_SENT), (httpx.ReadTimeout, Delivery.UNKNOWN)]
)
def test_respx_failures_are_classed_by_their_type(caller: Caller, failure: type[Exception], delivery: Delivery) -> None:
    with respx.mock(base_url=BASE) as sidecar:
        sidecar.post(PATH).mock(side_effect=[failure, httpx.Response(429), failure])
        [error] = caller(BASE, publish, retry=evolve(QUICK, max_attempts=3))
    assert type(error) in (NoResponseError, TimedOutError)
    assert [attempt.delivery for attempt in error.attempts] == [delivery, Delivery.REJECTED, delivery]


def test_respx_can_start_and_stop_while_the_client_is_in_use(caller: Caller) -> None:
    with FaultServer() as server:
        mock = respx.mock(base_url=server.url)
        mock.post(PATH).respond(json={"eventId": "mocked"})
        results = caller(server.url, publish, after(mock.start), publish, after(mock.stop), publish)
    assert event_ids(results) == ["event-1", "mocked", "mocked", "event-1", "event-1"]
    assert len(server.received) == 3
    assert server.connections <= 2


def test_request_that_respx_passes_through_is_sent(caller: Caller) -> None:
    with FaultServer() as server, respx.mock(assert_all_mocked=False) as sidecar:
        route = sidecar.route(host="127.0.0.1").pass_through()
        results = caller(server.url, publish, publish)
    assert event_ids(results) == ["event-1"] * 2
    # respx sees them at more than one place.
    assert route.call_count >= len(server.received) == 2
    assert server.connections == 1


def test_pytest_httpx_mocks_requests(caller: Caller, httpx_mock: HTTPXMock) -> None:
    httpx_mock.add_response(url=BASE + PATH, status_code=503, headers={"Retry-After": "0"})
    httpx_mock.add_exception(httpx.ConnectError("mocked"))
    httpx_mock.add_response(url=BASE + PATH, json={"eventId": "mocked"})
    [result] = caller(BASE, publish)
    assert result.event_id == "mocked"
    deliveries = [attempt.delivery for attempt in result.attempts]
    assert deliveries == [Delivery.REJECTED, Delivery.NOT_SENT, Delivery.ACCEPTED]
    for request in httpx_mock.get_requests():
        assert request.headers["forge-proxy-authorization"] == "Forge as=app,id=invocation-123"


@pytest.mark.httpx_mock(should_mock=lambda request: request.url.host != "127.0.0.1")
def test_request_that_pytest_httpx_does_not_mock_is_sent(caller: Caller, httpx_mock: HTTPXMock) -> None:
    with FaultServer() as server:
        assert event_ids(caller(server.url, publish, publish)) == ["event-1"] * 2
    assert server.connections == 1
    assert httpx_mock.get_requests() == []


@pytest.fixture
def tracer() -> Iterator[TracerProvider]:
    provider = TracerProvider()
    yield provider
    HTTPXClientInstrumentor().uninstrument()
    provider.shutdown()


@pytest.fixture
def spans(tracer: TracerProvider) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    tracer.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter


def test_opentelemetry_sees_each_attempt(caller: Caller, tracer: TracerProvider, spans: InMemorySpanExporter) -> None:
    HTTPXClientInstrumentor().instrument(tracer_provider=tracer)
    with FaultServer(answer(429)) as server, tracer.get_tracer("test").start_as_current_span("request") as around:
        caller(server.url, publish)
        url = server.url + PATH
    first, second, _ = spans.get_finished_spans()
    assert [span.attributes and span.attributes["http.status_code"] for span in (first, second)] == [429, 200]
    assert first.attributes
    assert first.attributes["http.url"] == url
    # The header that carries the trace to the next service.
    trace = f"{around.get_span_context().trace_id:032x}"
    assert [request.headers["traceparent"].split("-")[1] for request in server.received] == [trace] * 2


@pytest.mark.filterwarnings("ignore:Attempting to")
def test_opentelemetry_can_start_and_stop_while_the_client_is_in_use(
    caller: Caller, tracer: TracerProvider, spans: InMemorySpanExporter
) -> None:
    tracing = HTTPXClientInstrumentor()
    begin = after(lambda: tracing.instrument(tracer_provider=tracer))
    with FaultServer() as server:
        results = caller(server.url, publish, begin, publish, after(tracing.uninstrument), publish)
    assert event_ids(results) == ["event-1"] * 5
    assert len(spans.get_finished_spans()) == 2
    assert ["traceparent" in request.headers for request in server.received] == [False, True, True, False, False]


@pytest.mark.parametrize("kind", ASYNC_KINDS)
def test_opentelemetry_can_start_while_calls_are_in_flight(
    kind: AsyncKind, tracer: TracerProvider, spans: InMemorySpanExporter
) -> None:
    arrived, go_on = threading.Semaphore(0), threading.Event()

    def hold(connection: Connection) -> bool:
        arrived.release()
        go_on.wait(10)
        return PUBLISHED(connection)

    async def run() -> list[PublishResult]:
        async with async_client(kind, server.url) as client:
            live = client.for_invocation(INVOCATION)
            calls = [asyncio.create_task(publish(live)) for _ in range(5)]
            for _ in calls:
                await asyncio.to_thread(arrived.acquire)
            HTTPXClientInstrumentor().instrument(tracer_provider=tracer)
            calls.append(asyncio.create_task(publish(live)))
            await asyncio.to_thread(arrived.acquire)
            go_on.set()
            return await asyncio.gather(*calls) + await asyncio.gather(*[publish(live) for _ in range(5)])

    with FaultServer(then=hold) as server:
        assert event_ids(asyncio.run(run())) == ["event-1"] * 11
    assert len(spans.get_finished_spans()) == 6
    assert sum("traceparent" in request.headers for request in server.received) == 6


# From here on: the app's own client.


class HandedIn:
    """Makes calls with the app's own client, and checks that it stays open. `library` is httpx or httpx2."""

    def __init__(self, kind: str, library: Any) -> None:
        self.kind = kind
        self.library = library

    def __call__(
        self,
        url: str,
        *calls: Callable[[Any], Any],
        retry: RetryPolicy = QUICK,
        hooks: dict[str, list[Callable[[Any], object]]] | None = None,
        instrument: Callable[[Any], object] = lambda client: None,
        proxy: str | None = None,
        **settings: Any,
    ) -> list[Any]:
        if self.kind == "sync":
            if proxy is not None:
                settings["mounts"] = {"all://": self.library.HTTPTransport(proxy=proxy)}
            with self.library.Client(event_hooks=hooks, **settings) as http_client:
                instrument(http_client)
                with RealtimeClient(url, http_client=http_client, retry=retry) as client:
                    outcomes = [self._outcome(call, client.for_invocation(INVOCATION)) for call in calls]
                assert not http_client.is_closed
                return outcomes
        return asyncio.run(self._run(url, calls, retry, hooks or {}, instrument, proxy, settings))

    def _outcome(self, call: Callable[[Any], Any], live: RealtimeClient) -> Any:
        try:
            return call(live)
        except ForgeRealtimeError as error:
            return error

    async def _run(
        self,
        url: str,
        calls: tuple[Callable[[Any], Any], ...],
        retry: RetryPolicy,
        hooks: dict[str, list[Callable[[Any], object]]],
        instrument: Callable[[Any], object],
        proxy: str | None,
        settings: dict[str, Any],
    ) -> list[Any]:
        def awaited(hook: Callable[[Any], object]) -> Callable[[Any], Any]:
            async def call(it: Any) -> None:
                if hook is read_and_raise:
                    await it.aread()
                    it.raise_for_status()
                hook(it)

            return call

        if proxy is not None:
            settings["mounts"] = {"all://": self.library.AsyncHTTPTransport(proxy=proxy)}
        asynchronous = {event: [awaited(hook) for hook in found] for event, found in hooks.items()}
        async with self.library.AsyncClient(event_hooks=asynchronous, **settings) as http_client:
            instrument(http_client)
            outcomes = []
            async with AsyncRealtimeClient(url, http_client=http_client, retry=retry) as client:
                for call in calls:
                    try:
                        outcomes.append(await call(client.for_invocation(INVOCATION)))
                    except ForgeRealtimeError as error:
                        outcomes.append(error)
            assert not http_client.is_closed
            return outcomes


def raise_unread(response: Any) -> None:
    response.raise_for_status()


def read_and_raise(response: Any) -> None:
    response.read()
    response.raise_for_status()


@pytest.fixture(params=["sync, httpx", "async, httpx", "sync, httpx2", "async, httpx2"])
def handed_in(request: pytest.FixtureRequest) -> HandedIn:
    kind, library = request.param.split(", ")
    return HandedIn(kind, {"httpx": httpx, "httpx2": httpx2}[library])


def test_http_client_adds_headers_cookies_parameters_and_authentication(handed_in: HandedIn) -> None:
    with FaultServer() as server:
        results = handed_in(
            server.url,
            publish,
            publish,
            headers={"X-Team": "boards", "Content-Type": "text/plain", "forge-proxy-authorization": "Forge id=other"},
            cookies={"session": "blue"},
            params={"debug": "1"},
            auth=("user", "password"),
            base_url="http://elsewhere.test/prefix",
        )
    assert event_ids(results) == ["event-1"] * 2
    assert server.connections == 1
    for request in server.received:
        assert request.path == f"{PATH}?debug=1"
        assert request.headers["x-team"] == "boards"
        assert request.headers["cookie"] == "session=blue"
        assert request.headers["authorization"].startswith("Basic ")
        # The headers of the platform win.
        assert request.headers["content-type"] == "application/json"
        assert request.headers["forge-proxy-authorization"] == "Forge as=app,id=invocation-123"
        assert request.json == {"name": "board-42", "payload": '{"moved":7}'}


def test_authentication_with_two_requests_is_one_attempt(handed_in: HandedIn) -> None:
    challenge = answer(401, headers={"WWW-Authenticate": 'Digest realm="r", nonce="n", qop="auth"'}, publishes=False)
    with FaultServer(challenge) as server:
        [result] = handed_in(server.url, publish, auth=handed_in.library.DigestAuth("user", "password"))
    assert result.event_id == "event-1"
    assert len(result.attempts) == 1
    first, second = server.received
    assert first.body == second.body
    assert second.headers["authorization"].startswith("Digest ")


def test_event_hooks_run_for_each_attempt(handed_in: HandedIn) -> None:
    seen: list[object] = []

    def before(request: Any) -> None:
        request.headers["X-Hook"] = "1"
        seen.append(request.url.path)

    def afterwards(response: Any) -> None:
        seen.append(response.status_code)

    with FaultServer(answer(429)) as server:
        [result] = handed_in(server.url, publish, hooks={"request": [before], "response": [afterwards]})
    assert result.event_id == "event-1"
    assert seen == [PATH, 429, PATH, 200]
    assert all(request.headers["x-hook"] == "1" for request in server.received)


STATUSES: dict[int, tuple[type[ForgeRealtimeError], Delivery]] = {
    302: (UnexpectedResponseError, Delivery.UNKNOWN),
    400: (RejectedError, Delivery.REJECTED),
    429: (RateLimitedError, Delivery.REJECTED),
    500: (ServerError, Delivery.UNKNOWN),
}


@pytest.mark.parametrize("hook", [raise_unread, read_and_raise], ids=["unread", "read"])
@pytest.mark.parametrize("status", STATUSES)
def test_hook_that_raises_for_the_status_leaves_the_error_as_it_is(
    handed_in: HandedIn, status: int, hook: Callable[[Any], None]
) -> None:
    refusal = answer(status, {"code": "WHY"}, {"Retry-After": "7"})
    with FaultServer(then=refusal) as server:
        first, second = handed_in(server.url, publish, publish, retry=ONCE, hooks={"response": [hook]})
    for error in (first, second):
        assert (type(error), error.delivery) == STATUSES[status]
        assert error.status == status
        assert error.headers["retry-after"] == "7"
        assert error.body == (b'{"code": "WHY"}' if hook is read_and_raise else b"")
    assert len(server.received) == 2


def test_hook_that_raises_for_the_status_does_not_end_retries(handed_in: HandedIn) -> None:
    with FaultServer(answer(429, headers={"Retry-After": "0"})) as server:
        [result] = handed_in(server.url, publish, hooks={"response": [raise_unread]})
    assert [attempt.status for attempt in result.attempts] == [429, 200]


def test_error_of_a_hook_is_the_cause(handed_in: HandedIn) -> None:
    class Stop(Exception):  # noqa: N818 (it is no error)
        pass

    def stop(request: Any) -> None:
        raise Stop

    with FaultServer() as server:
        [before] = handed_in(server.url, publish, hooks={"request": [stop]})
        assert not server.received
        [afterwards] = handed_in(server.url, publish, hooks={"response": [stop]})
        assert len(server.received) == 1
    for error, delivery in ((before, Delivery.NOT_SENT), (afterwards, Delivery.UNKNOWN)):
        assert type(error) is NoResponseError
        assert error.delivery is delivery
        assert isinstance(error.__cause__, Stop)


def forward(connection: Connection) -> bool:
    """Forwards a request for plain http, as a proxy does."""
    request = connection.read()
    target = urlsplit(request.path)
    upstream = HTTPConnection(target.hostname or "", target.port)
    upstream.request(request.method, target.path, request.body, request.headers)
    received = upstream.getresponse()
    body = received.read()
    upstream.close()
    connection.send(http(received.status, body, {"Via": "1.1 proxy"}))
    return True


@pytest.mark.parametrize("from_environment", [False, True], ids=["mounts", "HTTP_PROXY"])
def test_proxy_of_the_http_client_is_used(
    handed_in: HandedIn, from_environment: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with FaultServer() as server, FaultServer(then=forward) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url if from_environment else "")
        results = handed_in(server.url, publish, publish, proxy=None if from_environment else proxy.url)
        assert [request.path for request in proxy.received] == [server.url + PATH] * 2
    assert event_ids(results) == ["event-1"] * 2
    assert len(server.received) == 2
    assert proxy.connections == 1


def test_unreachable_proxy_is_not_sent(handed_in: HandedIn) -> None:
    proxy = refused_url().replace("//", "//user:S3CRET@")
    with FaultServer() as server:
        [error] = handed_in(server.url, publish, proxy=proxy, retry=ONCE)
        assert not server.received
    assert type(error) is NoResponseError
    assert error.delivery is Delivery.NOT_SENT
    assert "S3CRET" not in str(error)


def test_certificates_are_verified_as_the_http_client_is_set(handed_in: HandedIn) -> None:
    authority = trustme.CA()
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with https_sidecar(authority) as url:
        [error] = handed_in(url, publish, retry=ONCE)
        assert error.delivery is Delivery.NOT_SENT
        assert "CERTIFICATE_VERIFY_FAILED" in str(error.__cause__)
        for verify in (trusting, False):
            assert event_ids(handed_in(url, publish, publish, verify=verify)) == ["e"] * 2


def test_redirects_are_followed_if_the_http_client_is_set_to(handed_in: HandedIn) -> None:
    moved = answer(307, headers={"Location": "/elsewhere"}, publishes=False)
    with FaultServer(moved) as server:
        [error] = handed_in(server.url, publish)
    assert type(error) is UnexpectedResponseError
    with FaultServer(moved) as server:
        [result] = handed_in(server.url, publish, follow_redirects=True)
    assert result.event_id == "event-1"
    first, second = server.received
    assert second.path == "/elsewhere"
    assert first.body == second.body
    with FaultServer(then=moved) as server:
        [error] = handed_in(server.url, publish, follow_redirects=True, max_redirects=2, retry=ONCE)
    assert error.delivery is Delivery.UNKNOWN


def test_redirect_to_an_unreachable_server_is_unknown(handed_in: HandedIn) -> None:
    elsewhere = answer(303, headers={"Location": refused_url()})
    once = evolve(QUICK, delivery="at_most_once")
    with FaultServer(then=elsewhere) as server:
        [error] = handed_in(server.url, publish, follow_redirects=True, retry=once)
    assert error.delivery is Delivery.UNKNOWN
    assert len(server.published) == 1


def test_connect_error_of_a_hook_is_not_sent(handed_in: HandedIn) -> None:
    def fail(request: Any) -> None:
        raise handed_in.library.ConnectError("not today")

    with FaultServer() as server:
        [error] = handed_in(server.url, publish, hooks={"request": [fail]}, retry=ONCE)
    assert error.delivery is Delivery.NOT_SENT


def test_policy_bounds_the_time_instead_of_the_http_clients_timeout(handed_in: HandedIn) -> None:
    def take_a_while(connection: Connection) -> bool:
        body = connection.read()
        connection.stopping.wait(0.1)
        connection.send(http(200, json.dumps({"eventId": str(len(body.body) > 0)}).encode()))
        return True

    with FaultServer(take_a_while) as server:
        [result] = handed_in(server.url, publish, timeout=0.01)
    assert result.event_id == "True"
    assert len(result.attempts) == 1
    with FaultServer(then=stall) as server:
        [error] = handed_in(server.url, publish, timeout=None, retry=evolve(ONCE, attempt_timeout=0.1))
    assert type(error) is TimedOutError
    assert error.delivery is Delivery.UNKNOWN


@pytest.mark.parametrize("level", ["client", "connections"])
def test_respx_can_mock_at_each_level_of_the_http_client(handed_in: HandedIn, level: str) -> None:
    # pytest-httpx2 adds the one of httpx2, which has one level only.
    using = "httpcore2" if handed_in.library is httpx2 else {"client": "httpx", "connections": "httpcore"}[level]
    with respx.mock(base_url=BASE, using=using) as sidecar:
        sidecar.post(PATH).respond(json={"eventId": "mocked"})
        assert event_ids(handed_in(BASE, publish)) == ["mocked"]


def test_pytest_httpx2_mocks_requests(httpx2_mock: respx.Router) -> None:
    route = httpx2_mock.post(BASE + PATH)
    for kind in ("sync", "async"):
        route.side_effect = [httpx.ConnectError, httpx.Response(429), httpx.Response(200, json={"eventId": "mocked"})]
        [result] = HandedIn(kind, httpx2)(BASE, publish)
        assert result.event_id == "mocked"
        deliveries = [attempt.delivery for attempt in result.attempts]
        assert deliveries == [Delivery.NOT_SENT, Delivery.REJECTED, Delivery.ACCEPTED]
    assert route.calls.last.request.headers["forge-proxy-authorization"] == "Forge as=app,id=invocation-123"


def test_opentelemetry_can_instrument_one_http_client(
    handed_in: HandedIn, tracer: TracerProvider, spans: InMemorySpanExporter
) -> None:
    instrumentor = HTTPX2ClientInstrumentor if handed_in.library is httpx2 else HTTPXClientInstrumentor

    def instrument(client: Any) -> None:
        instrumentor.instrument_client(client, tracer_provider=tracer)

    with FaultServer() as server:
        handed_in(server.url, publish, instrument=instrument)
    assert len(spans.get_finished_spans()) == 1
    assert "traceparent" in server.received[0].headers


def test_secrets_of_the_http_client_are_in_no_message(handed_in: HandedIn, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "forge_realtime")
    settings: dict[str, Any] = {
        "headers": {"X-Key": "S3CRET"},
        "cookies": {"session": "S3CRET"},
        "params": {"key": "S3CRET"},
        "auth": ("user", "S3CRET"),
    }
    with FaultServer(answer(500), answer(400), answer(404)) as server:
        errors = handed_in(server.url, publish, publish, publish, retry=ONCE, **settings)
    errors += handed_in(refused_url(), publish, retry=ONCE, **settings)
    for error in errors:
        assert isinstance(error, ForgeRealtimeError)
        assert "S3CRET" not in f"{error} {error!r} {error.attempts} {error.__cause__!r}"
    assert "S3CRET" not in caplog.text


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_closed_http_client_is_refused(library: Any) -> None:
    http_client = library.Client()
    http_client.close()
    with (
        RealtimeClient(BASE, http_client=http_client) as client,
        pytest.raises(UsageError, match="given as http_client is closed"),
    ):
        publish(client.for_invocation(INVOCATION))

    async def run() -> None:
        http_client = library.AsyncClient()
        await http_client.aclose()
        async with AsyncRealtimeClient(BASE, http_client=http_client) as client:
            await publish(client.for_invocation(INVOCATION))

    with pytest.raises(UsageError, match="given as http_client is closed"):
        asyncio.run(run())


@pytest.mark.parametrize(
    ("client", "settings"),
    [
        (RealtimeClient, lambda: {"http_client": httpx.AsyncClient()}),
        (RealtimeClient, lambda: {"http_client": httpx.Client(), "transport": httpx.HTTPTransport()}),
        (RealtimeClient, lambda: {"http_client": httpx.Client}),
        (AsyncRealtimeClient, lambda: {"http_client": httpx.Client()}),
        (AsyncRealtimeClient, lambda: {"http_client": httpx.AsyncClient(), "transport": "aiohttp"}),
        (AsyncRealtimeClient, lambda: {"http_client": "https://proxy"}),
        (RealtimeClient, lambda: {"http_client": httpx2.AsyncClient()}),
        (RealtimeClient, lambda: {"http_client": httpx2.Client(), "transport": httpx2.HTTPTransport()}),
        (RealtimeClient, lambda: {"http_client": httpx2.HTTPTransport()}),
        (RealtimeClient, lambda: {"http_client": httpx2.Client}),
        (AsyncRealtimeClient, lambda: {"http_client": httpx2.Client()}),
        (AsyncRealtimeClient, lambda: {"http_client": httpx2.AsyncClient(), "transport": "aiohttp"}),
    ],
)
def test_http_client_of_another_type_is_refused(client: Any, settings: Callable[[], dict[str, Any]]) -> None:
    with pytest.raises(
        UsageError, match=r"http_client takes an httpx\.(Async)?Client or httpx2\.(Async)?Client, which has"
    ):
        client(BASE, **settings())


@pytest.mark.parametrize(
    ("client", "transport"),
    [
        (RealtimeClient, "aiohttp"),
        (RealtimeClient, "httpx"),
        (RealtimeClient, httpx.AsyncHTTPTransport),
        (RealtimeClient, httpx2.AsyncHTTPTransport),
        (RealtimeClient, httpx2.Client),
        (AsyncRealtimeClient, "requests"),
        (AsyncRealtimeClient, httpx2.HTTPTransport),
        (AsyncRealtimeClient, httpx2.AsyncClient),
    ],
)
def test_transport_of_another_type_is_refused(client: Any, transport: Any) -> None:
    with pytest.raises(UsageError, match=r"transport takes .*an httpx\.(Async)?BaseTransport or httpx2\.(Async)?Base"):
        client(BASE, transport=transport if isinstance(transport, str) else transport())


def test_missing_aiohttp_is_an_error_only_if_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(async_pool, "find_spec", lambda name: None)
    with pytest.raises(
        UsageError, match=r"needs the package aiohttp, at least 3\.12: install it, or the extra `aiohttp`"
    ):
        AsyncRealtimeClient(BASE, transport="aiohttp")

    async def run() -> PublishResult:
        async with AsyncRealtimeClient(server.url) as client:
            result: PublishResult = await publish(client.for_invocation(INVOCATION))
            return result

    with FaultServer() as server:
        assert asyncio.run(run()).event_id == "event-1"


def test_httpx_is_used_unless_aiohttp_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Installing aiohttp for another reason changes nothing."""
    used: list[str] = []

    send = connection.AsyncPooledConnection.send

    def watched(*args: Any) -> Any:
        used.append("httpx")
        return send(*args)

    monkeypatch.setattr(connection.AsyncPooledConnection, "send", watched)

    async def run(**settings: Any) -> None:
        async with AsyncRealtimeClient(server.url, **settings) as client:
            await publish(client.for_invocation(INVOCATION))

    with FaultServer() as server:
        names: list[dict[str, Any]] = [{}, {"transport": None}, {"transport": "httpx"}, {"transport": "aiohttp"}]
        for settings in names:
            asyncio.run(run(**settings))
        assert len(server.received) == 4
    assert used == ["httpx"] * 3
