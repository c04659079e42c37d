"""Text of a document reaches people as it is: no control of the terminal, no Markdown, no hidden character."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from generator.compare.documents import compare
from generator.compare.report import as_json, as_text
from generator.document import canonical_json
from generator.text import code_block, code_span, escape_hidden, markdown
from tests.generator.changes import PUBLISH, operation, request

HIDDEN = "\u202e\u2066\u200b\ufeff\x1b[31m\x00\x85\u2028\U000e0001"
MARKUP = "@admin fixes #1 ![x](https://x.example/y.png) <b>&amp; [z](//z) ``` `` www.x.example"


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("plain: naïve 😀 “quoted”\n\ttab", "plain: naïve 😀 “quoted”\n\ttab"),
        ("a\u202eb", r"a\u202eb"),
        ("\x1b[2J\r\x7f\x85", r"\u001b[2J\u000d\u007f\u0085"),
        ("\ufeff\u200d\u2028\ud800", r"\ufeff\u200d\u2028\ud800"),
        ("\U000e0001", r"\U000e0001"),
    ],
)
def test_hidden_characters_are_escaped(text: str, escaped: str) -> None:
    assert escape_hidden(text) == escaped
    escaped_again = escape_hidden(escaped)
    assert escaped_again == escaped


def test_escapes_mean_the_same_in_python_and_json() -> None:
    text = HIDDEN + 'quoted " and \\ backslash'
    document = {"info": text, text: 1}
    written = canonical_json(document)
    assert json.loads(written) == document
    assert escape_hidden(written) == written
    source = "found = " + json.dumps(text, ensure_ascii=False)
    found: dict[str, str] = {}
    exec(escape_hidden(source), found)
    assert found["found"] == text


@pytest.mark.parametrize(
    "text",
    [
        "POST /forge/realtime/v1/publish, body, options.token",
        'Unexpected keyword argument "context_overrides" for "PublishOptions"',
        "App Installations",
    ],
)
def test_plain_text_is_no_code_span(text: str) -> None:
    assert markdown(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "@admin",
        "fixes #1",
        "fixes GH-1",
        "deadbeef1",
        "![x](y)",
        "[x](y)",
        "<img src=x>",
        "&lt;",
        "https://x.example",
        "www.x.example",
        "_emphasis_",
        "**bold**",
        "a|b",
        "~x~",
        "$x$",
        "one\ntwo",
        "x\u202ey",
        "аdmin",  # noqa: RUF001 (Cyrillic on purpose)
    ],
)
def test_markup_becomes_code_span(text: str) -> None:
    assert markdown(text) == f"`{escape_hidden(text)}`".replace("\n", r"\n")


@pytest.mark.parametrize(
    ("text", "span"),
    [("a`b", "``a`b``"), ("`", "`` ` ``"), ("``x", "``` ``x ```"), ("", "``")],
)
def test_code_span_is_not_ended_by_its_backticks(text: str, span: str) -> None:
    assert code_span(text) == span


def test_code_block_is_not_ended_by_its_lines() -> None:
    assert code_block("one\n````\n@admin\u202e") == "`````text\none\n````\n@admin\\u202e\n`````"


def _hostile(document: dict[str, Any]) -> dict[str, Any]:
    changed = copy.deepcopy(document)
    schema = {"type": "string", "default": MARKUP, "description": HIDDEN}
    request(changed)["properties"][MARKUP] = schema
    request(changed)["properties"][f"x{HIDDEN}"] = {"type": "string", "enum": [HIDDEN, MARKUP]}
    parameters = operation(changed)["parameters"]
    parameters.append({"name": "`@admin`", "in": "query", "schema": {"type": "string", "default": "<img src=x>"}})
    changed["info"]["title"] = MARKUP
    return changed


def _outside_of_code(text: str) -> str:
    """Return Markdown without its code spans, as https://spec.commonmark.org/0.31.2/#code-spans has them."""
    rest, outside = text, ""
    while (start := rest.find("`")) >= 0:
        length = len(rest[start:]) - len(rest[start:].lstrip("`"))
        outside, body = outside + rest[:start], rest[start + length :]
        end = next(
            (i for i in range(len(body)) if body.startswith("`" * length, i) and body[i - 1 : i] != "`"
             and body[i + length : i + length + 1] != "`"),
            None,
        )  # fmt: skip
        assert end is not None, f"a code span is not closed: {rest[start:]}"
        rest = body[end + length :]
    return outside + rest


def test_changes_show_text_of_documents_in_code_spans_only(derived: dict[str, Any]) -> None:
    for old, new in ((derived, _hostile(derived)), (_hostile(derived), derived)):
        for change in compare(old, new).changes:
            line = str(change)
            assert escape_hidden(line) == line
            outside = _outside_of_code(line)
            assert not any(mark in outside for mark in ("@", "#", "<", "&", "![", "www.", "//")), line


@pytest.mark.slow
def test_report_and_pull_show_text_of_documents_in_code_spans_only(
    git_repo: Path, derived: dict[str, Any], tmp_path: Path, run: Callable[..., Any]
) -> None:
    from generator.compare.diff import diff

    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text(json.dumps(derived), encoding="utf-8")
    new.write_text(json.dumps(_hostile(derived)), encoding="utf-8")
    found = diff(git_repo, str(old), str(new))
    for text in (as_text(found), as_json(found)):
        assert escape_hidden(text) == text
    body = as_text(found).partition("\n")[2]
    for line in body.splitlines():
        outside = _outside_of_code(line.removeprefix("## ").removeprefix("- "))
        assert not any(mark in outside for mark in ("@", "#", "<", "&", "![", "www.", "//")), line
    assert json.loads(as_json(found))["verdict"] == "additive"
    # Nor does generated code contain hidden characters, which could show other code than what runs.
    result = run("--root", git_repo, "render", new, "--output", tmp_path / "made")
    assert (result.code, result.err) == (0, "")
    sources = [path.read_text(encoding="utf-8") for path in (tmp_path / "made").rglob("*.py")]
    assert all(escape_hidden(source) == source for source in sources)
    assert any(r"\u202e\u2066" in source for source in sources)
    module = next(
        path for path in (tmp_path / "made/models").glob("publish_request*.py") if "\\u202e" in path.read_text()
    )
    assert module.exists()


def test_error_shows_no_control_of_the_terminal(repo: Path, run: Callable[..., Any]) -> None:
    path = repo / "spec/forge-containers-api.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    document["paths"][PUBLISH]["post"]["tags"] = [f"Forge{HIDDEN}"]
    for other in [path for path in document["paths"] if "realtime" in path and path != PUBLISH]:
        del document["paths"][other]
    published = repo / "published.json"
    published.write_text(json.dumps(document), encoding="utf-8")
    result = run("--root", repo, "pull", published)
    assert result.code == 1
    assert "no operation is tagged 'Forge Realtime'" in result.err
    assert escape_hidden(result.err) == result.err


@pytest.mark.slow
@pytest.mark.parametrize("lines", [0, 1])
def test_run_is_finished_when_nobody_reads_its_output(repo: Path, repository: Path, lines: int) -> None:
    (repo / "generated.lock").unlink()
    command = [sys.executable, "-u", "-m", "generator", "--root", str(repo), "generate"]
    with subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for _ in range(lines):
            assert process.stdout.readline().startswith(b"pin: ")
        process.stdout.close()
        assert (process.stderr.read(), process.wait(60)) == (b"", 0)
    assert (repo / "generated.lock").read_bytes() == (repository / "generated.lock").read_bytes()
