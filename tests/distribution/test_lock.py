"""`requirements.lock` stays installable when its packages have newer releases."""

from __future__ import annotations

import re
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LOCK = Path(__file__).parents[2] / "requirements.lock"
PINNED = re.compile(r"^([\w.-]+)(?:\[([\w.,-]+)\])?==(\S+)(?: ; (.*?))?(?: \\)?$", re.MULTILINE)


def test_every_package_is_pinned_with_the_extras_that_others_require() -> None:
    """Without the extras, the pip of Python 3.11 takes the newest release of the package, and then refuses it."""
    pins = [
        Requirement(f"{name}[{extras}]=={version}" + (f" ; {marker}" if marker else ""))
        for name, extras, version, marker in PINNED.findall(LOCK.read_text(encoding="utf-8"))
    ]
    pinned = {canonicalize_name(pin.name): pin.extras for pin in pins if pin.marker is None or pin.marker.evaluate()}
    asked = [
        (package, need)
        for package, extras in pinned.items()
        for text in distribution(package).requires or []
        for need in [Requirement(text)]
        if need.extras
        and (need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in ("", *extras)))
    ]
    assert ("pytest-cov", "coverage") in [(package, need.name) for package, need in asked]
    lacking = [
        f"{package}: {need}" for package, need in asked if not need.extras <= pinned[canonicalize_name(need.name)]
    ]
    assert lacking == []
