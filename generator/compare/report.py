"""Report of a comparison, as Markdown for people and as JSON for machines."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from generator.compare.client_side import ClientSide
from generator.compare.diff import Difference
from generator.compare.rules import PARTS, Change, Effect, between
from generator.compare.typing_tests import TypingError
from generator.text import code_span, escape_hidden, markdown

FORMAT = 1

_MEANINGS = {
    Effect.BREAKING: "code that uses the client must change",
    Effect.ADDITIVE: "all code still works, and there is something new",
    Effect.COSMETIC: "nothing changes for code that uses the client",
    Effect.NONE: "nothing changed in the Realtime part",
}


def as_json(found: Difference) -> str:
    """Return the report as JSON, described in `as_document`."""
    return escape_hidden(json.dumps(as_document(found), indent=2, ensure_ascii=False), in_json=True) + "\n"


def as_document(found: Difference) -> dict[str, Any]:
    """Return the report as plain data.

    Every `verdict` and `class` is "breaking", "additive", "cosmetic" or "none".

    Returns:
        - `format`: 1; raised when a field is removed or changes its meaning.
        - `old`, `new`: `label`, `revision` (a commit or null), `version` of the package.
        - `verdict`: the strongest of the three verdicts below.
        - `bump`: "major", "minor", "patch" or "none", the part of the version to raise.
        - `next_version`: the version after that.
        - `breaks_deployed`: whether deployed clients can fail.
        - `schema`: `verdict`, and `changes` with `kind`, `direction`, `class`, `why`, `breaks_deployed`, `python`
          (names), `where` (locations in the document), `old` and `new` (short texts or null).
        - `python_api`: `verdict`, `breakages` of griffe (`kind`, `python`, `old`, `new`), `added` and `removed` (name
          to signature), `changed` (name to `old` and `new`).
        - `typing`: `verdict`, `tests` (their origin), `run`, `errors` in the tests, `to_fix` in the hand-written
          package and `generated` in generated code (each with `file`, `line`, `message`).
        - `arguments`: arguments of named calls that the document no longer supports (`removed`) or now supports
          (`added`).
        - `disagreements`: sentences.
        - `hidden`: changes as in `schema` that were published and that the overlays hide.
        - `outside`: numbers of operations `added`, `removed` and `changed` by tag; null if unknown.
    """
    bump, version = found.bump
    return {
        "format": FORMAT,
        "old": _describe_side(found.old),
        "new": _describe_side(found.new),
        "verdict": str(found.effect),
        "bump": bump,
        "next_version": version,
        "breaks_deployed": any(change.rule.deployed for change in [*found.changes, *found.hidden]),
        "schema": {
            "verdict": str(found.schema_effect),
            "changes": [_describe_change(change) for change in found.changes],
        },
        "python_api": {
            "verdict": str(found.api.effect),
            "breakages": [vars(breakage) for breakage in found.api.breakages],
            "added": found.api.added,
            "removed": found.api.removed,
            "changed": {name: {"old": old, "new": new} for name, (old, new) in found.api.changed.items()},
        },
        "typing": {
            "verdict": str(found.typing.effect),
            "tests": found.typing.tests,
            "run": found.typing.errors is not None,
            "errors": [_describe_error(error) for error in _typing_errors(found)[0]],
            "to_fix": [_describe_error(error) for error in _typing_errors(found)[1]],
            "generated": [_describe_error(error) for error in _typing_errors(found)[2]],
        },
        "arguments": {"removed": found.arguments.removed, "added": found.arguments.added},
        "disagreements": disagreements(found),
        "hidden": [_describe_change(change) for change in found.hidden],
        "outside": found.outside,
    }


def as_text(found: Difference) -> str:
    """Return the report in Markdown."""
    bump, version = found.bump
    lines = [
        f"# Realtime client: {found.old.label} → {found.new.label}",
        "",
        f"**{str(found.effect).capitalize()}**: {_MEANINGS[found.effect]}.",
    ]
    if bump != "none":
        lines[-1] += f" Version: {found.old.version} → {version} ({bump}{_explain_bump(found.effect, bump)})."
    lines += [
        "",
        "| compared | verdict |",
        "|---|---|",
        f"| documents, after selection and patching | {found.schema_effect} |",
        f"| Python API (griffe) | {found.api.effect} |",
        f"| typing tests of {found.typing.tests} | {_typing_verdict(found)} |",
    ]
    lines += _section("Where they disagree", disagreements(found))
    deployed = [_line(change) for change in [*found.changes, *found.hidden] if change.rule.deployed]
    lines += _section("Deployed clients can fail because of", deployed)
    for effect in (Effect.BREAKING, Effect.ADDITIVE, Effect.COSMETIC):
        changes = [f"{_line(change)}: {change.rule.why}" for change in found.changes if change.rule.effect is effect]
        if effect is Effect.BREAKING:
            changes += [
                f"{_code([argument])}: removed; calls that pass it raise UsageError, and nothing is sent"
                for argument in found.arguments.removed
            ]
        elif effect is Effect.ADDITIVE:
            changes += [f"{_code([argument])}: now supported" for argument in found.arguments.added]
        lines += _section(f"{str(effect).capitalize()} for code", changes)
    breakages = [
        f"{_code([breakage.python])}: {breakage.kind}{between(breakage.old, breakage.new)}"
        for breakage in found.api.breakages
    ]
    lines += _section("Breaking changes found by griffe", breakages)
    api = [f"added {_code([name])}: {code_span(text)}" for name, text in found.api.added.items() if text != "class"]
    api += [f"removed {_code([name])}" for name in found.api.removed]
    api += [f"changed {_code([name])}{between(*texts)}" for name, texts in found.api.changed.items()]
    lines += _section("Names and annotations", api)
    titles = "Typing tests that fail now", "To fix in the hand-written package", "Type errors in generated code"
    for title, shown in zip(titles, _typing_errors(found), strict=True):
        lines += _section(title, [f"`{it.file}:{it.line}`: {markdown(it.message)}" for it in shown])
    lines += _section("Published, and hidden by the overlays", [str(change) for change in found.hidden])
    lines += ["", _outside_line(found)]
    return "\n".join(lines) + "\n"


def _typing_errors(found: Difference) -> tuple[list[TypingError], list[TypingError], list[TypingError]]:
    """Return the errors in the tests, in the hand-written package, and in generated code."""
    errors = found.typing.errors or []
    tests = [error for error in errors if error.in_tests]
    to_fix = [error for error in errors if not (error.in_tests or error.in_generated)]
    return tests, to_fix, [error for error in errors if error.in_generated]


def _describe_error(error: TypingError) -> dict[str, Any]:
    return {"file": error.file, "line": error.line, "message": error.message}


def _describe_change(change: Change) -> dict[str, Any]:
    return {
        "kind": change.kind,
        "direction": change.direction,
        "class": str(change.rule.effect),
        "why": change.rule.why,
        "breaks_deployed": change.rule.deployed,
        "python": list(change.python),
        "where": list(change.where),
        "old": change.old,
        "new": change.new,
    }


def _explain_bump(effect: Effect, bump: str) -> str:
    if (effect, bump) in {(Effect.BREAKING, "minor"), (Effect.ADDITIVE, "patch")}:
        return f", as {effect} changes below 1.0.0 do; from 1.0.0 on: {PARTS[Effect.BREAKING - effect]}"
    return ""


def disagreements(found: Difference) -> list[str]:
    """Return sentences about comparisons that disagree on whether the change is breaking."""
    verdicts = {
        "the documents": found.schema_effect is Effect.BREAKING,
        "griffe": found.api.effect is Effect.BREAKING,
    }
    if found.typing.errors is not None:
        verdicts["the typing tests"] = found.typing.effect is Effect.BREAKING
    breaking = [name for name, verdict in verdicts.items() if verdict]
    others = [name for name, verdict in verdicts.items() if not verdict]
    if not (breaking and others):
        return []
    reasons = {
        "the documents": "The documents do not cover the order of arguments and the hand-written package.",
        "griffe": "griffe covers neither annotations nor what the platform accepts.",
        "the typing tests": "The typing tests cover only what they use.",
    }
    sentence = f"Breaking according to {' and '.join(breaking)}, not {' and '.join(others)}."
    return [" ".join([sentence, *(reasons[name] for name in others)])]


def _describe_side(side: ClientSide) -> dict[str, str | None]:
    return {"label": side.label, "revision": side.revision, "version": side.version}


def _typing_verdict(found: Difference) -> str:
    if found.typing.errors is None:
        return "not run: the code is the same"
    failed = sum(error.in_tests for error in found.typing.errors)
    return f"breaking: {_count(failed, 'error')}" if failed else "passed"


def _section(title: str, lines: list[str]) -> list[str]:
    return ["", f"## {title}", "", *(f"- {line}" for line in lines)] if lines else []


def _line(change: Change) -> str:
    return f"{_code(change.python)}: {change}" if change.python else str(change)


def _code(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(map(code_span, names))


def _outside_line(found: Difference) -> str:
    if found.outside is None:
        return "Outside of the Realtime part: unknown, since one side is a derived document."
    if not found.outside:
        return "Outside of the Realtime part, nothing changed."
    tags = [
        f"{markdown(tag)}: {', '.join(f'{number} {kind}' for kind, number in counts.items() if number)}"
        for tag, counts in found.outside.items()
    ]
    total: Counter[str] = Counter()
    for counts in found.outside.values():
        total.update(counts)
    return f"Outside of the Realtime part, {_count(total.total(), 'operation')} changed. {'; '.join(tags)}."


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
