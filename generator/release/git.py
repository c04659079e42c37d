"""The git repository that holds the client."""

from __future__ import annotations

import subprocess
from pathlib import Path

from generator.document import GeneratorError


def git(root: Path, *arguments: str) -> str:
    """Runs git.

    Args:
        root: The working tree.
        arguments: The command and what it takes.

    Returns:
        What it printed, without the last line break.

    Raises:
        GeneratorError: It failed; says what git said.
    """
    try:
        process = subprocess.run(
            ["git", "-C", str(root), *arguments], check=False, capture_output=True, encoding="utf-8", errors="replace"
        )
    except FileNotFoundError as error:
        raise GeneratorError("git is not installed. Install it.") from error
    if process.returncode != 0:
        said = (process.stderr.strip() or process.stdout.strip()) or f"exit code {process.returncode}"
        raise GeneratorError(f"`git {arguments[0]}` failed: {said}")
    return process.stdout.removesuffix("\n")
