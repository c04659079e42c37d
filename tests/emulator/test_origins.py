"""Pages of other origins, without a browser."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from forge_realtime_emulator import Emulator, create_app

ORIGIN = "http://localhost:5173"
SHARED = {
    "/bridge.js": "GET",
    "/streams.js": "GET",
    "/_emulator/context": "GET",
    "/_emulator/invoke": "POST",
    "/_emulator/mocked": "POST",
    "/_emulator/publish": "POST",
}
OWN_ONLY = [
    "/_emulator/subscribe",
    "/_emulator/state",
    "/_emulator/feed",
    "/_emulator/reset",
    "/_emulator/faults",
    "/forge/realtime/v1/publish",
]


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator(origins=[ORIGIN, "https://app.example:443/"]) as emulator:
        yield emulator


def preflight(client: httpx.Client, url: str, origin: str, **more: str) -> httpx.Response:
    headers = {
        **more,
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    return client.options(url, headers=headers)


def allowed(response: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name.startswith("access-control-")}


@pytest.mark.parametrize("path", SHARED)
@pytest.mark.parametrize("origin", [ORIGIN, "https://app.example"])
def test_allowed_origin_may_use_the_bridge(emulator: Emulator, client: httpx.Client, path: str, origin: str) -> None:
    preflighted = preflight(client, emulator.url + path, origin)
    assert preflighted.status_code == 204
    assert allowed(preflighted) == {
        "access-control-allow-origin": origin,
        "access-control-allow-methods": SHARED[path],
        "access-control-allow-headers": "Content-Type",
        "access-control-max-age": "600",
    }
    response = client.request(SHARED[path], emulator.url + path, headers={"Origin": origin})
    assert response.status_code in (200, 400)
    assert allowed(response) == {"access-control-allow-origin": origin}
    assert {preflighted.headers["vary"], response.headers["vary"]} == {"Origin"}


@pytest.mark.parametrize("path", SHARED)
def test_allowed_origin_may_reach_a_private_network(emulator: Emulator, client: httpx.Client, path: str) -> None:
    for origin, allows in ((ORIGIN, "true"), ("http://other.example", None)):
        headers = {"Access-Control-Request-Private-Network": "true"}
        response = preflight(client, emulator.url + path, origin, **headers)
        assert response.headers.get("access-control-allow-private-network") == allows


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize("mode", ["no-cors", "navigate"])
@pytest.mark.parametrize(
    "path",
    [
        "/_emulator/subscribe?channel=x",
        "/_emulator/state",
        "/_emulator/feed",
        "/_emulator/context",
        "/v1/installations",
        "/invocation/context",
        "/jira/rest/api/3/myself",
    ],
)
def test_page_that_sends_no_origin_may_use_nothing(
    emulator: Emulator, client: httpx.Client, path: str, site: str, mode: str
) -> None:
    """An image, a script, a link or a frame sends no Origin. A page elsewhere on localhost is of the same site."""
    dest = {"no-cors": "image", "navigate": "document"}[mode]
    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": dest}
    response = client.get(emulator.url + path, headers=headers)
    assert (response.status_code, response.json()["code"]) == (403, "CROSS_ORIGIN")


@pytest.mark.parametrize("path", ["/bridge.js", "/streams.js"])
def test_script_of_any_page_is_served(emulator: Emulator, client: httpx.Client, path: str) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script"}
    assert client.get(emulator.url + path, headers=headers).status_code == 200


@pytest.mark.parametrize(("dest", "status"), [("document", 200), ("iframe", 403), ("object", 403), ("empty", 403)])
def test_link_to_the_console_may_be_followed(emulator: Emulator, client: httpx.Client, dest: str, status: int) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": dest}
    assert client.get(emulator.url, headers=headers).status_code == status


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_own_page_and_typed_address_may_use_everything(emulator: Emulator, client: httpx.Client, site: str) -> None:
    for path in ("/", "/_emulator/state", "/v1/installations"):
        assert client.get(emulator.url + path, headers={"Sec-Fetch-Site": site}).status_code == 200


def test_allowed_origin_may_not_read_the_feed(emulator: Emulator) -> None:
    url = f"ws{emulator.url.removeprefix('http')}/_emulator/feed"
    with pytest.raises(InvalidStatus), connect(url, additional_headers={"Origin": ORIGIN}, proxy=None):
        pass


@pytest.mark.parametrize("path", OWN_ONLY)
def test_allowed_origin_may_use_nothing_else(emulator: Emulator, client: httpx.Client, path: str) -> None:
    responses = [
        preflight(client, emulator.url + path, ORIGIN),
        client.get(emulator.url + path, headers={"Origin": ORIGIN}),
        client.post(emulator.url + path, headers={"Origin": ORIGIN}, json={}),
    ]
    for response in responses:
        assert response.status_code == 403
        assert allowed(response) == {}


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost:5174",
        "https://localhost:5173",
        "http://localhost:5173.evil.example",
        "http://LOCALHOST:5173",
        "null",
    ],
)
def test_other_origin_may_use_nothing(emulator: Emulator, client: httpx.Client, origin: str) -> None:
    for path, method in SHARED.items():
        for response in (
            preflight(client, emulator.url + path, origin),
            client.request(method, emulator.url + path, headers={"Origin": origin}),
        ):
            assert response.status_code == 403
            assert allowed(response) == {}
            assert response.headers["vary"] == "Origin"
    with pytest.raises(InvalidStatus), subscribed(emulator, origin):
        pass


def test_refused_page_is_logged_once(
    emulator: Emulator, client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            with pytest.raises(InvalidStatus), subscribed(emulator, "http://localhost:4444"):
                pass
            client.get(f"{emulator.url}/bridge.js", headers={"Origin": "http://localhost:4444"})
        # An allowed origin is refused here too, but not logged.
        client.get(f"{emulator.url}/_emulator/state", headers={"Origin": ORIGIN})
    [record] = caplog.records
    assert record.getMessage() == (
        "A web page of 'http://localhost:4444' was refused. Is it your app's front end? Then: forge-realtime emulate"
        " --origin 'http://localhost:4444'"
    )


def subscribed(emulator: Emulator, origin: str) -> Any:
    url = f"ws{emulator.url.removeprefix('http')}/_emulator/subscribe"
    return connect(url, additional_headers={"Origin": origin}, proxy=None)


def test_allowed_origin_may_subscribe(emulator: Emulator) -> None:
    with subscribed(emulator, ORIGIN) as connection:
        connection.send(json.dumps({"channel": "board"}))
        assert json.loads(connection.recv(timeout=5)) == {"type": "subscribed"}


def test_responses_for_one_origin_are_not_cached_for_another(emulator: Emulator, client: httpx.Client) -> None:
    response = client.get(f"{emulator.url}/bridge.js")
    assert response.headers["vary"] == "Origin"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["content-type"] == "text/javascript; charset=utf-8"
    assert allowed(response) == {}


@pytest.mark.parametrize(
    "origin",
    [
        "*",
        "null",
        "localhost:5173",
        "http://",
        "http://*.example",
        "http://a@b",
        "http://a/page",
        "ftp://a",
        "http://a:x",
    ],
)
def test_value_that_is_not_an_origin_is_an_error(origin: str) -> None:
    with pytest.raises(ValueError, match="origin"):
        Emulator(origins=[origin])


@pytest.mark.parametrize("service", ["localhost:8080", "http://", "ftp://a", "http://a?b", "", "http://a:x"])
def test_value_that_is_not_a_service_url_is_an_error(service: str) -> None:
    with pytest.raises(ValueError, match="service"):
        create_app(service=service)


def test_create_app_works_in_another_server() -> None:
    async def live() -> list[str]:
        events = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
        responses: list[str] = []

        async def receive() -> Any:
            return events.pop(0)

        async def send(message: Any) -> None:
            responses.append(message["type"])

        await create_app()({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)
        return responses

    assert asyncio.run(live()) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
