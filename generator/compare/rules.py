"""What each kind of change means for those who use the Python client.

The classes say what an upgrade does to code that uses the client, as Semantic Versioning asks:

- breaking: code that runs or type-checks with the old client may not do so with the new one;
- additive: all old code goes on as it did, and there is something new to use or to turn away from;
- cosmetic: nothing that code or a type checker sees.

Whether clients that are deployed already fail when the platform makes the change is another question, and answered beside
the class: a moved path breaks no code and every running client. https://semver.org/
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

PARTS = ("major", "minor", "patch")


class Effect(IntEnum):
    """The classes, the weakest first."""

    NONE = 0
    COSMETIC = 1
    ADDITIVE = 2
    BREAKING = 3

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True)
class Rule:
    """What one kind of change means in one direction.

    Attributes:
        effect: Its class.
        why: The reason, in few words.
        deployed: Whether clients that are deployed already can fail by it.
    """

    effect: Effect
    why: str
    deployed: bool = False


@dataclass(frozen=True)
class Change:
    """One change of the document.

    Attributes:
        kind: A key of `RULES`.
        direction: "request" or "answer".
        rule: What the kind means in that direction.
        python: The Python names concerned.
        where: The places in the document.
        old: What was there, in short; None where nothing was.
        new: What is there now.
    """

    kind: str
    direction: str
    rule: Rule
    python: tuple[str, ...]
    where: tuple[str, ...]
    old: str | None = None
    new: str | None = None

    def __str__(self) -> str:
        first, *others = self.where
        more = f" and {len(others)} more" if others else ""
        return f"{self.kind}{between(self.old, self.new)} ({first}{more})"


def between(old: str | None, new: str | None) -> str:
    """What was and what is, to be set behind other words; empty where nothing is known."""
    texts = [f"`{text}`" for text in (old, new) if text is not None]
    return f", {' → '.join(texts)}" if texts else ""


def strongest(effects: Iterable[Effect]) -> Effect:
    """The strongest class; `NONE` of nothing."""
    return max(effects, default=Effect.NONE)


def next_version(version: str, effect: Effect) -> tuple[str, str]:
    """The part of a version that rises, and the version that follows.

    Below 1.0.0 all is shifted by one, as Cargo and npm's caret read it: 0.y.z breaks with y, and everything else is z.

    Args:
        version: `major.minor.patch`; what follows, such as `.dev1`, is dropped.
        effect: The strongest class of all changes.

    Returns:
        "major", "minor", "patch" or "none", and the version.
    """
    if effect is Effect.NONE:
        return "none", version
    place = Effect.BREAKING - effect
    if _numbers(version)[0] == 0:
        place = min(place + 1, 2)
    return PARTS[place], raised(version, PARTS[place])


def raised(version: str, part: str) -> str:
    """The version that follows when one of `PARTS` rises."""
    numbers, place = _numbers(version), PARTS.index(part)
    numbers[place] += 1
    numbers[place + 1 :] = [0] * (2 - place)
    return ".".join(map(str, numbers))


def _numbers(version: str) -> list[int]:
    return [int("".join(filter(str.isdecimal, part)) or 0) for part in [*version.split("."), "0", "0"][:3]]


_BREAKING, _ADDITIVE, _COSMETIC = Effect.BREAKING, Effect.ADDITIVE, Effect.COSMETIC


def _same(effect: Effect, why: str, deployed: bool = False) -> dict[str, Rule]:
    return dict.fromkeys(("request", "answer"), Rule(effect, why, deployed))


_NOTICE = _same(_ADDITIVE, "works as before, and is announced to go: Semantic Versioning asks for a minor release")

RULES: dict[str, dict[str, Rule]] = {
    "operation added": _same(_ADDITIVE, "a new module for `call()`"),
    "operation removed": _same(_BREAKING, "its module is gone", deployed=True),
    "operation renamed": _same(_BREAKING, "imports of its module fail"),
    "operation moved": _same(
        _COSMETIC, "names and types stay; clients that call the old address fail when it goes", deployed=True
    ),
    "operation deprecated": _NOTICE,
    "operation no longer deprecated": _same(_COSMETIC, "nothing but the notice goes"),
    "security changed": _same(
        _BREAKING, "the hand-written package builds what authorizes a call, and has to follow", deployed=True
    ),
    "parameter added, optional": _same(_ADDITIVE, "calls without it go on"),
    "parameter added, required": _same(_BREAKING, "calls without it do not type-check and are refused", deployed=True),
    "parameter removed": _same(_BREAKING, "calls that give it fail", deployed=True),
    "parameter renamed": _same(_BREAKING, "calls that give it by its old name fail", deployed=True),
    "parameter moved": _same(_COSMETIC, "the argument stays; it travels in another place", deployed=True),
    "body added, optional": _same(_ADDITIVE, "calls without it go on"),
    "body added, required": _same(_BREAKING, "calls without it do not type-check and are refused", deployed=True),
    "body removed": _same(_BREAKING, "calls that give it fail", deployed=True),
    "written otherwise": _same(
        _BREAKING, "names and types stay, but the platform reads what is sent in another way", deployed=True
    ),
    "content type added": {
        "request": Rule(_ADDITIVE, "one more type of body is taken"),
        "answer": Rule(_COSMETIC, "the client reads the first that it knows"),
    },
    "content type removed": {
        "request": Rule(_BREAKING, "this type of body is not taken any more", deployed=True),
        "answer": Rule(_COSMETIC, "the client reads the first that it knows"),
    },
    "content type renamed": {
        "request": Rule(_COSMETIC, "names and types stay; old clients name the old media type", deployed=True),
        "answer": Rule(_COSMETIC, "names and types stay, and it is read in the same way"),
    },
    "body of an answer added": _same(_ADDITIVE, "`call()` returned None, and returns what was answered now"),
    "body of an answer removed": _same(_BREAKING, "`call()` returns None now", deployed=True),
    "status added": _same(
        _BREAKING, "`call()` may return another type: its result no longer type-checks", deployed=True
    ),
    "status added, of the same type": _same(_ADDITIVE, "what was an unexpected status is an answer now", deployed=True),
    "status removed": _same(_BREAKING, "an answer of this status is an error now"),
    "status renamed": _same(
        _COSMETIC, "the type of the answer stays; old clients take the new status for an error", deployed=True
    ),
    "property added, optional": _same(_ADDITIVE, "code that does not know it goes on"),
    "property added, required": {
        "request": Rule(_BREAKING, "requests made without it do not type-check and are refused", deployed=True),
        "answer": Rule(_ADDITIVE, "code that does not know it goes on"),
    },
    "property removed": {
        "request": Rule(_BREAKING, "requests made with it fail; sent by old clients, it is ignored or refused", True),
        "answer": Rule(_BREAKING, "code that reads it fails", deployed=True),
    },
    "property renamed": {
        "request": Rule(_BREAKING, "requests made with its old name fail", deployed=True),
        "answer": Rule(_BREAKING, "code that reads it by its old name fails", deployed=True),
    },
    "became required": {
        "request": Rule(_BREAKING, "calls without it do not type-check and are refused", deployed=True),
        "answer": Rule(_ADDITIVE, "`Unset` leaves the type: what is read is narrower"),
    },
    "became optional": {
        "request": Rule(_ADDITIVE, "it may be left out"),
        "answer": Rule(_BREAKING, "`Unset` joins the type: readers do not expect it", deployed=True),
    },
    "became nullable": {
        "request": Rule(_ADDITIVE, "None may be given"),
        "answer": Rule(_BREAKING, "None joins the type: readers do not expect it", deployed=True),
    },
    "no longer nullable": {
        "request": Rule(_BREAKING, "None is not taken any more", deployed=True),
        "answer": Rule(_ADDITIVE, "None leaves the type: what is read is narrower"),
    },
    "widened": {
        "request": Rule(_ADDITIVE, "what was given before is still taken"),
        "answer": Rule(_BREAKING, "readers do not expect the added type", deployed=True),
    },
    "narrowed": {
        "request": Rule(_BREAKING, "a type that was given before is not taken any more", deployed=True),
        "answer": Rule(_ADDITIVE, "what is read is narrower"),
    },
    "retyped": _same(_BREAKING, "another type", deployed=True),
    "enum value added": {
        "request": Rule(_ADDITIVE, "one more value may be given"),
        # The generated parser refuses what is not in its Literal. generator/open_response_enums.py spares most answers that.
        "answer": Rule(_BREAKING, "an exhaustive match misses it, and old clients refuse the whole answer", True),
    },
    "enum value removed": {
        "request": Rule(_BREAKING, "the value is not taken any more", deployed=True),
        "answer": Rule(_ADDITIVE, "what is read is narrower"),
    },
    "known value added": _same(_ADDITIVE, "one more value has a name; any other was allowed before"),
    "known value removed": _same(_COSMETIC, "it has no name any more, and is allowed as any other"),
    "enumeration added": _same(_ADDITIVE, "some values have names; any other is allowed as before"),
    "enumeration removed": _same(_BREAKING, "imports of its alias fail"),
    "model renamed": _same(_BREAKING, "imports of its class fail"),
    "additional properties refused": {
        "request": Rule(_BREAKING, "properties beyond those listed are not taken any more", deployed=True),
        "answer": Rule(_BREAKING, "`additional_properties` and `[...]` are gone from the class"),
    },
    "additional properties allowed": _same(_ADDITIVE, "`additional_properties` and `[...]` come to the class"),
    "default changed": {
        "request": Rule(_BREAKING, "calls that leave it out send something else"),
        "answer": Rule(_COSMETIC, "the client fills no default into what it reads"),
    },
    "constraint tightened": {
        "request": Rule(_BREAKING, "the types stay, but what was taken may be refused", deployed=True),
        "answer": Rule(_COSMETIC, "the types stay"),
    },
    "constraint loosened": {
        "request": Rule(_ADDITIVE, "the types stay, and more is taken"),
        "answer": Rule(_COSMETIC, "the types stay"),
    },
    "deprecated": _NOTICE,
    "no longer deprecated": _same(_COSMETIC, "nothing but the notice goes"),
    "described otherwise": _same(_COSMETIC, "words and examples only"),
}
