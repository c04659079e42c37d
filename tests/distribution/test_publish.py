"""`make publish`, to a real index server on loopback."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from forge_realtime import __version__
from generator.__main__ import main
from generator.release import publish as _publish
from tests.support.bare import make_environment, names_of, publish_from
from tests.support.repository import ROOT, commit, copy_repository, git

pytestmark = pytest.mark.slow

USER, PASSWORD = "publisher", "correct/horse@battery"
WHEEL = f"forge_realtime-{__version__}-py3-none-any.whl"
SDIST = f"forge_realtime-{__version__}.tar.gz"
OLDER = ("forge_realtime-0.0.1-py3-none-any.whl", "forge-realtime-0.0.1.tar.gz", "forge_realtime-0.0.1.zip")


# pypiserver on a free port, with a password for every request. In a process of its own, because importing it warns.
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


def make_publish(repository: Path, index: str, password: str = PASSWORD) -> subprocess.CompletedProcess[str]:
    # Use the environment of this process: the copy has none.
    command = ["make", "-o", ".venv/done/setup", f"BIN={Path(sys.executable).parent}", "publish", f"INDEX={index}"]
    left_out = ("MAKEFLAGS", "MAKELEVEL", "UV_PUBLISH_USERNAME", "UV_PUBLISH_PASSWORD", "UV_PUBLISH_TOKEN")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    # Without line breaks in messages of uv.
    environment |= {"NO_PROXY": "127.0.0.1", "COLUMNS": "1000"}
    environment |= {"UV_PUBLISH_USERNAME": USER, "UV_PUBLISH_PASSWORD": password}
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


class Upload(NamedTuple):
    returncode: int
    stdout: str


@pytest.fixture(scope="module")
def built(clean: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the release."""
    folder = tmp_path_factory.mktemp("built")
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(folder)]
    subprocess.run(command, check=True, capture_output=True, cwd=clean)
    return folder


@pytest.fixture
def upload(
    clean: Path, built: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Upload]:
    """Publish in this process, without the check and the build, which others show to come first."""
    real = _publish._run

    def run(root: Path, module: str, *arguments: str, **environment: str) -> None:
        if module == "hatchling":
            shutil.copytree(built, arguments[-1], dirs_exist_ok=True)
        elif module != "generator":
            real(root, module, *arguments, **environment)

    def upload(index: str, user: str | None = USER) -> Upload:
        monkeypatch.setattr(_publish, "_run", run)
        for name in ("UV_PUBLISH_USERNAME", "UV_PUBLISH_PASSWORD", "UV_PUBLISH_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        given = {"UV_PUBLISH_USERNAME": user, "UV_PUBLISH_PASSWORD": PASSWORD} if user else {}
        for name, value in {**given, "NO_PROXY": "127.0.0.1", "COLUMNS": "1000"}.items():
            monkeypatch.setenv(name, value)
        code = main(["--root", str(clean), "publish", index])
        output = "".join(capfd.readouterr())
        assert PASSWORD not in output
        return Upload(code, output)

    return upload


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_release_is_uploaded_completed_and_installed(clean: Path, tmp_path: Path) -> None:
    files = tmp_path / "index"
    with package_index(files) as address:
        for name in OLDER:
            (files / name).write_bytes(b"an older one")
        first = make_publish(clean, f"http://{address}/")
        assert first.returncode == 0, first.stdout
        published = hashes(files)
        assert set(published) == {WHEEL, SDIST, *OLDER}
        assert published[WHEEL] == hashlib.sha256((ROOT / "dist" / WHEEL).read_bytes()).hexdigest()

        # An interrupted upload is completed.
        (files / WHEEL).unlink()
        second = make_publish(clean, f"http://{address}")
        assert second.returncode == 0, second.stdout
        assert f"{SDIST} already exists, skipping" in second.stdout
        assert f"Uploading {SDIST}" not in second.stdout
        assert hashes(files) == published

        python = make_environment(tmp_path / "bare")
        assert "forge-realtime" not in names_of(python)
        pip = [sys.executable, "-m", "pip", "--isolated", "--python", str(python), "install", "--quiet", "--no-deps"]
        credentials = f"{USER}:{PASSWORD.replace('/', '%2F').replace('@', '%40')}"
        source = ["--no-cache-dir", "--index-url", f"http://{credentials}@{address}/simple/"]
        subprocess.run([*pip, *source, "forge-realtime"], check=True)
    location, versions = publish_from(python)
    assert location.startswith(str(tmp_path / "bare"))
    assert versions.split()[0] == f"forge-realtime=={__version__}"


@pytest.mark.parametrize("name", [WHEEL, SDIST])
def test_nothing_is_uploaded_if_one_file_has_other_bytes(
    upload: Callable[..., Upload], tmp_path: Path, name: str
) -> None:
    with package_index(tmp_path / "index") as address:
        (tmp_path / "index" / name).write_bytes(b"other bytes")
        run = upload(f"http://{address}")
    assert run.returncode != 0
    assert f"Local file and index file do not match for `{name}`" in run.stdout
    assert "error: uv publish failed. Its output above says why." in run.stdout
    assert [path.name for path in (tmp_path / "index").iterdir()] == [name]


def test_wrong_password_is_refused_and_not_shown(clean: Path, tmp_path: Path) -> None:
    with package_index(tmp_path / "index") as address:
        run = make_publish(clean, f"http://{address}", password="wrong-horse")
    assert run.returncode != 0
    assert "error: the index refused the credentials (403). Correct UV_PUBLISH_USERNAME" in run.stdout
    assert not list((tmp_path / "index").iterdir())


def test_dirty_tree_is_refused(tmp_path: Path) -> None:
    repository = copy_repository(tmp_path / "clone")
    (repository / "overlays/forge_realtime/new.py").touch()
    with package_index(tmp_path / "index") as address:
        run = make_publish(repository, f"http://{address}")
    assert run.returncode != 0
    assert "error: the tree is dirty:\n?? overlays/forge_realtime/new.py\nCommit or remove these first" in run.stdout
    assert not list((tmp_path / "index").iterdir())


def test_commit_without_release_tag_is_refused_before_index_is_asked(
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
    assert output.err.startswith(f"error: the commit is not a release: it has no tag v{__version__}. Run `make")
    assert output.out == ""


def test_tree_that_differs_from_lock_is_refused(tmp_path: Path) -> None:
    repository = copy_repository(tmp_path / "clone")
    with (repository / "generated/forge_realtime/_api/errors.py").open("a") as file:
        file.write("# by hand\n")
    commit(repository)
    git(repository, "tag", f"v{__version__}")
    with package_index(tmp_path / "index") as address:
        run = make_publish(repository, f"http://{address}")
    assert run.returncode != 0
    assert "generated/forge_realtime/_api/errors.py" in run.stdout
    assert "error: generator check failed. Its output above says why." in run.stdout
    assert not list((tmp_path / "index").iterdir())


def test_missing_credentials_are_named(upload: Callable[..., Upload], tmp_path: Path) -> None:
    with package_index(tmp_path / "index") as address:
        run = upload(f"http://{address}", user=None)
    assert run.returncode != 0
    assert "Missing credentials for: http://127.0.0.1" in run.stdout
    assert not list((tmp_path / "index").iterdir())


def test_unreachable_index_is_named(upload: Callable[..., Upload], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    run = upload(f"http://127.0.0.1:{port}")
    assert run.returncode != 0
    assert f"http://127.0.0.1:{port}/simple/forge-realtime/" in run.stdout
    assert "Connection refused" in run.stdout
    assert "Uploading" not in run.stdout


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("", "no index is given. Name it: make publish INDEX=https://…"),
        ("ftp://packages.example/", "ftp://packages.example/ is not an http or https address."),
        ("packages.example/simple", "packages.example/simple is not an http or https address."),
        ("https://publisher:correct-horse@packages.example/", "the address contains credentials"),
    ],
)
def test_invalid_address_is_refused(index: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["publish", *([index] if index else [])]) == 1
    output = capsys.readouterr()
    assert message in output.err
    assert "correct-horse" not in output.err + output.out


PLAIN = "is plain http: everyone on the way can read the credentials and change the files. Use https."


@pytest.mark.parametrize("host", ["packages.example", "192.0.2.1", "[2001:db8::1]", "localhost.packages.example"])
def test_plain_http_is_refused(host: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORGE_PUBLISH_OVER_HTTP", raising=False)
    assert main(["publish", f"http://{host}:8080/python"]) == 1
    assert capsys.readouterr().err.startswith(f"error: http://{host}:8080/python {PLAIN}")


@pytest.mark.parametrize(
    ("host", "asked"), [("packages.example", "1"), ("localhost", ""), ("127.0.0.1", ""), ("[::1]", "")]
)
def test_plain_http_is_for_loopback_or_on_request(
    clean: Path, host: str, asked: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORGE_PUBLISH_OVER_HTTP", asked)
    monkeypatch.setattr("generator.release.publish.require_clean", lambda _: None)
    monkeypatch.setattr("generator.release.publish.git", lambda *_: "no tag")
    assert main(["--root", str(clean), "publish", f"http://{host}:8080/python"]) == 1
    assert capsys.readouterr().err.startswith("error: the commit is not a release")


def test_make_publish_without_index_is_refused(clean: Path) -> None:
    run = make_publish(clean, "")
    assert run.returncode != 0
    assert "error: no index is given." in run.stdout
