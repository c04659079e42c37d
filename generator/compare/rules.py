"""Rules: what each kind of change means for users of the Python client.

The effects say what an upgrade does to code that uses the client, in terms of Semantic Versioning (https://semver.org/):

- breaking: code that ran or type-checked with the old client may fail with the new one;
- additive: all old code works as before, and there is something new or something deprecated;
- cosmetic: neither code nor a type checker notices.

Each rule also says whether deployed clients can fail when the platform makes the change. That is another question: a
moved path breaks every deployed client, but no code.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from generator.text import code_span, markdown

PARTS = ("major", "minor", "patch")


class Effect(IntEnum):
    """Effects of a change on code, the weakest first."""

    NONE = 0
    COSMETIC = 1
    ADDITIVE = 2
    BREAKING = 3

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True)
class Rule:
    """The meaning of one kind of change in one direction.

    Attributes:
        effect: The effect on code.
        why: The reason, in a few words.
        deployed: Whether deployed clients can fail.
    """

    effect: Effect
    why: str
    deployed: bool = False


@dataclass(frozen=True)
class Change:
    """One change of the document.

    Attributes:
        kind: A key of `RULES`.
        direction: "request" or "response".
        rule: The rule for this kind and direction.
        python: The affected Python names.
        where: The locations in the document.
        old: The old state, in short; `None` if there was none.
        new: The new state.
    """

    kind: str
    direction: str
    rule: Rule
    python: tuple[str, ...]
    where: tuple[str, ...]
    old: str | None = None
    new: str | None = None

    def __str__(self) -> str:
        """Describe the change in one line of Markdown."""
        first, *others = self.where
        more = f" and {len(others)} more" if others else ""
        return f"{self.kind}{between(self.old, self.new)} ({markdown(first)}{more})"


def between(old: str | None, new: str | None) -> str:
    """Return the old and the new state as a suffix, or an empty string if both are `None`."""
    texts = [code_span(text) for text in (old, new) if text is not None]
    return f", {' → '.join(texts)}" if texts else ""


def strongest(effects: Iterable[Effect]) -> Effect:
    """Return the strongest effect, or `NONE` if there are no effects."""
    return max(effects, default=Effect.NONE)


def next_version(version: str, effect: Effect) -> tuple[str, str]:
    """Return the part of a version to raise, and the next version.

    Below 1.0.0 each effect raises the next smaller part, as Cargo and npm's caret expect: breaking changes raise y of
    0.y.z, all others z.

    Args:
        version: `major.minor.patch`. A suffix such as `.dev1` is dropped.
        effect: The strongest effect of all changes.

    Returns:
        "major", "minor", "patch" or "none", and the version.
    """
    if effect is Effect.NONE:
        return "none", version
    index = Effect.BREAKING - effect
    if _numbers(version)[0] == 0:
        index = min(index + 1, 2)
    return PARTS[index], raised(version, PARTS[index])


def raised(version: str, part: str) -> str:
    """Return a version with one of `PARTS` raised."""
    numbers, index = _numbers(version), PARTS.index(part)
    numbers[index] += 1
    numbers[index + 1 :] = [0] * (2 - index)
    return ".".join(map(str, numbers))


def _numbers(version: str) -> list[int]:
    return [int("".join(filter(str.isdecimal, part)) or 0) for part in [*version.split("."), "0", "0"][:3]]


_BREAKING, _ADDITIVE, _COSMETIC = Effect.BREAKING, Effect.ADDITIVE, Effect.COSMETIC


def _both(effect: Effect, why: str, *, deployed: bool = False) -> dict[str, Rule]:
    return dict.fromkeys(("request", "response"), Rule(effect, why, deployed))


_NOTICE = _both(_ADDITIVE, "works as before; Semantic Versioning requires a minor release for a deprecation")

RULES: dict[str, dict[str, Rule]] = {
    "operation added": _both(_ADDITIVE, "a new module for `call()`"),
    "operation removed": _both(_BREAKING, "its module is removed", deployed=True),
    "operation renamed": _both(_BREAKING, "imports of its module fail"),
    "operation moved": _both(
        _COSMETIC, "names and types stay; deployed clients fail when the old address is removed", deployed=True
    ),
    "operation deprecated": _NOTICE,
    "operation no longer deprecated": _both(_COSMETIC, "only the deprecation is removed"),
    "security changed": _both(
        _BREAKING, "the hand-written package builds the credentials of a call and must be adapted", deployed=True
    ),
    "parameter added, optional": _both(_ADDITIVE, "calls without it still work"),
    "parameter added, required": _both(_BREAKING, "calls without it fail type checks and are rejected", deployed=True),
    "parameter removed": _both(_BREAKING, "calls that pass it fail", deployed=True),
    "parameter renamed": _both(_BREAKING, "calls that pass it by its old name fail", deployed=True),
    "parameter moved": _both(_COSMETIC, "the argument stays; it is sent in another part of the request", deployed=True),
    "body added, optional": _both(_ADDITIVE, "calls without it still work"),
    "body added, required": _both(_BREAKING, "calls without it fail type checks and are rejected", deployed=True),
    "body removed": _both(_BREAKING, "calls that pass it fail", deployed=True),
    "serialization changed": _both(
        _BREAKING, "names and types stay, but the platform parses the request differently", deployed=True
    ),
    "content type added": {
        "request": Rule(_ADDITIVE, "one more type of body is accepted"),
        "response": Rule(_COSMETIC, "the client reads the first type that it supports"),
    },
    "content type removed": {
        "request": Rule(_BREAKING, "this type of body is no longer accepted", deployed=True),
        "response": Rule(_COSMETIC, "the client reads the first type that it supports"),
    },
    "content type renamed": {
        "request": Rule(_COSMETIC, "names and types stay; old clients send the old media type", deployed=True),
        "response": Rule(_COSMETIC, "names and types stay, and it is parsed in the same way"),
    },
    "response body added": _both(_ADDITIVE, "`call()` returned None and now returns the body"),
    "response body removed": _both(_BREAKING, "`call()` now returns None", deployed=True),
    "status added": _both(
        _BREAKING, "`call()` may return another type: its result no longer type-checks", deployed=True
    ),
    "status added, same type": _both(_ADDITIVE, "an unexpected status becomes an expected one", deployed=True),
    "status removed": _both(_BREAKING, "a response with this status is now an error"),
    "status renamed": _both(
        _COSMETIC, "the type of the response stays; for old clients the new status is an error", deployed=True
    ),
    "property added, optional": _both(_ADDITIVE, "code that does not use it still works"),
    "property added, required": {
        "request": Rule(_BREAKING, "requests without it fail type checks and are rejected", deployed=True),
        "response": Rule(_ADDITIVE, "code that does not use it still works"),
    },
    "property removed": {
        "request": Rule(
            _BREAKING, "code that sets it fails; sent by old clients, it is ignored or rejected", deployed=True
        ),
        "response": Rule(_BREAKING, "code that reads it fails", deployed=True),
    },
    "property renamed": {
        "request": Rule(_BREAKING, "code that sets it by its old name fails", deployed=True),
        "response": Rule(_BREAKING, "code that reads it by its old name fails", deployed=True),
    },
    "became required": {
        "request": Rule(_BREAKING, "calls without it fail type checks and are rejected", deployed=True),
        "response": Rule(_ADDITIVE, "`Unset` leaves the type, so values are narrower"),
    },
    "became optional": {
        "request": Rule(_ADDITIVE, "it may be omitted"),
        "response": Rule(_BREAKING, "`Unset` joins the type, which code does not expect", deployed=True),
    },
    "became nullable": {
        "request": Rule(_ADDITIVE, "None is accepted"),
        "response": Rule(_BREAKING, "None joins the type, which code does not expect", deployed=True),
    },
    "no longer nullable": {
        "request": Rule(_BREAKING, "None is no longer accepted", deployed=True),
        "response": Rule(_ADDITIVE, "None leaves the type, so values are narrower"),
    },
    "type widened": {
        "request": Rule(_ADDITIVE, "all old values are still accepted"),
        "response": Rule(_BREAKING, "code does not expect the added type", deployed=True),
    },
    "type narrowed": {
        "request": Rule(_BREAKING, "one of the old types is no longer accepted", deployed=True),
        "response": Rule(_ADDITIVE, "values are narrower"),
    },
    "type changed": _both(_BREAKING, "the type is another one", deployed=True),
    "enum value added": {
        "request": Rule(_ADDITIVE, "one more value is accepted"),
        # Generated code rejects values outside of a Literal, so open_enums opens most enumerations in responses.
        "response": Rule(
            _BREAKING, "an exhaustive match misses it, and old clients reject the whole response", deployed=True
        ),
    },
    "enum value removed": {
        "request": Rule(_BREAKING, "the value is no longer accepted", deployed=True),
        "response": Rule(_ADDITIVE, "values are narrower"),
    },
    "known value added": _both(_ADDITIVE, "one more value has a name; any other value was allowed before"),
    "known value removed": _both(_COSMETIC, "the value has no name any more, but is still allowed"),
    "enumeration added": _both(_ADDITIVE, "some values have names; any other value is still allowed"),
    "enumeration removed": _both(_BREAKING, "imports of its alias fail"),
    "model renamed": _both(_BREAKING, "imports of its class fail"),
    "additional properties refused": {
        "request": Rule(_BREAKING, "unlisted properties are no longer accepted", deployed=True),
        "response": Rule(_BREAKING, "the class loses `additional_properties` and `[...]`"),
    },
    "additional properties allowed": _both(_ADDITIVE, "the class gains `additional_properties` and `[...]`"),
    "default changed": {
        "request": Rule(_BREAKING, "calls that omit it send another value"),
        "response": Rule(_COSMETIC, "the client does not apply defaults to responses"),
    },
    "constraint tightened": {
        "request": Rule(_BREAKING, "types stay, but values that were accepted may be rejected", deployed=True),
        "response": Rule(_COSMETIC, "types stay"),
    },
    "constraint loosened": {
        "request": Rule(_ADDITIVE, "types stay, and more values are accepted"),
        "response": Rule(_COSMETIC, "types stay"),
    },
    "deprecated": _NOTICE,
    "no longer deprecated": _both(_COSMETIC, "only the deprecation is removed"),
    "description changed": _both(_COSMETIC, "only descriptions and examples"),
}
