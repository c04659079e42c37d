"""`python -m generator diff`: documents, revisions and releases, with all three comparisons."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from generator.compare.documents import compare_outside
from tests.generator.changes import PUBLISH, operation, options, request
from tests.generator.conftest import git, last_revision, repin
from tests.support.revisions import REVISIONS, revision

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cached_results")]

Run = Callable[..., Any]
Snapshot = Callable[[Path], dict[str, tuple[bytes, int]]]
Document = dict[str, Any]


@pytest.fixture
def pinned() -> Document:
    return last_revision()


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, Document], Path]:
    def write(name: str, document: Document) -> Path:
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        return path

    return write


@pytest.fixture
def revisions(pinned: Document, write: Callable[[str, Document], Path]) -> dict[str, Path]:
    """The published revisions of the Realtime part."""
    return {f"r{number}": write(f"r{number}", revision(pinned, number)) for number in REVISIONS}


@pytest.mark.parametrize(
    ("old", "new", "verdict", "version", "names"),
    [
        ("r1", "r2", "additive", "0.1.1", ["PublishOptions.context_overrides"]),
        ("r2", "r3", "additive", "0.1.1", ["SignRealtimeTokenRequest.permissions"]),
        ("r3", "r2", "breaking", "0.2.0", ["SignRealtimeTokenRequest.permissions"]),
        ("r2", "r1", "breaking", "0.2.0", ["PublishOptions.context_overrides"]),
    ],
)
def test_published_revisions_forwards_and_backwards(
    history: Path,
    run: Run,
    revisions: dict[str, Path],
    old: str,
    new: str,
    verdict: str,
    version: str,
    names: list[str],
) -> None:
    result = run("--root", history, "diff", revisions[old], revisions[new], "--json")
    assert (result.code, result.err) == (0, "")
    report = json.loads(result.out)
    assert (report["verdict"], report["next_version"]) == (verdict, version)
    assert report["schema"]["verdict"] == report["python_api"]["verdict"] == verdict
    assert [change["python"] for change in report["schema"]["changes"]] == [names]
    assert report["breaks_deployed"] is (verdict == "breaking")
    argument = {
        "PublishOptions.context_overrides": "publish(context_overrides=...)",
        "SignRealtimeTokenRequest.permissions": "sign_realtime_token(permissions=...)",
    }[names[0]]
    removed, added = ([argument], []) if verdict == "breaking" else ([], [argument])
    assert report["arguments"] == {"removed": removed, "added": added}
    # The hand-written package fits every revision, and the typing tests use neither argument.
    assert (report["typing"]["run"], report["typing"]["errors"], report["typing"]["to_fix"]) == (True, [], [])
    assert report["outside"] == {}


def test_diff_after_pull_reports_changes_and_writes_nothing(
    git_repo: Path, run: Run, pinned: Document, snapshot: Snapshot
) -> None:
    document = git_repo / "spec/forge-containers-api.json"
    request(pinned)["properties"]["ttl"] = {"type": "integer"}
    pinned["paths"]["/v1/apps"] = pinned["paths"].pop("/v1/installations")
    pinned["components"]["schemas"]["App"]["properties"]["name"] = {"type": "string"}
    document.write_text(json.dumps(pinned), encoding="utf-8")
    before = {name: state for name, state in snapshot(git_repo).items() if ".mypy_cache" not in name}

    result = run("--root", git_repo, "diff")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("# Realtime client: HEAD (")
    assert "→ the working tree\n\n**Additive**: all code still works" in result.out
    assert "Version: 0.1.0 → 0.1.1 (patch, as additive changes below 1.0.0 do; from 1.0.0 on: minor)." in result.out
    assert (
        "- `PublishRequest.ttl`: property added, optional, `int` (POST /forge/realtime/v1/publish, body, ttl)"
        in result.out
    )
    assert "- added `PublishRequest.ttl`: `int | Unset = UNSET`" in result.out
    assert "since there is no release yet | passed |" in result.out
    assert result.out.splitlines()[-1] == (
        "Outside of the Realtime part, 3 operations changed. "
        "App Installations: 1 added, 1 removed; Forge Context: 1 changed."
    )
    assert {name: state for name, state in snapshot(git_repo).items() if ".mypy_cache" not in name} == before

    report = git_repo / "report.md"
    assert run("--root", git_repo, "diff", "--output", report) == (0, "", "")
    assert report.read_text(encoding="utf-8") == result.out


def test_missing_reference_target_outside_of_realtime_part_is_accepted(pinned: Document) -> None:
    new = json.loads(json.dumps(pinned))
    operation(new, "/v1/installations")["responses"]["200"]["content"] = {
        "application/json": {"schema": {"$ref": "#/components/schemas/Gone"}}
    }
    expected = {"App Installations": {"added": 0, "removed": 0, "changed": 1}}
    assert compare_outside(pinned, new) == compare_outside(new, pinned) == expected


def test_diff_without_change(history: Path, run: Run) -> None:
    report = json.loads(run("--root", history, "diff", "--json").out)
    assert (report["verdict"], report["bump"], report["next_version"]) == ("none", "none", report["old"]["version"])
    assert report["typing"]["run"] is False
    assert report["format"] == 1


def test_uncommitted_generated_file_is_named(git_repo: Path, run: Run, revisions: dict[str, Path]) -> None:
    item = "sign_realtime_token_request_permissions_item"
    git(git_repo, "rm", "--quiet", "--cached", f"generated/forge_realtime/_api/models/{item}.py")
    git(git_repo, "commit", "--quiet", "--message", "two")
    result = run("--root", git_repo, "diff", "HEAD", revisions["r2"])
    assert (result.code, result.out) == (1, "")
    assert f"imports forge_realtime._api.models.{item}" in result.err
    assert "git add generated" in result.err


def test_typing_tests_come_from_last_release(git_repo: Path, run: Run, revisions: dict[str, Path]) -> None:
    tests = git_repo / "tests/typing"
    shutil.rmtree(tests)
    tests.mkdir()
    (tests / "released.py").write_text(
        "from forge_realtime._api.models import PublishOptions\n\nPublishOptions(context_overrides=['issue'])\n",
        encoding="utf-8",
    )
    git(git_repo, "add", "--all")
    git(git_repo, "commit", "--quiet", "--message", "two")
    git(git_repo, "tag", "v0.1.0")
    (tests / "released.py").write_text("print('not released')\n", encoding="utf-8")

    report = json.loads(run("--root", git_repo, "diff", "v0.1.0", revisions["r1"], "--json").out)
    assert report["typing"]["tests"] == "the last release, v0.1.0"
    assert report["typing"]["verdict"] == "breaking"
    assert [(error["file"], error["line"]) for error in report["typing"]["errors"]] == [("released.py", 3)]
    assert report["disagreements"] == []
    assert report["old"]["label"].startswith("v0.1.0 (")

    # Errors of the old client do not count.
    report = json.loads(run("--root", git_repo, "diff", revisions["r1"], revisions["r2"], "--json").out)
    assert (report["typing"]["errors"], report["verdict"]) == ([], "additive")
    text = run("--root", git_repo, "diff", revisions["r2"], revisions["r1"]).out
    assert "| typing tests of the last release, v0.1.0 | breaking: 1 error |" in text
    assert "- `released.py:3`: Unexpected keyword argument" in text


def test_hand_written_packages_of_two_revisions_are_compared(git_repo: Path, run: Run) -> None:
    package = git_repo / "overlays/forge_realtime"
    policy, version = package / "_core/policy.py", package / "_version.py"
    policy.write_text(policy.read_text(encoding="utf-8").replace("    budget: float = 0.2\n", ""), encoding="utf-8")
    version.write_text(version.read_text(encoding="utf-8").replace("0.1.0", "1.2.3"), encoding="utf-8")
    git(git_repo, "commit", "--quiet", "--all", "--message", "two")
    report = json.loads(run("--root", git_repo, "diff", "HEAD~1", "HEAD", "--json").out)
    assert (report["old"]["version"], report["new"]["version"]) == ("0.1.0", "1.2.3")
    assert (report["schema"]["verdict"], report["python_api"]["verdict"]) == ("none", "breaking")
    assert [breakage["python"] for breakage in report["python_api"]["breakages"]] == [
        "RetryPolicy.budget",
        "RetryPolicy(budget)",
    ]
    assert report["verdict"] == "breaking"
    (sentence,) = report["disagreements"]
    assert sentence.startswith("Breaking according to griffe, not the documents and the typing tests.")


def test_only_griffe_sees_new_order_of_arguments(
    history: Path, run: Run, derived: Document, write: Callable[[str, Document], Path]
) -> None:
    old = write("old", derived)
    properties = options(derived)["properties"]
    properties["token"] = properties.pop("token")
    result = run("--root", history, "diff", old, write("new", derived))
    assert "**Breaking**" in result.out
    assert "| documents, after selection and patching | none |" in result.out
    assert "- Breaking according to griffe, not the documents" in result.out
    assert "`PublishOptions(token)`: Positional parameter was moved" in result.out
    assert result.out.endswith("Outside of the Realtime part: unknown, since one side is a derived document.\n")


def test_changes_are_listed_if_overlays_do_not_fit(
    git_repo: Path, run: Run, pinned: Document, snapshot: Snapshot
) -> None:
    document = git_repo / "spec/forge-containers-api.json"
    pinned["paths"]["/forge/realtime/v2/publish"] = pinned["paths"].pop(PUBLISH)
    operation(pinned, "/forge/realtime/v2/publish")["requestBody"]["description"] = "Other words"
    document.write_text(json.dumps(pinned), encoding="utf-8")
    before = snapshot(git_repo)
    result = run("--root", git_repo, "diff")
    assert (result.code, result.out) == (1, "")
    assert "overlays/openapi/20-realtime.yaml" in result.err
    assert "target $.paths['/forge/realtime/v1/publish'].post" in result.err
    moved = "operation moved, `POST /forge/realtime/v1/publish` → `POST /forge/realtime/v2/publish`"
    assert f"\n  {moved} (POST /forge/realtime/v2/publish): cosmetic, and deployed clients can fail\n" in result.err
    assert re.search("\n  description changed.*: cosmetic\n", result.err)
    assert "Adapt overlays/openapi" in result.err
    assert snapshot(git_repo) == before


def test_invalid_side_is_refused(repo: Path, history: Path, run: Run, tmp_path: Path) -> None:
    document = history / "spec/forge-containers-api.json"
    page = tmp_path / "page.json"
    page.write_text("<html>", encoding="utf-8")
    empty = tmp_path / "empty.json"
    empty.write_text('{"openapi": "3.0.1", "paths": {}}', encoding="utf-8")
    refused: list[tuple[Path, list[str | Path], str]] = [
        (history, ["nowhere"], "'nowhere' is neither a file nor a git revision"),
        (history, [document, "nowhere"], "Name a document, or a commit, branch or tag."),
        (history, [page], f"{page}: is HTML or XML"),
        (history, [empty], f"{empty}: no operation is tagged 'Forge Realtime'"),
        (repo, [], "'HEAD' is neither a file nor a git revision"),
    ]
    for root, arguments, message in refused:
        result = run("--root", root, "diff", *arguments)
        assert (result.code, result.out) == (1, "")
        assert message in result.err


def test_published_change_that_an_overlay_hides_is_reported(
    git_repo: Path, run: Run, pinned: Document, write: Callable[[str, Document], Path]
) -> None:
    actions = [
        {
            "target": "$.paths['/forge/realtime/v1/publish'].post.requestBody.content[*].schema.properties.name",
            "remove": True,
        },
        {
            "target": "$.paths['/forge/realtime/v1/publish'].post.requestBody.content[*].schema.properties",
            "update": {"name": {"type": "string"}},
        },
    ]
    (git_repo / "overlays/openapi/90.json").write_text(
        json.dumps({"overlay": "1.0.0", "actions": actions}), encoding="utf-8"
    )
    old = write("old", pinned)
    request(pinned)["properties"]["name"] = {"type": "array", "items": {"type": "string"}}
    new = write("new", pinned)
    report = json.loads(run("--root", git_repo, "diff", old, new, "--json").out)
    assert (report["verdict"], report["schema"]["changes"], report["breaks_deployed"]) == ("cosmetic", [], True)
    [hidden] = report["hidden"]
    assert (hidden["kind"], hidden["where"]) == ("type changed", [f"POST {PUBLISH}, body, name"])
    text = run("--root", git_repo, "diff", old, new).out
    line = f"- type changed, `str` → `list[str]` (POST {PUBLISH}, body, name)\n"
    assert f"\n## Deployed clients can fail because of\n\n{line}" in text
    assert f"\n## Published, and hidden by the overlays\n\n{line}" in text


@pytest.mark.parametrize(("part", "stated"), [("token", "array"), ("eventId", "integer")])
def test_overlay_that_would_hide_a_published_type_stops_the_run(
    git_repo: Path, run: Run, pinned: Document, part: str, stated: str, snapshot: Snapshot
) -> None:
    if part == "token":
        options(pinned)["properties"]["token"] = {"type": stated, "items": {"type": "string"}}
    else:
        content = operation(pinned)["responses"]["200"]["content"]["application/json"]
        content["schema"]["properties"] = {"eventId": {"type": stated}}
    repin(git_repo, pinned)
    before = snapshot(git_repo)
    for command in ("generate", "diff"):
        result = run("--root", git_repo, command)
        assert result.code == 1
        [line] = re.findall(r"overlays/openapi/20-realtime.yaml: line (\d+): action \d+, target ", result.err)
        lines = (git_repo / "overlays/openapi/20-realtime.yaml").read_text(encoding="utf-8").splitlines()
        assert "publish" in lines[int(line) - 1]
        values = f'properties.{part}: the document says type: "{stated}", the overlay type: "string". Adapt'
        assert f"`update` would hide a published value at {values}" in result.err
    assert snapshot(git_repo) == before
