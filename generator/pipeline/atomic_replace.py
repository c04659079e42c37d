"""Putting finished outputs in place: all of them, or none."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def put_in_place(outputs: Mapping[Path, Path], scratch: Path) -> None:
    """Moves finished files and folders to where they belong, in the place of what is there.

    If one move fails, or is interrupted, all that were made are undone.

    Args:
        outputs: Where each finished file or folder is, and where it belongs.
        scratch: A folder of the same file system, to hold what is replaced. The caller removes it.
    """
    moves = [(made, target, scratch / f"replaced-{number}") for number, (made, target) in enumerate(outputs.items())]
    try:
        for made, target, replaced in moves:
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                os.replace(target, replaced)
            os.replace(made, target)
    except BaseException:
        # What is where tells how far it went, whatever the interrupted line was.
        for made, target, replaced in moves:
            if not made.exists():
                os.replace(target, made)
            if replaced.exists():
                os.replace(replaced, target)
        raise
