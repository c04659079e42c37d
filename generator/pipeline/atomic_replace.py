"""Replacement of several files and folders at once: all of them, or none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def replace_atomically(outputs: Mapping[Path, Path], scratch: Path) -> None:
    """Move finished files and folders into place.

    If a move fails or is interrupted, all earlier moves are undone.

    Args:
        outputs: Each finished file or folder, and the path that it replaces.
        scratch: A folder on the same file system for what is replaced. The caller removes it.
    """
    moves = [(made, target, scratch / f"replaced-{number}") for number, (made, target) in enumerate(outputs.items())]
    try:
        for made, target, replaced in moves:
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                target.replace(replaced)
            made.replace(target)
    except BaseException:
        # An interrupt can come before or after any move, so look at which paths exist.
        for made, target, replaced in moves:
            if not made.exists():
                target.replace(made)
            if replaced.exists():
                replaced.replace(target)
        raise
