"""The wheel and the sdist: reproducible bytes, contents and metadata."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.metadata import Metadata

from forge_realtime import __version__
from tests.support.repository import ROOT, copy_repository, tracked

pytestmark = pytest.mark.slow

MADE = f"forge_realtime-{__version__}"
WHEEL = f"{MADE}-py3-none-any.whl"
SDIST = f"{MADE}.tar.gz"


def build(folder: Path, environment: dict[str, str], umask: int) -> dict[str, str]:
    command = [sys.executable, "-m", "hatchling", "build", "--directory", "made"]
    kept = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    subprocess.run(command, check=True, capture_output=True, cwd=folder, env=kept | environment, umask=umask)
    return hashes(folder / "made")


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("forge_realtime-*")}


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with `made/`, built as pip builds: without the Makefile's settings."""
    folder = copy_repository(tmp_path_factory.mktemp("one"))
    build(folder, {"TZ": "UTC", "LC_ALL": "C", "PYTHONHASHSEED": "1"}, 0o022)
    return folder


def test_folder_date_time_zone_and_umask_do_not_change_the_bytes(one: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a longer path, with a space" / "clone"
    for name in reversed(tracked()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
        (folder / name).chmod(0o600)
        os.utime(folder / name, (2e9, 2e9))
    for room in ("generated", "overlays", "emulator"):
        for package in list((folder / room).rglob("forge_realtime*")):
            if package.is_dir():
                (package / "__pycache__").mkdir()
                (package / "__pycache__/left.cpython-311.pyc").write_bytes(b"from another run")
    [epoch] = re.findall("^export SOURCE_DATE_EPOCH := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    other = {"TZ": "Pacific/Kiritimati", "LC_ALL": "tr_TR.UTF-8", "PYTHONHASHSEED": "2", "SOURCE_DATE_EPOCH": epoch}
    assert build(folder, other, 0o077) == hashes(one / "made")


def test_sdist_builds_the_same_wheel_without_git(one: Path, tmp_path: Path) -> None:
    with tarfile.open(one / "made" / SDIST) as archive:
        # Python 3.11 has filters from 3.11.4 on.
        archive.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
        archive.extractall(tmp_path)
    assert build(tmp_path / MADE, {}, 0o027)[WHEEL] == hashes(one / "made")[WHEEL]


def test_make_wheel_builds_the_same_bytes(one: Path) -> None:
    assert hashes(ROOT / "dist")[WHEEL] == hashes(one / "made")[WHEEL], "dist/ is older than the sources: make wheel"


def test_builder_is_pinned_and_installed(one: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    [pinned] = project["build-system"]["requires"]
    assert pinned in project["dependency-groups"]["dev"]
    with zipfile.ZipFile(one / "made" / WHEEL) as wheel:
        assert f"Generator: {pinned.replace('==', ' ')}\n" in wheel.read(f"{MADE}.dist-info/WHEEL").decode()


def test_wheel_holds_the_three_folders_only(one: Path) -> None:
    rooms = ("generated/", "overlays/forge_realtime/", "emulator/forge_realtime_emulator/")
    sources = {name.partition("/")[2] for name in tracked() if name.startswith(rooms)}
    about = {
        f"{MADE}.dist-info/{name}"
        for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "sboms/sbom.cdx.json")
    }
    with zipfile.ZipFile(one / "made" / WHEEL) as wheel:
        names = wheel.namelist()
    assert len(names) == len(set(names))
    front_end = (name.rpartition("/")[2] for name in sources if name.startswith("forge_realtime/frontend/"))
    copied = {
        f"forge_realtime_emulator/{name}" for name in ("realtime.json", *(f"static/{name}" for name in front_end))
    }
    assert set(names) == sources | about | copied
    assert {"forge_realtime/py.typed", "forge_realtime_emulator/py.typed"} <= set(names)
    assert {name.partition("/")[0] for name in names} == {
        "forge_realtime",
        "forge_realtime_emulator",
        f"{MADE}.dist-info",
    }


def test_sdist_holds_the_sources_of_the_wheel_and_its_documents(one: Path) -> None:
    rooms = ("generated/", "overlays/forge_realtime/", "emulator/")
    sources = {name for name in tracked() if name.startswith(rooms)}
    papers = {
        "README.md",
        "CHANGELOG.md",
        "pyproject.toml",
        "PKG-INFO",
        ".gitignore",
        "spec/realtime.json",
        "sbom.cdx.json",
    }
    with tarfile.open(one / "made" / SDIST) as archive:
        members = [member.name.removeprefix(f"{MADE}/") for member in archive.getmembers() if member.isfile()]
    assert len(members) == len(set(members))
    assert set(members) == sources | papers


def metadata(folder: Path) -> Message:
    with zipfile.ZipFile(folder / "made" / WHEEL) as wheel:
        return Parser().parsestr(wheel.read(f"{MADE}.dist-info/METADATA").decode())


def test_metadata_is_complete(one: Path) -> None:
    about = metadata(one)
    for name in (
        "Name",
        "Version",
        "Summary",
        "Keywords",
        "Project-URL",
        "Requires-Python",
        "Description-Content-Type",
    ):
        assert about[name], name
    assert str(about.get_payload()).strip() == (ROOT / "README.md").read_text(encoding="utf-8").strip()
    classifiers = about.get_all("Classifier") or []
    # Public package indexes refuse it.
    assert "Private :: Do Not Upload" in classifiers
    claimed = [found[1] for name in classifiers if (found := re.fullmatch(r"Programming .* :: (3\.\d+)", name))]
    assert about["Requires-Python"] == f">={claimed[0]}"


def test_metadata_is_valid(one: Path) -> None:
    with zipfile.ZipFile(one / "made" / WHEEL) as wheel, tarfile.open(one / "made" / SDIST) as sdist:
        info = sdist.extractfile(f"{MADE}/PKG-INFO")
        assert info is not None
        for text in (wheel.read(f"{MADE}.dist-info/METADATA"), info.read()):
            metadata = Metadata.from_email(text, validate=True)
            assert (metadata.name, str(metadata.version)) == ("forge-realtime", __version__)
