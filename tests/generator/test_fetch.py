"""TLS, proxies and conditional requests of `generator.spec.fetch`, on loopback."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from generator.document import GeneratorError
from generator.spec.fetch import _check_address, fetch
from tests.support.document_server import Published, Reply, publishing


@pytest.fixture(autouse=True)
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("generator.spec.fetch.WAITS", ())


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server() -> Iterator[Published]:
    with publishing() as published:
        yield published


def _context(authority: trustme.CA, host: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(context)
    return context


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))


@pytest.mark.usefixtures("trusted")
def test_certificate_authority_of_environment_is_trusted(authority: trustme.CA, server: Published) -> None:
    with publishing(_context(authority, "localhost")) as secure:
        secure.put("/a", Reply(b"{}", headers={"ETag": "caf\xe9", "Content-Type": "Application/JSON; charset=utf-8"}))
        fetched = fetch(server.put("/", Reply(status=308, headers={"Location": f"{secure.url}/a"})))
    assert fetched
    assert (fetched.content, fetched.media_type, fetched.etag) == (b"{}", "application/json", None)


def test_untrusted_certificate_is_refused(authority: trustme.CA) -> None:
    with (
        publishing(_context(authority, "localhost")) as secure,
        pytest.raises(GeneratorError, match=r"no trusted connection: .*CERTIFICATE_VERIFY_FAILED.*SSL_CERT_FILE"),
    ):
        fetch(secure.put("/", Reply(b"{}")))
    assert secure.requests == []


@pytest.mark.usefixtures("trusted")
def test_certificate_of_another_host_is_refused(authority: trustme.CA) -> None:
    with (
        publishing(_context(authority, "example.com")) as secure,
        pytest.raises(GeneratorError, match=r"no trusted connection: .*localhost"),
    ):
        fetch(secure.put("/", Reply(b"{}")))


def test_https_to_plain_http_server_is_refused(server: Published) -> None:
    with pytest.raises(GeneratorError, match="no trusted connection: "):
        fetch(server.url.replace("http", "https"))


def test_proxy_is_used_except_for_loopback(server: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    address = server.put("/", Reply(b"{}"))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert fetch(address) is not None
    assert fetch(address.replace("localhost", "127.0.0.1")) is not None
    with pytest.raises(GeneratorError, match=r"https://forge\.invalid/: no connection: "):
        fetch("https://forge.invalid/")

    with publishing() as proxy:  # It does not support CONNECT.
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with pytest.raises(GeneratorError, match=r"the proxy of the environment refused the connection: 501"):
            fetch("https://forge.invalid/")


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "gopher://127.0.0.1:9", "http://127.0.0.1:port"])
def test_unusable_proxy_is_refused(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(GeneratorError, match=r"the proxy of the environment is unusable: .*HTTPS_PROXY"):
        fetch("https://forge.invalid/")


def test_redirect_keeps_condition(server: Published) -> None:
    server.put("/b", Reply(status=304))
    address = server.put("/a", Reply(status=307, headers={"Location": "/b"}))
    assert fetch(address, '"abc"', "Fri, 24 Jul 2026 10:00:00 GMT") is None
    sent = [(headers["if-none-match"], headers["if-modified-since"]) for _, headers in server.requests]
    assert sent == [('"abc"', "Fri, 24 Jul 2026 10:00:00 GMT")] * 2


@pytest.mark.parametrize("value", ["soon", "-5", "Fri, 99 Jul", "1.5", "Fri, 24 Jul 2020 10:00:00 GMT", "٣"])
def test_invalid_retry_after_is_ignored(server: Published, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("generator.spec.fetch.sleep", sleep)
    monkeypatch.setattr("generator.spec.fetch.WAITS", (0.25,))
    headers = {"Retry-After": value.encode().decode("latin-1")}
    assert fetch(server.put("/", Reply(status=503, headers=headers), Reply(b"{}"))) is not None
    assert waited == [0.25]


def test_redirect_to_loopback_is_refused() -> None:
    origin = _check_address("https://developer.atlassian.com/", None)
    assert str(_check_address("/a?b=c", origin)) == "https://developer.atlassian.com/a?b=c"
    with pytest.raises(GeneratorError, match="redirects to http://localhost/: is not an https address"):
        _check_address("http://localhost/", origin)
