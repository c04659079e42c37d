"""One side of a comparison: a document and the client made from it."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from generator.document import Document, GeneratorError, blaming, read_document
from generator.paths import (
    API,
    CONFIG,
    DERIVED,
    DOCUMENT,
    DOCUMENT_MODULE,
    EMULATOR,
    GENERATED,
    HAND_WRITTEN,
    OVERLAYS,
    VERSION,
)
from generator.pipeline.lock import sha256
from generator.pipeline.patch import overlay_files, patch
from generator.pipeline.pinned_document import document_module
from generator.pipeline.render import render
from generator.pipeline.select import select

_SCHEME = "forgeProxyAuthorization"


class OverlayMismatchError(GeneratorError):
    """The overlays do not fit a document, or the result cannot be rendered.

    Attributes:
        selected: The Realtime part of the document, without overlays.
    """

    def __init__(self, message: str, selected: Document) -> None:
        super().__init__(message)
        self.selected = selected


@dataclass(frozen=True)
class ClientSide:
    """One side of a comparison.

    Attributes:
        label: A description for people.
        published: The whole document, if it is known.
        derived: Its Realtime part, selected and patched.
        package: A folder with the packages of the wheel: `forge_realtime`, complete, and the emulator.
        version: The version of the client.
        revision: The commit, if the side is one.
    """

    label: str
    published: Document | None
    derived: Document
    package: Path
    version: str
    revision: str | None = None


def read_client_side(root: Path, name: str | None, scratch: Path) -> ClientSide:
    """Read one side of a comparison, and make its client.

    Args:
        root: The repository.
        name: A file with a published or derived document, or a git revision. `None`: the working tree.
        scratch: An empty folder for the client.

    Raises:
        GeneratorError: It is neither a file nor a revision, or no client can be made.
    """
    if name is None:
        return _document_side(root, root / DOCUMENT, "the working tree", scratch)
    if Path(name).is_file():
        return _document_side(root, Path(name), name, scratch)
    commit = commit_of(root, name)
    if commit is None:
        raise GeneratorError(
            f"{name!r} is neither a file nor a git revision of {root}. Name a document, or a commit, branch or tag."
        )
    return _revision_side(root, name, commit, scratch)


def commit_of(root: Path, revision: str) -> str | None:
    """Return the hash of a revision's commit, or `None` if there is no such revision."""
    found = _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    return None if found is None else found.decode().strip()


def last_release(root: Path, revision: str) -> str | None:
    """Return the newest tag `v…` in the history of a revision, or `None`."""
    found = _git(root, "describe", "--tags", "--abbrev=0", "--match", "v[0-9]*", revision)
    return None if found is None else found.decode().strip()


def extract(root: Path, commit: str, paths: list[Path], target: Path) -> None:
    """Extract files and folders of a commit into a folder.

    Raises:
        GeneratorError: The commit lacks one of them.
    """
    archive = _git(root, "archive", "--format=tar", commit, *(path.as_posix() for path in paths))
    if archive is None:
        listed = ", ".join(path.as_posix() for path in paths)
        raise GeneratorError(f"the revision {commit[:12]} lacks one of {listed}. Name a later one.")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        # Python 3.11 has filters from 3.11.4 on.
        tar.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
        tar.extractall(target)  # noqa: S202 (made by git just now; filtered where possible)


def _git(root: Path, *arguments: str) -> bytes | None:
    try:
        process = subprocess.run(["git", "-C", str(root), *arguments], check=False, capture_output=True)
    except FileNotFoundError as error:
        raise GeneratorError("git is not installed. Install it, or compare two files.") from error
    return process.stdout if process.returncode == 0 else None


def _document_side(root: Path, path: Path, label: str, scratch: Path) -> ClientSide:
    document = read_document(path)
    is_derived = _SCHEME in document.get("components", {}).get("securitySchemes", {})
    with blaming(path):
        selected = select(document)
    (scratch / "generated").mkdir(parents=True)
    try:
        derived = selected if is_derived else patch(selected, overlay_files(root / OVERLAYS))
        render(derived, root / CONFIG, scratch / "generated/_api")
    except GeneratorError as error:
        raise OverlayMismatchError(f"{path}: {error}", selected) from error
    about = document_module(document, sha256(path))
    (scratch / "generated" / DOCUMENT_MODULE.name).write_text(about, encoding="utf-8")
    package = _combine(scratch / "generated", root, scratch)
    return ClientSide(label, None if is_derived else document, derived, package, version_of(root))


def _revision_side(root: Path, name: str, commit: str, scratch: Path) -> ClientSide:
    extract(root, commit, [DOCUMENT, DERIVED, GENERATED, HAND_WRITTEN, EMULATOR], scratch / "tree")
    tree = scratch / "tree"
    package = _combine(tree / API.parent, tree, scratch)
    return ClientSide(
        label=name if commit.startswith(name) else f"{name} ({commit[:12]})",
        published=read_document(tree / DOCUMENT),
        derived=read_document(tree / DERIVED),
        package=package,
        version=version_of(tree),
        revision=commit,
    )


def _combine(generated: Path, root: Path, scratch: Path) -> Path:
    package = scratch / "package"
    leave_out = shutil.ignore_patterns("__pycache__")
    for folder in (HAND_WRITTEN, EMULATOR):
        shutil.copytree(root / folder, package / folder.name, ignore=leave_out)
    shutil.copytree(generated, package / "forge_realtime", ignore=leave_out, dirs_exist_ok=True)
    return package


def version_of(root: Path) -> str:
    """Return the version of the client in a repository.

    Raises:
        GeneratorError: The version module has no version.
    """
    path = root / VERSION
    found = re.search(r'^__version__ = "(.+)"$', path.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise GeneratorError(f'{path}: has no line `__version__ = "…"`. Restore it.')
    return found[1]
