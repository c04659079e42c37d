"""`python -m forge_realtime.vendor`: make, update and check a copy inside an app."""

from __future__ import annotations

import compileall
import functools
import hashlib
import json
import os
import py_compile
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from importlib.util import cache_from_source
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import Any

import pytest

import forge_realtime
from forge_realtime import __document__, __version__
from forge_realtime.vendor import VendorError, check, main, vendor
from forge_realtime_emulator import Emulator
from tests.support.bare import make_environment

INSTALLED = Path(forge_realtime.__file__ or "").parent
RELEASE = f"forge-realtime {__version__}, document version {__document__.version}, SHA-256 {__document__.sha256[:12]}"

# Runs in the folder that holds app/, with the package installed too. Both publish, before and after a fork.
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

# The machine may be busy.
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
    """Return an environment that imports packages from a folder or archive."""
    return os.environ | {"PYTHONPATH": str(packages)}


def older_release(folder: Path) -> Path:
    """Install an older version of the package, made from another document, into a folder."""
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
    """Return a folder with a fresh copy."""
    vendor(tmp_path / "app/_vendor")
    return tmp_path / "app/_vendor"


@pytest.fixture
def copy(destination: Path) -> Path:
    return destination / "forge_realtime"


def test_copy_is_package_and_manifest(tmp_path: Path) -> None:
    before = datetime.now(UTC).date()
    said = vendor(tmp_path / "app/_vendor")
    copy = tmp_path / "app/_vendor/forge_realtime"
    installed = hashes(INSTALLED)
    assert said == f"{copy}: {RELEASE}, {len(installed)} files."
    assert hashes(copy) == installed | {"SHA256SUMS": hashes(copy)["SHA256SUMS"]}
    assert {"py.typed", "_api/client.py", "asgi.py", "vendor.py", "redis.py", "frontend/streams.js"} <= set(installed)
    release, copied, *sums = (copy / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    assert release == f"# {RELEASE}"
    assert before <= date.fromisoformat(copied.removeprefix("# copied ")) <= datetime.now(UTC).date()
    assert sums == [f"{sha256}  {name}" for name, sha256 in sorted(installed.items(), key=lambda item: Path(item[0]))]
    assert [path.name for path in copy.parent.iterdir()] == ["forge_realtime"]


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not installed")
def test_sha256sum_checks_copy(copy: Path) -> None:
    command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    unchanged = subprocess.run(command, check=False, capture_output=True, text=True, cwd=copy)
    assert (unchanged.returncode, unchanged.stderr) == (0, "")
    assert sorted(unchanged.stdout.splitlines()) == sorted(f"{name}: OK" for name in hashes(INSTALLED))
    modify(copy)
    modified = subprocess.run(command, check=False, capture_output=True, text=True, cwd=copy)
    assert modified.returncode == 1
    assert "_api/client.py: FAILED\n" in modified.stdout


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


def test_only_core_dependencies_are_needed(tmp_path: Path) -> None:
    python = make_environment(tmp_path / "bare")
    older_release(next((tmp_path / "bare").glob("lib/python*/site-packages")))
    for arguments in (["app/_vendor"], ["--check", "app/_vendor"]):
        command = [str(python), "-W", "error", "-m", "forge_realtime.vendor", *arguments]
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert "app/_vendor/forge_realtime is unchanged: " in done.stdout


def test_copy_checks_itself_but_is_no_source(destination: Path) -> None:
    folder = destination.parent.parent
    own = run("-m", "app._vendor.forge_realtime.vendor", "--check", "app/_vendor", cwd=folder)
    assert own.returncode == 0, own.stderr
    assert own.stdout.endswith("To compare it with the installed package, run the command of that one.\n")
    onwards = run("-m", "app._vendor.forge_realtime.vendor", "other", cwd=folder)
    assert onwards.returncode == 1
    assert "is itself a copy, which may be edited. Copy from an installed wheel." in onwards.stderr
    assert not (folder / "other").exists()


def test_source_decides_not_the_working_directory(
    destination: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forge_realtime.vendor._SOURCE", copy)
    assert check(destination).endswith("run the command of that one.")
    with pytest.raises(VendorError, match="is itself a copy"):
        vendor(destination.parent / "other")
    monkeypatch.setattr("forge_realtime.vendor._SOURCE", copy.parent / "archive.zip/forge_realtime")
    with pytest.raises(VendorError, match="is not a folder"):
        vendor(destination.parent / "other")


def test_check_reports_release_and_age(destination: Path, copy: Path) -> None:
    release, _, sums = (copy / "SHA256SUMS").read_text(encoding="utf-8").split("\n", 2)
    three_days_ago = datetime.now(UTC).date() - timedelta(days=3)
    (copy / "SHA256SUMS").write_text(f"{release}\n# copied {three_days_ago}\n{sums}", encoding="utf-8")
    assert check(destination) == (
        f"{copy} is unchanged: {sums.count(chr(10))} files.\n"
        f"It is {RELEASE}; copied {three_days_ago}, 3 days ago.\n"
        "The installed package is the same version and document."
    )


def test_check_compares_with_installed_package(tmp_path: Path) -> None:
    vendor_older_release(tmp_path / "app/_vendor", tmp_path / "older")
    lines = check(tmp_path / "app/_vendor").splitlines()
    assert "forge-realtime 0.0.9, document version unknown, SHA-256 000000000000; copied" in lines[1]
    assert lines[2] == f"The installed package differs: {RELEASE}."


def test_check_detects_other_files_in_same_version(tmp_path: Path) -> None:
    release = older_release(tmp_path / "other")
    for name in ("_version.py", "_document.py"):
        shutil.copy(INSTALLED / name, release / "forge_realtime" / name)
    (release / "forge_realtime/asgi.py").write_text("# another\n", encoding="utf-8")
    made = run("-m", "forge_realtime.vendor", tmp_path / "app", env=elsewhere(release))
    assert made.returncode == 0, made.stderr
    with pytest.raises(VendorError, match=r"build of the same version is installed:\n  modified: asgi\.py\n"):
        check(tmp_path / "app")


def test_file_edited_together_with_its_hash_is_found(destination: Path, copy: Path) -> None:
    former = hashlib.sha256((copy / "asgi.py").read_bytes()).hexdigest()
    (copy / "asgi.py").write_text("# by hand\n", encoding="utf-8")
    (copy / "new.py").write_text("# by hand\n", encoding="utf-8")
    by_hand = hashlib.sha256(b"# by hand\n").hexdigest()
    manifest = (copy / "SHA256SUMS").read_text(encoding="utf-8").replace(former, by_hand)
    (copy / "SHA256SUMS").write_text(f"{manifest}{by_hand}  new.py\n", encoding="utf-8")
    with pytest.raises(VendorError) as failure:
        check(destination)
    assert str(failure.value).startswith(
        f"{copy} was edited together with its SHA256SUMS, or another build of the same version is installed:\n"
        f"  modified: asgi.py\n  extra: new.py\nIt is {RELEASE}; "
    )
    assert str(failure.value).endswith("\nCopy again if the installed package is the right one.")
    assert "It was " in vendor(destination)
    assert "is unchanged" in check(destination)


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


def link_a_file(copy: Path) -> None:
    (copy / "wsgi.py").rename(copy.parent / "elsewhere.py")
    (copy / "wsgi.py").symlink_to("../elsewhere.py")


def add_a_pipe(copy: Path) -> None:
    (copy / "logs.py").unlink()
    os.mkfifo(copy / "logs.py")


def add_a_folder(copy: Path) -> None:
    (copy / "empty").mkdir()


def add_beside_bytecode(copy: Path) -> None:
    (copy / "__pycache__").mkdir()
    (copy / "__pycache__/hidden.py").touch()


def add_bytecode_without_source(copy: Path) -> None:
    (copy / "hidden.pyc").touch()


def remove_all(copy: Path) -> None:
    for path in copy.iterdir():
        if path.name != "SHA256SUMS":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


EDITS: dict[str, Callable[[Path], None]] = {
    "modified: _api/client.py": modify,
    "missing: wsgi.py": remove,
    "extra: _api/new.py": add,
    "extra: linked": link_a_folder,
    "modified: logs.py": link_to_nowhere,
    "modified: wsgi.py": link_a_file,
    "modified: logs.py\n": add_a_pipe,
    "extra: empty/": add_a_folder,
    "extra: __pycache__/hidden.py": add_beside_bytecode,
    "extra: hidden.pyc": add_bytecode_without_source,
}


@pytest.mark.parametrize("named", EDITS)
def test_edits_are_named_and_kept_without_force(destination: Path, copy: Path, named: str) -> None:
    EDITS[named](copy)
    named = named.strip()
    edited = hashes(copy)
    with pytest.raises(VendorError) as failure:
        check(destination)
    assert str(failure.value).startswith(f"{copy} was edited since it was copied:\n  {named}\nIt is ")
    with pytest.raises(VendorError) as failure:
        vendor(destination)
    assert str(failure.value).startswith(f"{copy} was edited since it was copied:\n  {named}\nSave what you need")
    assert hashes(copy) == edited
    assert vendor(destination, force=True).endswith(f" It was {RELEASE}. Discarded:\n  {named}")
    assert "is unchanged" in check(destination)


def test_first_20_edits_are_shown(destination: Path, copy: Path) -> None:
    remove_all(copy)
    with pytest.raises(VendorError, match=r"missing: _api/__init__\.py") as failure:
        vendor(destination)
    missing = len(hashes(INSTALLED))
    assert str(failure.value).count("missing: ") == 20
    assert f"\n  and {missing - 20} more\n" in str(failure.value)


def test_second_run_changes_nothing_without_news(destination: Path, copy: Path) -> None:
    before = (copy / "SHA256SUMS").stat()
    for force in (False, True):
        assert vendor(destination, force=force) == f"{copy} is up to date: {RELEASE}."
    assert (copy / "SHA256SUMS").stat() == before


def test_second_run_updates_copy(tmp_path: Path) -> None:
    destination = tmp_path / "app/_vendor"
    vendor_older_release(destination, tmp_path / "older")
    assert " It was forge-realtime 0.0.9, " in vendor(destination)
    assert check(destination).endswith("The installed package is the same version and document.")
    assert "0.0.9" not in (destination / "forge_realtime/_version.py").read_text(encoding="utf-8")


def import_copy(destination: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": ""}
    program = "import app._vendor.forge_realtime.vendor"
    return run(*options, "-c", program, cwd=destination.parent.parent, env=environment)


@pytest.mark.parametrize("options", [[], ["-O"], ["-OO"]])
def test_bytecode_of_the_copy_is_no_edit(destination: Path, copy: Path, options: list[str]) -> None:
    imported = import_copy(destination, *options)
    assert imported.returncode == 0, imported.stderr
    written = {path.relative_to(copy).as_posix() for path in copy.rglob("*.pyc")}
    assert {Path(name).name.split(".")[0] for name in written} >= {"__init__", "vendor"}
    assert "is unchanged" in check(destination)
    assert vendor(destination) == f"{copy} is up to date: {RELEASE}."
    assert {path.relative_to(copy).as_posix() for path in copy.rglob("*.pyc")} == written
    compileall.compile_dir(copy, quiet=2, force=True, invalidation_mode=PycInvalidationMode.CHECKED_HASH)
    assert "is unchanged" in check(destination)


def test_outdated_bytecode_is_no_edit(destination: Path, copy: Path) -> None:
    for mode in (PycInvalidationMode.TIMESTAMP, PycInvalidationMode.CHECKED_HASH):
        compile_other_code(copy, mode, forged=False)
        assert "is unchanged" in check(destination)
        imported = import_copy(destination)
        assert (imported.returncode, imported.stdout) == (0, "")


def compile_other_code(copy: Path, mode: PycInvalidationMode, *, forged: bool) -> Path:
    """Write bytecode of other code for `vendor.py`: `forged` with the stamp that Python compares."""
    source, other = copy / "vendor.py", copy.parent / "other.py"
    other.write_text(source.read_text(encoding="utf-8") + "\nprint('other code')\n", encoding="utf-8")
    target = Path(cache_from_source(str(source)))
    py_compile.compile(str(other), cfile=str(target), dfile=str(source), invalidation_mode=mode, doraise=True)
    if forged:
        own = Path(py_compile.compile(str(source), cfile=str(copy.parent / "own.pyc"), invalidation_mode=mode) or "")
        target.write_bytes(own.read_bytes()[:16] + target.read_bytes()[16:])
        own.unlink()
    other.unlink()
    return target


@pytest.mark.parametrize("mode", PycInvalidationMode)
def test_bytecode_of_other_code_is_found_and_removed(destination: Path, copy: Path, mode: PycInvalidationMode) -> None:
    target = compile_other_code(copy, mode, forged=True)
    assert import_copy(destination).stdout == "other code\n"
    name = target.relative_to(copy).as_posix()
    with pytest.raises(VendorError) as failure:
        check(destination)
    assert f"\n  bytecode of other code: {name}\n" in str(failure.value)
    assert str(failure.value).endswith(f"\nRemove the bytecode: python -m forge_realtime.vendor {destination}.")
    assert vendor(destination).endswith(f" Removed bytecode that is not of its files:\n  {name}")
    assert import_copy(destination).stdout == ""
    assert "is unchanged" in check(destination)


def write_unchecked(target: Path) -> None:
    mode = PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(target.parent.parent / "vendor.py"), cfile=str(target), invalidation_mode=mode)


def write_for_another_python(target: Path) -> None:
    written = Path(py_compile.compile(str(target.parent.parent / "vendor.py")) or "")
    content = written.read_bytes()
    written.unlink()
    target.with_name("vendor.cpython-399.pyc").write_bytes(b"other" + content[4:])


def write_without_source(target: Path) -> None:
    target.with_name("left.cpython-311.pyc").touch()


def write_garbage(target: Path) -> None:
    written = py_compile.compile(str(target.parent.parent / "vendor.py"), cfile=str(target))
    Path(written or "").write_bytes(target.read_bytes()[:16] + b"garbage")


def write_pipe(target: Path) -> None:
    os.mkfifo(target)


def write_link(target: Path) -> None:
    target.symlink_to("/dev/zero")


@pytest.mark.parametrize(
    "write",
    [write_unchecked, write_for_another_python, write_without_source, write_garbage, write_pipe, write_link],
)
def test_bytecode_that_cannot_be_checked_is_found_and_removed(
    destination: Path, copy: Path, write: Callable[[Path], None]
) -> None:
    (copy / "__pycache__").mkdir()
    write(Path(cache_from_source(str(copy / "vendor.py"))))
    [name] = [path.name for path in (copy / "__pycache__").iterdir()]
    with pytest.raises(VendorError, match=rf"bytecode of other code: __pycache__/{name}"):
        check(destination)
    assert vendor(destination).endswith(f"  __pycache__/{name}")
    assert "is unchanged" in check(destination)


def test_bytecode_left_by_a_removed_copy_is_replaced(destination: Path, copy: Path) -> None:
    shutil.rmtree(copy)
    (copy / "__pycache__").mkdir(parents=True)
    (copy / "__pycache__/left.pyc").touch()
    vendor(destination)
    assert not (copy / "__pycache__").exists()
    assert "is unchanged" in check(destination)


def test_links_in_place_of_folders_are_found(destination: Path, copy: Path) -> None:
    (copy / "_api").rename(copy.parent / "elsewhere")
    (copy / "_api").symlink_to("../elsewhere")
    with pytest.raises(VendorError, match=r"missing: _api/__init__.py(.|\n)* more\n"):
        check(destination)
    vendor(destination, force=True)
    assert not (copy / "_api").is_symlink()
    copy.rename(destination / "moved")
    copy.symlink_to("moved")
    for attempt in (vendor, functools.partial(vendor, force=True), check):
        with pytest.raises(VendorError, match=r"is a link, so nothing holds its files in place\. Remove it"):
            attempt(destination)


@pytest.mark.parametrize("replace", [os.mkfifo, os.mkdir, functools.partial(os.symlink, "elsewhere")])
def test_manifest_is_regular_file(destination: Path, copy: Path, replace: Callable[[Path], None]) -> None:
    (copy / "SHA256SUMS").rename(copy / "elsewhere")
    replace(copy / "SHA256SUMS")
    for attempt in (vendor, check):
        with pytest.raises(VendorError, match="SHA256SUMS cannot be read"):
            attempt(destination)


def test_linked_destination_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    vendor(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real/forge_realtime/SHA256SUMS").is_file()


def test_other_files_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/forge_realtime").write_text("mine")
    (tmp_path / "other/forge_realtime").mkdir(parents=True)
    (tmp_path / "other/forge_realtime/mine.py").write_text("mine")
    before = hashes(tmp_path)
    for place, says in (
        ("file", f"{tmp_path}/file is a file. Name a folder for the copy"),
        ("folder", f"{tmp_path}/folder/forge_realtime is a file. Name a folder for the copy"),
        ("other", f"{tmp_path}/other/forge_realtime was not made by this command"),
    ):
        for attempt in (vendor, functools.partial(vendor, force=True), check):
            with pytest.raises(VendorError) as failure:
                attempt(tmp_path / place)
            assert str(failure.value).startswith(says)
    assert hashes(tmp_path) == before


def test_installed_package_is_no_destination() -> None:
    before = hashes(INSTALLED)
    with pytest.raises(VendorError, match=r"was not made by this command"):
        vendor(INSTALLED.parent, force=True)
    for place in (INSTALLED, INSTALLED / "new"):
        with pytest.raises(VendorError, match=r"is inside the package to copy\. Name a folder of the app\."):
            vendor(place)
    assert hashes(INSTALLED) == before


def test_copy_itself_is_no_destination(destination: Path, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copy)
    for attempt in (vendor, check):
        for place in (copy, Path()):
            with pytest.raises(VendorError, match=r"is the copy itself\. Name the folder that holds it: ") as failure:
                attempt(place)
            assert str(failure.value).endswith(f": {destination}.")


def test_other_manifest_beside_copy_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "SHA256SUMS").write_text("of something else\n")
    vendor(tmp_path)
    assert "is unchanged" in check(tmp_path)


def test_error_for_missing_copy_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(VendorError) as failure:
        check(tmp_path)
    copy = tmp_path / "forge_realtime"
    assert str(failure.value) == f"{copy} does not exist. Make it: python -m forge_realtime.vendor {tmp_path}."


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# release\n# copied 2026-11-24\n",
        f"{'0' * 64}  asgi.py\n",
        f"# release\n{'0' * 64}  asgi.py\n",
        f"# release\n# copied then\n{'0' * 64}  asgi.py\n",
        f"# release\n# copied 2026-13-24\n{'0' * 64}  asgi.py\n",
        f"# release\n# copied 2026-11-24\n{'0' * 64}  asgi.py",
        f"# release\n# copied 2026-11-24\n{'0' * 63}  asgi.py\n",
        f"# release\n# copied 2026-11-24\n{'0' * 64}  asgi.py\n<<<<<<< ours\n",
    ],
)
def test_unreadable_manifest_is_refused(destination: Path, copy: Path, text: str) -> None:
    (copy / "SHA256SUMS").write_text(text, encoding="utf-8")
    before = hashes(copy)
    for attempt in (vendor, check):
        with pytest.raises(VendorError, match=r"SHA256SUMS cannot be read. Restore it from version control"):
            attempt(destination)
    assert hashes(copy) == before


@pytest.mark.parametrize("problem", [OSError("no space"), KeyboardInterrupt()])
@pytest.mark.parametrize("move", [1, 2])
def test_failed_run_leaves_copy_unchanged(
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


def test_archive_is_no_source(tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "packages"), "zip", INSTALLED.parent, "forge_realtime")
    failed = run("-m", "forge_realtime.vendor", tmp_path / "app", env=elsewhere(archive))
    assert failed.returncode == 1
    assert "is not a folder, so it cannot be copied. Install the wheel with pip." in failed.stderr
    assert not (tmp_path / "app").exists()


def test_exit_codes_and_errors_without_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = str(tmp_path / "app")
    assert main(["--check", app]) == 1
    assert capsys.readouterr().err.startswith(f"error: {app}/forge_realtime does not exist.")
    assert main([app]) == 0
    assert capsys.readouterr().out.startswith(f"{app}/forge_realtime: forge-realtime {__version__}, ")
    assert run("-m", "forge_realtime.vendor", "--check", app).returncode == 0
    add(tmp_path / "app/forge_realtime")
    assert main(["--check", app]) == main([app]) == 1
    assert main(["--force", app]) == 0
    (tmp_path / "file").touch()
    capsys.readouterr()
    assert main([str(tmp_path / "file/app")]) == 1
    assert "Check the path, its permissions and the free disk space." in capsys.readouterr().err
    for wrong in ([], [""], ["--check", "--force", app]):
        with pytest.raises(SystemExit, match="2"):
            main(wrong)
    assert "such as app/_vendor" in capsys.readouterr().err

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "exists", interrupted)
    assert main([app]) == 130
