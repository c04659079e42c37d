"""`make publish`, to a real index server on loopback."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import trustme

from forge_realtime import __version__
from generator.__main__ import main
from tests.support.bare import make_environment, names_of, publish_from
from tests.support.repository import ROOT, commit, copy_repository, git

pytestmark = pytest.mark.slow

USER, PASSWORD = "publisher", "correct-horse-battery"
WHEEL = f"forge_realtime-{__version__}-py3-none-any.whl"
SDIST = f"forge_realtime-{__version__}.tar.gz"
OLDER = ("forge_realtime-0.0.1-py3-none-any.whl", "forge-realtime-0.0.1.tar.gz", "forge_realtime-0.0.1.zip")


# pypiserver on a free port, which wants a password for everything. In a process of its own: importing it warns.
SERVER = """
import sys
from wsgiref.simple_server import make_server
import pypiserver

folder, user, password = sys.argv[1:]
application = pypiserver.app(
    roots=[folder],
    authenticate=["download", "list", "update"],
    auther=lambda *given: given == (user, password),
    disable_fallback=True,
)
with make_server("127.0.0.1", 0, application) as server:
    print(server.server_port, flush=True)
    server.serve_forever()
"""


@contextmanager
def package_index(folder: Path) -> Iterator[str]:
    folder.mkdir()
    command = [sys.executable, "-c", SERVER, str(folder), USER, PASSWORD]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            yield f"127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.kill()


def make_publish(
    repository: Path, index: str, user: str | None = USER, password: str = PASSWORD
) -> subprocess.CompletedProcess[str]:
    # In this environment: the copy makes none of its own.
    command = ["make", "-o", ".venv/done/setup", f"BIN={Path(sys.executable).parent}", "publish", f"INDEX={index}"]
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    environment |= {"NO_PROXY": "127.0.0.1", "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring"}
    if user is not None:
        environment |= {"TWINE_USERNAME": user, "TWINE_PASSWORD": password}
    run = subprocess.run(
        command,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=repository,
        env=environment,
    )
    assert password not in run.stdout
    return run


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return released(tmp_path_factory.mktemp("clean"))


def released(folder: Path) -> Path:
    """A copy of the repository whose commit has the tag of its version."""
    repository = copy_repository(folder)
    git(repository, "tag", f"v{__version__}")
    return repository


def test_it_is_published_once_and_what_is_installed_from_there_works(clean: Path, tmp_path: Path) -> None:
    files = tmp_path / "index"
    with package_index(files) as address:
        for name in OLDER:
            (files / name).write_bytes(b"an older one")
        first = make_publish(clean, f"http://{address}/")
        assert first.returncode == 0, first.stdout
        published = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files.iterdir()}
        assert set(published) == {WHEEL, SDIST, *OLDER}
        assert published[WHEEL] == hashlib.sha256((ROOT / "dist" / WHEEL).read_bytes()).hexdigest()

        second = make_publish(clean, f"http://{address}")
        assert second.returncode != 0
        assert f"error: {__version__} is on the index already: {WHEEL}, {SDIST}. Raise the version" in second.stdout
        assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files.iterdir()} == published

        python = make_environment(tmp_path / "bare")
        assert "forge-realtime" not in names_of(python)
        pip = [sys.executable, "-m", "pip", "--isolated", "--python", str(python), "install", "--quiet", "--no-deps"]
        source = ["--no-cache-dir", "--index-url", f"http://{USER}:{PASSWORD}@{address}/simple/"]
        subprocess.run([*pip, *source, "forge-realtime"], check=True)
    location, versions = publish_from(python)
    assert location.startswith(str(tmp_path / "bare"))
    assert versions.split()[0] == f"forge-realtime=={__version__}"


def test_a_half_published_version_is_refused_too(clean: Path, tmp_path: Path) -> None:
    with package_index(tmp_path / "index") as address:
        (tmp_path / "index" / SDIST).write_bytes(b"what an upload that broke off has left")
        run = make_publish(clean, f"http://{address}")
    assert run.returncode != 0
    assert f"is on the index already: {SDIST}." in run.stdout
    assert [path.name for path in (tmp_path / "index").iterdir()] == [SDIST]


def test_a_wrong_password_is_refused_and_not_shown(clean: Path, tmp_path: Path) -> None:
    with package_index(tmp_path / "index") as address:
        run = make_publish(clean, f"http://{address}", password="wrong-horse")
    assert run.returncode != 0
    assert "the credentials were refused (403). Set TWINE_USERNAME and TWINE_PASSWORD." in run.stdout
    assert not list((tmp_path / "index").iterdir())


def test_a_dirty_tree_is_refused(tmp_path: Path) -> None:
    repository = copy_repository(tmp_path / "clone")
    (repository / "overlays/forge_realtime/new.py").touch()
    with package_index(tmp_path / "index") as address:
        run = make_publish(repository, f"http://{address}")
    assert run.returncode != 0
    assert "error: the tree is dirty:\n?? overlays/forge_realtime/new.py\nCommit or remove that first" in run.stdout
    assert not list((tmp_path / "index").iterdir())


def test_a_commit_without_the_tag_of_its_version_is_refused_before_anything_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = released(tmp_path / "clone")
    (repository / "notes.md").touch()
    commit(repository)
    git(repository, "tag", "another")
    with socket.create_server(("127.0.0.1", 0)) as index:
        index.setblocking(False)
        assert main(["--root", str(repository), "publish", f"http://127.0.0.1:{index.getsockname()[1]}"]) == 1
        with pytest.raises(BlockingIOError):
            index.accept()
    output = capsys.readouterr()
    assert output.err.startswith(
        f"error: the last commit is no release: it has no tag v{__version__}. `make release` first;"
    )
    assert output.out == ""


def test_a_tree_that_is_not_as_locked_is_refused(tmp_path: Path) -> None:
    repository = copy_repository(tmp_path / "clone")
    with (repository / "generated/forge_realtime/_api/errors.py").open("a") as file:
        file.write("# by hand\n")
    commit(repository)
    git(repository, "tag", f"v{__version__}")
    with package_index(tmp_path / "index") as address:
        run = make_publish(repository, f"http://{address}")
    assert run.returncode != 0
    assert "generated/forge_realtime/_api/errors.py" in run.stdout
    assert "error: generator check failed, so nothing was uploaded." in run.stdout
    assert not list((tmp_path / "index").iterdir())


def test_without_credentials_it_says_where_they_are_looked_for(clean: Path, tmp_path: Path) -> None:
    with package_index(tmp_path / "index") as address:
        run = make_publish(clean, f"http://{address}", user=None)
    assert run.returncode != 0
    assert "Set TWINE_USERNAME and TWINE_PASSWORD, or store them: keyring set http://127.0.0.1" in run.stdout
    assert not list((tmp_path / "index").iterdir())


@pytest.mark.parametrize(
    ("status", "page", "says"),
    [
        (200, {"files": [{"filename": OLDER[0]}, {"filename": WHEEL}]}, f"is on the index already: {WHEEL}."),
        (429, {}, f"429, so it is not known whether {__version__} exists. Nothing was uploaded."),
    ],
)
def test_an_index_that_answers_in_json_is_understood(clean: Path, status: int, page: dict[str, Any], says: str) -> None:
    class Index(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/python/simple/forge-realtime/"
            self.send_response(status)
            self.send_header("Content-Type", "application/vnd.pypi.simple.v1+json")
            self.end_headers()
            self.wfile.write(json.dumps(page).encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Index) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            run = make_publish(clean, f"http://127.0.0.1:{server.server_port}/python")
        finally:
            server.shutdown()
            thread.join()
    assert run.returncode != 0
    assert says in run.stdout


def test_an_index_that_is_not_there_is_named(clean: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    run = make_publish(clean, f"http://127.0.0.1:{port}")
    assert run.returncode != 0
    refused = os.strerror(errno.ECONNREFUSED)
    said = f"error: http://127.0.0.1:{port}: no connection: [Errno {errno.ECONNREFUSED}] {refused}. Check the address"
    assert said in run.stdout


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TWINE_USERNAME", USER), ("TWINE_PASSWORD", PASSWORD), ("NO_PROXY", "*")):
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("credentials")
def test_a_host_without_an_address_is_named(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(clean), "publish", "http://nowhere.invalid/"]) == 1
    assert "http://nowhere.invalid/: there is no address for the host. Is this machine" in capsys.readouterr().err


@pytest.mark.usefixtures("credentials")
def test_an_index_that_is_not_trusted_is_told_from_one_that_is_not_there(
    clean: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            assert main(["--root", str(clean), "publish", f"https://127.0.0.1:{server.server_port}"]) == 1
        finally:
            server.shutdown()
            thread.join()
    error = capsys.readouterr().err
    assert "no trusted connection: [SSL: CERTIFICATE_VERIFY_FAILED]" in error
    assert "name its file in TWINE_CERT" in error


@pytest.mark.parametrize(
    ("index", "says"),
    [
        ("", "no index is given. Name it: make publish INDEX=https://…"),
        ("ftp://packages.example/", "ftp://packages.example/ is no http or https address."),
        ("packages.example/simple", "packages.example/simple is no http or https address."),
        (f"https://{USER}:{PASSWORD}@packages.example/", "the address holds credentials"),
    ],
)
def test_an_address_that_is_none_is_refused(index: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["publish", *([index] if index else [])]) == 1
    output = capsys.readouterr()
    assert says in output.err
    assert PASSWORD not in output.err + output.out


def test_make_publish_without_an_index_says_so(clean: Path) -> None:
    run = make_publish(clean, "")
    assert run.returncode != 0
    assert "error: no index is given." in run.stdout
