"""Compares two clients in three ways: the documents, the Python surface, and the typing tests of the last release."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import griffe

from generator.compare.client_side import (
    ClientSide,
    OverlayMismatchError,
    commit_of,
    extract,
    last_release,
    read_client_side,
)
from generator.compare.documents import compare, compare_outside
from generator.compare.python_api import ApiComparison, compare_apis
from generator.compare.rules import Change, Effect, next_version, strongest
from generator.compare.typing_tests import TypingError, added_errors, check_types
from generator.document import GeneratorError
from generator.paths import GENERATED, TYPING_TESTS
from generator.pipeline.overlay_fit import unsupported_arguments
from generator.pipeline.select import select


@dataclass(frozen=True)
class TypingComparison:
    """What the typing tests say.

    Attributes:
        tests: Whose tests they are.
        errors: The errors that the old client does not give; None where they were not run, as the code is the same.
    """

    tests: str
    errors: list[TypingError] | None

    @property
    def effect(self) -> Effect:
        """Breaking where a test fails that passed. An error in the hand-written package is no user's."""
        return Effect.BREAKING if any(error.in_tests for error in self.errors or ()) else Effect.NONE


@dataclass(frozen=True)
class ArgumentComparison:
    """The arguments of the named operations that the document has a property for.

    Attributes:
        gone: Those that it had: they are refused now, before anything is sent.
        come: Those that it has now.
    """

    gone: list[str]
    come: list[str]


@dataclass(frozen=True)
class Difference:
    """All that a comparison found.

    Attributes:
        old: What users have.
        new: What they would get.
        changes: The changes of the Realtime part.
        surface: The Python surfaces.
        typing: The typing tests.
        arguments: What becomes of the arguments of the named operations.
        outside: Counts of operations outside of the Realtime part, by tag; None where a whole document is not known.
    """

    old: ClientSide
    new: ClientSide
    changes: list[Change]
    surface: ApiComparison
    typing: TypingComparison
    arguments: ArgumentComparison
    outside: dict[str, dict[str, int]] | None

    @property
    def schema_effect(self) -> Effect:
        """The verdict of the documents."""
        return strongest(change.rule.effect for change in self.changes)

    @property
    def effect(self) -> Effect:
        """The strongest of the three."""
        return strongest([self.schema_effect, self.surface.effect, self.typing.effect])

    @property
    def bump(self) -> tuple[str, str]:
        """The part of the version that rises, and the version that follows."""
        return next_version(self.old.version, self.effect)


def diff(root: Path, old: str | None = None, new: str | None = None) -> Difference:
    """Compares two clients.

    A file is selected, patched and rendered with the overlays of today, and is laid under the hand-written package of today;
    a derived document (spec/realtime.json) is taken as it is. A revision is its own client, as it was committed.

    Args:
        root: The repository. It is not changed.
        old: A file or a git revision. Default: the last commit.
        new: A file or a git revision. Default: the working tree.

    Raises:
        GeneratorError: A side cannot be read or made.
    """
    with tempfile.TemporaryDirectory(prefix="diff-") as folder:
        scratch = Path(folder)
        before = read_client_side(root, old or "HEAD", scratch / "old")
        try:
            after = read_client_side(root, new, scratch / "new")
        except OverlayMismatchError as error:
            raise _explained(error, before) from error
        comparison = compare(before.derived, after.derived)
        outside = None
        if before.published is not None and after.published is not None:
            outside = compare_outside(before.published, after.published)
        try:
            surface = compare_apis(before.package, after.package, comparison.read_only)
        except griffe.AliasResolutionError as error:
            raise GeneratorError(
                f"the code of {before.label} or {after.label} imports {error.alias.target_path}, which is not there. Was a new file in "
                f"{GENERATED}/ not committed? git add {GENERATED}"
            ) from error
        return Difference(
            old=before,
            new=after,
            changes=comparison.changes,
            surface=surface,
            typing=_compare_typing(root, before, after, surface.code_differs, scratch),
            arguments=_compare_arguments(before, after) if surface.code_differs else ArgumentComparison([], []),
            outside=outside,
        )


def _compare_arguments(before: ClientSide, after: ClientSide) -> ArgumentComparison:
    old, new = (unsupported_arguments(side.package) for side in (before, after))
    if old is None or new is None:
        return ArgumentComparison([], [])
    return ArgumentComparison(gone=sorted(new - old), come=sorted(old - new))


def _explained(error: OverlayMismatchError, old: ClientSide) -> GeneratorError:
    if old.published is None:
        return error
    # Without overlays nothing has its Python name.
    changes = [
        change
        for change in compare(select(old.published), error.selected).changes
        if change.kind not in {"operation renamed", "model renamed"}
    ]
    listed = "\n".join(f"  {change}: {_in_short(change)}" for change in changes) or "  nothing"
    return GeneratorError(
        f"{error}\nSo no client can be made. What changed since {old.label}, before any overlay is laid:\n{listed}\n"
        "Bring overlays/openapi in line with it, and compare again."
    )


def _in_short(change: Change) -> str:
    return f"{change.rule.effect}{', and clients that are deployed already can fail by it' * change.rule.deployed}"


def _compare_typing(
    root: Path, old: ClientSide, new: ClientSide, code_differs: bool, scratch: Path
) -> TypingComparison:
    tests = scratch / "typing"
    release = last_release(root, old.revision or "HEAD")
    revision = release or old.revision
    if revision is not None:
        commit = commit_of(root, revision)
        assert commit is not None
        extract(root, commit, [TYPING_TESTS], scratch / "release")
        shutil.move(scratch / "release" / TYPING_TESTS, tests)
    elif (root / TYPING_TESTS).is_dir():
        shutil.copytree(root / TYPING_TESTS, tests, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        raise GeneratorError(f"{root / TYPING_TESTS}: is not there. Restore it.")
    whose = (
        f"the last release, {release}"
        if release
        else f"{old.label}, since there is no release yet"
        if revision
        else "the working tree, since there is no release yet"
    )
    if not code_differs:
        return TypingComparison(whose, None)
    cache = root / ".mypy_cache/typing-tests"
    errors = check_types(tests, new.package, cache / "new")
    if errors:
        errors = added_errors(check_types(tests, old.package, cache / "old"), errors)
    return TypingComparison(whose, errors)
