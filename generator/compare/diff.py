"""Comparison of two clients: their documents, their Python API, and the typing tests of the last release."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, replace
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
from generator.document import Document, GeneratorError
from generator.paths import GENERATED, TYPING_TESTS
from generator.pipeline.overlay_fit import unsupported_arguments
from generator.pipeline.select import select


@dataclass(frozen=True)
class TypingComparison:
    """Result of the typing tests.

    Attributes:
        tests: The origin of the tests.
        errors: Errors that the old client does not have. `None` if the code is the same, so that the tests did not run.
    """

    tests: str
    errors: list[TypingError] | None

    @property
    def effect(self) -> Effect:
        """Breaking if a test fails that passed. Errors in the hand-written package do not affect users."""
        return Effect.BREAKING if any(error.in_tests for error in self.errors or ()) else Effect.NONE


@dataclass(frozen=True)
class ArgumentComparison:
    """Changes in the supported arguments of named calls.

    Attributes:
        removed: Arguments without a property in the new document. Calls that pass them are rejected before sending.
        added: Arguments that the new document supports.
    """

    removed: list[str]
    added: list[str]


@dataclass(frozen=True)
class Difference:
    """Result of a comparison.

    Attributes:
        old: The client that users have.
        new: The client that they would get.
        changes: Changes in the Realtime part of the document.
        api: Changes in the Python API.
        typing: Result of the typing tests.
        arguments: Changes in the supported arguments of named calls.
        hidden: Changes in the Realtime part as published that the overlays hide, so that the derived documents do not
            show them. Empty if a whole document is missing.
        outside: Changed operations outside of the Realtime part, counted by tag. `None` if a whole document is missing.
    """

    old: ClientSide
    new: ClientSide
    changes: list[Change]
    api: ApiComparison
    typing: TypingComparison
    arguments: ArgumentComparison
    hidden: list[Change]
    outside: dict[str, dict[str, int]] | None

    @property
    def schema_effect(self) -> Effect:
        """The effect of the changes in the document."""
        return strongest(change.rule.effect for change in self.changes)

    @property
    def effect(self) -> Effect:
        """The strongest effect of the three comparisons. A hidden change alone is cosmetic: no code can notice it."""
        hidden = Effect.COSMETIC if self.hidden else Effect.NONE
        return strongest([self.schema_effect, self.api.effect, self.typing.effect, hidden])

    @property
    def bump(self) -> tuple[str, str]:
        """The part of the version to raise, and the next version."""
        return next_version(self.old.version, self.effect)


def diff(root: Path, old: str | None = None, new: str | None = None) -> Difference:
    """Compare two clients.

    A file is rendered with the current overlays and combined with the current hand-written package. A derived document
    (spec/realtime.json) is not patched again. A revision is the client that was committed there.

    Args:
        root: The repository. It is not changed.
        old: A file or a git revision. Default: the last commit.
        new: A file or a git revision. Default: the working tree.

    Raises:
        GeneratorError: A side cannot be read, or its client cannot be made.
    """
    with tempfile.TemporaryDirectory(prefix="diff-") as folder:
        scratch = Path(folder)
        before = read_client_side(root, old or "HEAD", scratch / "old")
        try:
            after = read_client_side(root, new, scratch / "new")
        except OverlayMismatchError as error:
            raise _explain(error, before) from error
        comparison = compare(before.derived, after.derived)
        outside, hidden = None, []
        if before.published is not None and after.published is not None:
            outside = compare_outside(before.published, after.published)
            hidden = _compare_published(before.published, after.published, comparison.changes)
        try:
            api = compare_apis(before.package, after.package, comparison.read_only)
        except griffe.AliasResolutionError as error:
            raise GeneratorError(
                f"the code of {before.label} or {after.label} imports {error.alias.target_path}, which does not exist. "
                f"Was a new file in {GENERATED}/ not committed? git add {GENERATED}"
            ) from error
        return Difference(
            old=before,
            new=after,
            changes=comparison.changes,
            api=api,
            typing=_compare_typing(root, before, after, scratch)
            if api.code_differs
            else TypingComparison(_tests_origin(root, before), None),
            arguments=_compare_arguments(before, after) if api.code_differs else ArgumentComparison([], []),
            hidden=hidden,
            outside=outside,
        )


def _compare_arguments(before: ClientSide, after: ClientSide) -> ArgumentComparison:
    old, new = (unsupported_arguments(side.package) for side in (before, after))
    if old is None or new is None:
        return ArgumentComparison([], [])
    return ArgumentComparison(removed=sorted(new - old), added=sorted(old - new))


def _compare_published(old: Document, new: Document, shown: list[Change]) -> list[Change]:
    """Return the changes of the Realtime part at locations where the derived documents show none."""
    known = {(change.direction, where) for change in shown for where in change.where}
    changes = _compare_selected(select(old), select(new))
    return [change for change in changes if any((change.direction, where) not in known for where in change.where)]


def _compare_selected(old: Document, new: Document) -> list[Change]:
    # Without overlays, Python names mean nothing.
    renamed = {"operation renamed", "model renamed"}
    return [replace(change, python=()) for change in compare(old, new).changes if change.kind not in renamed]


def _explain(error: OverlayMismatchError, old: ClientSide) -> GeneratorError:
    if old.published is None:
        return error
    changes = _compare_selected(select(old.published), error.selected)
    listed = "\n".join(f"  {change}: {_summarize(change)}" for change in changes) or "  nothing"
    return GeneratorError(
        f"{error}\nNo client can be made. Changes since {old.label}, without overlays:\n{listed}\n"
        "Adapt overlays/openapi, and compare again."
    )


def _summarize(change: Change) -> str:
    return f"{change.rule.effect}{', and deployed clients can fail' * change.rule.deployed}"


def _compare_typing(root: Path, old: ClientSide, new: ClientSide, scratch: Path) -> TypingComparison:
    tests = scratch / "typing"
    revision = last_release(root, old.revision or "HEAD") or old.revision
    if revision is not None:
        commit = commit_of(root, revision)
        assert commit is not None
        extract(root, commit, [TYPING_TESTS], scratch / "release")
        shutil.move(scratch / "release" / TYPING_TESTS, tests)
    elif (root / TYPING_TESTS).is_dir():
        shutil.copytree(root / TYPING_TESTS, tests, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        raise GeneratorError(f"{root / TYPING_TESTS}: does not exist. Restore it.")
    libraries = root / ".mypy_cache/libraries"
    errors = check_types(tests, new.package, libraries)
    if errors:
        errors = added_errors(check_types(tests, old.package, libraries), errors)
    return TypingComparison(_tests_origin(root, old), errors)


def _tests_origin(root: Path, old: ClientSide) -> str:
    if release := last_release(root, old.revision or "HEAD"):
        return f"the last release, {release}"
    return f"{old.label if old.revision else 'the working tree'}, since there is no release yet"
