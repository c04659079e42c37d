"""The git repository that holds the client."""

from __future__ import annotations

import subprocess
from pathlib import Path

from generator.document import GeneratorError


def git(root: Path, *arguments: str) -> str:
    """Run git.

    Args:
        root: The working tree.
        arguments: The command and its arguments.

    Returns:
        The output, without the last line break.

    Raises:
        GeneratorError: git failed. The message contains its output.
    """
    try:
        process = subprocess.run(
            ["git", "-C", str(root), *arguments], check=False, capture_output=True, encoding="utf-8", errors="replace"
        )
    except FileNotFoundError as error:
        raise GeneratorError("git is not installed. Install it.") from error
    if process.returncode != 0:
        output = (process.stderr.strip() or process.stdout.strip()) or f"exit code {process.returncode}"
        raise GeneratorError(f"`git {arguments[0]}` failed: {output}")
    return process.stdout.removesuffix("\n")


def require_clean(root: Path) -> None:
    """Check that the working tree is exactly a commit.

    Raises:
        GeneratorError: Files are changed or untracked, or `root` is not a repository.
    """
    if changed := git(root, "status", "--porcelain", "--untracked-files=normal").splitlines():
        listed = "\n".join(changed[:20] + ["…"] * (len(changed) > 20))
        raise GeneratorError(f"the tree is dirty:\n{listed}\nCommit or remove these first: a release is a commit.")
