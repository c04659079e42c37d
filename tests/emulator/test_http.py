"""HTTP.md lists every endpoint, and each of its curl lines works."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.routing import Route

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
        (method, route.path.replace("{id:path}", "default-installation"))
        for route in own.emulator._app.routes
        if isinstance(route, Route) and route.path not in operations
        for method in (route.methods or {"GET"}) - {"HEAD"}
    }
    assert listed == there


@pytest.mark.parametrize("line", LINES)
def test_every_curl_line_works(own: Api, client: httpx.Client, line: str) -> None:
    given = read(line.replace("$FORGE_EGRESS_PROXY_URL", own.emulator.url))
    headers = dict([given.header.split(": ")] if given.header else [])
    with client.stream(given.method, given.url, content=given.content, headers=headers, timeout=10) as response:
        assert response.status_code == 200
        if given.is_stream:
            assert next(response.iter_lines()).startswith('data: {"')
        else:
            assert response.read()
