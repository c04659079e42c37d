"""The harness of the benchmarks. No test asserts a time."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import blocks
from tests.benchmarks.blocks import Comparison, Load, Side, Stage, compare
from tests.benchmarks.contenders import CONTENDERS, EVENT_ID, encoded, made_payload
from tests.benchmarks.environments import ENVIRONMENTS, clean_environment, pins
from tests.benchmarks.growth import document_with
from tests.benchmarks.scenarios import scenarios
from tests.benchmarks.server import Server
from tests.generator.conftest import REPOSITORY

pytestmark = pytest.mark.slow

needs_compiler = pytest.mark.skipif(
    shutil.which("cc") is None, reason="not installed: cc. To run these tests: apt-get install gcc libc6-dev"
)

# The contenders whose packages are in the development environment.
HERE = ("raw socket", "http.client", "httpx", "HTTPTransport, ready request", "forge-realtime")
HERE_ASYNC = ("httpx async", "AsyncHTTPTransport, ready request", "aiohttp", "forge-realtime async")
TINY = Load("tiny", seconds=0.001)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(blocks, "python_of", lambda name: Path(sys.executable))
    with Stage([0, 3]) as stage:
        yield stage


@needs_compiler
def test_server_responds_on_one_connection_and_counts_calls() -> None:
    with Server(0, 5) as server:
        for url in server.urls:
            connection = http.client.HTTPConnection(url.removeprefix("http://"))
            for body in (b"{}", b"x" * 3_000_000, b""):
                connection.request("POST", "/", body)
                answer = connection.getresponse()
                assert (answer.status, json.loads(answer.read())["eventId"]) == (200, EVENT_ID)
            connection.close()
        assert server.count() == (6, 2 * 3_000_002)


@needs_compiler
def test_server_reads_split_and_joined_requests_and_refuses_chunks() -> None:
    with Server(0) as server:
        port = int(server.urls[0].rpartition(":")[2])
        request = b"POST / HTTP/1.1\r\ncontent-LENGTH: 4\r\n\r\nbody"
        with socket.create_connection(("127.0.0.1", port)) as connection:
            for part in (request[:20], request[20:-2], request[-2:] + request):
                connection.sendall(part)
            received = b""
            while received.count(b"}") < 2:
                received += connection.recv(65536)
            connection.sendall(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
            while data := connection.recv(65536):
                received += data
        assert received.count(b"HTTP/1.1 200 OK\r\n") == 2
        assert b"HTTP/1.1 411 " in received
        assert server.count() == (2, 8)


@needs_compiler
def test_server_delays_hundreds_of_responses_and_drops_closed_connections() -> None:
    request = b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"
    with Server(20) as server, ExitStack() as stack:
        port = int(server.urls[0].rpartition(":")[2])
        connections = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(600)]
        for connection in connections:
            connection.sendall(request)
        for connection in connections[::2]:
            connection.close()
        for connection in connections[1::2]:
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
        assert server.count() == (600, 1200)


@needs_compiler
def test_contenders_are_measured_in_pairs(stage: Stage) -> None:
    comparisons = [
        *(Comparison(Side(name, TINY), Side("httpx", TINY), 2) for name in HERE),
        *(Comparison(Side(name, TINY), Side("httpx async", TINY), 1) for name in HERE_ASYNC),
    ]
    rows = list(compare(stage, comparisons))
    assert [row["contender"] for row in rows] == [*HERE, *HERE_ASYNC]
    assert [(row["errors"], len(row["pairs"])) for row in rows] == [([], 2)] * len(HERE) + [([], 1)] * len(HERE_ASYNC)
    assert all(seconds > 0 for row in rows for pair in row["pairs"] for seconds in pair[:2])


@needs_compiler
@pytest.mark.parametrize("name", ["forge-realtime", "forge-realtime async"])
def test_many_calls_are_in_flight_at_a_slow_server(stage: Stage, name: str) -> None:
    load = replace(TINY, lanes=20, delay=3)
    [row] = compare(stage, [Comparison(Side(name, load), Side(name, replace(TINY, size=10_000, text=True)), 1)])
    assert (row["errors"], len(row["pairs"])) == ([], 1)


@needs_compiler
def test_failing_contender_has_no_figure(stage: Stage) -> None:
    # The client of the OpenAPI Generator is not in the development environment.
    [row] = compare(stage, [Comparison(Side("OpenAPI Generator", TINY), Side("http.client", TINY), 4)])
    assert row["pairs"] == []
    assert [error.partition(":")[0] for error in row["errors"]] == ["ModuleNotFoundError"] * 2


@needs_compiler
def test_calls_that_do_not_reach_the_server_are_an_error(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    run: Callable[..., dict[str, Any]] = blocks.Contender.run
    monkeypatch.setattr(blocks.Contender, "run", lambda self, **block: run(self, **{**block, "calls": 1}))
    with pytest.raises(RuntimeError, match=r"^http\.client made 2 calls, but the server received 4\.$"):
        stage.run(Side("http.client", TINY))


@pytest.mark.parametrize("size", [100, 10_000, 1_000_000])
def test_payloads_have_about_the_requested_size(size: int) -> None:
    assert len(made_payload(size, text=True)) == size
    assert abs(len(encoded(made_payload(size))) / size - 1) < 0.03


def test_contenders_get_no_distorting_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSL_CERT_FILE", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "http_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "anything")
        assert name not in clean_environment()
    assert "PATH" in clean_environment()


def test_environments_of_every_scenario_are_pinned() -> None:
    comparisons = [comparison for group in scenarios().values() for comparison in group]
    named = {side.contender for comparison in comparisons for side in (comparison.subject, comparison.reference)}
    assert named == CONTENDERS.keys()
    assert {CONTENDERS[name][0] for name in named} < ENVIRONMENTS.keys()
    assert {name for names in ENVIRONMENTS.values() for name in names} <= pins().keys()


@pytest.mark.parametrize("operations", [3, 4, 30, 603])
def test_documents_grow_to_the_requested_operations(operations: int) -> None:
    pinned = json.loads((REPOSITORY / "spec/forge-containers-api.json").read_text(encoding="utf-8"))
    document = document_with(pinned, operations)
    tagged = [
        operation["tags"]
        for item in document["paths"].values()
        for operation in item.values()
        if isinstance(operation, dict)
    ]
    assert tagged.count(["Forge Realtime"]) == operations
    assert not any(tags[0].startswith("Group") for tags in tagged)
