"""Replacement of several files and folders at once: all of them, or none."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = ".generate-"


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Make a folder for the block. Also remove those that killed runs left in the same place.

    Args:
        parent: A folder on the file system of the outputs.
    """
    for left in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            descriptor = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                # A run that is alive holds its folder's lock; the system releases that of a killed one.
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left)
            finally:
                os.close(descriptor)
    with tempfile.TemporaryDirectory(dir=parent, prefix=_PREFIX) as folder:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield Path(folder)
        finally:
            os.close(descriptor)


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
