"""`python -m generator propose`, with a real remote and a `gh` that records its calls."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from generator.release.propose import BRANCH
from tests.generator.conftest import Run, git, last_revision
from tests.support.revisions import revision

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cached_results")]

Document = dict[str, Any]

# Keeps pull requests in one file and records its calls in another.
GH = """#!{python}
import json, pathlib, subprocess, sys

here, arguments = pathlib.Path(__file__).parent, sys.argv[1:]
kept, remote = here / "pulls.json", here.parent / "remote.git"
with (here / "calls").open("a") as calls:
    calls.write(" ".join(arguments) + "\\n")
if (here / "broken").exists() and arguments[:2] != ["pr", "list"]:
    sys.exit("HTTP 403: GitHub Actions is not permitted to create or approve pull requests")
pulls = json.loads(kept.read_text()) if kept.exists() else []
option = lambda name: arguments[arguments.index(name) + 1]
match arguments[:2]:
    case ["pr", "list"]:
        for pull in pulls:
            if pull["state"] == "OPEN" and not pull["isCrossRepository"]:
                pull["headRefOid"] = subprocess.check_output(
                    ["git", "-C", remote, "rev-parse", option("--head")], text=True
                ).strip()
        print(json.dumps([{{name: pull[name] for name in option("--json").split(",")}} for pull in pulls]))
    case ["pr", "create"]:
        number = len(pulls) + 1
        text = pathlib.Path(option("--body-file")).read_text()
        url = f"https://github.example/forge/pull/{{number}}"
        pulls.append(
            dict(number=number, url=url, state="OPEN", headRefOid="", isCrossRepository=False,
                 base=option("--base"), title=option("--title"), text=text)
        )
        print(url)
    case ["api", _]:
        pull = pulls[int(arguments[4].rpartition("/")[2]) - 1]
        pull["title"] = option("--raw-field").removeprefix("title=")
        pull["text"] = pathlib.Path(option("--field").removeprefix("body=@")).read_text()
    case ["workflow", "run"]:
        pass
    case _:
        sys.exit(f"unknown: {{arguments}}")
kept.write_text(json.dumps(pulls))
"""


class GitHub:
    """A stand-in for GitHub: a bare repository and pull requests."""

    def __init__(self, folder: Path) -> None:
        self.remote, self._bin = folder / "remote.git", folder / "bin"

    def pulls(self) -> list[dict[str, Any]]:
        kept = self._bin / "pulls.json"
        return json.loads(kept.read_text()) if kept.exists() else []

    def calls(self) -> list[str]:
        return (self._bin / "calls").read_text().splitlines()

    def change(self, **fields: object) -> None:
        pulls = self.pulls()
        pulls[-1].update(fields)
        (self._bin / "pulls.json").write_text(json.dumps(pulls))

    def add(self, **fields: object) -> None:
        (self._bin / "pulls.json").write_text(json.dumps([*self.pulls(), fields]))

    def break_down(self, broken: bool) -> None:
        if broken:
            (self._bin / "broken").touch()
        else:
            (self._bin / "broken").unlink()

    def head(self) -> str:
        return git(self.remote, "rev-parse", "--verify", f"refs/heads/{BRANCH}")

    def branches(self) -> list[str]:
        return git(self.remote, "branch", "--format=%(refname:short)").split()

    def document(self) -> Document:
        document: Document = json.loads(git(self.remote, "show", f"{BRANCH}:spec/forge-containers-api.json"))
        return document


@pytest.fixture
def github(git_repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GitHub:
    git(tmp_path, "clone", "--quiet", "--bare", str(git_repo), "remote.git")
    git(git_repo, "remote", "add", "origin", str(tmp_path / "remote.git"))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/gh").write_text(GH.format(python=sys.executable), encoding="utf-8")
    (tmp_path / "bin/gh").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    return GitHub(tmp_path)


@pytest.fixture
def pinned() -> Document:
    return last_revision()


@pytest.fixture
def publish(pinned: Document, tmp_path: Path) -> Callable[..., Path]:
    """Write a document, with another description or as given.

    The overlays do not fit the one with another description. So no client is made, which is fast.
    """

    def publish(description: str = "", document: Document | None = None) -> Path:
        document = pinned if document is None else document
        if description:
            document = revision(document, 3)
            document["info"]["description"] = description
            content = document["paths"]["/forge/realtime/v1/publish"]["post"]["requestBody"]["content"]
            content["text/plain"] = content.pop("application/json")
        path = tmp_path / "published.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        return path

    return publish


def test_changed_document_opens_pull_request_with_report(
    git_repo: Path, github: GitHub, run: Run, publish: Callable[..., Path], pinned: Document
) -> None:
    main = git(github.remote, "rev-parse", "main")
    (git_repo / "notes.txt").write_text("Uncommitted work.\n", encoding="utf-8")
    here = git(git_repo, "for-each-ref", "refs/heads", "refs/tags"), git(git_repo, "status", "--porcelain")
    published = publish(document=revision(pinned, 2))
    result = run("--root", git_repo, "propose", published)
    assert (result.code, result.err) == (0, "")
    assert result.out.endswith("opened: https://github.example/forge/pull/1\n")
    (pull,) = github.pulls()
    assert (pull["base"], pull["title"]) == ("main", "The API document changed: breaking for the client")
    assert pull["text"].startswith(f"# Realtime client: {main[:12]} → spec/forge-containers-api.json\n\n**Breaking**")
    assert "`SignRealtimeTokenRequest.permissions`: property removed" in pull["text"]
    assert pull["text"].endswith("Before you merge it, follow docs/regenerate.md.\n")
    # One commit on the main branch, with the client for the document.
    assert git(github.remote, "rev-parse", f"{BRANCH}~1") == git(github.remote, "rev-parse", "main") == main
    changed = git(github.remote, "diff", "--name-only", "main", BRANCH).split()
    assert {"generated.lock", "spec/source.toml", "spec/realtime.json"} < set(changed)
    assert "generated/forge_realtime/_api/models/sign_realtime_token_request.py" in changed
    git(git_repo, "fetch", "--quiet", "origin", BRANCH)
    git(git_repo, "worktree", "add", "--quiet", "../proposed", "FETCH_HEAD")
    assert run("--root", git_repo.parent / "proposed", "check").code == 0
    git(git_repo, "worktree", "remove", "--force", "../proposed")
    assert (git(git_repo, "for-each-ref", "refs/heads", "refs/tags"), git(git_repo, "status", "--porcelain")) == here
    assert len(git(git_repo, "worktree", "list").splitlines()) == 1


def test_same_document_is_proposed_once_and_next_one_on_top(
    git_repo: Path, github: GitHub, run: Run, publish: Callable[..., Path], tmp_path: Path
) -> None:
    # The next run completes what failed at GitHub.
    github.break_down(True)
    result = run("--root", git_repo, "propose", publish("one"))
    assert result.code == 1
    assert "`gh pr` failed: HTTP 403: GitHub Actions is not permitted" in result.err
    assert "run it again. Nothing is lost." in result.err
    github.break_down(False)
    result = run("--root", git_repo, "propose", publish("one"))
    assert result.out.endswith("opened: https://github.example/forge/pull/1\n")
    first = github.head()
    result = run("--root", git_repo, "propose", publish("one"))
    assert result.out.endswith("nothing to propose: https://github.example/forge/pull/1 has this document\n")
    assert github.head() == first

    # A colleague pushes to the branch, and the document changes again.
    git(tmp_path, "clone", "--quiet", "--branch", BRANCH, str(github.remote), "colleague")
    (tmp_path / "colleague/README.md").write_text("By hand.\n", encoding="utf-8")
    git(tmp_path / "colleague", "add", "--all")
    git(tmp_path / "colleague", "-c", "user.name=c", "-c", "user.email=c@example.com", "commit", "-q", "-m", "By hand")
    git(tmp_path / "colleague", "push", "--quiet")
    theirs = github.head()
    github.break_down(True)
    result = run("--root", git_repo, "propose", publish("two"))
    assert "`gh api` failed: HTTP 403" in result.err
    assert github.head() == theirs
    github.break_down(False)
    result = run("--root", git_repo, "propose", publish("two"))
    assert result.out.endswith("updated: https://github.example/forge/pull/1\n")
    (pull,) = github.pulls()
    assert pull["title"] == "The API document changed, and the overlays do not fit it"
    assert git(github.remote, "rev-parse", f"{BRANCH}~1") == theirs
    assert github.document()["info"]["description"] == "two"
    assert github.branches() == [BRANCH, "main"]


def test_unchanged_document_opens_nothing(
    git_repo: Path, github: GitHub, run: Run, publish: Callable[..., Path]
) -> None:
    result = run("--root", git_repo, "propose", publish())
    assert (result.code, result.err) == (0, "")
    assert result.out.endswith("nothing to propose: main has this document\n")
    assert github.branches() == ["main"]
    assert [call.split()[:2] for call in github.calls()] == [["pr", "list"]]


def test_merged_or_closed_document_is_not_proposed_again(
    git_repo: Path, github: GitHub, run: Run, publish: Callable[..., Path]
) -> None:
    assert run("--root", git_repo, "propose", publish("one")).code == 0
    github.change(state="CLOSED", headRefOid=github.head())
    closed = github.head()
    result = run("--root", git_repo, "propose", publish("one"))
    assert "nothing to propose: https://github.example/forge/pull/1 had this document and was closed" in result.out
    assert (github.head(), len(github.pulls())) == (closed, 1)
    git(github.remote, "update-ref", "-d", f"refs/heads/{BRANCH}")
    result = run("--root", git_repo, "propose", publish("one"))
    assert "nothing to propose: https://github.example/forge/pull/1 had this document and was closed" in result.out
    assert (github.branches(), len(github.pulls())) == (["main"], 1)

    # Another document starts again from the main branch.
    assert run("--root", git_repo, "propose", publish("two")).out.endswith("/pull/2\n")
    assert git(github.remote, "rev-parse", f"{BRANCH}~1") == git(github.remote, "rev-parse", "main")

    # Merged, without deleting the branch.
    git(github.remote, "update-ref", "refs/heads/main", github.head())
    github.change(state="MERGED", headRefOid=github.head())
    assert run("--root", git_repo, "propose", publish("two")).out.endswith("main has this document\n")


def test_workflow_starts_checks_and_ignores_forks(
    git_repo: Path, github: GitHub, run: Run, publish: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    fork = {"number": 1, "url": "https://github.example/forge/pull/1", "isCrossRepository": True}
    github.add(**fork, state="OPEN", headRefOid="0" * 40)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    result = run("--root", git_repo, "propose", publish("one"))
    assert result.out.endswith("opened: https://github.example/forge/pull/2\nstarted: ci.yml\n")
    assert github.calls()[-1] == f"workflow run ci.yml --ref {BRANCH}"


def test_document_that_overlays_do_not_fit_is_proposed_with_errors(
    git_repo: Path, github: GitHub, run: Run, publish: Callable[..., Path], pinned: Document
) -> None:
    body = pinned["paths"]["/forge/realtime/v1/publish"]["post"]["requestBody"]["content"]["application/json"]
    del body["schema"]["properties"]["options"]
    result = run("--root", git_repo, "propose", publish(document=pinned))
    assert (result.code, result.err) == (0, "")
    (pull,) = github.pulls()
    assert pull["title"] == "The API document changed, and the overlays do not fit it"
    assert "`make diff` fails:\n\n```text\nspec/forge-containers-api.json: overlays/openapi/" in pull["text"]
    assert "`make generate` fails, so `generated/` is still the old client:\n\n```text\nerror: " in pull["text"]
    changed = git(github.remote, "diff", "--name-only", "main", BRANCH).split()
    assert changed == ["spec/forge-containers-api.json", "spec/source.toml"]


def test_refused_document_pushes_nothing(
    git_repo: Path, github: GitHub, run: Run, publish: Callable[..., Path], pinned: Document
) -> None:
    del pinned["paths"]["/forge/realtime/v1/publish"]
    result = run("--root", git_repo, "propose", publish(document=pinned))
    assert result.code == 1
    assert "has no POST /forge/realtime/v1/publish" in result.err
    assert github.branches() == ["main"]
    assert len(git(git_repo, "worktree", "list").splitlines()) == 1


def test_missing_gh_is_error_before_anything_else(
    git_repo: Path,
    github: GitHub,
    run: Run,
    publish: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "bin/gh").unlink()
    result = run("--root", git_repo, "propose", publish("one"))
    assert (result.code, result.out) == (1, "")
    assert "gh is not installed. Install GitHub's command line, and log in: gh auth login" in result.err
