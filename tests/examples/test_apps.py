"""Each app for a framework passes its own tests, in a process of its own, with the installed wheel."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.example_apps import APPS, EXAMPLES, run_tests


@pytest.mark.parametrize("app", APPS)
def test_app_passes_its_tests(app: str, tmp_path: Path) -> None:
    # Loading all plugins of this environment takes longer than the tests.
    output = run_tests(app, sys.executable, tmp_path, "-p", "forge_realtime", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    assert " passed" in output
    assert "skipped" not in output


@pytest.mark.parametrize("app", APPS)
def test_app_is_short(app: str) -> None:
    for file in (EXAMPLES / app).glob("*.py"):
        assert len(file.read_text(encoding="utf-8").splitlines()) < 60, file.name
