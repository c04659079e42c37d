"""A release in the repository: version, changelog, commit and tag. Pushes nothing.

The strongest change since the last release determines the version: in the document, the Python API of the whole wheel,
the typing tests of the last release (all found by `diff`), or the metadata of the wheel.
"""

from __future__ import annotations

import json
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
from generator.paths import CHANGELOG, DOCUMENT_MODULE, LOCK, PROJECT, SBOM, VERSION
from generator.pipeline.lock import is_as_locked
from generator.release.changelog import Changelog, parse_changelog
from generator.release.git import git, require_clean
from generator.text import say


@dataclass(frozen=True)
class _Verdict:
    effect: Effect
    part: str
    reasons: list[str]


def release(root: Path, bump: str, day: date) -> None:
    """Release the last commit, and print what to do next.

    Args:
        root: The repository.
        bump: "major", "minor" or "patch", or "auto" for what the comparison with the last release requires.
        day: The day of the release.

    Raises:
        GeneratorError: The repository is not ready, or code, changelog and `bump` disagree. Files, index, branch and
            tags are unchanged.
    """
    head = _require_ready(root)
    with blaming(root / CHANGELOG):
        changelog = parse_changelog((root / CHANGELOG).read_text(encoding="utf-8"))
    old = version_of(root)
    tag = last_release(root, "HEAD")
    _require_one_version(old, tag, changelog)

    if tag is None:
        if changelog.is_empty:
            raise GeneratorError(f"{CHANGELOG} has no lines under Unreleased. Describe the first release there.")
        new = old if bump == "auto" else raised(old, bump)
        why = f"as in {VERSION}" if bump == "auto" else f"BUMP={bump}"
        say(f"first release: no tag v… to compare with. Version: {new} ({why})")
    else:
        verdict = _verdict(root, tag, old)
        _require_agreement(root, verdict, bump, tag, changelog)
        new = raised(old, verdict.part if bump == "auto" else bump)
        say(f"since {tag}: {verdict.effect}")
        say("\n".join(f"  {reason}" for reason in verdict.reasons))
        say(f"version: {old} → {new} (BUMP={bump})")

    _require_no_tag(root, new)
    with blaming(root / CHANGELOG):
        text = changelog.release(new, day)
    texts = {CHANGELOG: text, VERSION: _version_text(root, old, new), SBOM: _sbom_text(root, new)}
    commit = _commit(root, head, new, changelog, texts)
    say(f"released: commit {commit[:12]}, tag v{new}. Nothing was pushed")
    say("next: `make push` pushes both, `make publish INDEX=https://…` uploads the wheel")


def _require_ready(root: Path) -> str:
    """Return the commit to release."""
    head = git(root, "rev-parse", "--verify", "HEAD")
    if git(root, "rev-parse", "--abbrev-ref", "HEAD") == "HEAD":
        raise GeneratorError("no branch is checked out. A release is a commit on a branch: git switch main")
    require_clean(root)
    if git(root, "rev-parse", "--is-shallow-repository") == "true":
        raise GeneratorError("the clone is shallow, so the last release may be missing: git fetch --unshallow --tags")
    if not is_as_locked(root):
        raise GeneratorError(f"generated/ does not match {LOCK}. Run `make generate`, and commit the changes.")
    return head


def _require_one_version(version: str, tag: str | None, changelog: Changelog) -> None:
    released = changelog.last_version
    if tag is None and released is not None:
        raise GeneratorError(
            f"{CHANGELOG} contains the release {released}, but this branch has no tag v{released}. "
            "Fetch the tags: git fetch --tags"
        )
    if tag is not None and (tag != f"v{version}" or released != version):
        raise GeneratorError(
            f"the last tag is {tag}, but {VERSION} says {version} and {CHANGELOG} {released or 'nothing'}. "
            "Only `make release` changes them: undo the manual change."
        )


def _require_no_tag(root: Path, version: str) -> None:
    if git(root, "tag", "--list", f"v{version}"):
        raise GeneratorError(
            f"the tag v{version} already exists on another branch. If it was never pushed, delete it: "
            f"git tag --delete v{version}. Otherwise, merge it."
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


# Tables of [project] whose keys users write.
_NAMED = {
    "extra": ("optional-dependencies",),
    "command": ("scripts",),
    "pytest plugin": ("entry-points", "pytest11"),
}


def compare_metadata(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Effect]:
    """Return the changes in the table [project], each with its effect.

    A removed extra, command or Python version is breaking, an added one additive, everything else cosmetic.
    """
    found = {
        f"{PROJECT}: {key} changed": Effect.COSMETIC
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    }
    for thing, path in _NAMED.items():
        before, after = _names(old, path), _names(new, path)
        found |= {f"{PROJECT}: {thing} {name} removed": Effect.BREAKING for name in sorted(before - after)}
        found |= {f"{PROJECT}: {thing} {name} added": Effect.ADDITIVE for name in sorted(after - before)}
    before, after = (_pythons(project) for project in (old, new))
    found |= {f"{PROJECT}: Python {version} no longer allowed": Effect.BREAKING for version in sorted(before - after)}
    found |= {f"{PROJECT}: Python {version} allowed": Effect.ADDITIVE for version in sorted(after - before)}
    return found


def _names(project: Mapping[str, Any], path: tuple[str, ...]) -> set[str]:
    table: Any = project
    for key in path:
        table = table.get(key, {})
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
        reasons += [f"{breakage.python}: {breakage.kind}" for breakage in found.api.breakages]
        reasons += [
            f"{error.file}:{error.line}: {error.message}" for error in found.typing.errors or () if error.in_tests
        ]
    elif effect is Effect.ADDITIVE:
        reasons += [f"{name}: added" for name in found.api.added]
    elif effect is Effect.COSMETIC:
        reasons += [f"{path}: changed" for path in found.api.files]
    return reasons + [text for text, text_effect in metadata.items() if text_effect is effect]


def _require_agreement(root: Path, verdict: _Verdict, bump: str, tag: str, changelog: Changelog) -> None:
    listed = "\n".join(f"  {reason}" for reason in verdict.reasons)
    if verdict.effect is Effect.NONE and (bump == "auto" or changelog.is_empty):
        message = f"nothing to release: nothing in the wheel changed since {tag}"
        if git(root, "diff", "--name-only", tag, "HEAD", "--", str(DOCUMENT_MODULE)):
            message += f" except the hash and version of the document in {DOCUMENT_MODULE}"
        hint = "" if changelog.is_empty else f" To release the lines under Unreleased in {CHANGELOG}: BUMP=patch."
        raise GeneratorError(f"{message}.{hint}")
    if changelog.is_empty:
        raise GeneratorError(
            f"{CHANGELOG} has no lines under Unreleased, but the changes since {tag} are {verdict.effect}:\n{listed}\n"
            "Write a line for each change that users can notice, and commit it."
        )
    if bump != "auto" and verdict.effect is not Effect.NONE and PARTS.index(bump) > PARTS.index(verdict.part):
        raise GeneratorError(
            f"BUMP={bump} is too small: the changes since {tag} are {verdict.effect} and require a {verdict.part} "
            f"release:\n{listed}\nUse BUMP=auto or BUMP={verdict.part}, or undo the changes."
        )


def _version_text(root: Path, old: str, new: str) -> str:
    text = (root / VERSION).read_text(encoding="utf-8")
    return re.sub(rf'^__version__ = "{re.escape(old)}"$', f'__version__ = "{new}"', text, flags=re.MULTILINE)


def _sbom_text(root: Path, new: str) -> str:
    sbom = json.loads((root / SBOM).read_text(encoding="utf-8"))
    sbom["metadata"]["component"]["version"] = new
    return json.dumps(sbom, indent=2)


def _commit(root: Path, head: str, version: str, changelog: Changelog, texts: dict[Path, str]) -> str:
    before = {path: (root / path).read_text(encoding="utf-8") for path in texts}
    tag = f"v{version}"
    try:
        for path, text in texts.items():
            write_atomically(root / path, text)
        if git(root, "status", "--porcelain"):
            git(root, "commit", "--quiet", "--message", f"Release {version}", "--", *map(str, texts))
        # Verbatim, because git removes headings as comments otherwise.
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
