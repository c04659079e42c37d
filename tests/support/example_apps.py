"""The apps in `tests/examples/`, one for each framework, run as a project of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"
# The apps, and the packages of their frameworks and tests.
APPS = {
    "fastapi": ["fastapi", "httpx2"],
    "django": ["django"],
    "flask": ["flask"],
    "celery": ["celery", "flask"],
}


def run_tests(app: str, python: str | Path, folder: Path, *options: str, **environment: str) -> str:
    """Copy an app to a folder, run its tests there, and return the output.

    Args:
        app: The app, a key of `APPS`.
        python: The interpreter of the environment that the tests run in.
        folder: An empty folder.
        options: More options of pytest.
        environment: More environment variables.
    """
    shutil.copytree(EXAMPLES / app, folder / app, ignore=shutil.ignore_patterns("__pycache__"))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("FORGE_", "PYTEST_"))}
    run = subprocess.run(
        [python, "-m", "pytest", "-q", "-W", "error", *options],
        check=False,
        capture_output=True,
        text=True,
        cwd=folder / app,
        env=inherited | environment,
    )
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    assert run.stderr == ""
    return run.stdout
