"""The README and the manual: their size, links and names, and the numbers in them are those of the code."""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import forge_realtime
import forge_realtime_emulator
from forge_realtime import RetryPolicy
from forge_realtime_emulator import Emulator
from forge_realtime_emulator._platform.contexts import OVERRIDES, Context
from tests.docs.pages import PAGES, ROOT, blocks_of

TOP = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("CONTRIBUTING.md", "SECURITY.md")}
# Lists and references have the length that their subject has.
REFERENCES = {
    "docs/api.md",
    "docs/changelog.md",
    "docs/emulator-http.md",
    "docs/emulator-rules.md",
    "docs/glossary.md",
    "docs/index.md",
}


def words_of(page: str) -> str:
    return " ".join(PAGES[page].split())


def table_below(page: str, head: str) -> list[list[str]]:
    rows = PAGES[page].partition(head)[2].partition("\n\n")[0]
    return [row.strip("| ").split(" | ") for row in rows.splitlines() if row.startswith("| ")]


def test_readme_is_one_page() -> None:
    assert PAGES["README.md"].count("\n") <= 150


def test_each_page_has_one_subject() -> None:
    texts = {page: text for page, text in PAGES.items() if page not in {"README.md", *REFERENCES}}
    lengths = {page: text.count("\n") - text.count("\n<!-- test") for page, text in texts.items()}
    assert {page: length for page, length in lengths.items() if not 40 <= length <= 160} == {}


def test_every_page_is_in_the_contents() -> None:
    contents = set(re.findall(r"^([a-z-]+)$", PAGES["docs/index.md"], re.MULTILINE))
    assert contents == {Path(page).stem for page in PAGES if page.startswith("docs/")} - {"index"}


@pytest.mark.parametrize("page", [*PAGES, *TOP])
def test_linked_files_and_pictures_exist(page: str) -> None:
    text = {**PAGES, **TOP}[page]
    links = [link for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) if not re.match(r"https?://", link)]
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


@pytest.mark.parametrize("page", [*PAGES, *TOP])
def test_named_make_targets_exist(page: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    text = {**PAGES, **TOP}[page]
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", text, re.MULTILINE))
    assert {target for target in named if not re.search(rf"^{target}:", makefile, re.MULTILINE)} == set()


def test_reference_has_every_public_name() -> None:
    page = PAGES["docs/api.md"]
    named = set(re.findall(r"^\.\. auto(?:class|function|exception):: (\S+)$", page, re.MULTILINE))
    public = {*forge_realtime.__all__, *forge_realtime_emulator.__all__} - {"__version__", "__document__"}
    modules = (
        ROOT / f"overlays/forge_realtime/{name}.py" for name in ("asgi", "wsgi", "django", "logs", "otel", "redis")
    )
    for module in modules:
        for node in ast.parse(module.read_text(encoding="utf-8")).body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name[0] != "_":
                public.add(f"forge_realtime.{module.stem}.{node.name}")
    assert named == public


def test_every_public_name_is_documented() -> None:
    public = [(forge_realtime, name) for name in forge_realtime.__all__] + [
        (forge_realtime_emulator, name) for name in forge_realtime_emulator.__all__
    ]
    undocumented = []
    for module, name in public:
        value = getattr(module, name)
        if isinstance(value, str):
            continue
        members = vars(value).items() if inspect.isclass(value) else []
        undocumented += [f"{name}.{member}" for member, of in members if lacks_docstring(member, of)]
        undocumented += [] if inspect.getdoc(value) else [name]
    assert undocumented == []


def lacks_docstring(name: str, value: object) -> bool:
    callable_ = inspect.isfunction(value) or isinstance(value, (property, classmethod, staticmethod))
    return name[0] != "_" and callable_ and not inspect.getdoc(value)


def test_messages_are_those_of_the_code() -> None:
    """In a message, `…` stands for a value."""
    texts = [
        text for folder in ("overlays/forge_realtime", "emulator", "generator") for text in strings_in(ROOT / folder)
    ]
    messages = re.findall(r"^\| `([^`]+)` \|", PAGES["docs/troubleshooting.md"], re.MULTILINE)
    assert len(messages) >= 25
    assert [
        message for message in messages if not any(all(part in text for part in parts_of(message)) for text in texts)
    ] == []


def parts_of(message: str) -> list[str]:
    return [part.strip() for part in message.split("…") if part.strip()]


def strings_in(folder: Path) -> list[str]:
    texts = []
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                texts.append(
                    "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
                )
            elif isinstance(node, ast.ClassDef):
                texts.append(node.name)
    return texts


def test_stated_defaults_of_retries_are_those_of_the_policy() -> None:
    policy = RetryPolicy()
    for stated in (
        f"{policy.deadline:g} s for a whole call with all its waits, {policy.attempt_timeout:g} s for one attempt",
        f"and {policy.max_attempts} attempts",
        f"bound doubles from {policy.backoff_initial:g} s up to {policy.backoff_max:g} s",
        f'`delivery="{policy.delivery}"`, the default, sends an `UNKNOWN` event again',
    ):
        assert stated in words_of("docs/delivery.md")
    assert f"A call takes {policy.deadline:g} s at most" in words_of("README.md")


def test_context_table_lists_the_keys_and_defaults_of_the_emulator() -> None:
    rows = table_below("docs/emulator.md", "| key | what it is | default |\n")
    keys, texts, defaults = zip(*rows, strict=True)
    context = Context().to_json()
    named = ["installation", "module", "moduleType", "context", "account", "fromUi"]
    assert re.findall(r"`(\w+)`", " ".join(keys)) == named
    assert re.findall(r"`(.+?)`", " ".join(defaults)) == [
        value if isinstance(value, str) else json.dumps(value) for value in context.values()
    ]
    assert re.findall(r"`(\w+)`", next(text for text in texts if "board" in text)) == [*OVERRIDES]
    [as_json] = [block.code for block in blocks_of("docs/emulator.md") if block.language == "json"]
    Emulator().register(**json.loads(as_json))


def test_folder_table_lists_the_folders_of_the_repository() -> None:
    table = PAGES["docs/architecture.md"].partition("## The rooms")[0]
    folders = re.findall(r"^\| `([a-z_/]+)/` \|", table, re.MULTILINE)
    assert all((ROOT / folder).is_dir() for folder in folders)
    top = {path.name for path in ROOT.iterdir() if path.is_dir() and path.name[0] not in "._"} - {"dist"}
    assert top == {folder.partition("/")[0] for folder in folders}


@pytest.mark.parametrize("page", ["docs/transports.md", "docs/architecture.md"])
def test_named_files_of_the_package_exist(page: str) -> None:
    files = set(re.findall(r"`(_\w+/[\w.]+)`", PAGES[page]))
    assert files
    assert {file for file in files if not (ROOT / "overlays/forge_realtime" / file).is_file()} == set()


@pytest.mark.slow
def test_manual_builds_without_a_warning(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "sphinx", "--builder", "html", "--fail-on-warning", "--quiet", "docs", tmp_path],
        check=False,
        cwd=ROOT,
        env={**os.environ, "SOURCE_DATE_EPOCH": "1580601600"},
        capture_output=True,
        text=True,
    )
    assert run.stderr == ""
    assert run.returncode == 0
    pages = {page.stem for page in tmp_path.glob("*.html")}
    assert {Path(page).stem for page in PAGES if page.startswith("docs/")} <= pages
    listed = (tmp_path / "llms.txt").read_text(encoding="utf-8")
    assert all(f"{Path(page).stem}.md" in listed for page in PAGES if page.startswith("docs/"))
    whole = (tmp_path / "llms-full.txt").read_text(encoding="utf-8")
    assert "Did my event arrive" in whole
