"""`python -m generator generate`, `check` and `lock`."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from generator.pipeline.atomic_replace import replace_atomically
from generator.pipeline.lock import lock_text
from tests.generator.conftest import repin

pytestmark = pytest.mark.slow

Run = Callable[..., Any]
Snapshot = Callable[[Path], dict[str, tuple[bytes, int]]]


@pytest.fixture
def fake_render(monkeypatch: pytest.MonkeyPatch, repository: Path) -> None:
    """Replace rendering by a copy of the committed code."""

    def render(document: Any, config: Path, output: Path) -> None:
        source = repository / "generated/forge_realtime/_api"
        shutil.copytree(source, output, ignore=shutil.ignore_patterns("__pycache__"))

    monkeypatch.setattr("generator.pipeline.regenerate.render", render)


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_generate_makes_committed_files_and_then_changes_nothing(
    repository: Path, repo: Path, run: Run, snapshot: Snapshot, scratch: Path
) -> None:
    committed = {name: content for name, (content, _) in snapshot(repo).items()}
    shutil.rmtree(repo / "generated")
    (repo / "spec/realtime.json").unlink()
    (repo / "generated.lock").unlink()

    result = run("--root", repo, "generate")
    assert (result.code, result.err) == (0, "")
    assert [line.split(":")[0] for line in result.out.splitlines()[:6]] == [
        "pin",
        "select",
        "patch",
        "render",
        "fit",
        "lock",
    ]
    assert "added: spec/realtime.json\n" in result.out
    assert "added: generated/forge_realtime/_api/client.py\n" in result.out
    assert {name: content for name, (content, _) in snapshot(repo).items()} == committed

    before, folders = snapshot(repo), _folders(repo)
    result = run("--root", repo, "generate")
    assert (result.code, result.out) == (0, "nothing changed: everything is as generated.lock says\n")
    assert snapshot(repo) == before
    assert {name: time for name, time in _folders(repo).items() if name != "."} == {
        name: time for name, time in folders.items() if name != "."
    }
    assert list(scratch.iterdir()) == []


def _folders(base: Path) -> dict[str, int]:
    return {str(path.relative_to(base)): path.stat().st_mtime_ns for path in [base, *base.rglob("*")] if path.is_dir()}


def test_generate_reverts_manual_edit(repo: Path, run: Run, fake_render: None) -> None:
    committed = (repo / "generated/forge_realtime/_api/client.py").read_bytes()
    (repo / "generated/forge_realtime/_api/client.py").write_text("edited", encoding="utf-8")
    result = run("--root", repo, "generate")
    assert (result.code, result.out.splitlines()[-1]) == (0, "changed: generated/forge_realtime/_api/client.py")
    assert (repo / "generated/forge_realtime/_api/client.py").read_bytes() == committed


def test_changed_overlay_changes_document_code_and_lock(repo: Path, run: Run) -> None:
    overlay = repo / "overlays/openapi/90-more.yaml"
    overlay.write_text(
        "overlay: 1.0.0\n"
        "info: {title: t, version: '1'}\n"
        "actions:\n"
        "  - target: $.paths['/forge/realtime/v1/publish'].post.requestBody.content[*].schema.properties\n"
        "    update: {urgent: {type: object, title: Urgency}}\n",
        encoding="utf-8",
    )
    (repo / "generated/stray.txt").write_text("stray", encoding="utf-8")
    result = run("--root", repo, "generate")
    models = "generated/forge_realtime/_api/models"
    assert result.code == 0
    assert [line for line in result.out.splitlines() if line.startswith(("added", "changed", "removed"))] == [
        "changed: generated.lock",
        f"changed: {models}/__init__.py",
        f"changed: {models}/publish_request.py",
        f"added: {models}/urgency.py",
        "removed: generated/stray.txt",
        "changed: spec/realtime.json",
    ]
    assert not (repo / "generated/stray.txt").exists()
    assert (
        "overlays/openapi/90-more.yaml" in json.loads((repo / "generated.lock").read_text(encoding="utf-8"))["overlays"]
    )


def test_check_names_each_file_that_differs(
    repo: Path, run: Run, fake_render: None, snapshot: Snapshot, scratch: Path
) -> None:
    api = repo / "generated/forge_realtime/_api"
    (api / "__pycache__").mkdir()
    (api / "__pycache__/client.cpython-311.pyc").write_bytes(b"")
    result = run("--root", repo, "check")
    assert (result.code, result.err, result.out.splitlines()[-1]) == (0, "", "everything is as generated")

    with (api / "client.py").open("a", encoding="utf-8") as file:
        file.write("# edited\n")
    (api / "types.py").unlink()
    (repo / "generated/extra.py").write_text("", encoding="utf-8")
    (repo / "spec/realtime.json").write_text("{}", encoding="utf-8")
    (repo / "generated.lock").unlink()
    before = snapshot(repo)
    result = run("--root", repo, "check")
    assert result.code == 1
    assert result.err.splitlines()[1:-1] == [
        "  generated.lock: is missing",
        "  generated/extra.py: is extra",
        "  generated/forge_realtime/_api/client.py: differs",
        "  generated/forge_realtime/_api/types.py: is missing",
        "  spec/realtime.json: differs",
    ]
    assert result.err.splitlines()[-1] == "Run `make generate`, and commit the changes."
    assert snapshot(repo) == before
    assert list(scratch.iterdir()) == []


def test_edited_lock_must_be_removed(repo: Path, run: Run, fake_render: None) -> None:
    with (repo / "generated/forge_realtime/_api/client.py").open("a", encoding="utf-8") as file:
        file.write("# edited\n")
    (repo / "generated.lock").write_text(lock_text(repo, repo), encoding="utf-8")
    result = run("--root", repo, "check")
    assert result.code == 1
    assert result.err.splitlines()[1:] == [
        "  generated.lock: differs",
        "  generated/forge_realtime/_api/client.py: differs",
        "generated.lock was edited to match these files: remove it, run `make generate`, and commit the changes.",
    ]
    (repo / "generated.lock").unlink()
    assert run("--root", repo, "generate").code == 0
    assert run("--root", repo, "check").code == 0


def test_check_renders_for_real(repo: Path, run: Run) -> None:
    lock = repo / "generated.lock"
    lock.write_text(lock.read_text(encoding="utf-8").replace('"ruff": "', '"ruff": "9'), encoding="utf-8")
    result = run("--root", repo, "check")
    assert result.code == 1
    assert result.err.splitlines()[1:-1] == ["  generated.lock: differs"]


def test_lock_contains_hash_of_every_input_and_output(repo: Path, run: Run, snapshot: Snapshot) -> None:
    committed = (repo / "generated.lock").read_bytes()
    before = snapshot(repo)
    assert run("--root", repo, "lock") == (0, "", "")
    assert snapshot(repo) == before

    lock = json.loads(committed)
    assert lock.pop("programs") == {name: metadata.version(name) for name in ("openapi-python-client", "ruff")}
    assert list(lock) == ["document", "overlays", "generator", "derived", "generated"]
    hashes = {name: stated for part in lock.values() for name, stated in part.items()}
    assert hashes == {name: hashlib.sha256((repo / name).read_bytes()).hexdigest() for name in hashes}
    assert {name for name in hashes if name.startswith("generator/")} == {
        "generator/openapi-python-client.yaml",
        # Pull, comparison and release do not affect the output.
        *(name for name in before if re.fullmatch(r"generator/(pipeline/)?[a-z_]+\.py", name)),
    }
    assert {name for name in hashes if not name.startswith("generator/")} == {
        name for name in before if name.startswith(("spec/", "overlays/openapi/", "generated/"))
    } - {"spec/source.toml"}
    source = tomllib.loads((repo / "spec/source.toml").read_text(encoding="utf-8"))
    assert hashes["spec/forge-containers-api.json"] == source["sha256"]

    (repo / "generated.lock").unlink()
    assert run("--root", repo, "lock").code == 0
    assert (repo / "generated.lock").read_bytes() == committed


def _change_document(repo: Path) -> None:
    path = repo / "spec/forge-containers-api.json"
    path.write_text(path.read_text(encoding="utf-8").replace("3.0.1", "3.0.2"), encoding="utf-8")


def _bad_reference(repo: Path) -> None:
    document = json.loads((repo / "spec/forge-containers-api.json").read_text(encoding="utf-8"))
    success = document["paths"]["/forge/realtime/v1/token"]["post"]["responses"]["200"]
    success["content"]["application/json"]["schema"] = {"$ref": "#/components/schemas/Gone"}
    repin(repo, document)


def _without_tag(repo: Path) -> None:
    document = json.loads((repo / "spec/forge-containers-api.json").read_text(encoding="utf-8"))
    for path in [path for path in document["paths"] if "realtime" in path]:
        del document["paths"][path]
    repin(repo, document)


def _overlay(target: str) -> Callable[[Path], None]:
    def add(repo: Path) -> None:
        overlay = {"overlay": "1.0.0", "actions": [{"target": target, "remove": True}]}
        (repo / "overlays/openapi/99.json").write_text(json.dumps(overlay), encoding="utf-8")

    return add


def _no_source(repo: Path) -> None:
    (repo / "spec/source.toml").unlink()


def _no_document(repo: Path) -> None:
    (repo / "spec/forge-containers-api.json").unlink()


def _no_configuration(repo: Path) -> None:
    (repo / "generator/openapi-python-client.yaml").unlink()


@pytest.mark.parametrize("command", ["generate", "check"])
@pytest.mark.parametrize(
    ("damage", "messages"),
    [
        (_change_document, ["spec/forge-containers-api.json: its SHA-256 is", "Restore the document."]),
        (_bad_reference, ["spec/forge-containers-api.json: the reference '#/components/schemas/Gone' has no target"]),
        (_without_tag, ["spec/forge-containers-api.json: no operation is tagged 'Forge Realtime'", "'Forge Context'"]),
        (_overlay("$.no"), ["overlays/openapi/99.json: line 1: action 1, target $.no: matches nothing"]),
        (_overlay("$.info"), ["spec/realtime.json: is not a valid OpenAPI document", "'info' is a required property"]),
        (_no_source, ["spec/source.toml: cannot be read as TOML"]),
        (_no_document, ["spec/forge-containers-api.json: cannot be read"]),
        (_no_configuration, ["openapi-python-client", "exit code 2"]),
    ],
)
def test_failed_step_changes_nothing(
    repo: Path,
    run: Run,
    snapshot: Snapshot,
    scratch: Path,
    command: str,
    damage: Callable[[Path], None],
    messages: list[str],
) -> None:
    damage(repo)
    before, top = snapshot(repo), sorted(repo.iterdir())
    result = run("--root", repo, command)
    assert result.code == 1
    assert result.err.startswith("error: ")
    for message in messages:
        assert message in result.err
    assert snapshot(repo) == before
    assert sorted(repo.iterdir()) == top
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(("failure", "code"), [(OSError("disk full"), 1), (KeyboardInterrupt(), 130)])
def test_failure_while_rendering_leaves_no_scratch_folder(
    repo: Path,
    run: Run,
    snapshot: Snapshot,
    scratch: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: BaseException,
    code: int,
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise failure

    monkeypatch.setattr(subprocess, "run", interrupted)
    (repo / "generated.lock").unlink()
    before, top = snapshot(repo), sorted(repo.iterdir())
    assert run("--root", repo, "generate").code == code
    assert snapshot(repo) == before
    assert sorted(repo.iterdir()) == top
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_changes_nothing(repo: Path, repository: Path, snapshot: Snapshot, number: int) -> None:
    (repo / "generated.lock").unlink()
    before, top = snapshot(repo), sorted(repo.iterdir())
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "generator", "--root", repo, "generate"], cwd=repository, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    with process.stdout as output:
        # Printed before rendering.
        while not output.readline().startswith(b"patch:"):
            assert process.poll() is None
        process.send_signal(number)
        assert process.wait(60) == 130
    assert snapshot(repo) == before
    assert sorted(repo.iterdir()) == top


def _failing_replace(monkeypatch: pytest.MonkeyPatch, call: int, failure: BaseException, after: bool) -> None:
    """Make the nth `Path.replace` fail, before or after the replacement."""
    calls = 0

    def replace(source: Path, target: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == call and not after:
            raise failure
        source.rename(target)
        if calls == call:
            raise failure

    monkeypatch.setattr(Path, "replace", replace)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("call", range(1, 6))
@pytest.mark.parametrize("failure", [OSError("refused"), KeyboardInterrupt()])
def test_interrupted_replacement_is_undone(
    tmp_path: Path, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch, call: int, failure: BaseException, after: bool
) -> None:
    target, scratch = tmp_path / "target", tmp_path / "scratch"
    for path in (
        target / "a.txt",
        target / "tree/b.txt",
        scratch / "a.txt",
        scratch / "tree/b.txt",
        scratch / "new.txt",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(path), encoding="utf-8")
    before = snapshot(target)
    _failing_replace(monkeypatch, call, failure, after)
    with pytest.raises(type(failure)):
        replace_atomically({scratch / name: target / name for name in ("a.txt", "tree", "new.txt")}, scratch)
    assert snapshot(target) == before


@pytest.mark.parametrize("call", [1, 2, 4, 6])
def test_failed_replacement_changes_nothing(
    repo: Path, run: Run, fake_render: None, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    for name in ("spec/realtime.json", "generated/forge_realtime/_api/client.py", "generated.lock"):
        (repo / name).write_text("edited", encoding="utf-8")
    before, top = snapshot(repo), sorted(repo.iterdir())
    _failing_replace(monkeypatch, call, OSError("refused"), after=False)
    result = run("--root", repo, "generate")
    assert (result.code, result.err.startswith("error: refused")) == (1, True)
    assert snapshot(repo) == before
    assert sorted(repo.iterdir()) == top


def test_missing_program_is_error(repo: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    result = run("--root", repo, "lock")
    assert result.code == 1
    assert "openapi-python-client is not installed" in result.err
    assert "make setup" in result.err
