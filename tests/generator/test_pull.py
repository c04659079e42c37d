"""`python -m generator pull` from real servers on loopback: what is pinned, and what is refused."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import socket
import tomllib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from ruamel.yaml import YAML

from generator.document import read_document
from generator.pipeline.select import select
from tests.support.document_server import Published, Reply, publishing

Document = dict[str, Any]
Run = Callable[..., Any]
Snapshot = Callable[[Path], dict[str, tuple[bytes, int]]]

PATH = "/cloud/openapi-v2.v3.json?_v=1.8494.0"
PAGE = "/platform/forge/rest/v2/api-group-forge-realtime/"
JSON = {"Content-Type": "application/json; charset=utf-8"}
HTML = {"Content-Type": "text/html; charset=utf-8"}
TOKEN = "/forge/realtime/v1/token"


@pytest.fixture
def server() -> Iterator[Published]:
    with publishing() as published:
        yield published


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits before retries, which take no time."""
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("generator.spec.fetch.sleep", sleep)
    return waited


@pytest.fixture
def document(repository: Path) -> Document:
    """The Realtime part of the pinned document, with one operation of another group."""
    document = select(read_document(repository / "spec/forge-containers-api.json"))
    document["paths"]["/jira"] = {"get": {"tags": ["Jira"], "responses": {"200": {"description": "A response"}}}}
    document["info"]["version"] = "test"
    return document


@pytest.fixture(autouse=True)
def repo(repo: Path, document: Document) -> Path:
    """A repository before the first pull: its transcribed document differs from `document`."""
    text = canonical(document | {"info": {"title": "Transcribed", "version": "unknown"}})
    (repo / "spec/forge-containers-api.json").write_text(text, encoding="utf-8")
    (repo / "spec/source.toml").write_text(
        f"""
sha256 = "{sha256(text.encode())}"
page = "https://developer.atlassian.com/platform/forge/rest/v2/api-group-forge-realtime/"
address = "unknown"
how = "Transcribed by hand, not downloaded."
""",
        encoding="utf-8",
    )
    return repo


@pytest.fixture
def refused(repo: Path, run: Run, snapshot: Snapshot) -> Callable[..., str]:
    """Run a pull that must fail and change nothing, and return its message."""

    def refused(*arguments: str | Path) -> str:
        before, top = snapshot(repo), sorted(repo.iterdir())
        result = run("--root", repo, "pull", *arguments)
        assert (result.code, result.out) == (1, "")
        assert result.err.startswith("error: ")
        assert "Traceback" not in result.err
        assert snapshot(repo) == before
        assert sorted(repo.iterdir()) == top
        message: str = result.err
        return message

    return refused


def encoded(document: Document) -> bytes:
    """Encode a document like a server: compact, with only ASCII."""
    return json.dumps(document, separators=(",", ":")).encode()


def canonical(document: Document) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def pinned(repo: Path) -> str:
    return (repo / "spec/forge-containers-api.json").read_text(encoding="utf-8")


def source(repo: Path) -> dict[str, Any]:
    return tomllib.loads((repo / "spec/source.toml").read_text(encoding="utf-8"))


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def link(address: str) -> bytes:
    return f'<!DOCTYPE html><a href="{address}"><span> OpenAPI\n</span></a>'.encode()


def test_recorded_page_leads_to_pinned_document(repo: Path, run: Run, server: Published, document: Document) -> None:
    page = server.put(PAGE, Reply(link(PATH.replace("&", "&amp;")), headers=HTML))
    validators = {"ETag": 'W/"abc"', "Last-Modified": "Fri, 24 Jul 2026 10:00:00 GMT"}
    address = server.put(PATH, Reply(encoded(document), headers=JSON | validators))
    old = (repo / "spec/source.toml").read_text(encoding="utf-8")
    (repo / "spec/source.toml").write_text(
        "\n".join(f'page = "{page}"' if line.startswith("page") else line for line in old.splitlines()),
        encoding="utf-8",
    )

    before = datetime.now(UTC).replace(microsecond=0)
    result = run("--root", repo, "pull")
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines() == [
        f"pulled: {address} as spec/forge-containers-api.json",
        f"  {len(document['paths']) - 1} of {len(document['paths'])} operations are tagged 'Forge Realtime'",
        "next: `make diff` shows what changed for users of the client, `make generate` makes the client",
    ]
    assert pinned(repo) == canonical(document)
    record = source(repo)
    assert before <= record.pop("obtained") <= datetime.now(UTC)
    assert record == {
        "document": "forge-containers-api.json",
        "sha256": sha256(canonical(document).encode()),
        "published_sha256": sha256(encoded(document)),
        "page": page,
        "address": address,
        "etag": 'W/"abc"',
        "last_modified": "Fri, 24 Jul 2026 10:00:00 GMT",
        "version": "test",
    }
    assert server.paths == [PAGE, PATH]
    for path in (repo / "spec").iterdir():
        assert path.stat().st_mode & 0o777 == 0o644
    assert [path for path in repo.iterdir() if path.name.startswith(".")] == []


def test_pulled_document_can_be_generated(repo: Path, run: Run, server: Published, document: Document) -> None:
    assert run("--root", repo, "pull", server.put(PATH, Reply(encoded(document), headers=JSON))).code == 0
    result = run("--root", repo, "generate")
    assert result.code == 0
    assert json.loads((repo / "spec/realtime.json").read_text(encoding="utf-8"))["info"]["version"] == "test"


def test_second_pull_is_conditional_and_touches_nothing(
    repo: Path, run: Run, server: Published, document: Document, snapshot: Snapshot
) -> None:
    page = server.put(PAGE, Reply(link(PATH), headers=HTML | {"ETag": '"page"'}))
    validators = {"ETag": '"abc"', "Last-Modified": "Fri, 24 Jul 2026 10:00:00 GMT"}
    address = server.put(PATH, Reply(encoded(document), headers=JSON | validators), Reply(status=304))
    assert run("--root", repo, "pull", page).code == 0
    before = snapshot(repo)
    result = run("--root", repo, "pull")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(f"nothing changed: {address} is as recorded in spec/source.toml (304 at 20")
    assert snapshot(repo) == before

    asked = [(headers.get("if-none-match"), headers.get("if-modified-since")) for _, headers in server.requests]
    assert asked == [(None, None), (None, None), (None, None), ('"abc"', "Fri, 24 Jul 2026 10:00:00 GMT")]


def test_edited_pinned_file_is_replaced_without_condition(
    repo: Path, run: Run, server: Published, document: Document
) -> None:
    address = server.put(PATH, Reply(encoded(document), headers=JSON | {"ETag": '"abc"'}))
    assert run("--root", repo, "pull", address).code == 0
    (repo / "spec/forge-containers-api.json").write_text("{}", encoding="utf-8")
    assert run("--root", repo, "pull", address).code == 0
    assert pinned(repo) == canonical(document)
    assert "if-none-match" not in server.requests[1][1]


def test_same_content_at_another_address_touches_nothing(
    repo: Path, run: Run, server: Published, document: Document, snapshot: Snapshot
) -> None:
    assert run("--root", repo, "pull", server.put(PATH, Reply(encoded(document), headers=JSON))).code == 0
    before = snapshot(repo)
    other = server.put("/other?_v=2", Reply(canonical(document).encode(), headers=JSON | {"ETag": '"new"'}))
    result = run("--root", repo, "pull", other)
    assert result.out.startswith(f"nothing changed: {other} is the same as spec/forge-containers-api.json (at 20")
    assert snapshot(repo) == before


def test_transcribed_content_at_address_is_recorded_as_pulled(repo: Path, run: Run, server: Published) -> None:
    text = pinned(repo)
    address = server.put(PATH, Reply(text.encode(), headers=JSON))
    assert run("--root", repo, "pull", address).code == 0
    assert (pinned(repo), source(repo)["address"]) == (text, address)
    assert source(repo)["page"] == "https://developer.atlassian.com/platform/forge/rest/v2/api-group-forge-realtime/"


def test_file_is_recorded_without_folder(
    repo: Path, run: Run, tmp_path: Path, document: Document, snapshot: Snapshot
) -> None:
    path = tmp_path / "saved.json"
    path.write_bytes(b"\xef\xbb\xbf" + encoded(document))
    result = run("--root", repo, "pull", path)
    assert (result.code, result.err) == (0, "")
    assert pinned(repo) == canonical(document)
    record = source(repo)
    assert (record["address"], record["file"]) == ("unknown", "saved.json")
    assert record["published_sha256"] == sha256(path.read_bytes())
    assert str(tmp_path) not in (repo / "spec/source.toml").read_text(encoding="utf-8")

    before = snapshot(repo)
    assert run("--root", repo, "pull", path).out.startswith("nothing changed: ")
    assert snapshot(repo) == before


@pytest.mark.parametrize("media_type", ["application/yaml", "text/plain", "application/octet-stream"])
def test_yaml_is_pinned_as_equivalent_json(
    repo: Path, run: Run, server: Published, document: Document, media_type: str, tmp_path: Path
) -> None:
    document["info"]["x-numbers"] = [1, 1.0, 2**70, 1e300, -0.5]
    document["info"]["x-é"] = "on\n😀"
    with (tmp_path / "d.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(document, file)
    body = (tmp_path / "d.yaml").read_bytes()
    address = server.put("/openapi.yaml", Reply(body, headers={"Content-Type": media_type}))
    result = run("--root", repo, "pull", address)
    assert (result.code, result.err) == (0, "")
    assert json.loads(pinned(repo)) == document
    assert '"x-numbers": [\n      1,\n      1.0,\n      1180591620717411303424,\n      1e+300,\n' in pinned(repo)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "binary/octet-stream"},
        {"Content-Type": "application/vnd.oai.openapi+json;version=3.0"},
    ],
)
def test_json_with_other_media_type_is_accepted(
    repo: Path, run: Run, server: Published, document: Document, headers: dict[str, str]
) -> None:
    assert run("--root", repo, "pull", server.put(PATH, Reply(encoded(document), headers=headers))).code == 0
    assert pinned(repo) == canonical(document)


def test_gzip_is_decompressed(repo: Path, run: Run, server: Published, document: Document) -> None:
    packed = Reply(gzip.compress(encoded(document)), headers=JSON | {"Content-Encoding": "gzip"})
    assert run("--root", repo, "pull", server.put(PATH, packed)).code == 0
    assert source(repo)["published_sha256"] == sha256(encoded(document))
    assert server.requests[0][1]["accept-encoding"] == "gzip"


def test_redirects_are_followed_and_first_address_is_recorded(
    repo: Path, run: Run, server: Published, document: Document
) -> None:
    server.put("/b/c", Reply(encoded(document), headers=JSON))
    server.put("/b/a", Reply(status=302, headers={"Location": "c"}))
    address = server.put(PATH, Reply(status=301, headers={"Location": server.url + "/b/a"}))
    assert run("--root", repo, "pull", address).code == 0
    assert source(repo)["address"] == address
    assert server.paths == [PATH, "/b/a", "/b/c"]


def test_transient_failures_are_retried(
    repo: Path, run: Run, server: Published, document: Document, waits: list[float]
) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=30)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    address = server.put(
        PATH,
        Reply(status=503, headers={"Retry-After": soon}),
        Reply(status=429, headers={"Retry-After": "7"}),
        Reply(encoded(document), length=10**6),
        Reply(encoded(document), headers=JSON),
    )
    result = run("--root", repo, "pull", address)
    assert (result.code, result.err) == (0, "")
    assert 20 < waits[0] <= 30
    assert waits[1:] == [7.0, 2.0]


def test_wait_beyond_total_is_not_started(server: Published, refused: Callable[..., str], waits: list[float]) -> None:
    address = server.put(PATH, Reply(status=429, headers={"Retry-After": "3600"}))
    message = refused(address)
    assert f"{address}: status 429 Too Many Requests. Retry after 3600 s." in message
    assert (waits, server.paths) == ([], [PATH])


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply(b"<html>Log in</html>", headers=HTML), "has no link with the text 'OpenAPI'. The page changed"),
        (Reply(b"\n <!DOCTYPE html>", headers=JSON), "has no link with the text 'OpenAPI'"),
        (Reply(b"{}", headers=HTML), "has no link with the text 'OpenAPI'"),
        (Reply(b"PNG", headers={"Content-Type": "image/png"}), "is served as 'image/png', expected JSON or YAML"),
        (Reply(b'{"openapi": "3.0.1", "paths": {', headers=JSON), "is not valid JSON: "),
        (Reply(b"", headers=JSON), "has nothing at its root"),
        (Reply(b"[]", headers=JSON), "has a list at its root"),
        (Reply(b"\xff\xfe{\x00}\x00", headers=JSON), "cannot be read as UTF-8 text"),
        (Reply(b'{"openapi": "3.0.1", "openapi": "3.0.2"}', headers=JSON), "has the key 'openapi' twice"),
        (Reply(b'{"a": 0.12345678901234567890}', headers=JSON), "0.12345678901234567890 has no exact float"),
        (Reply(b'{"a": 1e999}', headers=JSON), "the number 1e999 has no exact float"),
        (Reply(b'{"a": "\\ud800"}', headers=JSON), r"/a: contains '\ud800', half of a surrogate pair"),
        (Reply(b'{"swagger": "2.0"}', headers=JSON), "is not an OpenAPI 3.0 or 3.1 document: found swagger 2.0"),
        (Reply(b'{"message": "hello"}', headers=JSON), "is not an OpenAPI 3.0 or 3.1 document: found openapi None"),
        (Reply(b'{"openapi": "3.2.0", "paths": {}}', headers=JSON), "is not an OpenAPI 3.0 or 3.1 document"),
        (Reply(b'{"openapi": "3.1.0", "paths": {}}', headers=JSON), "no operation is tagged 'Forge Realtime'"),
        (Reply(status=404), "status 404 Not Found. Did it move"),
        (Reply(status=403), "status 403 Forbidden. Did it move, or is this machine not allowed to read it?"),
        (Reply(status=304), "status 304 Not Modified"),
        (Reply(status=302), "status 302 Found"),
        (Reply(status=206, body=b"{}", headers=JSON), "status 206"),
        (Reply(status=500), "status 500 Internal Server Error. Retry later."),
        (Reply(b"{}", headers=JSON | {"Content-Encoding": "br"}), "is encoded as 'br'"),
        (Reply(b"{}", headers=JSON | {"Content-Encoding": "gzip"}), "is damaged: "),
        (Reply(gzip.compress(b"{}")[:-9], headers=JSON | {"Content-Encoding": "gzip"}), "is truncated or damaged gzip"),
        (Reply(gzip.compress(b"{}") * 2, headers=JSON | {"Content-Encoding": "gzip"}), "is truncated or damaged gzip"),
        (Reply(b"openapi: 3.0.1\n", length=100), "the response is incomplete or invalid: peer closed connection"),
        (
            Reply(b"5\r\nopena", headers={"Transfer-Encoding": "chunked"}),
            "the response is incomplete or invalid: peer closed connection",
        ),
        (Reply(status=302, headers={"Location": PATH}), "redirects in a circle, or more than 5 times"),
        (
            Reply(status=302, headers={"Location": "http://example.com/a"}),
            "redirects to http://example.com/a: is not an h",
        ),
        (
            Reply(status=302, headers={"Location": "ftp://localhost/a"}),
            "redirects to ftp://localhost/a: is not an https",
        ),
        (
            Reply(status=302, headers={"Location": "https://[::1"}),
            "the response is incomplete or invalid: Invalid URL in location header",
        ),
    ],
)
def test_invalid_response_is_explained_and_changes_nothing(
    server: Published, refused: Callable[..., str], reply: Reply, message: str
) -> None:
    address = server.put(PATH, reply)
    error = refused(address)
    assert error.startswith(f"error: {address}: ")
    assert message in error


def test_permanent_failures_are_not_retried(server: Published, refused: Callable[..., str]) -> None:
    refused(server.put(PATH, Reply(status=404)))
    assert server.paths == [PATH]


@pytest.mark.parametrize("packed", [False, True])
def test_too_large_document_is_refused_while_reading(
    server: Published, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch, packed: bool, tmp_path: Path
) -> None:
    monkeypatch.setattr("generator.spec.fetch.LIMIT", 10_000)
    monkeypatch.setattr("generator.spec.pull.LIMIT", 10_000)
    body = b"{" + b" " * 50_000_000 + b"}" if packed else b"{" + b" " * 10_000
    reply = Reply(gzip.compress(body, 1), headers={"Content-Encoding": "gzip"}) if packed else Reply(body)
    assert "is larger than 10000 bytes" in refused(server.put(PATH, reply))
    (tmp_path / "large.json").write_bytes(body[:20_000])
    assert "is larger than 10000 bytes" in refused(tmp_path / "large.json")


def test_timeouts_are_explained(
    server: Published, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("generator.spec.fetch.TIMEOUT", httpx.Timeout(0.05, connect=5))
    assert "no data for 0.05 s. Retry later." in refused(server.put("/hang", Reply(then="hang")))
    assert server.paths == ["/hang"] * 4
    monkeypatch.setattr("generator.spec.fetch.TOTAL", 0.3)
    trickle = server.put("/trickle", Reply(b"{", length=10**6, then="trickle"))
    assert f"error: {trickle}: no complete response within 0.3 s." in refused(trickle)
    assert server.paths[4:] == ["/trickle"]


def test_missing_server_and_unknown_host_are_explained(
    server: Published, refused: Callable[..., str], waits: list[float]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        message = refused(f"http://127.0.0.1:{taken.getsockname()[1]}/")
    assert f"no connection: [Errno {errno.ECONNREFUSED}]" in message
    assert "Is this machine offline, or is a proxy needed (HTTPS_PROXY)?" in message
    assert waits == [0.5, 1.0, 2.0]
    assert "the host forge.invalid has no address. Is this machine offline" in refused("https://forge.invalid/")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://example.com/openapi.json", "is not an https address"),
        ("ftp://example.com/openapi.json", "is not an https address"),
        ("https://user:secret@example.com/openapi.json", "contains a user name or password"),
        ("https://[::1/openapi.json", "is not a valid address"),
        (
            "developer.atlassian.com/platform",
            "cannot be read: No such file or directory. Check the path. An address begins",
        ),
        (".", "cannot be read: Is a directory"),
    ],
)
def test_invalid_source_is_refused(refused: Callable[..., str], address: str, message: str) -> None:
    error = refused(address)
    assert message in error
    assert "secret" not in error


def test_saved_web_page_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "page.json").write_text("<html></html>", encoding="utf-8")
    assert "is HTML or XML, not a document" in refused(tmp_path / "page.json")


def test_link_to_web_page_is_refused(server: Published, refused: Callable[..., str]) -> None:
    page = server.put(PAGE, Reply(link(PATH), headers=HTML))
    address = server.put(PATH, Reply(link("/another"), headers=HTML))
    assert f"error: {address}: is a web page, expected a document." in refused(page)


def test_ambiguous_links_are_listed(server: Published, refused: Callable[..., str]) -> None:
    page = server.put(PAGE, Reply(link("/a.json") + link("/b.json") + link("/a.json"), headers=HTML))
    assert f"to different addresses:\n  {server.url}/a.json\n  {server.url}/b.json\n" in refused(page)


def test_unencrypted_link_is_refused(server: Published, refused: Callable[..., str]) -> None:
    page = server.put(PAGE, Reply(link("http://example.com/a.json"), headers=HTML))
    assert "http://example.com/a.json: is not an https address" in refused(page)


def _without_token(document: Document) -> None:
    document["paths"]["/forge/realtime/v2/token"] = document["paths"].pop(TOKEN)


def _invalid_operation(document: Document) -> None:
    del document["paths"][TOKEN]["post"]["responses"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            _without_token,
            "has no POST /forge/realtime/v1/token, which overlays/openapi uses. Operations tagged 'Forge Realtime': ",
        ),
        (_invalid_operation, "is not a valid OpenAPI document:\n"),
    ],
)
def test_unusable_document_is_pinned_only_with_force(
    repo: Path,
    run: Run,
    server: Published,
    refused: Callable[..., str],
    document: Document,
    change: Callable[[Document], None],
    message: str,
) -> None:
    change(document)
    address = server.put(PATH, Reply(encoded(document), headers=JSON))
    error = refused(address)
    assert message in error
    assert "make pull FORCE=1, with the same SOURCE." in error
    assert (", POST /forge/realtime/v2/token. An old revision may be served" in error) == (change is _without_token)

    result = run("--root", repo, "pull", "--force", address)
    assert (result.code, result.err) == (0, "")
    assert f"notice: {message}" in result.out
    assert pinned(repo) == canonical(document)
    # A second pull finds no change.
    assert run("--root", repo, "pull", address).out.startswith("nothing changed: ")


def test_document_without_tag_cannot_be_forced(
    repo: Path, run: Run, server: Published, document: Document, snapshot: Snapshot
) -> None:
    for path in [path for path in document["paths"] if "realtime" in path]:
        del document["paths"][path]
    before = snapshot(repo)
    result = run("--root", repo, "pull", "--force", server.put(PATH, Reply(encoded(document), headers=JSON)))
    assert (result.code, "no operation is tagged 'Forge Realtime'" in result.err) == (1, True)
    assert snapshot(repo) == before


def test_overlay_that_no_longer_fits_is_notice(repo: Path, run: Run, server: Published, document: Document) -> None:
    overlay = {"overlay": "1.0.0", "actions": [{"target": "$.no", "remove": True}]}
    (repo / "overlays/openapi/99.json").write_text(json.dumps(overlay), encoding="utf-8")
    result = run("--root", repo, "pull", server.put(PATH, Reply(encoded(document), headers=JSON)))
    assert result.code == 0
    assert "notice: `make generate` will fail until this overlay fits the document: " in result.out
    assert "overlays/openapi/99.json" in result.out
    assert "action 1, target $.no: matches nothing" in result.out
    assert run("--root", repo, "generate").code == 1


@pytest.mark.parametrize(
    ("damage", "first"),
    [
        ({"get": {"tags": ["Jira"]}}, "'responses' is a required property"),
        (
            {"get": {"tags": ["Jira"], "responses": {"200": {"$ref": "#/components/responses/No"}}}},
            "'#/components/responses/No' has no target",
        ),
        (
            {"get": {"tags": ["Jira"], "responses": {"200": {"$ref": "http://localhost/responses.json"}}}},
            "points outside of #/components",
        ),
    ],
)
def test_error_in_another_group_is_notice(
    repo: Path, run: Run, server: Published, document: Document, damage: Document, first: str
) -> None:
    document["paths"]["/jira"] = damage
    result = run("--root", repo, "pull", server.put(PATH, Reply(encoded(document), headers=JSON)))
    assert (result.code, result.err) == (0, "")
    assert "notice: it has 1 OpenAPI errors, none of them in the part for 'Forge Realtime'. " in result.out
    assert first in result.out


def test_chain_of_schemas_too_long_to_check_is_notice(
    repo: Path, run: Run, server: Published, document: Document
) -> None:
    schemas = {
        f"S{n}": {"type": "object", "properties": {"next": {"$ref": f"#/components/schemas/S{n + 1}"}}}
        for n in range(1000)
    }
    document["components"].setdefault("schemas", {}).update(schemas | {"S1000": {"type": "object"}})
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/S0"}}}
    document["paths"]["/jira"] = {"get": {"responses": {"200": {"description": "", "content": content}}}}
    result = run("--root", repo, "pull", server.put(PATH, Reply(encoded(document), headers=JSON)))
    assert (result.code, result.err) == (0, "")
    assert "The first: hundreds of schemas that each refer to the next" in result.out


@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_document_and_source_are_replaced_together_or_not_at_all(
    server: Published, refused: Callable[..., str], document: Document, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    calls = 0

    def replace(source: Path, target: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise OSError("disk full")
        source.rename(target)

    monkeypatch.setattr(Path, "replace", replace)
    assert "disk full" in refused(server.put(PATH, Reply(encoded(document), headers=JSON)))


def test_invalid_source_toml_is_refused(repo: Path, refused: Callable[..., str]) -> None:
    (repo / "spec/source.toml").write_text("not toml", encoding="utf-8")
    assert "spec/source.toml: cannot be read as TOML" in refused()
    (repo / "spec/source.toml").write_text("", encoding="utf-8")
    assert "spec/source.toml names no page." in refused()
