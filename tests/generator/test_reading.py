"""Reading and writing of documents."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generator.document import GeneratorError, canonical_json, parse_document, read_document, write_atomically

Run = Callable[..., Any]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "<!DOCTYPE html>\n<html></html>", "is HTML or XML"),
        ("a.yaml", "\ufeff <html><body>not: a document</body></html>", "is HTML or XML"),
        ("a.json", '{"openapi": "3.0.1", "paths": {', "is not valid JSON: .*Is it truncated"),
        ("a.json", "", "is not valid JSON"),
        ("a.json", '{"a": NaN}', "/a: JSON has no value for nan"),
        ("a.json", "[" * 100_000, "is not valid JSON"),
        ("a.json", "[]", "has a list at its root"),
        ("a.json", "3", "has a number or boolean at its root"),
        ("a.yaml", "a: [1", "is not valid YAML"),
        ("a.yaml", "a: 1\na: 2", "is not valid YAML: .*duplicate key"),
        ("a.yaml", "200: x\n'200': y", "/ has the key '200' twice"),
        ("a.yaml", "a:\n  1.5: x", "/a has the key 1.5, which is not a string"),
        ("a.yaml", "", "has nothing at its root"),
        ("a.yaml", "just words", "has a string at its root"),
    ],
)
def test_invalid_file_is_named_with_reason(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(GeneratorError, match=f"(?s)^{path}: .*{message}"):
        read_document(path)


def test_unreadable_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.json").write_bytes(b'{"a": "\xe9"}')
    for name in ("missing.json", "latin.json", "."):
        with pytest.raises(GeneratorError, match="cannot be read as UTF-8 text"):
            read_document(tmp_path / name)


def test_yaml_is_read_as_equivalent_json(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("responses: {200: &ok {a: on}, 404: *ok}\nno: 1.0.0\n", encoding="utf-8")
    document = read_document(path)
    assert document == {"responses": {"200": {"a": "on"}, "404": {"a": "on"}}, "no": "1.0.0"}
    assert document["responses"]["200"] is not document["responses"]["404"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@settings(deadline=None)
@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), json_values))
def test_canonical_json_keeps_values_and_order(document: dict[str, Any]) -> None:
    again = json.loads(canonical_json(document))
    assert again == document
    assert list(again) == list(document)


@settings(deadline=None)
@given(
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), json_values),
    st.booleans(),
    st.sampled_from([None, 0, 3, "\t"]),
    st.booleans(),
)
def test_canonical_text_does_not_depend_on_formatting(
    document: dict[str, Any], escaped: bool, indent: int | str | None, mark: bool
) -> None:
    written = json.dumps(document, ensure_ascii=escaped, indent=indent).encode("utf-8-sig" if mark else "utf-8")
    canonical = canonical_json(parse_document(written))
    assert canonical == canonical_json(document)
    assert canonical_json(parse_document(canonical.encode())) == canonical
    assert repr(parse_document(written)) == repr(document)  # 1.0 is not 1, and true is not 1


@given(st.from_regex(r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?", fullmatch=True))
def test_number_is_kept_exactly_or_refused(number: str) -> None:
    for language in ("{%s: %s}", "%s: %s"):
        content = (language % ('"n"', number)).encode()
        if not re.fullmatch("-?[0-9]+", number) and Decimal(str(float(number))) != Decimal(number):
            with pytest.raises(GeneratorError, match=f"the number {re.escape(number)} has no exact float"):
                parse_document(content)
            return
        kept = json.loads(canonical_json(parse_document(content)), parse_float=Decimal, parse_int=Decimal)
        assert kept == {"n": Decimal(number)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": {"b": 1, "c": 2, "b": 3}}', "the object with the keys b, c has the key 'b' twice"),
        (b'{"a": [{"b": "x\\udc00"}]}', r"/a/0/b: contains '\\udc00', half of a surrogate pair"),
        (b'{"\\ud800": 1}', r"/: contains '\\ud800'"),
        (b"a: !!binary aGk=", "/a: JSON has no value for YAML's bytes"),
        (b"a: .inf", "/a: JSON has no value for inf"),
        (b"a: .NaN", "/a: JSON has no value for nan"),
        (b"a: &a [*a]", "is not valid YAML: maximum recursion depth"),
        (
            b"a0: &a0 [1]\n"
            + b"".join(b"a%d: &a%d [%s]\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 10)) for n in range(1, 9)),
            "expands through aliases to more than 10000000 values",
        ),
    ],
)
def test_values_outside_json_are_refused(content: bytes, message: str) -> None:
    with pytest.raises(GeneratorError, match=message):
        parse_document(content)


def test_yaml_numbers_follow_version_1_2() -> None:
    content = b"[1_000, 0b1, 1_0.5, 010, 0o17, 0x1F, 12:30, .5, +1, 1e3]"
    assert parse_document(b"a: " + content) == {"a": ["1_000", "0b1", "1_0.5", 10, 15, 31, "12:30", 0.5, 1, 1000.0]}


def test_write_atomically_does_not_touch_equal_content(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, "é\n")
    before = path.stat()
    write_atomically(path, "é\n")
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert path.stat().st_ino == before.st_ino
    assert path.stat().st_mode & 0o777 == 0o644


def test_write_atomically_leaves_nothing_behind_on_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    path.write_text("old", encoding="utf-8")

    def refuse(source: Path, target: Path) -> None:
        raise OSError("refused")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="refused"):
        write_atomically(path, "new")
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
    assert path.read_text(encoding="utf-8") == "old"


def test_unwritable_output_is_error_without_traceback(run: Run, repo: Path) -> None:
    result = run("--root", repo, "select", "--output", repo / "no" / "such" / "folder.json")
    assert result.code == 1
    assert result.err.startswith("error: ")
    assert "no/such" in result.err
    assert "Traceback" not in result.err


def test_device_is_written_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_atomically(pipe, "text")
        assert os.read(reader, 10) == b"text"
        assert stat.S_ISFIFO(pipe.stat().st_mode)
    finally:
        os.close(reader)
