"""Folders that the workers of one test run share."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLES = "examples"
"""Name of the folder with the packages of the example apps' front ends."""


def shared_folder(factory: pytest.TempPathFactory, name: str) -> Path:
    """Return a folder with this name, the same in every worker of the run."""
    folder = _base(factory) / name
    folder.mkdir(exist_ok=True)
    return folder


def make_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Return a folder with this name that the first worker to ask for it fills; the others wait.

    Args:
        factory: pytest's factory.
        name: The name of the folder, unique in the run.
        make: Fills an empty folder of that name. If it raises, the next call tries again.
    """
    folder = _base(factory) / name
    done = folder.with_suffix(".done")
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


def _base(factory: pytest.TempPathFactory) -> Path:
    """Return the temporary folder of the run. Those of xdist's workers are in it."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
