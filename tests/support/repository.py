"""Copies of this repository, as if cloned."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def tracked() -> list[str]:
    """The files of the repository, with those that are new and not ignored."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--deduplicate"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout.splitlines()
    return [name for name in listed if (ROOT / name).is_file()]


def copy_repository(folder: Path) -> Path:
    """A repository with the files of this one, uncommitted changes included, in one commit."""
    for name in tracked():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    git(folder, "init", "--quiet")
    commit(folder)
    return folder


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(
        folder,
        "-c",
        "user.name=Test",
        "-c",
        "user.email=test@example.com",
        "commit",
        "--quiet",
        "--message",
        "A change",
    )


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], check=True, capture_output=True, cwd=folder)
