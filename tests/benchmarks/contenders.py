"""The contenders. Each runs in a process and an environment of its own: `python contenders.py NAME URL...`.

This module imports the standard library only; a contender imports its own packages. Every contender publishes the same
event on behalf of an invocation, and reads the event id from the response. Each is set up once and used as its
documentation shows.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import resource
import socket
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

Call = Callable[[Any], Any]

PATH = "/forge/realtime/v1/publish"
CHANNEL = "board-42"
AUTHORIZATION = {"forge-proxy-authorization": "Forge as=app,id=invocation-123"}
INVOCATION = {"x-forge-invocation-id": "invocation-123"}
EVENT_ID = "01J00000000000000000000000"


def made_payload(size: int, *, text: bool = False) -> Any:
    """Return a payload of about this many bytes of JSON: many small values, as an app sends them, or plain text."""
    if text:
        return "x" * size
    card = {"card": 42, "column": "in progress", "by": "user-123", "title": "Move this card"}
    if size <= 2 * len(encoded(card)):
        return {**card, "note": "x" * max(0, size - len(encoded(card)) - len(',"note":""'))}
    return {"cards": [dict(card, card=number) for number in range(size // (len(encoded(card)) + 2))]}


def encoded(payload: Any) -> str:
    return payload if isinstance(payload, str) else json.dumps(payload, separators=(",", ":"), ensure_ascii=False)


def request_of(payload: Any) -> dict[str, str]:
    return {"name": CHANNEL, "payload": encoded(payload)}


def _body(payload: Any) -> bytes:
    return json.dumps(request_of(payload), separators=(",", ":"), ensure_ascii=False).encode()


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def raw_socket(url: str) -> Call:
    connection = socket.create_connection(_address(url))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nAccept: application/json\r\n"
        f"Content-Type: application/json\r\nforge-proxy-authorization: {AUTHORIZATION['forge-proxy-authorization']}\r\n"
        "Content-Length: "
    )

    def call(payload: Any) -> Any:
        body = _body(payload)
        connection.sendall(f"{head}{len(body)}\r\n\r\n".encode() + body)
        answer = connection.recv(65536)
        while not answer.endswith(b"}"):
            answer += connection.recv(65536)
        status, _, text = answer.partition(b"\r\n\r\n")
        assert status.startswith(b"HTTP/1.1 200 ")
        return json.loads(text)["eventId"]

    return call


def http_client(url: str) -> Call:
    from http.client import HTTPConnection

    connection = HTTPConnection(*_address(url))
    headers = {"Accept": "application/json", "Content-Type": "application/json", **AUTHORIZATION}

    def call(payload: Any) -> Any:
        connection.request("POST", PATH, _body(payload), headers)
        answer = connection.getresponse()
        assert answer.status == 200
        return json.loads(answer.read())["eventId"]

    return call


def urllib3(url: str) -> Call:
    import urllib3

    pool = urllib3.PoolManager(maxsize=32)

    def call(payload: Any) -> Any:
        answer = pool.request("POST", url + PATH, json=request_of(payload), headers=AUTHORIZATION)
        assert answer.status == 200
        return answer.json()["eventId"]

    return call


def httpx(url: str) -> Call:
    import httpx

    client = httpx.Client()

    def call(payload: Any) -> Any:
        answer = client.post(url + PATH, json=request_of(payload), headers=AUTHORIZATION)
        return answer.raise_for_status().json()["eventId"]

    return call


def httpx_async(url: str) -> Call:
    import httpx

    return _httpx_async(url, httpx.AsyncClient())


def httpx_aiohttp(url: str) -> Call:
    import httpx
    import httpx_aiohttp

    return _httpx_async(url, httpx.AsyncClient(transport=httpx_aiohttp.AiohttpTransport()))


def _httpx_async(url: str, client: Any) -> Call:
    async def call(payload: Any) -> Any:
        answer = await client.post(url + PATH, json=request_of(payload), headers=AUTHORIZATION)
        return answer.raise_for_status().json()["eventId"]

    return call


def ready_sync(url: str) -> Call:
    import httpx

    return _ready_sync(url, httpx.HTTPTransport().handle_request)


def ready_own(url: str) -> Call:
    connection = _own_connection("PooledConnection", url)
    return _ready_sync(url, lambda request: connection.send(request, time.monotonic() + 60))


def _own_connection(name: str, url: str) -> Any:
    import httpx

    from forge_realtime._transports import connection

    return getattr(connection, name)(httpx.URL(url), None, 5.0)


def _ready_sync(url: str, send: Callable[[Any], Any]) -> Call:
    ready = _Ready(url)

    def call(payload: Any) -> Any:
        answer = send(ready.request(payload))
        try:
            answer.read()
        finally:
            answer.close()
        assert answer.status_code == 200
        return EVENT_ID

    return call


def ready_async(url: str) -> Call:
    import httpx

    return _ready_async(url, httpx.AsyncHTTPTransport().handle_async_request)


def ready_own_async(url: str) -> Call:
    connection = _own_connection("AsyncPooledConnection", url)
    return _ready_async(url, lambda request: connection.send(request, time.monotonic() + 60))


def ready_own_aiohttp(url: str) -> Call:
    from forge_realtime._transports.aiohttp import AiohttpTransport

    return _ready_async(url, AiohttpTransport(ssl.create_default_context, 100, 5.0).handle_async_request)


def ready_aiohttp(url: str) -> Call:
    import httpx_aiohttp

    return _ready_async(url, httpx_aiohttp.AiohttpTransport().handle_async_request)


def _ready_async(url: str, send: Callable[[Any], Any]) -> Call:
    ready = _Ready(url)

    async def call(payload: Any) -> Any:
        answer = await send(ready.request(payload))
        try:
            await answer.aread()
        finally:
            await answer.aclose()
        assert answer.status_code == 200
        return EVENT_ID

    return call


class _Ready:
    """A request that is made once, to measure a transport alone."""

    def __init__(self, url: str) -> None:
        self._url = url + PATH
        self._payload: Any = None
        self._request: Any = None

    def request(self, payload: Any) -> Any:
        if payload is not self._payload:
            import httpx

            headers = {
                "Accept": "application/json",
                "Content-Type": "application/json",
                "User-Agent": "ready",
                **AUTHORIZATION,
            }
            timeout = {"timeout": dict.fromkeys(("connect", "read", "write", "pool"), 5.0)}
            self._request = httpx.Request(
                "POST", self._url, headers=headers, content=_body(payload), extensions=timeout
            )
            self._payload = payload
        return self._request


def aiohttp(url: str) -> Call:
    import aiohttp

    session = aiohttp.ClientSession()

    async def call(payload: Any) -> Any:
        async with session.post(url + PATH, json=request_of(payload), headers=AUTHORIZATION) as answer:
            answer.raise_for_status()
            return (await answer.json())["eventId"]

    return call


def openapi_python_client(url: str) -> Call:
    generated, operation, models = _openapi_python_client()
    client = generated.Client(base_url=url, headers=AUTHORIZATION, raise_on_unexpected_status=True)

    def call(payload: Any) -> Any:
        return operation.sync(client=client, body=models.PublishPublishRequest(**request_of(payload))).event_id

    return call


def openapi_python_client_async(url: str) -> Call:
    generated, operation, models = _openapi_python_client()
    client = generated.Client(base_url=url, headers=AUTHORIZATION, raise_on_unexpected_status=True)

    async def call(payload: Any) -> Any:
        return (
            await operation.asyncio(client=client, body=models.PublishPublishRequest(**request_of(payload)))
        ).event_id

    return call


def _openapi_python_client() -> tuple[Any, Any, Any]:
    name = "openapi_python_client_made"
    return (
        importlib.import_module(name),
        importlib.import_module(f"{name}.api.forge_realtime.publish"),
        importlib.import_module(f"{name}.models"),
    )


def openapi_generator(url: str) -> Call:
    generated = importlib.import_module("openapi_generator_made")
    api = generated.ForgeRealtimeApi(generated.ApiClient(generated.Configuration(host=url)))

    def call(payload: Any) -> Any:
        body = generated.PublishRequest(**request_of(payload))
        return api.publish(body, _headers=dict(AUTHORIZATION)).event_id

    return call


def openapi_generator_async(url: str) -> Call:
    generated = importlib.import_module("openapi_generator_made")
    api = generated.ForgeRealtimeApi(generated.ApiClient(generated.Configuration(host=url)))

    async def call(payload: Any) -> Any:
        body = generated.PublishRequest(**request_of(payload))
        return (await api.publish(body, _headers=dict(AUTHORIZATION))).event_id

    return call


def forge(url: str, **arguments: Any) -> Call:
    from forge_realtime import RealtimeClient

    live = RealtimeClient(url, **arguments).for_invocation(INVOCATION)
    return lambda payload: live.publish(CHANNEL, payload).event_id


def forge_each(url: str) -> Call:
    from forge_realtime import RealtimeClient

    realtime = RealtimeClient(url)
    return lambda payload: realtime.for_invocation(INVOCATION).publish(CHANNEL, payload).event_id


def forge_transport(url: str) -> Call:
    import httpx

    return forge(url, transport=httpx.HTTPTransport())


def forge_handed_in(url: str) -> Call:
    import httpx

    return forge(url, http_client=httpx.Client())


def _connections() -> dict[str, Any]:
    """Return what chooses aiohttp's connections in an environment that has the extra."""
    return {"transport": "aiohttp" if find_spec("aiohttp") else "httpx"}


def forge_async(url: str, **arguments: Any) -> Call:
    from forge_realtime import AsyncRealtimeClient

    live = AsyncRealtimeClient(url, **(arguments or _connections())).for_invocation(INVOCATION)

    async def call(payload: Any) -> Any:
        return (await live.publish(CHANNEL, payload)).event_id

    return call


def forge_async_each(url: str) -> Call:
    from forge_realtime import AsyncRealtimeClient

    realtime = AsyncRealtimeClient(url, **_connections())

    async def call(payload: Any) -> Any:
        return (await realtime.for_invocation(INVOCATION).publish(CHANNEL, payload)).event_id

    return call


def forge_async_transport(url: str) -> Call:
    import httpx

    return forge_async(url, transport=httpx.AsyncHTTPTransport())


def forge_async_handed_in(url: str) -> Call:
    import httpx

    return forge_async(url, http_client=httpx.AsyncClient())


def forge_async_httpx_aiohttp(url: str) -> Call:
    import httpx_aiohttp

    return forge_async(url, transport=httpx_aiohttp.AiohttpTransport())


# By name: the environment, the function that makes the call, and whether the call is awaited.
CONTENDERS: dict[str, tuple[str, Callable[[str], Call], bool]] = {
    "raw socket": ("httpx", raw_socket, False),
    "http.client": ("httpx", http_client, False),
    "urllib3": ("peers", urllib3, False),
    "httpx": ("httpx", httpx, False),
    "HTTPTransport, ready request": ("httpx", ready_sync, False),
    "openapi-python-client": ("peers", openapi_python_client, False),
    "OpenAPI Generator": ("peers", openapi_generator, False),
    "forge-realtime": ("forge", forge, False),
    "forge-realtime, for_invocation each": ("forge", forge_each, False),
    "forge-realtime, HTTPTransport": ("forge", forge_transport, False),
    "forge-realtime, httpx.Client": ("forge", forge_handed_in, False),
    "httpx async": ("httpx", httpx_async, True),
    "httpx async, sniffio": ("sniffio", httpx_async, True),
    "AsyncHTTPTransport, ready request": ("httpx", ready_async, True),
    "AiohttpTransport, ready request": ("aiohttp", ready_aiohttp, True),
    # On the connections of forge-realtime.
    "own connection, ready request": ("forge", ready_own, False),
    "own async connection, ready request": ("forge", ready_own_async, True),
    "own aiohttp transport, ready request": ("forge-aiohttp", ready_own_aiohttp, True),
    "aiohttp": ("aiohttp", aiohttp, True),
    "httpx over httpx-aiohttp": ("aiohttp", httpx_aiohttp, True),
    "openapi-python-client async": ("peers", openapi_python_client_async, True),
    "OpenAPI Generator, aiohttp": ("aiohttp", openapi_generator_async, True),
    "forge-realtime async": ("forge", forge_async, True),
    "forge-realtime async, for_invocation each": ("forge", forge_async_each, True),
    "forge-realtime async, AsyncHTTPTransport": ("forge", forge_async_transport, True),
    "forge-realtime async, httpx.AsyncClient": ("forge", forge_async_handed_in, True),
    "forge-realtime[aiohttp] async": ("forge-aiohttp", forge_async, True),
    "forge-realtime async, AiohttpTransport": ("forge-httpx-aiohttp", forge_async_httpx_aiohttp, True),
}


def run_threads(call: Call, payload: Any, calls: int, threads: ThreadPoolExecutor | None, lanes: int) -> None:
    if threads is None:
        for _ in range(calls):
            _check(call(payload))
        return

    def lane(count: int) -> None:
        for _ in range(count):
            _check(call(payload))

    list(threads.map(lane, _shares(calls, lanes)))


async def run_tasks(call: Call, payload: Any, calls: int, lanes: int) -> None:
    async def lane(count: int) -> None:
        for _ in range(count):
            _check(await call(payload))

    if lanes == 1:
        await lane(calls)
    else:
        await asyncio.gather(*(lane(count) for count in _shares(calls, lanes)))


def _shares(calls: int, lanes: int) -> Iterator[int]:
    return (len(range(number, calls, lanes)) for number in range(lanes))


def _check(event_id: Any) -> None:
    if event_id != EVENT_ID:
        raise RuntimeError(f"A contender returned {event_id!r} as the event id.")


class Runner:
    """Runs the blocks of one contender. Connections and threads are kept between blocks."""

    def __init__(self, make: Callable[[str], Call], is_async: bool, urls: list[str]) -> None:
        self._make = make
        self._urls = urls
        self._calls: dict[str, Call] = {}
        self._payloads: dict[tuple[int, bool], Any] = {}
        self._threads: dict[int, ThreadPoolExecutor] = {}
        self._loop = asyncio.Runner() if is_async else None

    def run(self, server: int, calls: int, lanes: int, size: int, text: bool) -> dict[str, Any]:
        """Warm up, so that every lane has a connection, and then measure this many calls.

        Returns:
            `seconds` and `cpu`, the seconds of processor time, of the measured calls.
        """
        url = self._urls[server]
        payload = self._payloads.setdefault((size, text), made_payload(size, text=text))
        run = self._tasks if self._loop is not None else self._threaded
        run(url, payload, max(3, lanes), lanes)
        gc.collect()
        cpu, began = time.process_time(), time.perf_counter()
        run(url, payload, calls, lanes)
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "cpu": time.process_time() - cpu}

    def _threaded(self, url: str, payload: Any, calls: int, lanes: int) -> None:
        if url not in self._calls:
            self._calls[url] = self._make(url)
        threads = None
        if lanes > 1:
            if lanes not in self._threads:
                self._threads[lanes] = ThreadPoolExecutor(lanes)
            threads = self._threads[lanes]
        run_threads(self._calls[url], payload, calls, threads, lanes)

    def _tasks(self, url: str, payload: Any, calls: int, lanes: int) -> None:
        async def run() -> Awaitable[None] | None:
            # Some contenders need a running loop.
            if url not in self._calls:
                self._calls[url] = self._make(url)
            await run_tasks(self._calls[url], payload, calls, lanes)
            return None

        assert self._loop is not None
        self._loop.run(run())


def main(name: str, urls: list[str]) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    answers = sys.stdout
    # A library may print.
    sys.stdout = sys.stderr
    _, make, is_async = CONTENDERS[name]
    runner = Runner(make, is_async, urls)
    for line in sys.stdin:
        answer: dict[str, Any]
        try:
            answer = runner.run(**json.loads(line))
        except Exception as error:  # noqa: BLE001
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)
    # Skips the warnings of libraries about open connections.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
