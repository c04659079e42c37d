"""Makes a release in the repository: the version, the changelog, a commit and a tag. It pushes nothing.

The version rises by the strongest of what `diff` says of the last release and the commit to be released (their documents,
the Python surface of the whole wheel, the typing tests of the last release) and what became of the wheel's metadata.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from packaging.specifiers import SpecifierSet

from generator.compare.client_side import last_release, version_of
from generator.compare.diff import Difference, diff
from generator.compare.rules import PARTS, Effect, next_version, raised, strongest
from generator.document import GeneratorError, blaming, write_atomically
from generator.paths import CHANGELOG, DOCUMENT_MODULE, LOCK, PROJECT, VERSION
from generator.pipeline.lock import is_as_locked
from generator.release.changelog import Changelog, parse_changelog
from generator.release.git import git


@dataclass(frozen=True)
class _Verdict:
    effect: Effect
    part: str
    reasons: list[str]


def release(root: Path, bump: str, day: date) -> None:
    """Makes a release of the last commit, and prints what to do next.

    Args:
        root: The repository.
        bump: "major", "minor" or "patch", or "auto" for what the comparison with the last release asks for.
        day: The day of the release.

    Raises:
        GeneratorError: The repository is in no state to be released, or code, changelog and `bump` disagree. Files,
            index, branch and tags are as they were.
    """
    head = _require_ready(root)
    with blaming(root / CHANGELOG):
        changelog = parse_changelog((root / CHANGELOG).read_text(encoding="utf-8"))
    old = version_of(root)
    tag = last_release(root, "HEAD")
    _require_one_version(old, tag, changelog)

    if tag is None:
        if changelog.is_empty:
            raise GeneratorError(f"{CHANGELOG} says nothing under Unreleased. Write what the first release holds.")
        new = old if bump == "auto" else raised(old, bump)
        why = "the version that is there" if bump == "auto" else f"as BUMP={bump} asks for"
        print(f"first release: there is no tag v… to compare with. Version: {new}, {why}")
    else:
        verdict = _verdict(root, tag, old)
        has_other_document = bool(git(root, "diff", "--name-only", tag, "HEAD", "--", str(DOCUMENT_MODULE)))
        _require_agreement(verdict, bump, tag, old, changelog, has_other_document)
        new = raised(old, verdict.part if bump == "auto" else bump)
        print(f"since {tag}: {verdict.effect}")
        print("\n".join(f"  {reason}" for reason in verdict.reasons))
        print(f"version: {old} → {new}, as BUMP={bump} asks for")

    _require_no_tag(root, new)
    with blaming(root / CHANGELOG):
        text = changelog.release(new, day)
    commit = _commit(root, head, new, changelog, {CHANGELOG: text, VERSION: _version_text(root, old, new)})
    print(f"released: commit {commit[:12]}, tag v{new}. Nothing was pushed")
    print("next: `make push` pushes both, `make publish INDEX=https://…` uploads the wheel")


def _require_ready(root: Path) -> str:
    """The commit to be released."""
    head = git(root, "rev-parse", "--verify", "HEAD")
    if git(root, "rev-parse", "--abbrev-ref", "HEAD") == "HEAD":
        raise GeneratorError("no branch is checked out. A release is a commit on a branch: git switch main")
    if changed := git(root, "status", "--porcelain").splitlines():
        listed = "\n".join(changed[:20] + ["…"] * (len(changed) > 20))
        raise GeneratorError(
            f"the tree is dirty:\n{listed}\nCommit or remove that first: what is released is a commit."
        )
    if git(root, "rev-parse", "--is-shallow-repository") == "true":
        raise GeneratorError("the clone is shallow, so the last release may be missing: git fetch --unshallow --tags")
    if not is_as_locked(root):
        raise GeneratorError(f"generated/ is not what {LOCK} says. Run `make generate`, and commit what it changes.")
    return head


def _require_one_version(version: str, tag: str | None, changelog: Changelog) -> None:
    released = changelog.last_version
    if tag is None and released is not None:
        raise GeneratorError(
            f"{CHANGELOG} has the release {released}, but this branch holds no tag v{released}. "
            "Bring the tags: git fetch --tags"
        )
    if tag is not None and (tag != f"v{version}" or released != version):
        raise GeneratorError(
            f"the last tag is {tag}, {VERSION} says {version} and {CHANGELOG} {released or 'nothing'}. "
            "Only `make release` changes them: undo what did so by hand."
        )


def _require_no_tag(root: Path, version: str) -> None:
    if git(root, "tag", "--list", f"v{version}"):
        raise GeneratorError(
            f"the tag v{version} is there already, outside of this branch. If it was never pushed, remove it: "
            f"git tag --delete v{version}; otherwise merge it."
        )


def _verdict(root: Path, tag: str, version: str) -> _Verdict:
    found = diff(root, tag, "HEAD")
    old, new = (
        _metadata(git(root, "show", f"{revision}:{PROJECT}"), f"{revision}:{PROJECT}") for revision in (tag, "HEAD")
    )
    metadata = compare_metadata(old, new)
    effect = strongest([found.effect, *metadata.values()])
    part, _ = next_version(version, effect)
    return _Verdict(effect, part, _reasons(found, effect, metadata))


# What users name: by its way in the table, the names.
_NAMED = {
    "extra": ("optional-dependencies",),
    "command": ("scripts",),
    "pytest plugin": ("entry-points", "pytest11"),
}


def compare_metadata(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Effect]:
    """What changed in the table [project], in words, with its class.

    An extra, a command or a Python that is gone breaks those who use it; everything else is cosmetic.
    """
    found = {
        f"{PROJECT}: another {key}": Effect.COSMETIC
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    }
    for thing, way in _NAMED.items():
        before, after = _names(old, way), _names(new, way)
        found |= {f"{PROJECT}: the {thing} {name} removed": Effect.BREAKING for name in sorted(before - after)}
        found |= {f"{PROJECT}: the {thing} {name} added": Effect.ADDITIVE for name in sorted(after - before)}
    before, after = (_pythons(project) for project in (old, new))
    found |= {f"{PROJECT}: Python {version} no longer allowed": Effect.BREAKING for version in sorted(before - after)}
    found |= {f"{PROJECT}: Python {version} allowed": Effect.ADDITIVE for version in sorted(after - before)}
    return found


def _names(project: Mapping[str, Any], way: tuple[str, ...]) -> set[str]:
    table: Any = project
    for step in way:
        table = table.get(step, {})
    return set(table)


def _pythons(project: Mapping[str, Any]) -> set[str]:
    allowed = SpecifierSet(project.get("requires-python", ""))
    return set(allowed.filter(f"3.{minor}" for minor in range(8, 20)))


def _metadata(text: str, name: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = tomllib.loads(text)["project"]
    except (ValueError, KeyError) as error:
        raise GeneratorError(f"{name}: has no table [project]: {error}. Restore it.") from error
    return found


def _reasons(found: Difference, effect: Effect, metadata: Mapping[str, Effect]) -> list[str]:
    reasons = [
        f"{', '.join(change.python)}: {change}" if change.python else str(change)
        for change in found.changes
        if change.rule.effect is effect
    ]
    if effect is Effect.BREAKING:
        reasons += [f"{breakage.python}: {breakage.kind}" for breakage in found.surface.breakages]
        reasons += [
            f"{error.file}:{error.line}: {error.message}" for error in found.typing.errors or () if error.in_tests
        ]
    elif effect is Effect.ADDITIVE:
        reasons += [f"{name}: added" for name in found.surface.added]
    elif effect is Effect.COSMETIC:
        reasons += [f"{path}: another text" for path in found.surface.files]
    return reasons + [text for text, its in metadata.items() if its is effect]


def _require_agreement(
    verdict: _Verdict, bump: str, tag: str, version: str, changelog: Changelog, has_other_document: bool
) -> None:
    listed = "\n".join(f"  {reason}" for reason in verdict.reasons)
    if verdict.effect is Effect.NONE and (bump == "auto" or changelog.is_empty):
        shipped = "nothing that is shipped changed"
        if has_other_document:
            shipped = f"of what is shipped only the document's hash and version in {DOCUMENT_MODULE} changed"
        hint = (
            "" if changelog.is_empty else f" {CHANGELOG} has lines under Unreleased: if they are worth it, BUMP=patch."
        )
        raise GeneratorError(f"{shipped} since {tag}, so there is nothing to release.{hint}")
    if changelog.is_empty:
        raise GeneratorError(
            f"{CHANGELOG} says nothing under Unreleased, but since {tag} there is something {verdict.effect}:\n{listed}\n"
            "Write a line for each that a user can notice, and commit it."
        )
    if bump != "auto" and verdict.effect is not Effect.NONE and PARTS.index(bump) > PARTS.index(verdict.part):
        _, needed = next_version(version, verdict.effect)
        raise GeneratorError(
            f"BUMP={bump} would make {raised(version, bump)}, but since {tag} there is something {verdict.effect}, "
            f"which asks for {needed}:\n{listed}\nUse BUMP=auto or BUMP={verdict.part}, or undo the change."
        )


def _version_text(root: Path, old: str, new: str) -> str:
    text = (root / VERSION).read_text(encoding="utf-8")
    return re.sub(rf'^__version__ = "{re.escape(old)}"$', f'__version__ = "{new}"', text, flags=re.MULTILINE)


def _commit(root: Path, head: str, version: str, changelog: Changelog, texts: dict[Path, str]) -> str:
    before = {path: (root / path).read_text(encoding="utf-8") for path in texts}
    tag = f"v{version}"
    try:
        for path, text in texts.items():
            write_atomically(root / path, text)
        if git(root, "status", "--porcelain"):
            git(root, "commit", "--quiet", "--message", f"Release {version}", "--", *map(str, texts))
        # Verbatim, or the headings would go as comments.
        message = f"{version}\n\n{changelog.unreleased}\n"
        git(root, "tag", "--annotate", "--cleanup=verbatim", "--message", message, tag)
    except BaseException:
        if git(root, "tag", "--list", tag):
            git(root, "tag", "--delete", tag)
        git(root, "reset", "--quiet", head)
        for path, text in before.items():
            write_atomically(root / path, text)
        raise
    return git(root, "rev-parse", "HEAD")
