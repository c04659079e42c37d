"""Mock routes, for what the emulator does not carry out."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest

from forge_realtime_emulator import Emulator, EmulatorError
from forge_realtime_emulator._platform.mock_routes import read_mock_routes
from tests.emulator.api import Api


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/jira/rest/api/3/myself"),
        ("POST", "/forge/storage/kvs/v1/get"),
        ("POST", "/forge/storage/sql/v1/execute"),
        ("POST", "/forge/llm/model"),
        ("GET", "/forge/llm/"),
        ("POST", "/atlassian/graphql/"),
        ("PUT", "/proxy/somewhere"),
        ("DELETE", "/confluence/wiki/api/v2/pages/1"),
    ],
)
def test_call_without_mock_route_gets_501_that_says_how_to_add_one(
    own: Api, client: httpx.Client, caplog: pytest.LogCaptureFixture, method: str, path: str
) -> None:
    with caplog.at_level(logging.WARNING):
        response = client.request(method, own.emulator.url + path)
    assert response.status_code == 501
    assert response.json()["code"] == "NOT_MOCKED"
    message = response.json()["message"]
    assert f"realtime_emulator.mock({json.dumps(method)}, {json.dumps(path)}, json={{}})" in message
    assert "--mocks FILE" in message
    assert f"{method} {path}" in caplog.text
    # The message's own advice works.
    route = json.loads(message[message.index("{") : message.index("}}") + 2])
    assert own.post("/_emulator/mocks", route).status_code == 200
    response = client.request(method, own.emulator.url + path)
    assert (response.status_code, response.json()) == (200, {})


def test_unknown_path_is_still_a_404(own: Api, client: httpx.Client) -> None:
    for path in ("/forge/realtime/publish", "/nothing"):
        response = client.post(own.emulator.url + path)
        assert (response.status_code, response.json()["code"]) == (404, "NOT_FOUND")
    own.emulator.mock("POST", "/nothing", json="something")
    assert client.post(f"{own.emulator.url}/nothing").json() == "something"


def test_mock_route_matches_method_and_segments(own: Api, client: httpx.Client) -> None:
    own.emulator.mock("GET", "/jira/rest/api/3/issue/{key}", json={"key": "any"})
    own.emulator.mock("GET", "/jira/rest/api/3/issue/DEMO-1", status=404, json={"errorMessages": ["gone"]})
    own.emulator.mock("GET", "/jira/a b/{x}.json", json=[1])

    def get(path: str) -> tuple[int, Any]:
        response = client.get(own.emulator.url + path)
        return response.status_code, response.json()

    assert get("/jira/rest/api/3/issue/DEMO-2?expand=names") == (200, {"key": "any"})
    # Of several that match, the last one added responds.
    assert get("/jira/rest/api/3/issue/DEMO-1") == (404, {"errorMessages": ["gone"]})
    assert get("/jira/a%20b/c.json") == (200, [1])
    for path in ("/jira/rest/api/3/issue/", "/jira/rest/api/3/issue/A/B", "/jira/a%20b/cXjson"):
        assert get(path)[0] == 501
    assert client.put(f"{own.emulator.url}/jira/rest/api/3/issue/DEMO-2").status_code == 501


def test_mock_route_without_json_has_no_body(own: Api, client: httpx.Client) -> None:
    own.emulator.mock("DELETE", "/jira/x", status=204)
    response = client.delete(f"{own.emulator.url}/jira/x")
    assert (response.status_code, response.content) == (204, b"")
    mocked = own.post("/_emulator/mocked", {"method": "delete", "path": "/jira/x?y=1"})
    assert mocked.json() == {"status": 204}
    own.post("/_emulator/mocks", {"method": "GET", "path": "/jira/x", "json": None})
    assert client.get(f"{own.emulator.url}/jira/x").text == "null"


def test_reset_forgets_all_but_the_mock_routes_of_the_start(client: httpx.Client) -> None:
    with Emulator(mocks=[{"method": "GET", "path": "/jira/a", "json": 1}]) as emulator:
        emulator.mock("GET", "/jira/a", json=2)
        emulator.mock("GET", "/jira/b", json=2)
        assert client.get(f"{emulator.url}/jira/a").json() == 2
        emulator.reset()
        assert client.get(f"{emulator.url}/jira/a").json() == 1
        assert client.get(f"{emulator.url}/jira/b").status_code == 501


@pytest.mark.parametrize(
    ("route", "problem"),
    [
        ([], "must be of type object"),
        ({"method": "GET"}, "missing path"),
        ({"method": "get", "path": "/x"}, "method: must be one of"),
        ({"method": "GET", "path": "x"}, "path: breaks"),
        ({"method": "GET", "path": "/x", "status": 100}, "status: must be at least 200"),
        ({"method": "GET", "path": "/x", "body": 1}, "has an unknown key"),
        ({"method": "POST", "path": "/forge/realtime/v1/publish"}, "the emulator carries it out itself"),
    ],
)
def test_malformed_mock_route_is_refused(own: Api, tmp_path: Path, route: Any, problem: str) -> None:
    response = own.post("/_emulator/mocks", route)
    assert response.status_code == 400
    assert problem in response.json()["message"]
    with pytest.raises(ValueError, match=problem):
        Emulator(mocks=[route])
    (tmp_path / "mocks.json").write_text(json.dumps([route]), encoding="utf-8")
    with pytest.raises(EmulatorError, match=f"mocks.json: cannot be read as mock routes: .*{problem}"):
        read_mock_routes(tmp_path / "mocks.json")


@pytest.mark.parametrize("text", ["", "{}", "null", "[1]"])
def test_file_without_mock_routes_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "mocks.json").write_text(text, encoding="utf-8")
    with pytest.raises(EmulatorError, match=r"mocks\.json"):
        read_mock_routes(tmp_path / "mocks.json")
