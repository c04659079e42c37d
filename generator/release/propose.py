"""Pull request for a changed document, with the comparison as its text. Needs git and GitHub's `gh`.

There is one branch for it. While its pull request is open, every further change of the document adds a commit, so that
commits of other people stay.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from generator.compare.diff import diff
from generator.compare.report import as_text
from generator.document import GeneratorError
from generator.paths import DOCUMENT, GENERATED, LOCK
from generator.release.git import git
from generator.spec.pull import pull
from generator.text import code_block, say

BRANCH = "api-document"
# The workflow with the checks. GitHub does not start it for a push with a workflow's own token.
CHECKS = "ci.yml"
# Characters. GitHub accepts 65,536.
_MAX_TEXT = 40_000
_MAX_QUOTE = 10_000


@dataclass(frozen=True)
class _PullRequest:
    number: int
    url: str
    state: str
    commit: str


def propose(root: Path, source: str | None = None) -> None:
    """Pull the document, and open or update the pull request if it differs from the remote's main branch.

    Works in a working tree of its own. The one of `root` is not touched.

    Args:
        root: The repository, a clone with a remote `origin` on GitHub.
        source: As for `pull`.

    Raises:
        GeneratorError: The document cannot be pinned, or git or gh failed.
    """
    known = _pull_requests(root)
    base = _base(root)
    git(root, "fetch", "--quiet", "origin", base)
    start = upstream = git(root, "rev-parse", "FETCH_HEAD")
    pushed = git(root, "ls-remote", "origin", f"refs/heads/{BRANCH}").partition("\t")[0]
    if pushed:
        git(root, "fetch", "--quiet", "origin", pushed)
    open_one = next((one for one in known if one.state == "OPEN"), None) if pushed else None
    if open_one:
        start = pushed
    if source is not None and Path(source).is_file():
        source = str(Path(source).resolve())

    with tempfile.TemporaryDirectory(prefix="propose-") as folder:
        tree = Path(folder) / "tree"
        git(root, "worktree", "add", "--quiet", "--detach", str(tree), start)
        try:
            pull(tree, source)
            if not git(tree, "status", "--porcelain"):
                say(f"nothing to propose: {open_one.url if open_one else base} has this document")
                return
            if not open_one and (rejected := _rejected(tree, known)):
                say(f"nothing to propose: {rejected.url} had this document and was closed. Reopen it if you want it")
                return
            title, text = _describe(tree, git(root, "merge-base", upstream, start))
            git(tree, "add", "--all", "--", DOCUMENT.parent.as_posix(), GENERATED.as_posix(), LOCK.as_posix())
            git(tree, "commit", "--quiet", "--message", title)
            report = Path(folder) / "text.md"
            report.write_text(text, encoding="utf-8")
            # Before the push: if either fails, the next run still finds a difference and repeats both.
            if open_one:
                where = f"repos/{{owner}}/{{repo}}/pulls/{open_one.number}"
                fields = ["--raw-field", f"title={title}", "--field", f"body=@{report}"]
                # Not `pr edit`, which fails in many versions: https://github.com/cli/cli/issues/11983
                _gh(root, "api", "--silent", "--method", "PATCH", where, *fields)
            # The lease protects commits that were pushed in the meantime.
            git(tree, "push", "--quiet", f"--force-with-lease={BRANCH}:{pushed}", "origin", f"HEAD:refs/heads/{BRANCH}")
        finally:
            git(root, "worktree", "remove", "--force", str(tree))
        if open_one:
            say(f"updated: {open_one.url}")
        else:
            fields = ["--title", title, "--body-file", str(report)]
            say(f"opened: {_gh(root, 'pr', 'create', '--base', base, '--head', BRANCH, *fields)}")
    if os.environ.get("GITHUB_ACTIONS") == "true":
        _gh(root, "workflow", "run", CHECKS, "--ref", BRANCH)
        say(f"started: {CHECKS}")


def _pull_requests(root: Path) -> list[_PullRequest]:
    fields = "number,url,state,headRefOid,isCrossRepository"
    found = json.loads(_gh(root, "pr", "list", "--head", BRANCH, "--state", "all", "--limit", "1000", "--json", fields))
    # A fork can have a branch with the same name.
    return [
        _PullRequest(one["number"], one["url"], one["state"], one["headRefOid"])
        for one in found
        if not one["isCrossRepository"]
    ]


def _base(root: Path) -> str:
    head = git(root, "ls-remote", "--symref", "origin", "HEAD")
    found = re.match(r"ref: refs/heads/(\S+)\t", head)
    if found is None:
        raise GeneratorError("the remote `origin` has no default branch. Set one.")
    return found[1]


def _rejected(tree: Path, known: list[_PullRequest]) -> _PullRequest | None:
    """Return the last pull request if it was closed without a merge and has the same document."""
    last = max(known, key=lambda one: one.number, default=None)
    if last is None or last.state != "CLOSED":
        return None
    try:
        # GitHub keeps the commit even if the branch was deleted.
        git(tree, "fetch", "--quiet", "origin", last.commit)
        was = git(tree, "rev-parse", f"{last.commit}:{DOCUMENT.as_posix()}")
    except GeneratorError:
        return None
    return last if was == git(tree, "hash-object", DOCUMENT.as_posix()) else None


def _describe(tree: Path, old: str) -> tuple[str, str]:
    """Return title and text. Makes the client if possible."""
    notes = []
    try:
        found = diff(tree, old[:12], str(tree / DOCUMENT))
        title, text = f"The API document changed: {found.effect} for the client", as_text(found)
    except GeneratorError as error:
        title, text = (
            "The API document changed, and the overlays do not fit it",
            f"`make diff` fails:\n\n{_quote(str(error))}",
        )
    made = subprocess.run(
        # The generator of the branch, because the lock contains its hashes.
        [sys.executable, "-m", "generator", "generate"],
        check=False,
        cwd=tree,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    if made.returncode != 0:
        notes.append(f"`make generate` fails, so `{GENERATED}/` is still the old client:\n\n{_quote(made.stderr)}")
    notes.append("Before you merge it, follow docs/regenerate.md.")
    text = "\n\n".join([_shorten(text), *notes]) + "\n"
    return title, text.replace(f"{tree}/", "")


def _quote(text: str) -> str:
    cut = f"{text[:_MAX_QUOTE]}\n… The rest: run it on this branch." if len(text) > _MAX_QUOTE else text
    return code_block(cut)


def _shorten(text: str) -> str:
    if len(text) <= _MAX_TEXT:
        return text.rstrip("\n")
    return text[:_MAX_TEXT].rpartition("\n")[0] + "\n\n… The rest: `make diff OLD=main` on this branch."


def _gh(root: Path, *arguments: str) -> str:
    try:
        process = subprocess.run(["gh", *arguments], check=False, capture_output=True, text=True, cwd=root)
    except FileNotFoundError as error:
        raise GeneratorError("gh is not installed. Install GitHub's command line, and log in: gh auth login") from error
    if process.returncode != 0:
        raise GeneratorError(
            f"`gh {arguments[0]}` failed: {process.stderr.strip()}\nFix this and run it again. Nothing is lost."
        )
    return process.stdout.strip()
