"""`python -m forge_realtime.vendor`: a copy inside an app, and what can be said about it later."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import forge_realtime
from forge_realtime import __document__, __version__
from forge_realtime.vendor import VendorError, check, main, vendor
from forge_realtime_emulator import Emulator
from tests.support.bare import make_environment

INSTALLED = Path(forge_realtime.__file__ or "").parent

# Runs in a folder that holds app/, with the package installed too: both publish, before and after a fork.
BOTH = """
import asyncio, logging, os, pickle, sys
import forge_realtime as installed
import app._vendor.forge_realtime as vendored
import app._vendor.forge_realtime.asgi, forge_realtime.asgi
import app._vendor.forge_realtime.redis, forge_realtime.redis

lines = []
class Keep(logging.Handler):
    def emit(self, record): lines.append(record.name)
for name in ("forge_realtime", "app"):
    logging.getLogger(name).addHandler(Keep())
    logging.getLogger(name).setLevel(logging.DEBUG)

# The machine may have more to do.
patient = [package.RetryPolicy(deadline=30, attempt_timeout=20) for package in (installed, vendored)]
packages = list(zip((installed, vendored), patient))
clients = [(package, package.RealtimeClient(sys.argv[1], retry=retry)) for package, retry in packages]
def stream(who):
    for package, client in clients:
        live = client.for_installation("installation-1").with_options(quota=package.Quota())
        with live.stream_global(f"stream of {who}", merge="batch") as updates:
            updates.send(package.__version__)
            updates.send(who)
        assert updates.report.sent == 2
def publish(who):
    for package, client in clients:
        invocation = package.Invocation("invocation-123")
        with invocation.active():
            assert client.publish("board-42", [package.__version__, who]).event_id
            others = [other.current_invocation() for other, _ in clients if other is not package]
            assert others == [None]

publish("parent")
stream("parent")
if not (child := os.fork()):
    publish("child")
    stream("child")
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
publish("parent again")

async def main():
    for package, retry in packages:
        async with package.AsyncRealtimeClient(sys.argv[1], retry=retry) as client:
            await client.for_installation("installation-1").publish_global("news", package.__version__)
asyncio.run(main())

for package, client in clients:
    client.close()
    assert type(pickle.loads(pickle.dumps(package.RetryPolicy()))) is package.RetryPolicy
assert not issubclass(vendored.ForgeRealtimeError, installed.ForgeRealtimeError)
assert vendored.__document__.sha256
print(*sorted(set(lines)))
"""


def run(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, **options)


def elsewhere(packages: str | Path) -> dict[str, str]:
    """An environment that finds the package there."""
    return os.environ | {"PYTHONPATH": str(packages)}


def older_release(folder: Path) -> Path:
    """The package as it would be installed in another version."""
    shutil.copytree(INSTALLED, folder / "forge_realtime", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "forge_realtime/_version.py").write_text('__version__ = "0.0.9"\n', encoding="utf-8")
    document = folder / "forge_realtime/_document.py"
    text = document.read_text(encoding="utf-8").replace(__document__.sha256, "0" * 64)
    document.write_text(text, encoding="utf-8")
    return folder


def vendor_older_release(destination: Path, scratch: Path) -> None:
    environment = elsewhere(older_release(scratch))
    made = run("-m", "forge_realtime.vendor", destination, env=environment)
    assert made.stdout.startswith(f"{destination / 'forge_realtime'}: forge-realtime 0.0.9,"), made.stderr


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    """A folder with a copy."""
    vendor(tmp_path / "app/_vendor")
    return tmp_path / "app/_vendor"


@pytest.fixture
def copy(destination: Path) -> Path:
    return destination / "forge_realtime"


def test_the_copy_is_the_package_and_a_manifest(tmp_path: Path) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    said = vendor(tmp_path / "app/_vendor")
    copy = tmp_path / "app/_vendor/forge_realtime"
    installed = hashes(INSTALLED)
    assert said == f"{copy}: forge-realtime {__version__}, {len(installed)} files."
    assert hashes(copy) == installed | {"vendored.json": hashes(copy)["vendored.json"]}
    assert {"py.typed", "_api/client.py", "asgi.py", "vendor.py", "redis.py", "frontend/streams.js"} <= set(installed)
    manifest = json.loads((copy / "vendored.json").read_text(encoding="utf-8"))
    made = datetime.fromisoformat(manifest.pop("vendored"))
    assert before <= made <= datetime.now(UTC)
    document = {"version": __document__.version, "sha256": __document__.sha256}
    assert manifest == {"version": __version__, "document": document, "files": installed}
    assert [path.name for path in copy.parent.iterdir()] == ["forge_realtime"]


def test_two_versions_work_in_one_process_and_share_nothing(tmp_path: Path) -> None:
    vendor_older_release(tmp_path / "app/_vendor", tmp_path / "older")
    with (
        Emulator() as emulator,
        emulator.subscribe("board-42") as board,
        emulator.subscribe("news", is_global=True) as news,
    ):
        both = run("-W", "error", "-c", BOTH, emulator.url, cwd=tmp_path, env=elsewhere(""))
        assert both.returncode == 0, both.stderr
        arrived = [json.loads(board.receive(timeout=5).payload) for _ in range(6)]
        assert arrived == [[v, who] for who in ("parent", "child", "parent again") for v in (__version__, "0.0.9")]
        assert [news.receive(timeout=5).payload for _ in range(2)] == [__version__, "0.0.9"]
        assert [(each.channel, each.value) for each in emulator.streams] == [
            (f"stream of {who}", [v, who]) for who in ("parent", "child") for v in (__version__, "0.0.9")
        ]
    assert both.stdout == "app._vendor.forge_realtime forge_realtime\n"


def test_with_the_core_alone_it_makes_and_checks_a_copy(tmp_path: Path) -> None:
    python = make_environment(tmp_path / "bare")
    older_release(next((tmp_path / "bare").glob("lib/python*/site-packages")))
    for arguments in (["app/_vendor"], ["--check", "app/_vendor"]):
        command = [str(python), "-W", "error", "-m", "forge_realtime.vendor", *arguments]
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert "app/_vendor/forge_realtime is untouched: " in done.stdout


def test_a_copy_can_be_checked_without_an_installed_package_but_is_no_source(destination: Path) -> None:
    folder = destination.parent.parent
    own = run("-m", "app._vendor.forge_realtime.vendor", "--check", "app/_vendor", cwd=folder)
    assert own.returncode == 0, own.stderr
    assert own.stdout.endswith("To compare it with the installed package, run that one's command.\n")
    onwards = run("-m", "app._vendor.forge_realtime.vendor", "other", cwd=folder)
    assert onwards.returncode == 1
    assert "is itself a copy, which may be edited. Copy from an installed wheel." in onwards.stderr
    assert not (folder / "other").exists()


def test_what_is_copied_decides_and_not_where_the_command_runs(
    destination: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forge_realtime.vendor._SOURCE", copy)
    assert check(destination).endswith("run that one's command.")
    with pytest.raises(VendorError, match="is itself a copy"):
        vendor(destination.parent / "other")
    monkeypatch.setattr("forge_realtime.vendor._SOURCE", copy.parent / "archive.zip/forge_realtime")
    with pytest.raises(VendorError, match="is no folder"):
        vendor(destination.parent / "other")


def test_check_says_how_old_an_untouched_copy_is(destination: Path, copy: Path) -> None:
    manifest = json.loads((copy / "vendored.json").read_text(encoding="utf-8"))
    three_days_ago = datetime.now(UTC) - timedelta(days=3, minutes=1)
    manifest["vendored"] = three_days_ago.isoformat()
    (copy / "vendored.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert check(destination) == (
        f"{copy} is untouched: {len(manifest['files'])} files.\n"
        f"Copied: {three_days_ago:%Y-%m-%d}, 3 days ago. Version: {__version__}. "
        f"Document: version {__document__.version}, SHA-256 {__document__.sha256[:12]}.\n"
        "The installed package is the same."
    )


def test_check_compares_with_the_installed_package(tmp_path: Path) -> None:
    vendor_older_release(tmp_path / "app/_vendor", tmp_path / "older")
    lines = check(tmp_path / "app/_vendor").splitlines()
    assert "Version: 0.0.9. Document: version unknown, SHA-256 000000000000." in lines[1]
    assert lines[2] == f"The installed package differs: version {__version__}, document {__document__.sha256[:12]}."


def test_check_sees_another_package_of_the_same_version(tmp_path: Path) -> None:
    release = older_release(tmp_path / "other")
    for name in ("_version.py", "_document.py"):
        shutil.copy(INSTALLED / name, release / "forge_realtime" / name)
    (release / "forge_realtime/asgi.py").write_text("# another\n", encoding="utf-8")
    made = run("-m", "forge_realtime.vendor", tmp_path / "app", env=elsewhere(release))
    assert made.returncode == 0, made.stderr
    assert check(tmp_path / "app").endswith("The installed package differs: the same version, document the same.")


def modify(copy: Path) -> None:
    (copy / "_api/client.py").write_text("# by hand\n", encoding="utf-8")


def remove(copy: Path) -> None:
    (copy / "wsgi.py").unlink()


def add(copy: Path) -> None:
    (copy / "_api/new.py").touch()


def link_a_folder(copy: Path) -> None:
    (copy / "linked").symlink_to(copy / "_api")


def link_to_nowhere(copy: Path) -> None:
    (copy / "logs.py").unlink()
    (copy / "logs.py").symlink_to("nowhere")


def remove_all(copy: Path) -> None:
    for path in copy.iterdir():
        if path.name != "vendored.json":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


EDITS: dict[str, Callable[[Path], None]] = {
    "modified: _api/client.py": modify,
    "missing: wsgi.py": remove,
    "extra: _api/new.py": add,
    "extra: linked": link_a_folder,
    "modified: logs.py": link_to_nowhere,
}


@pytest.mark.parametrize("named", EDITS)
def test_every_edit_is_named_and_not_overwritten_without_force(destination: Path, copy: Path, named: str) -> None:
    EDITS[named](copy)
    edited = hashes(copy)
    with pytest.raises(VendorError) as failure:
        check(destination)
    assert str(failure.value).startswith(f"{copy} is not as it was copied:\n  {named}\nCopied: ")
    with pytest.raises(VendorError) as failure:
        vendor(destination)
    assert str(failure.value).startswith(f"{copy} was edited since it was copied:\n  {named}\nKeep what you need")
    assert hashes(copy) == edited
    assert vendor(destination, force=True).endswith(f" It was {__version__}. Discarded:\n  {named}")
    assert "is untouched" in check(destination)


def test_of_many_edits_the_first_are_shown(destination: Path, copy: Path) -> None:
    remove_all(copy)
    with pytest.raises(VendorError, match=r"missing: _api/__init__\.py") as failure:
        vendor(destination)
    missing = len(hashes(INSTALLED))
    assert str(failure.value).count("missing: ") == 20
    assert f"\n  and {missing - 20} more\n" in str(failure.value)


def test_a_second_run_changes_nothing_until_there_is_something_new(destination: Path, copy: Path) -> None:
    before = (copy / "vendored.json").stat()
    for force in (False, True):
        assert vendor(destination, force=force) == f"{copy} is up to date: forge-realtime {__version__}."
    assert (copy / "vendored.json").stat() == before


def test_a_second_run_brings_the_copy_up_to_date(tmp_path: Path) -> None:
    destination = tmp_path / "app/_vendor"
    vendor_older_release(destination, tmp_path / "older")
    assert vendor(destination).endswith(" It was 0.0.9.")
    assert check(destination).endswith("The installed package is the same.")
    assert "0.0.9" not in (destination / "forge_realtime/_version.py").read_text(encoding="utf-8")


def test_what_python_writes_there_does_not_matter(destination: Path, copy: Path) -> None:
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": ""}
    imported = run("-c", "import app._vendor.forge_realtime", cwd=destination.parent.parent, env=environment)
    assert imported.returncode == 0, imported.stderr
    assert list(copy.rglob("*.pyc"))
    assert "is untouched" in check(destination)
    shutil.rmtree(copy)
    (copy / "__pycache__").mkdir(parents=True)
    (copy / "__pycache__/left.pyc").touch()
    vendor(destination)
    assert "is untouched" in check(destination)


def test_a_linked_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    vendor(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real/forge_realtime/vendored.json").is_file()


def test_something_else_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/forge_realtime").write_text("mine")
    (tmp_path / "other/forge_realtime").mkdir(parents=True)
    (tmp_path / "other/forge_realtime/mine.py").write_text("mine")
    before = hashes(tmp_path)
    for place, says in (
        ("file", f"{tmp_path}/file is a file. Name a folder for the copy"),
        ("folder", f"{tmp_path}/folder/forge_realtime is a file. Name a folder for the copy"),
        ("other", f"{tmp_path}/other/forge_realtime holds something else than a copy made by this command"),
    ):
        for attempt in (lambda p: vendor(p), lambda p: vendor(p, force=True), check):
            with pytest.raises(VendorError) as failure:
                attempt(tmp_path / place)
            assert str(failure.value).startswith(says)
    assert hashes(tmp_path) == before


def test_the_installed_package_is_no_place_for_a_copy() -> None:
    before = hashes(INSTALLED)
    with pytest.raises(VendorError, match=r"holds something else than a copy"):
        vendor(INSTALLED.parent, force=True)
    for place in (INSTALLED, INSTALLED / "new"):
        with pytest.raises(
            VendorError, match=r"is inside the package that is to be copied\. Name a folder of the app\."
        ):
            vendor(place)
    assert hashes(INSTALLED) == before


def test_the_copy_itself_is_not_the_folder_to_name(destination: Path, copy: Path) -> None:
    for attempt in (vendor, check):
        with pytest.raises(VendorError, match=r"is the copy itself\. Name the folder that holds it: ") as failure:
            attempt(copy)
        assert str(failure.value).endswith(f": {destination}.")


def test_a_copy_that_is_not_there_is_made_by_the_command_that_the_error_names(tmp_path: Path) -> None:
    with pytest.raises(VendorError) as failure:
        check(tmp_path)
    copy = tmp_path / "forge_realtime"
    assert str(failure.value) == f"{copy} is not there. Make it: python -m forge_realtime.vendor {tmp_path}."


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"version": "1", "document": {"version": "1", "sha256": "0"}, "vendored": "2026-11-24", "files": {}}',
        '{"version": "1", "document": {"version": "1", "sha256": "0"}, "vendored": "then", "files": {}}',
        '{"version": "1", "document": {"version": "1", "sha256": "0"}, "vendored": "2026-11-24T00:00:00Z", "files": []}',
        '{"version": 1, "document": {"version": "1", "sha256": "0"}, "vendored": "2026-11-24T00:00:00Z", "files": {}}',
    ],
)
def test_a_manifest_that_is_none_is_refused(destination: Path, copy: Path, text: str) -> None:
    (copy / "vendored.json").write_text(text, encoding="utf-8")
    before = hashes(copy)
    for attempt in (vendor, check):
        with pytest.raises(VendorError, match=r"vendored.json cannot be read. Restore it from version control"):
            attempt(destination)
    assert hashes(copy) == before


@pytest.mark.parametrize("problem", [OSError("no space"), KeyboardInterrupt()])
@pytest.mark.parametrize("move", [1, 2])
def test_a_run_that_fails_leaves_the_copy_as_it_was(
    destination: Path, copy: Path, move: int, problem: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    modify(copy)
    before = hashes(destination)
    moves: list[object] = []
    replace = os.replace

    def fail(source: Path, target: Path) -> None:
        moves.append(source)
        if len(moves) == move:
            raise problem
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(type(problem)):
        vendor(destination, force=True)
    assert len(moves) >= move
    assert hashes(destination) == before
    assert [path.name for path in destination.iterdir()] == ["forge_realtime"]


def test_a_package_in_an_archive_is_no_source(tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "packages"), "zip", INSTALLED.parent, "forge_realtime")
    failed = run("-m", "forge_realtime.vendor", tmp_path / "app", env=elsewhere(archive))
    assert failed.returncode == 1
    assert "is no folder, so nothing can be copied from it. Install the wheel with pip." in failed.stderr
    assert not (tmp_path / "app").exists()


def test_the_command_line_ends_with_a_code_and_an_error_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = str(tmp_path / "app")
    assert main(["--check", app]) == 1
    assert capsys.readouterr().err.startswith(f"error: {app}/forge_realtime is not there.")
    assert main([app]) == 0
    assert capsys.readouterr().out.startswith(f"{app}/forge_realtime: forge-realtime {__version__}, ")
    assert run("-m", "forge_realtime.vendor", "--check", app).returncode == 0
    add(tmp_path / "app/forge_realtime")
    assert main(["--check", app]) == main([app]) == 1
    assert main(["--force", app]) == 0
    (tmp_path / "file").touch()
    capsys.readouterr()
    assert main([str(tmp_path / "file/app")]) == 1
    assert "Check the path, its permissions and the space on the disk." in capsys.readouterr().err
    for wrong in ([], [""], ["--check", "--force", app]):
        with pytest.raises(SystemExit, match="2"):
            main(wrong)
    assert "such as app/_vendor" in capsys.readouterr().err

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "exists", interrupted)
    assert main([app]) == 130
