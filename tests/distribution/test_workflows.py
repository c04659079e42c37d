"""The workflows run make targets only, so that everything also runs by hand. `make check` validates their schema."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from generator.release.propose import CHECKS

ROOT = Path(__file__).parents[2]
WORKFLOWS = {path.name: path for path in sorted((ROOT / ".github/workflows").iterdir())}
CI = ".ci/run"
# Without the variables of the make that runs these tests.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "GITHUB"))}


def jobs() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    for name, path in WORKFLOWS.items():
        workflow = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
        for job in workflow["jobs"].values():
            yield name, workflow, job


def steps(key: str) -> list[str]:
    return [step[key] for _, _, job in jobs() for step in job["steps"] if key in step]


def run(root: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=root, check=False, capture_output=True, text=True, env={**ENVIRONMENT, **environment}
    )


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("step", sorted(set(steps("run"))))
def test_every_step_is_an_existing_make_target(step: str) -> None:
    assert "${{" not in step, "pass outside values by the environment of the step"
    assert run(ROOT, "bash", "-n", "-c", step).stderr == ""
    for line in step.splitlines():
        if line == CI:
            assert os.access(ROOT / CI, os.X_OK)
            continue
        make, target, *settings = shlex.split(line)
        assert make == "make"
        assert not settings, "pass settings by the environment"
        assert re.search(rf"^{target}:.*## .", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        dry = run(ROOT, "make", "--dry-run", target)
        assert (dry.returncode, dry.stderr) == (0, "")


def test_ci_script_is_valid_bash() -> None:
    assert run(ROOT, "bash", "-n", CI).stderr == ""


def test_ci_skips_nothing_and_requires_coverage() -> None:
    lines = (ROOT / CI).read_text(encoding="utf-8").splitlines()
    required = [
        "export FORGE_REALTIME_BROWSER=required",
        "export FORGE_REALTIME_REDIS=required",
        "export COVERAGE=98",
    ]
    # The command of the README, after its settings.
    assert [line for line in lines if line in required or line == "make test"] == [*required, "make test"]


def test_ci_tests_every_claimed_python_and_two_that_may_fail() -> None:
    metadata = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    matrix = YAML(typ="safe").load(WORKFLOWS["ci.yml"].read_text(encoding="utf-8"))["jobs"]["matrix"]["strategy"]
    tested = matrix["matrix"]["python"]
    assert tested == re.findall(r"Python :: (3\.\d+)", "\n".join(metadata["classifiers"]))
    experimental = matrix["matrix"]["include"]
    assert experimental == [{"python": python, "experimental": True} for python in ("3.15", "3.14t")]
    assert matrix["fail-fast"] is False


def test_actions_are_pinned_to_a_commit() -> None:
    assert {action.partition("@")[0] for action in steps("uses")} == {"actions/checkout", "actions/setup-python"}
    for path in WORKFLOWS.values():
        for line in re.findall(r"uses: (.*)", path.read_text(encoding="utf-8")):
            assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)


def test_every_workflow_limits_permissions_and_time() -> None:
    for name, workflow, job in jobs():
        may = workflow["permissions"]
        assert all(access == "read" for access in may.values()), f"{name}: grant write access to jobs only"
        assert job.get("permissions", may), name
        assert workflow["concurrency"]["group"], name
        assert 1 <= job["timeout-minutes"] <= 60, name
        for step in job["steps"]:
            if (
                step.get("uses", "").startswith("actions/checkout")
                and "write" not in job.get("permissions", {}).values()
            ):
                assert step["with"]["persist-credentials"] is False, name


def test_propose_can_start_its_checks() -> None:
    workflow = YAML(typ="safe").load(WORKFLOWS[CHECKS].read_text(encoding="utf-8"))
    assert "workflow_dispatch" in workflow["on"]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone of a bare repository with an unpushed commit."""
    git(tmp_path, "init", "--quiet", "--bare", "--initial-branch", "main", "remote.git")
    git(tmp_path, "clone", "--quiet", "remote.git", "clone")
    root = tmp_path / "clone"
    for key, value in (("user.name", "x"), ("user.email", "x@example.com"), ("commit.gpgsign", "false")):
        git(root, "config", key, value)
    git(root, "switch", "--quiet", "--create", "main")
    shutil.copy2(ROOT / "Makefile", root / "Makefile")
    for folder in ("generated", "overlays/forge_realtime", "emulator"):
        (root / folder).mkdir(parents=True)
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "one")
    git(root, "push", "--quiet", "origin", "main")
    git(root, "commit", "--quiet", "--allow-empty", "--message", "Release 0.2.0")
    return root


def refs(clone: Path) -> list[str]:
    return git(clone, "ls-remote", "--heads", "--tags", "--refs", "origin").split()[1::2]


def test_make_push_pushes_the_release_and_outputs_its_tag(clone: Path, tmp_path: Path) -> None:
    git(clone, "tag", "--annotate", "--message", "0.2.0", "v0.2.0")
    result = run(clone, "make", "push", GITHUB_OUTPUT=str(tmp_path / "output"))
    assert result.returncode == 0, result.stderr
    assert refs(clone) == ["refs/heads/main", "refs/tags/v0.2.0"]
    assert git(clone, "ls-remote", "origin", "main").split()[0] == git(clone, "rev-parse", "HEAD")
    assert (tmp_path / "output").read_text(encoding="utf-8") == "tag=v0.2.0\n"


def test_make_push_without_a_release_pushes_nothing(clone: Path) -> None:
    before = git(clone, "ls-remote", "origin")
    result = run(clone, "make", "push")
    assert result.returncode != 0
    assert "make release" in result.stderr
    assert git(clone, "ls-remote", "origin") == before


def test_make_push_pushes_both_or_neither(clone: Path, tmp_path: Path) -> None:
    git(clone, "tag", "--annotate", "--message", "0.2.0", "v0.2.0")
    git(tmp_path, "clone", "--quiet", "remote.git", "colleague")
    who = ["-c", "user.name=c", "-c", "user.email=c@example.com"]
    git(tmp_path / "colleague", *who, "commit", "--quiet", "--allow-empty", "--message", "In the meantime")
    git(tmp_path / "colleague", "push", "--quiet", "origin", "HEAD")
    before = git(clone, "ls-remote", "origin")
    assert run(clone, "make", "push").returncode != 0
    assert git(clone, "ls-remote", "origin") == before
