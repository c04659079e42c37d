"""A document with hundreds of operations: selection, and clients for its other groups."""

from __future__ import annotations

import copy
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forge_realtime_emulator import Emulator
from generator.pipeline.patch import overlays_for, patch
from generator.pipeline.select import select
from tests.generator.conftest import repin
from tests.support.whole_document import GROUPS, OPERATIONS, schemas_of, whole_document

pytestmark = pytest.mark.slow

Document = dict[str, Any]
Run = Callable[..., Any]
Snapshot = Callable[[Path], dict[str, tuple[bytes, int]]]
METHODS = {"get", "put", "post"}


@pytest.fixture(scope="module")
def pinned(repository: Path) -> Document:
    document: Document = json.loads((repository / "spec/forge-containers-api.json").read_text(encoding="utf-8"))
    return document


@pytest.fixture(scope="module")
def whole(pinned: Document) -> Document:
    return whole_document(pinned)


def operations(document: Document) -> int:
    return sum(len(METHODS & item.keys()) for item in document["paths"].values())


def test_realtime_part_equals_that_of_pinned_document(repository: Path, pinned: Document, whole: Document) -> None:
    assert operations(whole) == operations(pinned) + len(GROUPS) * OPERATIONS > 600
    before = copy.deepcopy(whole)
    selected = select(whole)
    assert whole == before
    assert selected["paths"].keys() == select(pinned)["paths"].keys()
    derived = patch(selected, overlays_for(["Forge Realtime"], repository / "overlays/openapi"))
    assert derived == json.loads((repository / "spec/realtime.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("groups", [GROUPS[:1], GROUPS[3:5], GROUPS])
def test_selection_keeps_exactly_what_groups_use(whole: Document, groups: tuple[str, ...]) -> None:
    selected = select(whole, groups)
    assert operations(selected) == len(groups) * OPERATIONS
    assert selected["components"]["schemas"].keys() == set().union(*map(schemas_of, groups))
    assert selected["components"]["parameters"].keys() == {"Limit"}
    assert selected["components"]["headers"].keys() == {"RateLimit"}
    assert selected["components"]["responses"].keys() == {"Failed"}


def test_order_of_tags_does_not_matter(whole: Document) -> None:
    tags = [*GROUPS, "Forge Realtime"]
    shuffled = random.Random(7).sample(tags, len(tags))
    assert json.dumps(select(whole, tags)) == json.dumps(select(whole, shuffled))


CALLS = """
import sys
from forge_groups import Delivery, ForgeClient, ResponseError, RetryPolicy
from forge_groups._api.api.{module} import get_group_a_thing_3, put_group_a_thing_3
from forge_groups._api.models import GroupADog, GroupAThing3
import forge_realtime

with ForgeClient(sys.argv[1], retry=RetryPolicy(backoff_initial=0.001)) as client:
    live = client.for_installation("installation-1")
    thing = GroupAThing3(name="a", mood="calm", pet=GroupADog(kind="dog", barks=True))
    things = live.call(put_group_a_thing_3, "thing-1", body=thing, limit=3)
    print(type(things).__name__, bool(things.things))
    try:
        live.call(get_group_a_thing_3, "thing-1")
    except ResponseError as error:
        print(type(error).__name__, error.delivery is Delivery.REJECTED, error.status)
print(issubclass(ResponseError, forge_realtime.ResponseError))
"""


def test_client_for_two_other_groups(repo: Path, whole: Document, run: Run, tmp_path: Path, mypy_cache: Path) -> None:
    repin(repo, whole)
    command = ("client", "--tag", "Group A", "--tag", "Group B", "--package", "forge_groups", "--output", tmp_path)
    result = run("--root", repo, *command)
    assert (result.code, result.err) == (0, "")
    made = tmp_path / "forge_groups"
    assert result.out == f"made: {made}\n"
    assert len([*made.glob("_api/api/group_*/[gp]*.py")]) == 2 * OPERATIONS
    assert "`forge-realtime emulate` and export" in (made / "_client/address.py").read_text(encoding="utf-8")
    check = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(mypy_cache), str(made)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert check.returncode == 0, check.stdout

    overlays = overlays_for(["Group A"], repo / "overlays/openapi")
    assert [path.name for path in overlays] == ["10-header.yaml", "30-failures.yaml"]
    document = patch(select(whole, ["Group A", "Group B"]), overlays)
    with Emulator(document=document) as emulator:
        emulator.fail_next(status=503)
        emulator.fail_next(status=403, operation="getGroupAThing3")
        program = CALLS.format(module="group_a")
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        calls = subprocess.run(
            [sys.executable, "-c", program, emulator.url], check=False, capture_output=True, text=True, env=environment
        )
        assert calls.stderr == "", calls.stderr
        requests = emulator.requests
    assert calls.stdout.splitlines() == ["GroupAList3 False", "RejectedError True 403", "False"]
    first, second, third = requests[:3]
    assert (first.status, second.status, third.status) == (503, 200, 403)
    assert second.headers["forge-proxy-authorization"] == "Forge as=app,installationId=installation-1"
    assert second.headers["user-agent"].startswith("forge-groups/")
    assert second.body == {"name": "a", "mood": "calm", "pet": {"kind": "dog", "barks": True}}


def test_second_run_replaces_unedited_client(repo: Path, run: Run, tmp_path: Path, snapshot: Snapshot) -> None:
    def make(*tags: str) -> Any:
        chosen = [argument for tag in tags for argument in ("--tag", tag)]
        return run("--root", repo, "client", *chosen, "--package", "forge_more", "--output", tmp_path / "made")

    assert make("Forge Context", "App Installations").code == 0
    both = snapshot(tmp_path / "made")
    # Of a run that was killed.
    (tmp_path / "made/.generate-left").mkdir()
    (tmp_path / "made/.generate-left/file").touch()
    assert make("Forge Context").code == 0
    one = snapshot(tmp_path / "made")
    assert one.keys() < both.keys()

    result = make("Forge Kontext")
    assert (result.code, "no operation is tagged 'Forge Kontext'" in result.err) == (1, True)
    assert snapshot(tmp_path / "made") == one

    (tmp_path / "made/forge_more/__init__.py").write_text("mine = True\n", encoding="utf-8")
    edited = snapshot(tmp_path / "made")
    result = make("Forge Context")
    assert (result.code, "was edited by hand:\n  __init__.py\n" in result.err) == (1, True)
    assert snapshot(tmp_path / "made") == edited
    assert (
        run(
            "--root",
            repo,
            "client",
            "--tag",
            "Forge Context",
            "--package",
            "forge_more",
            "--force",
            "--output",
            tmp_path / "made",
        ).code
        == 0
    )
    assert {name: content for name, (content, _) in snapshot(tmp_path / "made").items()} == {
        name: content for name, (content, _) in one.items()
    }

    (tmp_path / "made/forge_more/client.lock").unlink()
    mine = snapshot(tmp_path / "made")
    result = make("Forge Context")
    assert (result.code, "was not made by this command" in result.err) == (1, True)
    assert snapshot(tmp_path / "made") == mine


@pytest.mark.parametrize("package", ["", "Forge", "forge-kvs", "1kvs", "a.b", "class", "json", "forge_realtime"])
def test_invalid_package_name_is_refused(repo: Path, run: Run, tmp_path: Path, package: str) -> None:
    result = run(
        "--root", repo, "client", "--tag", "Forge Context", "--package", package, "--output", tmp_path / "made"
    )
    assert result.code == 1
    assert "is not a valid package name" in result.err or "is the name of the Realtime client" in result.err
    assert not (tmp_path / "made").exists()
