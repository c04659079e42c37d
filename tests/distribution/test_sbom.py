"""The SBOM that the wheel carries. `make matrix` makes it anew."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import files, version
from pathlib import Path

import pytest

from tests.support.bare import core_dependencies

ROOT = Path(__file__).parent.parent.parent

SBOM = ROOT / "sbom.cdx.json"


def plain(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()


def test_sbom_lists_the_dependencies_of_the_core_as_locked() -> None:
    document = json.loads(SBOM.read_text(encoding="utf-8"))
    root = document["metadata"]["component"]
    assert (root["name"], root["version"]) == ("forge-realtime", version("forge-realtime"))
    listed = {plain(component["name"]): component["version"] for component in document["components"]}
    assert listed == {plain(name): version(name) for name in core_dependencies()}
    assert all(component["licenses"] for component in document["components"])
    [direct] = [entry["dependsOn"] for entry in document["dependencies"] if entry["ref"] == root["bom-ref"]]
    assert sorted(plain(ref.partition("==")[0]) for ref in direct) == ["attrs", "httpcore", "httpx", "python-dateutil"]


def test_wheel_carries_it() -> None:
    carried = [file for file in files("forge-realtime") or () if ".dist-info/sboms/" in file.as_posix()]
    assert [file.name for file in carried] == [SBOM.name]
    assert carried[0].read_binary() == SBOM.read_bytes()


@pytest.mark.skipif(
    "FORGE_REALTIME_INDEX" not in os.environ, reason="needs the package index. To run this test: make matrix"
)
def test_sbom_is_reproducible_and_names_no_local_path(tmp_path: Path) -> None:
    core = tmp_path / "elsewhere"
    uv = str(ROOT / ".venv/bin/uv")
    commands: list[list[str]] = [
        [uv, "venv", "-q", "-p", sys.executable, str(core)],
        [uv, "pip", "install", "-q", "-p", str(core), "-r", "pyproject.toml", "-c", "requirements.lock"],
    ]
    for command in commands:
        subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    again = tmp_path / "again.json"
    tool = ROOT / ".venv/sbom"
    options = ["--output-reproducible", "--mc-type", "library", "--pyproject", str(tool / "pyproject.toml")]
    program = str(tool / "bin/cyclonedx-py")
    environment = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    subprocess.run(
        [program, "environment", *options, "--output-file", str(again), str(core)], check=True, env=environment
    )
    assert again.read_bytes() == SBOM.read_bytes()
    assert str(ROOT) not in again.read_text(encoding="utf-8")
