"""Programs that some tests need and a bare machine lacks."""

from __future__ import annotations

import os
import shutil

import pytest

# Debian's names for them, where they differ.
_PACKAGES = {"node": "nodejs"}


def require(variable: str, *programs: str) -> None:
    """Skip the test when a program is missing, or fail it when the environment variable is `required`."""
    missing = [program for program in programs if shutil.which(program) is None]
    if not missing:
        return
    packages = " ".join(_PACKAGES.get(program, program) for program in missing)
    reason = f"not installed: {', '.join(missing)}. To run these tests: apt-get install {packages}"
    if os.environ.get(variable) == "required":
        pytest.fail(f"{variable}=required, but {reason}")
    pytest.skip(reason)
