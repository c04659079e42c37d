"""Copies of this repository."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def tracked() -> list[str]:
    """Return the files of the repository, including new ones that are not ignored."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--deduplicate"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout.splitlines()
    return [name for name in listed if (ROOT / name).is_file()]


def copy_repository(folder: Path) -> Path:
    """Make a repository with the files of this one, including uncommitted changes, in one commit."""
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
