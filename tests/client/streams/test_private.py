"""Private streams of both clients: tokens, handle, the end of the invocation, and who may stop them."""

from __future__ import annotations

import asyncio
import base64
import copy
import inspect
import io
import json
import logging
import pickle
import time
import traceback
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, suppress
from types import ModuleType
from typing import Any

import flask
import httpx
import pytest
from django.test import Client, override_settings  # type: ignore[import-untyped]
from django.urls import path  # type: ignore[import-untyped]

from forge_realtime import (
    AsyncPrivateStream,
    AsyncRealtimeClient,
    Delivery,
    Invocation,
    NoInvocationError,
    PrivateStream,
    Quota,
    RealtimeClient,
    RejectedError,
    StreamError,
    StreamHandle,
    UsageError,
    asgi,
    wsgi,
)
from forge_realtime import django as _django
from forge_realtime._core import clock
from forge_realtime._core.invocation import CurrentInvocation, activated
from forge_realtime._core.stop import MOST_BYTES, STOP_PATH, private_streams, stop_stream
from forge_realtime._quota.limiter import QuotaLimiter, _state
from forge_realtime_emulator import Emulator, Settings
from tests.client.realtime.test_secrets import own_variables
from tests.support import web_apps
from tests.support.callers import INVOCATION, QUICK
from tests.support.garbage import collect
from tests.support.recorded import recorded

UNLIMITED = Quota(per_second=100_000, burst=1000)
INSTALLATION = "11111111-1111-4111-8111-111111111111"
SIGN = "sign_realtime_token"


Steps = Generator[Any, Any, Any]


def nothing(stream: Any) -> Steps:
    yield


class Opener:
    """Opens a private stream with either client. A generator does the work of its block, and yields what to await."""

    def __init__(self, kind: str, emulator: Emulator) -> None:
        self.kind = kind
        self.emulator = emulator

    def __call__(self, work: Callable[[Any], Steps] = nothing, **options: Any) -> Any:
        if self.kind == "async":
            return asyncio.run(self._open(work, options))
        with RealtimeClient(self.emulator.url, retry=QUICK, quota=UNLIMITED) as client:
            self.live: Any = client.for_invocation(INVOCATION)
            with self.live.private_stream("answer", **options) as stream:
                steps, result = work(stream), None
                with suppress(StopIteration):
                    while True:
                        result = steps.send(result)
        return stream

    async def _open(self, work: Callable[[Any], Steps], options: Any) -> Any:
        async with AsyncRealtimeClient(self.emulator.url, retry=QUICK, quota=UNLIMITED) as client:
            self.live = client.for_invocation(INVOCATION)
            async with await self.live.private_stream("answer", **options) as stream:
                steps, result = work(stream), None
                with suppress(StopIteration):
                    while True:
                        result = steps.send(result)
                        result = await result if inspect.isawaitable(result) else result
        return stream


@pytest.fixture(scope="module")
def shared_emulator() -> Iterator[Emulator]:
    with Emulator(settings=Settings(token_lifetime=3600)) as emulator:
        yield emulator


@pytest.fixture
def emulator(shared_emulator: Emulator) -> Emulator:
    shared_emulator.reset()
    return shared_emulator


@pytest.fixture(params=["sync", "async"])
def open_stream(request: pytest.FixtureRequest, emulator: Emulator) -> Opener:
    return Opener(request.param, emulator)


def payload_of(token: str) -> dict[str, Any]:
    text = token.split(".")[1]
    payload: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return payload


def requests(emulator: Emulator, path: str) -> list[Any]:
    return [request for request in emulator.requests if request.operation.lower().startswith(path)]


def signed(emulator: Emulator) -> list[dict[str, Any]]:
    return [request.body for request in requests(emulator, "sign")]


def test_handle_is_json_and_shows_nothing(open_stream: Opener) -> None:
    stream = open_stream(claims={"account": "account-7"})
    handle = stream.handle
    assert isinstance(handle, StreamHandle)
    assert json.loads(json.dumps(handle)) == handle
    assert handle == {
        "channel": "answer",
        "stream": recorded(open_stream.emulator).id,
        "token": handle["token"],
        "expiresAt": payload_of(handle["token"])["exp"],
        "stop": {"path": "/forge-realtime/stop", "secret": handle["stop"]["secret"]},
    }
    copies = [
        copy.copy(handle),
        copy.deepcopy(handle),
        handle.copy(),
        handle | {"more": 1},
        pickle.loads(pickle.dumps(handle)),
    ]
    assert [json.loads(json.dumps(each)) for each in copies] == [handle, handle, handle, {**handle, "more": 1}, handle]
    shown = f"{handle} {handle!r} {stream!r} {[handle]} {copies}"
    assert not [secret for secret in (handle["token"], handle["stop"]["secret"], "account-7") if secret in shown]


def fail(value: Any) -> Any:
    raise ValueError


def failing(items: list[Any], kind: str) -> Any:
    """A source that yields the items, and raises."""

    def source() -> Iterator[Any]:
        yield from items
        raise ValueError

    async def source_async() -> Any:
        for item in source():
            yield item

    return source_async() if kind == "async" else source()


@pytest.mark.parametrize(
    ("work", "merge"),
    [
        (lambda stream, kind: stream.send({"text": "account-7"}), "append"),
        (lambda stream, kind: stream.send({"text": "account-7", "object": object()}), "latest"),
        (lambda stream, kind: stream.send("account-7 \ud800"), "append"),
        (lambda stream, kind: stream.pipe(failing(["account-7"], kind)), "append"),
        (lambda stream, kind: stream.pipe(failing(["account-7"], kind), key=fail), "append"),
        (lambda stream, kind: stream.pipe(failing(["account-7", {"text": "account-7"}], kind)), "append"),
        (lambda stream, kind: stream.pipe(["account-7", {"text": "account-7"}] if kind == "sync" else 7), "append"),
    ],
)
def test_no_secret_in_the_variables_of_frames(open_stream: Opener, work: Any, merge: Any) -> None:
    handles: list[StreamHandle] = []

    def both(stream: Any) -> Steps:
        handles.append(stream.handle)
        yield work(stream, open_stream.kind)

    with pytest.raises((ValueError, UsageError)) as caught:
        open_stream(both, claims={"account": "account-7"}, merge=merge)
    secrets = ["account-7", handles[0]["token"], handles[0]["stop"]["secret"]]
    assert not [line for line in own_variables(caught.value) if any(secret in line for secret in secrets)]


@pytest.mark.parametrize("claims", [{"account": "account-7", "object": object()}, {"nonce": "account-7"}])
def test_no_claim_in_the_variables_of_frames(open_stream: Opener, claims: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        open_stream(claims=claims)
    assert not [line for line in own_variables(caught.value) if "account-7" in line]


def test_page_may_subscribe_and_stream_may_publish_only(open_stream: Opener) -> None:
    stream = open_stream(claims={"account": "account-7"})
    first, second = signed(open_stream.emulator)
    assert (first["permissions"], second["permissions"]) == (["publish"], ["subscribe"])
    assert payload_of(stream.handle["token"])["permissions"] == ["subscribe"]
    assert first["claims"] == second["claims"]
    assert first["claims"] == {"account": "account-7", "channel": "answer", "nonce": first["claims"]["nonce"]}
    open_stream()
    assert signed(open_stream.emulator)[2]["claims"]["nonce"] != first["claims"]["nonce"]


def test_only_its_page_reads_it(open_stream: Opener) -> None:
    emulator, claims = open_stream.emulator, {"account": "account-7"}

    def work(stream: Any) -> Steps:
        handles = [stream.handle, open_other(emulator, claims=claims).handle]
        with ExitStack() as pages:
            for handle in handles:
                pages.enter_context(emulator.subscribe("answer", is_global=True, token=handle["token"]))
            pages.enter_context(emulator.subscribe("answer", is_global=True))
            yield stream.send("for one page")
            yield stream.flush()

    open_stream(work, claims=claims)
    assert [event.delivered for event in emulator.events if '"data"' in event.payload] == [1]


def open_other(emulator: Emulator, **options: Any) -> PrivateStream:
    """Return a private stream of another page, which is not used."""
    with RealtimeClient(emulator.url) as client:
        return client.for_invocation({"x-forge-invocation-id": "invocation-456"}).private_stream("answer", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"claims": {"nonce": "mine"}}, "the claims 'channel' and 'nonce' are the stream's own"),
        ({"claims": "account"}, "claims must be a mapping"),
        ({"claims": {7: "account"}}, "claims must be a mapping with names of type str"),
        ({"stop_path": "stop"}, "stop_path must be a path of this service"),
        ({"merge": "join"}, "merge must be"),
    ],
)
def test_wrong_arguments_are_refused_before_a_call(open_stream: Opener, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_stream(**options)
    assert open_stream.emulator.requests == []


def send_each(stream: Any, *texts: str, between: Callable[[], object]) -> Steps:
    for number, text in enumerate(texts):
        if number:
            between()
        yield stream.send(text)
        yield stream.flush()


def test_token_that_the_platform_calls_expired_is_renewed(open_stream: Opener) -> None:
    emulator = open_stream.emulator
    open_stream(lambda stream: send_each(stream, "a", "b", between=lambda: emulator.advance(3601)))
    assert recorded(emulator).value == "ab"
    assert [body["permissions"] for body in signed(emulator)] == [["publish"], ["subscribe"], ["publish"]]
    assert [request.code for request in requests(emulator, "publish")].count("TOKEN_EXPIRED") == 1


def test_next_token_has_the_claims_of_the_first_one(open_stream: Opener) -> None:
    """Otherwise the page, which subscribed with those, gets nothing any more."""
    emulator, roles = open_stream.emulator, ["reader"]

    def between() -> None:
        roles.append("writer")
        emulator.advance(3601)

    open_stream(lambda stream: send_each(stream, "a", "b", between=between), claims={"roles": roles})
    first, second, renewed = [body["claims"] for body in signed(emulator)]
    assert first == second == renewed
    assert renewed["roles"] == ["reader"]


def test_token_that_has_expired_by_a_clock_which_was_set_meanwhile_is_renewed(open_stream: Opener) -> None:
    """Each signed token sets the client's clock, for all streams of the client, by a `Date` in whole seconds."""
    emulator = open_stream.emulator

    def set_clock() -> None:
        open_stream.live._clock.set(time.time() + 3601)

    open_stream(lambda stream: send_each(stream, "a", "b", between=set_clock))
    assert recorded(emulator).value == "ab"
    assert [body["permissions"] for body in signed(emulator)] == [["publish"], ["subscribe"], ["publish"]]
    assert "TOKEN_EXPIRED" not in [request.code for request in emulator.requests]


def test_token_is_renewed_when_a_tenth_of_its_life_is_left(
    open_stream: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A renewal that fails is tried again a second later: until then, the old token serves."""
    emulator, later = open_stream.emulator, 0.0
    now = clock.monotonic

    def pass_time() -> None:
        nonlocal later
        later = {0.0: 3000.0, 3000.0: 3300.0, 3300.0: 3300.5, 3300.5: 3302.0}[later]
        if later == 3300.0:
            emulator.fail_next(times=QUICK.max_attempts, status=500, operation=SIGN)

    monkeypatch.setattr("forge_realtime._realtime.private.monotonic", lambda: now() + later)
    stream = open_stream(lambda stream: send_each(stream, "a", "b", "c", "d", "e", between=pass_time))
    assert recorded(emulator).value == "abcde"
    statuses = [(request.operation.split("_")[0], request.status) for request in emulator.requests]
    published, failed, renewed = ("publish", 200), [("sign", 500)] * QUICK.max_attempts, ("sign", 200)
    # The last one is the end.
    assert statuses == [renewed, renewed, *[published] * 2, *failed, *[published] * 2, renewed, *[published] * 2]
    # Signing is no operation of the stream.
    assert stream.report.operations == statuses.count(published)


def test_expired_token_is_not_sent_while_no_other_can_be_signed(
    open_stream: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator, later = open_stream.emulator, 0.0
    now = clock.monotonic

    def pass_time() -> None:
        nonlocal later
        later = 3601.0
        emulator.fail_next(times=2 * QUICK.max_attempts, status=500, operation=SIGN)

    monkeypatch.setattr("forge_realtime._realtime.private.monotonic", lambda: now() + later)
    stream = open_stream(lambda stream: send_each(stream, "a", "b", between=pass_time))
    # The stream waits for the token as it waits for a platform that is down.
    assert recorded(emulator).value == "ab"
    assert stream.report.unknown == 0


def test_update_whose_token_is_not_signed_in_time_was_not_sent(
    open_stream: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator, later = open_stream.emulator, 0.0
    now = clock.monotonic

    def work(stream: Any) -> Steps:
        nonlocal later
        yield stream.send("a")
        yield stream.flush()
        later = 3601.0
        emulator.fail_next(times=5, delay=5, operation=SIGN)
        yield stream.send("b")

    monkeypatch.setattr("forge_realtime._realtime.private.monotonic", lambda: now() + later)
    with pytest.raises(StreamError) as caught:
        open_stream(work, deadline=0.2)
    assert caught.value.delivery is Delivery.NOT_SENT
    assert (caught.value.report.sent, caught.value.report.dropped, caught.value.report.operations) == (1, 1, 1)


def test_stream_goes_on_for_the_installation_after_the_invocation(
    open_stream: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator = open_stream.emulator
    emulator.register(default={"installation": INSTALLATION})
    emulator.change(invocation_lifetime=60)

    def end_invocation() -> None:
        emulator.advance(3601)
        # The quota of the stream needs no other lookup, which the platform would refuse now.
        _state._installations.clear()

    lookups: list[object] = []

    def begin_lookup(_state: Any, key: object, now: float) -> bool:
        lookups.append(key)
        return True

    monkeypatch.setattr(type(_state), "begin_lookup", begin_lookup)
    open_stream(lambda stream: send_each(stream, "a", "b", "c", between=end_invocation))
    assert len(lookups) == 1
    assert recorded(emulator).value == "abc"
    accepted = [request for request in emulator.requests if request.code is None]
    ids = [request.authorization.installation_id for request in accepted if request.authorization]
    # Two tokens and one event by the invocation.
    assert ids[:3] == [None, None, None]
    assert set(ids[3:]) == {INSTALLATION}


def test_without_a_token_for_the_installation_the_last_one_serves_until_it_expires(open_stream: Opener) -> None:
    emulator = open_stream.emulator
    emulator.change(invocation_lifetime=60, token_by_installation=False)
    with pytest.raises(StreamError) as caught:
        open_stream(lambda stream: send_each(stream, "a", "b", "c", between=lambda: emulator.advance(2000)))
    assert caught.value.delivery is Delivery.REJECTED
    assert caught.value.report.sent == 2


def test_without_the_installation_the_stream_ends_with_the_invocation(
    open_stream: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_nothing(limiter: QuotaLimiter, until: float) -> Iterator[Any]:
        return iter(())

    monkeypatch.setattr(QuotaLimiter, "find_installation", find_nothing)
    emulator = open_stream.emulator
    emulator.change(invocation_lifetime=60)
    with pytest.raises(StreamError) as caught:
        open_stream(lambda stream: send_each(stream, "a", "b", between=lambda: emulator.advance(61)))
    assert caught.value.delivery is Delivery.REJECTED
    assert caught.value.report.sent == 1


def test_stream_takes_its_invocation_along(emulator: Emulator) -> None:
    """Also where a call after the end of the request is refused."""
    with RealtimeClient(emulator.url) as client:
        request = CurrentInvocation(Invocation("invocation-123"), after_end="refuse")
        with activated(request):
            stream = client.private_stream("answer")
            request.ended = True
            with stream:
                stream.send("late")
    assert recorded(emulator).value == "late"


def test_stream_for_an_installation(emulator: Emulator) -> None:
    with RealtimeClient(emulator.url) as client:
        with client.for_installation(INSTALLATION).private_stream("answer") as stream:
            stream.send("nightly")
        assert recorded(emulator).value == "nightly"
        with pytest.raises(NoInvocationError):
            client.private_stream("answer")
        emulator.change(token_by_installation=False)
        before = len(emulator.requests)
        with pytest.raises(RejectedError):
            client.for_installation(INSTALLATION).private_stream("answer")
        # Nobody else is left to sign for, nor to publish for.
        assert len(emulator.requests) == before + 1
        emulator.change(token_by_installation=True)
        emulator.fail_next(status=400, operation="publish_global")
        with pytest.raises(StreamError), client.for_installation(INSTALLATION).private_stream("answer") as stream:
            stream.send("refused")
        assert len(emulator.requests) == before + 4


def test_handle_is_renewed_for_whoever_has_it(open_stream: Opener) -> None:
    emulator = open_stream.emulator
    found: list[Any] = []

    def work(stream: Any) -> Steps:
        emulator.advance(60)
        sent_back = json.loads(json.dumps(stream.handle))
        live = open_stream.live.for_invocation({"x-forge-invocation-id": "invocation-456"})
        found.append((yield live.renew_handle(sent_back)))
        wrong = {**sent_back, "stop": {**sent_back["stop"], "secret": "x" * 43}}
        others: list[Any] = [wrong, {**sent_back, "stream": "0" * 32}, {**sent_back, "stop": "secret"}, {}, []]
        for other in others:
            assert (yield live.renew_handle(other)) is None

    stream = open_stream(work)
    [renewed] = found
    assert {**renewed, "token": "", "expiresAt": 0} == {**stream.handle, "token": "", "expiresAt": 0}
    assert renewed["expiresAt"] >= stream.handle["expiresAt"] + 60
    _, second, third = signed(emulator)
    assert (third["permissions"], third["claims"]) == (["subscribe"], second["claims"])
    by = [request.authorization.invocation_id for request in requests(emulator, "sign") if request.authorization]
    assert by == ["invocation-123", "invocation-123", "invocation-456"]


# Each framework's route, as a function of the request's method and body that returns status, content type and body.
Route = Callable[[str, bytes], tuple[int, str, bytes]]


def asgi_route(method: str, body: bytes) -> tuple[int, str, bytes]:
    async def call() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(asgi.StopRoute())) as client:
            return await client.request(method, f"http://app.test{STOP_PATH}", content=body)

    response = asyncio.run(call())
    return response.status_code, response.headers["content-type"], response.content


def flask_route(method: str, body: bytes, view: Any = wsgi.StopRoute) -> tuple[int, str, bytes]:
    app = flask.Flask("app")
    app.add_url_rule(STOP_PATH, "stop", view, methods=["GET", "POST"])
    response = app.test_client().open(STOP_PATH, method=method, data=body)
    return response.status_code, response.headers["content-type"], response.data


def flask_instance_route(method: str, body: bytes) -> tuple[int, str, bytes]:
    return flask_route(method, body, wsgi.StopRoute())


def wsgi_route(method: str, body: bytes) -> tuple[int, str, bytes]:
    started: list[Any] = []

    def start_response(*arguments: Any) -> Any:
        started.extend(arguments)

    environ = {"REQUEST_METHOD": method, "CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body)}
    content = b"".join(wsgi.StopRoute()(environ, start_response))
    return int(started[0].partition(" ")[0]), dict(started[1])["Content-Type"], content


def django_route(method: str, body: bytes) -> tuple[int, str, bytes]:
    web_apps.configure_django()
    urls: Any = ModuleType("urls")
    urls.urlpatterns = [path(STOP_PATH[1:], _django.StopRoute())]
    csrf = ["django.middleware.csrf.CsrfViewMiddleware"]
    with override_settings(ALLOWED_HOSTS=["testserver"], ROOT_URLCONF=urls, MIDDLEWARE=csrf):
        client: Any = Client(enforce_csrf_checks=True)
        response = client.generic(method, STOP_PATH, body)
    return response.status_code, response.headers["content-type"], response.content


@pytest.mark.parametrize("route", [asgi_route, flask_route, flask_instance_route, wsgi_route, django_route])
def test_route_stops_the_stream_of_the_handle_only(
    emulator: Emulator, route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    mine, other = (open_other(emulator) for _ in range(2))
    stream, secret = mine.handle["stream"], mine.handle["stop"]["secret"]
    refused: list[tuple[str, bytes, int]] = [
        ("POST", request_of(stream, other.handle["stop"]["secret"]), 404),
        ("POST", request_of(stream, secret + "x"), 404),
        ("POST", request_of(stream, "\ud800"), 404),
        ("POST", request_of(stream, ""), 404),
        ("POST", request_of("0" * 32, secret), 404),
        ("POST", json.dumps({"stream": stream}).encode(), 404),
        ("POST", json.dumps({"stream": [stream], "secret": None}).encode(), 404),
        ("POST", request_of(stream, secret, reason=7), 400),
        ("POST", request_of(stream, secret, reason="x" * MOST_BYTES), 400),
        ("POST", b"[" * MOST_BYTES, 400),
        ("POST", b"\xff", 400),
        ("POST", b"[]", 400),
        ("POST", b"", 400),
        ("GET", b"", 405),
    ]
    for method, body, status in refused:
        found = route(method, body)
        assert found[:2] == (status, "application/json"), body
        assert json.loads(found[2])["stopped"] is False
    assert not mine.cancelled.is_set()
    assert route("POST", request_of(stream, secret, reason="seen enough")) == (
        200,
        "application/json",
        b'{"stopped":true}',
    )
    assert (mine.cancelled.is_set(), other.cancelled.is_set()) == (True, False)
    assert secret not in caplog.text


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"CONTENT_LENGTH": "9" * 5_000}, "400 Bad Request"),
        ({"CONTENT_LENGTH": "-1"}, "400 Bad Request"),
        ({}, "400 Bad Request"),
        # Of a proxy that does not know the length of what it passes on.
        ({"wsgi.input_terminated": True}, "200 OK"),
    ],
)
def test_wsgi_route_reads_as_much_as_the_server_says(emulator: Emulator, more: dict[str, Any], status: str) -> None:
    stream = open_other(emulator)
    started: list[Any] = []
    body = request_of(stream.handle["stream"], stream.handle["stop"]["secret"])
    environ = {"REQUEST_METHOD": "POST", "wsgi.input": io.BytesIO(body), **more}

    def start_response(*arguments: Any) -> Any:
        started.extend(arguments)

    b"".join(wsgi.StopRoute()(environ, start_response))
    assert started[0] == status


def test_asgi_route_reads_no_long_body_and_leaves_no_secret_in_its_variables(emulator: Emulator) -> None:
    stream = open_other(emulator)
    body = request_of(stream.handle["stream"], stream.handle["stop"]["secret"])

    async def call(*bodies: bytes) -> tuple[int, int]:
        left = [{"type": "http.request", "body": part, "more_body": True} for part in bodies]
        left[-1]["more_body"] = False

        async def receive() -> Any:
            return left.pop(0)

        async def fail(message: Any) -> None:
            raise LookupError(message["status"])

        try:
            await asgi.StopRoute()({"type": "http", "method": "POST"}, receive, fail)
        except LookupError as failed:
            # Crash reporters show the variables of every frame.
            frames = [frame for frame, _ in traceback.walk_tb(failed.__traceback__) if "forge_realtime" in str(frame)]
            assert frames
            assert stream.handle["stop"]["secret"] not in str([frame.f_locals for frame in frames])
            return failed.args[0], len(left)
        return 0, len(left)

    assert asyncio.run(call(*[b" " * 1024] * 100)) == (400, 95)
    assert asyncio.run(call(body[:10], body[10:])) == (200, 0)
    assert stream.cancelled.is_set()


def request_of(stream: str, secret: str, **more: Any) -> bytes:
    return json.dumps({"stream": stream, "secret": secret, **more}).encode()


def test_end_mark_says_that_the_page_stopped_it(open_stream: Opener) -> None:
    def work(stream: Any) -> Steps:
        yield stream.send("Hel")
        for reason in ("seen enough" + "!" * 1000, "again"):
            body = request_of(stream.handle["stream"], stream.handle["stop"]["secret"], reason=reason)
            assert stop_stream("POST", body)[0] == 200
        stream.stop("too late")
        assert stream.cancelled.is_set()

    stream = open_stream(work)
    found = recorded(open_stream.emulator)
    assert found.stopped == {"by": "page", "reason": ("seen enough" + "!" * 1000)[:200]}
    # It has ended: nothing is left to stop.
    assert stop_stream("POST", request_of(found.id, stream.handle["stop"]["secret"]))[0] == 404


def test_stop_from_a_thread_reaches_a_stream_with_asyncio(emulator: Emulator) -> None:
    async def main() -> AsyncPrivateStream:
        async with AsyncRealtimeClient(emulator.url) as client:
            stream = await client.for_invocation(INVOCATION).private_stream("answer")
            async with stream:
                body = request_of(stream.handle["stream"], stream.handle["stop"]["secret"])
                assert (await asyncio.to_thread(wsgi_route, "POST", body))[0] == 200
                await asyncio.wait_for(stream.cancelled.wait(), 10)
        return stream

    asyncio.run(main())
    assert recorded(emulator).stopped == {"by": "page"}


def test_stream_nobody_uses_is_forgotten(emulator: Emulator) -> None:
    stream = open_other(emulator)
    body = request_of(stream.handle["stream"], stream.handle["stop"]["secret"])
    del stream
    collect()
    assert stop_stream("POST", body)[0] == 404


def test_forked_process_stops_no_stream_of_its_parent(emulator: Emulator) -> None:
    stream = open_other(emulator)
    body = request_of(stream.handle["stream"], stream.handle["stop"]["secret"])
    private_streams.reset_after_fork()
    assert stop_stream("POST", body)[0] == 404
    assert not stream.cancelled.is_set()
