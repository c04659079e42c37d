"""HTTP.md lists every endpoint, and each of its curl lines works."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate
from starlette.routing import Route

from forge_realtime_emulator._platform.calls import FILTERS
from tests.emulator.api import Api

TEXT = (Path(__file__).parents[2] / "emulator" / "HTTP.md").read_text(encoding="utf-8")
LINES = re.findall(r"`(curl .*?)`", TEXT)
CURL = argparse.ArgumentParser("curl")
CURL.add_argument("-X", dest="method")
CURL.add_argument("-H", dest="header")
CURL.add_argument("-d", dest="content")
CURL.add_argument("-N", dest="is_stream", action="store_true")
CURL.add_argument("url")


def read(line: str) -> argparse.Namespace:
    given = CURL.parse_args(shlex.split(line)[1:])
    given.method = given.method or ("GET" if given.content is None else "POST")
    return given


def test_every_endpoint_is_listed(own: Api) -> None:
    listed = {
        (given.method, urlsplit(given.url).path.removeprefix("$FORGE_EGRESS_PROXY_URL")) for given in map(read, LINES)
    }
    operations = {operation.path for operation in own.emulator._sidecar.document.operations.values()}
    there = {
        (method, route.path.replace("{id:path}", "default-installation").replace("{id:int}", "1"))
        for route in own.emulator._app.routes
        if isinstance(route, Route) and route.path not in operations
        for method in (route.methods or {"GET"}) - {"HEAD"}
    }
    assert listed == there


@pytest.mark.parametrize("line", LINES)
def test_every_curl_line_works(own: Api, client: httpx.Client, line: str) -> None:
    own.publish("board-42")
    given = read(line.replace("$FORGE_EGRESS_PROXY_URL", own.emulator.url))
    headers = dict([given.header.split(": ")] if given.header else [])
    with client.stream(given.method, given.url, content=given.content, headers=headers, timeout=10) as response:
        assert response.status_code == 200
        if given.is_stream:
            assert next(response.iter_lines()).startswith('data: {"')
        else:
            assert response.read()


def test_openapi_document_describes_every_control_endpoint_and_each_documented_body(own: Api) -> None:
    document = own.get("/openapi.json").json()
    validate(document)
    described = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    there = {
        (method, re.sub(r":\w+}", "}", route.path))
        for route in own.emulator._app.routes
        if isinstance(route, Route) and route.path.startswith("/_emulator/")
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert described == there
    documented = set()
    for given in map(read, LINES):
        path = urlsplit(given.url).path.removeprefix("$FORGE_EGRESS_PROXY_URL")
        operation = document["paths"].get(re.sub(r"/1\b", "/{id}", path), {}).get(given.method.lower())
        if operation is None:
            continue
        queries = [parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "query"]
        assert {name for name, _ in parse_qsl(urlsplit(given.url).query)} <= {*queries}
        assert ("requestBody" in operation) is (given.content is not None)
        if given.content is not None:
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            validator = OAS31Validator(schema)
            validator.check_schema(schema)
            validator.validate(json.loads(given.content))
            documented.add(path)
    assert len(documented) == 9
    faults = document["paths"]["/_emulator/faults"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert faults["properties"]["probability"] == {"type": "number", "exclusiveMinimum": 0, "maximum": 1}
    settings = document["paths"]["/_emulator/settings"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert settings["properties"]["limit"] == {"type": ["integer", "null"], "minimum": 1}


def test_filters_are_those_of_the_list(own: Api) -> None:
    [table] = re.findall(r"\| name \| meaning \|\n\|---\|---\|\n(.*?)\n\n", TEXT, re.DOTALL)
    names = [name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert names == [*FILTERS]
    refusal = own.get("/_emulator/calls?nothing=1")
    assert refusal.status_code == 400
    assert ", ".join(names) in refusal.json()["message"]
