"""The contents of the wheel, and the demo."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from importlib.metadata import files, requires, version
from pathlib import Path

import httpx

import forge_realtime
import forge_realtime_emulator

ROOT = Path(__file__).parent.parent


def sources(folder: str) -> set[str]:
    files = [path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {str(path.relative_to(ROOT / folder)) for path in files}


def test_wheel_merges_three_folders_without_overlap() -> None:
    generated, overlays, emulator = (
        {path for path in sources(folder) if path.startswith("forge_realtime")}
        for folder in ("generated", "overlays", "emulator")
    )
    assert not generated & overlays
    assert not generated & emulator
    assert not overlays & emulator
    shipped = {str(path) for path in files("forge-realtime") or [] if ".dist-info" not in str(path)}
    shipped = {path for path in shipped if "__pycache__" not in path and not path.startswith("..")}
    front_end = [path.rpartition("/")[2] for path in overlays if "/frontend/" in path]
    names = ["realtime.json", *(f"static/{name}" for name in front_end)]
    copied = {f"forge_realtime_emulator/{name}" for name in names}
    assert shipped == generated | overlays | emulator | copied


def test_tests_run_against_the_installed_wheel() -> None:
    for package in (forge_realtime, forge_realtime_emulator):
        assert not Path(package.__file__ or "").is_relative_to(ROOT / "overlays")
        assert "site-packages" in (package.__file__ or "")


def test_metadata_and_package_have_the_same_version() -> None:
    assert version("forge-realtime") == forge_realtime.__version__


def test_core_requires_attrs_httpcore_httpx_and_dateutil_only() -> None:
    core = [requirement for requirement in requires("forge-realtime") or [] if "extra ==" not in requirement]
    # httpcore twice, with another lower limit for Python 3.14.
    names = {re.split("[<>]", requirement)[0] for requirement in core}
    assert names == {"attrs", "httpcore", "httpx", "python-dateutil"}


def test_demo_delivers_every_event() -> None:
    run = subprocess.run([sys.executable, ROOT / "tests/demo.py"], check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "4 of 4 events arrived exactly as sent. Retried after the 429: True." in run.stdout


def test_demo_keeps_its_console_open_on_request() -> None:
    command = [sys.executable, str(ROOT / "tests/demo.py"), "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = next(line for line in process.stdout if line.startswith("The console"))
            [address] = re.findall("http[^ ]+/", line)
            assert "<title>" in httpx.get(address, trust_env=False).text
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=10) == 0
        finally:
            process.kill()
