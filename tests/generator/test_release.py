"""`python -m generator release`, in real repositories with real tags."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from generator.compare.rules import Effect, next_version, raised
from generator.release.release import compare_metadata
from tests.generator.conftest import REPOSITORY, Run, git, repin
from tests.support.revisions import revision

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cached_results")]

UNRELEASED = "# Changelog\n\n## Unreleased\n\n### Changed\n\n- Something.\n"
RELEASED = "# Changelog\n\n## Unreleased\n\n## 0.1.0 - 2026-01-01\n\n- One.\n"
BOTH = RELEASED.replace("## 0.1.0", "### Changed\n\n- Something.\n\n## 0.1.0")
PACKAGE = Path("overlays/forge_realtime")
Change = Callable[[Path], Any]


PROJECT: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def today() -> str:
    return datetime.now(UTC).date().isoformat()


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def commit(root: Path, message: str = "a change") -> None:
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", message)


def note(root: Path, text: str) -> None:
    (root / "CHANGELOG.md").write_text(text, encoding="utf-8")


def state(root: Path) -> tuple[object, ...]:
    files = {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not {".git", ".mypy_cache", "__pycache__"} & set(path.parts)
    }
    return (
        git(root, "rev-parse", "HEAD"),
        git(root, "rev-parse", "--abbrev-ref", "HEAD"),
        git(root, "for-each-ref"),
        git(root, "ls-files", "--stage"),
        git(root, "status", "--porcelain"),
        files,
    )


@pytest.fixture
def unreleased(git_repo: Path) -> Path:
    """A repository without a release, with a line in the changelog."""
    note(git_repo, UNRELEASED)
    commit(git_repo)
    return git_repo


@pytest.fixture
def released(git_repo: Path) -> Path:
    """A repository with the release 0.1.0 and no change since."""
    note(git_repo, RELEASED)
    commit(git_repo)
    git(git_repo, "tag", "--annotate", "--message", "0.1.0", "v0.1.0")
    return git_repo


# Changes of files in the wheel


def nothing(root: Path) -> None:
    (root / "spec/notes.md").write_text("Not shipped.\n", encoding="utf-8")


def docstring(root: Path) -> None:
    edit(root / PACKAGE / "_core/retry.py", '"""', '"""More. ')


def no_code(root: Path) -> None:
    docstring(root)
    edit(root / "emulator/forge_realtime_emulator/static/console/index.html", "<title>", "<title>The ")
    edit(root / "pyproject.toml", '"attrs>=22.2,<27"', '"attrs>=23.1,<27"')


def new_method(root: Path) -> None:
    edit(
        root / PACKAGE / "_core/invocation.py",
        "    def to_text(",
        "    def is_new(self) -> bool:\n        return True\n\n    def to_text(",
    )


def removed_method(root: Path) -> None:
    edit(root / PACKAGE / "_core/invocation.py", "    def to_text(", "    def _to_text(")


def removed_in_the_emulator(root: Path) -> None:
    edit(root / "emulator/forge_realtime_emulator/_server/emulator.py", "    def fail_next(", "    def _fail_next(")


def page_of_the_emulator(root: Path) -> None:
    edit(root / "emulator/forge_realtime_emulator/static/console/index.html", "<title>", "<title>The ")


def test_first_release_keeps_version(unreleased: Path, run: Run) -> None:
    before = git(unreleased, "rev-parse", "HEAD")
    result = run("--root", unreleased, "release")
    assert (result.code, result.err) == (0, "")
    assert (
        "first release: no tag v… to compare with. Version: 0.1.0 (as in overlays/forge_realtime/_version.py)\n"
        in result.out
    )
    assert "Nothing was pushed\nnext: `make push` pushes both, `make publish INDEX=https://…`" in result.out
    assert git(unreleased, "rev-parse", "HEAD~1") == before
    assert git(unreleased, "status", "--porcelain") == ""
    assert git(unreleased, "cat-file", "-t", "v0.1.0") == "tag"
    assert git(unreleased, "tag", "--list", "--format=%(contents)", "v0.1.0").endswith("### Changed\n\n- Something.")
    assert (unreleased / "CHANGELOG.md").read_text(encoding="utf-8") == (
        f"# Changelog\n\n## Unreleased\n\n## 0.1.0 - {today()}\n\n### Changed\n\n- Something.\n"
    )
    # Then there is nothing to release.
    after = state(unreleased)
    result = run("--root", unreleased, "release")
    assert result.code == 1
    assert "nothing to release: nothing in the wheel changed since v0.1.0." in result.err
    assert state(unreleased) == after


def test_first_release_with_bump(unreleased: Path, run: Run) -> None:
    result = run("--root", unreleased, "release", "--bump", "major")
    assert "Version: 1.0.0 (BUMP=major)\n" in result.out
    assert git(unreleased, "tag") == "v1.0.0"
    assert git(unreleased, "show", "--format=", "--name-only", "HEAD").split() == [
        "CHANGELOG.md",
        "overlays/forge_realtime/_version.py",
        "sbom.cdx.json",
    ]
    assert '"1.0.0"' in (unreleased / PACKAGE / "_version.py").read_text(encoding="utf-8")
    before, after = (json.loads(git(unreleased, "show", f"{commit}:sbom.cdx.json")) for commit in ("HEAD~", "HEAD"))
    assert after["metadata"]["component"].pop("version") == "1.0.0"
    assert before["metadata"]["component"].pop("version") == "0.1.0"
    assert after == before


@pytest.mark.parametrize(
    ("change", "version", "verdict", "reason"),
    [
        (
            no_code,
            "0.1.1",
            "cosmetic",
            "forge_realtime_emulator/static/console/index.html: changed\n  pyproject.toml: dependencies changed",
        ),
        (new_method, "0.1.1", "additive", "Invocation.is_new: added"),
        (removed_method, "0.2.0", "breaking", "Invocation.to_text: Public object was removed"),
        (
            removed_in_the_emulator,
            "0.2.0",
            "breaking",
            "forge_realtime_emulator.Emulator.fail_next: Public object was removed",
        ),
    ],
)
def test_change_in_wheel_determines_version(
    released: Path, run: Run, change: Change, version: str, verdict: str, reason: str
) -> None:
    change(released)
    note(released, BOTH)
    commit(released)
    result = run("--root", released, "release")
    assert (result.code, result.err) == (0, "")
    assert f"since v0.1.0: {verdict}\n" in result.out
    assert f"\n  {reason}\n" in result.out
    assert f"version: 0.1.0 → {version} (BUMP=auto)" in result.out
    assert git(released, "tag").split() == ["v0.1.0", f"v{version}"]
    assert f'__version__ = "{version}"' in (released / PACKAGE / "_version.py").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "effect", "reason"),
    [
        ({}, Effect.NONE, None),
        ({"description": "Other words"}, Effect.COSMETIC, "description changed"),
        ({"dependencies": ["attrs"]}, Effect.COSMETIC, "dependencies changed"),
        ({"optional-dependencies": {}}, Effect.BREAKING, "extra aiohttp removed"),
        (
            {"optional-dependencies": {**PROJECT["optional-dependencies"], "more": []}},
            Effect.ADDITIVE,
            "extra more added",
        ),
        ({"scripts": {"forge": "forge_realtime"}}, Effect.BREAKING, "command forge-realtime removed"),
        ({"entry-points": {}}, Effect.BREAKING, "pytest plugin forge_realtime removed"),
        ({"requires-python": ">=3.12"}, Effect.BREAKING, "Python 3.11 no longer allowed"),
        ({"requires-python": ">=3.10"}, Effect.ADDITIVE, "Python 3.10 allowed"),
        ({"requires-python": ">=3.11.0"}, Effect.COSMETIC, "requires-python changed"),
    ],
)
def test_metadata_changes_have_effects(change: dict[str, Any], effect: Effect, reason: str | None) -> None:
    found = compare_metadata(PROJECT, {**PROJECT, **change})
    assert max(found.values(), default=Effect.NONE) is effect
    assert (reason is None and not found) or found[f"pyproject.toml: {reason}"] is effect


def test_too_small_bump_is_refused_with_changes(released: Path, run: Run) -> None:
    removed_method(released)
    commit(released)
    before = state(released)
    result = run("--root", released, "release")
    assert (result.code, result.out) == (1, "")
    assert "CHANGELOG.md has no lines under Unreleased, but the changes since v0.1.0 are breaking:" in result.err
    assert "\n  Invocation.to_text: Public object was removed\n" in result.err
    assert state(released) == before

    note(released, BOTH)
    commit(released)
    before = state(released)
    result = run("--root", released, "release", "--bump", "patch")
    assert (result.code, result.out) == (1, "")
    assert "BUMP=patch is too small: the changes since v0.1.0 are breaking and require a minor release:" in result.err
    assert "\n  Invocation.to_text: Public object was removed\n" in result.err
    assert "Use BUMP=auto or BUMP=minor, or undo the changes." in result.err
    assert state(released) == before

    # A larger bump is allowed.
    assert run("--root", released, "release", "--bump", "major").code == 0
    assert git(released, "tag").split() == ["v0.1.0", "v1.0.0"]


def test_changelog_lines_alone_need_explicit_bump(released: Path, run: Run) -> None:
    nothing(released)
    note(released, BOTH)
    commit(released)
    before = state(released)
    result = run("--root", released, "release")
    assert result.code == 1
    assert "To release the lines under Unreleased in CHANGELOG.md: BUMP=patch." in result.err
    assert state(released) == before
    assert run("--root", released, "release", "--bump", "patch").code == 0
    assert git(released, "tag").split() == ["v0.1.0", "v0.1.1"]


def test_change_outside_of_realtime_part_is_named(released: Path, run: Run) -> None:
    document = json.loads((released / "spec/forge-containers-api.json").read_text(encoding="utf-8"))
    document["components"]["schemas"]["App"]["properties"]["name"] = {"type": "string"}
    repin(released, document)
    assert run("--root", released, "generate").code == 0
    note(released, BOTH)
    commit(released)
    before = state(released)
    result = run("--root", released, "release")
    assert result.code == 1
    assert (
        "nothing to release: nothing in the wheel changed since v0.1.0 except the hash and version of the document in "
        "generated/forge_realtime/_document.py. To release the lines under Unreleased in CHANGELOG.md: BUMP=patch."
    ) in result.err
    assert state(released) == before


def test_changed_document_is_released(unreleased: Path, run: Run) -> None:
    assert run("--root", unreleased, "release").code == 0
    document = json.loads((unreleased / "spec/forge-containers-api.json").read_text(encoding="utf-8"))
    repin(unreleased, revision(document, 2))
    assert run("--root", unreleased, "generate").code == 0
    edit(unreleased / "CHANGELOG.md", "## Unreleased\n", "## Unreleased\n\n- The document is revision 2.\n")
    commit(unreleased)
    locked = (unreleased / "generated.lock").read_bytes()

    result = run("--root", unreleased, "release", "--bump", "patch")
    assert result.code == 1
    assert "SignRealtimeTokenRequest.permissions: property removed" in result.err

    result = run("--root", unreleased, "release")
    assert (result.code, result.err) == (0, "")
    assert "since v0.1.0: breaking\n  SignRealtimeTokenRequest.permissions: property removed" in result.out
    assert git(unreleased, "describe") == "v0.2.0"
    assert (unreleased / "generated.lock").read_bytes() == locked
    assert run("--root", unreleased, "check").code == 0
    headings = re.findall("^## .*$", (unreleased / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings == ["## Unreleased", f"## 0.2.0 - {today()}", f"## 0.1.0 - {today()}"]


# Reasons for a refusal


def dirty(root: Path) -> None:
    docstring(root)


def untracked(root: Path) -> None:
    (root / "notes.txt").write_text("\n", encoding="utf-8")


def staged(root: Path) -> None:
    docstring(root)
    git(root, "add", "--all")


def detached(root: Path) -> None:
    git(root, "switch", "--quiet", "--detach")


def not_as_locked(root: Path) -> None:
    edit(root / "generated/forge_realtime/_api/types.py", "import", "import  ")
    commit(root)


def tag_elsewhere(root: Path) -> None:
    git(root, "tag", "v0.1.0", git(root, "commit-tree", "-m", "elsewhere", "HEAD^{tree}"))


def tags_left_behind(root: Path) -> None:
    note(root, BOTH)
    commit(root)


def empty(root: Path) -> None:
    note(root, "# Changelog\n\n## Unreleased\n")
    commit(root)


def no_heading(root: Path) -> None:
    note(root, "# Changelog\n")
    commit(root)


def version_by_hand(root: Path) -> None:
    note(root, BOTH)
    commit(root)
    git(root, "tag", "v0.1.0")
    edit(root / PACKAGE / "_version.py", "0.1.0", "0.1.1")
    commit(root)


def no_release_of_that_name(root: Path) -> None:
    git(root, "tag", "v2-experiment")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dirty, "the tree is dirty:\n M overlays/forge_realtime/_core/retry.py\nCommit or remove these first"),
        (untracked, "the tree is dirty:\n?? notes.txt\n"),
        (staged, "the tree is dirty:\nM  overlays/forge_realtime/_core/retry.py\n"),
        (detached, "no branch is checked out. A release is a commit on a branch: git switch main"),
        (not_as_locked, "generated/ does not match generated.lock. Run `make generate`"),
        (tag_elsewhere, "the tag v0.1.0 already exists on another branch."),
        (tags_left_behind, "CHANGELOG.md contains the release 0.1.0, but this branch has no tag v0.1.0"),
        (empty, "CHANGELOG.md has no lines under Unreleased. Describe the first release there."),
        (no_heading, "CHANGELOG.md: has 0 headings `## Unreleased`, expected one."),
        (
            version_by_hand,
            "the last tag is v0.1.0, but overlays/forge_realtime/_version.py says 0.1.1 and CHANGELOG.md 0.1.0.",
        ),
        (no_release_of_that_name, "the last tag is v2-experiment, "),
    ],
)
def test_refusal_changes_nothing(unreleased: Path, run: Run, change: Change, message: str) -> None:
    change(unreleased)
    before = state(unreleased)
    result = run("--root", unreleased, "release")
    assert (result.code, message in result.err) == (1, True), result.err
    assert state(unreleased) == before


def test_shallow_clone_is_refused(unreleased: Path, run: Run, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", "--depth", "1", unreleased.as_uri(), "shallow")
    result = run("--root", tmp_path / "shallow", "release")
    assert result.code == 1
    assert "the clone is shallow, so the last release may be missing: git fetch --unshallow --tags" in result.err


def no_signature(root: Path) -> None:
    git(root, "config", "tag.gpgsign", "true")
    git(root, "config", "gpg.program", "/bin/false")


def hook(root: Path, name: str, text: str) -> None:
    path = root / ".git/hooks" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (no_signature, "`git tag` failed:"),
        (lambda root: hook(root, "pre-commit", "echo not today >&2; exit 1"), "`git commit` failed: not today"),
    ],
)
def test_failure_is_undone(unreleased: Path, run: Run, change: Change, message: str) -> None:
    change(unreleased)
    before = state(unreleased)
    result = run("--root", unreleased, "release", "--bump", "minor")
    assert result.code == 1
    assert message in result.err
    assert state(unreleased) == before


def test_interrupt_is_undone(unreleased: Path, tmp_path: Path) -> None:
    # The interrupt comes after the tag was made.
    wrapper = tmp_path / "bin/git"
    wrapper.parent.mkdir()
    interrupt = 'if [ "$3 $4" = "tag --annotate" ]; then kill -INT $PPID; fi'
    wrapper.write_text(f'#!/bin/sh\n{shutil.which("git")} "$@" || exit\n{interrupt}\n', encoding="utf-8")
    wrapper.chmod(0o755)
    before = state(unreleased)
    process = subprocess.run(
        [sys.executable, "-m", "generator", "--root", unreleased, "release"],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{wrapper.parent}:{os.environ['PATH']}"},
        cwd=REPOSITORY,
    )
    assert (process.returncode, process.stderr) == (130, "")
    assert "released:" not in process.stdout
    assert state(unreleased) == before


@pytest.mark.parametrize(
    ("version", "part", "expected"),
    [
        ("0.1.2", "patch", "0.1.3"),
        ("0.1.2", "minor", "0.2.0"),
        ("0.1.2", "major", "1.0.0"),
        ("1.2.3", "minor", "1.3.0"),
    ],
)
def test_raised_version(version: str, part: str, expected: str) -> None:
    assert raised(version, part) == expected


@pytest.mark.parametrize(
    ("version", "effect", "expected"),
    [
        ("0.1.2", Effect.COSMETIC, ("patch", "0.1.3")),
        ("0.1.2", Effect.ADDITIVE, ("patch", "0.1.3")),
        ("0.1.2", Effect.BREAKING, ("minor", "0.2.0")),
        ("1.2.3", Effect.COSMETIC, ("patch", "1.2.4")),
        ("1.2.3", Effect.ADDITIVE, ("minor", "1.3.0")),
        ("1.2.3", Effect.BREAKING, ("major", "2.0.0")),
    ],
)
def test_below_1_0_0_effects_raise_smaller_parts(version: str, effect: Effect, expected: tuple[str, str]) -> None:
    assert next_version(version, effect) == expected
