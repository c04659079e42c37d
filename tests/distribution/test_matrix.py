"""`make matrix`: the core with its lowest and highest dependencies, and the newest frameworks, on every Python.

With FORGE_REALTIME_PYTHON=3.14, on that one only, whether the metadata claims it or not. It must be there.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from tests.support.bare import names_of, publish_from
from tests.support.example_apps import APPS, run_tests

UV = str(Path(sys.executable).parent / "uv")
ROOT = Path(__file__).parent.parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CLAIMED = [
    found[1] for name in PROJECT["classifiers"] if (found := re.fullmatch(r"Programming .* :: (3\.[0-9]+)", name))
]
ONLY = os.environ.get("FORGE_REALTIME_PYTHON")
PYTHONS = [ONLY] if ONLY else CLAIMED
VARIANTS = {"default": "", "freethreaded": "t"}
RESOLUTIONS = {"lowest": "lowest-direct", "highest": "highest"}
# The packages that tests/client imports.
TOOLS = [
    "celery",
    "django",
    "eventlet",
    "fastapi",
    "flask",
    "freezegun",
    "gevent",
    "httpx-aiohttp",
    "httpx-retries",
    "hypothesis",
    "opentelemetry-instrumentation-httpx",
    "opentelemetry-sdk",
    "orjson",
    "packaging",
    "playwright",
    "pytest",
    "pytest-asyncio",
    "pytest-httpx",
    "pytest-timeout",
    "pytest-xdist",
    "respx",
    "time-machine",
    "trio",
    "trustme",
]
# httpx2 needs a newer h11 than the lowest httpcore allows.
WITH_HTTPX2 = [
    "core/test_app_code",
    "transports/test_interop",
    "transports/test_retrying_transports",
    "transports/test_transports",
]

pytestmark = pytest.mark.skipif(
    "FORGE_REALTIME_INDEX" not in os.environ, reason="needs the package index. To run these tests: make matrix"
)


def uv(*arguments: str | Path) -> str:
    run = subprocess.run([UV, *arguments], check=False, capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, f"uv {' '.join(map(str, arguments))}\n{run.stderr}"
    return run.stdout


@cache
def pythons() -> dict[str, str]:
    """Return the Pythons on PATH and in pyenv by version, for example `3.11`, or `3.14t` without the GIL."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    # pyenv's shims fail for every version but the selected one.
    on_path = [folder for folder in os.environ["PATH"].split(os.pathsep) if Path(folder).name != "shims"]
    folders = [*on_path, *map(str, pyenv.glob("versions/*/bin"))]
    command = [UV, "python", "list", "--only-installed", "--output-format", "json"]
    environment = os.environ | {"PATH": os.pathsep.join(folders)}
    listed = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    return {
        found["version"].rpartition(".")[0] + VARIANTS[found["variant"]]: found["path"]
        for found in json.loads(listed)
        if found["implementation"] == "cpython" and found["variant"] in VARIANTS
    }


def find_python(version: str) -> str:
    if version not in pythons():
        assert not ONLY, f"not installed: Python {version}"
        pytest.skip(f"not installed: Python {version}")
    return pythons()[version]


def find_newest_python() -> str:
    return find_python(next((version for version in reversed(PYTHONS) if version in pythons()), PYTHONS[-1]))


def pins(python: str, which: str, folder: Path, *extras: str) -> Path:
    """Write a file that pins the lowest or highest versions that the core and the extras allow."""
    file = folder / "pins.txt"
    uv(
        "pip",
        "compile",
        "-q",
        "pyproject.toml",
        "--no-deps",
        "-p",
        python,
        "-o",
        file,
        "--resolution",
        RESOLUTIONS[which],
        *[f"--extra={extra}" for extra in extras],
    )
    return file


def install(python: str, folder: Path, *packages: str | Path) -> Path:
    uv("venv", "-q", "-p", python, folder / "environment")
    here = folder / "environment/bin/python"
    uv("pip", "install", "-q", "-p", here, "-c", folder / "pins.txt", *packages)
    return here


def wheel() -> Path:
    [found] = (ROOT / "dist").glob("*.whl")
    return found


@pytest.mark.parametrize("which", RESOLUTIONS)
@pytest.mark.parametrize("version", PYTHONS)
def test_core_alone_publishes(version: str, which: str, tmp_path: Path) -> None:
    python = find_python(version)
    asked = pins(python, which, tmp_path)
    bare = install(python, tmp_path, wheel())
    assert names_of(bare).isdisjoint({"click", "starlette", "uvicorn", "websockets", "pip"})
    location, versions = publish_from(bare)
    assert location.startswith(str(tmp_path / "environment/lib" / f"python{version}"))
    pinned = re.findall(r"^[a-z]\S+==\S+$", asked.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(pinned) == sorted(versions.split()[1:])
    if which == "lowest":
        here = {"python_version": version.removesuffix("t")}
        required = [Requirement(text) for text in PROJECT["dependencies"]]
        lowest = [
            f"{found.name}=={part.version}"
            for found in required
            if not found.marker or found.marker.evaluate(here)
            for part in found.specifier
            if part.operator == ">="
        ]
        assert [re.sub(r"(\.0)+$", "", pin) for pin in sorted(pinned)] == sorted(lowest)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("which", RESOLUTIONS)
def test_client_tests_pass(which: str, tmp_path: Path) -> None:
    if which == "lowest" and CLAIMED[0] not in PYTHONS:
        pytest.skip("runs on the oldest Python only")
    python = find_python(CLAIMED[0]) if which == "lowest" else find_newest_python()
    pins(python, which, tmp_path, "aiohttp", "redis")
    tools = TOOLS if which == "lowest" else [*TOOLS, "httpx2", "pytest-httpx2"]
    here = install(python, tmp_path, f"{wheel()}[emulator,aiohttp,redis]", *tools)
    command = [str(here), "-m", "pytest", "-q", "-p", "no:cacheprovider", "--numprocesses=4", "--dist=worksteal"]
    command += ["-m", "not slow", *(f"tests/client/{room}" for room in ("core", "transports", "quota", "realtime"))]
    if which == "lowest":
        command += [f"--ignore=tests/client/{file}.py" for file in WITH_HTTPX2]
    run = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stdout[-8000:]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("app", APPS)
def test_example_app_passes_its_tests_with_the_newest_framework(app: str, tmp_path: Path) -> None:
    python = find_newest_python()
    pins(python, "highest", tmp_path, "emulator")
    here = install(python, tmp_path, f"{wheel()}[emulator]", "pytest", *APPS[app])
    assert " passed" in run_tests(app, here, tmp_path)
