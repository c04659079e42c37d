"""The registered contexts: what an invocation or an installation stands for."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from .errors import EmulatorError, RefusedError
from .schema import Schema
from .settings import Settings

OVERRIDES = ("board", "issue", "project", "content", "space", "repository", "pullRequest")
"""The documented parts of the context: Jira's, Confluence's, Bitbucket's."""

INVOKED_LIMIT = 1000
"""Invocations that are kept, of those that a page caused. How long the platform knows one is not known."""

_TEXT = {"type": "string", "minLength": 1}
_CONTEXT: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "installation": _TEXT,
        "module": _TEXT,
        "moduleType": _TEXT,
        "context": {
            "type": "object",
            "additionalProperties": False,
            "properties": dict.fromkeys(OVERRIDES, _TEXT),
        },
        "account": _TEXT,
        "fromUi": {"type": "boolean"},
    },
}
_REGISTRY = Schema(
    {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "default": _CONTEXT,
            "invocations": {"type": "object", "additionalProperties": _CONTEXT},
            "installations": {"type": "array", "items": _TEXT},
        },
    }
)


@dataclass(frozen=True, slots=True)
class Context:
    """Where an invocation comes from.

    Attributes:
        installation: The installation's id. Nothing is delivered across installations.
        module: The module's key. It and the product context are a channel's default scope.
        module_type: The module's type, as in the manifest.
        product: The parts of the product context, such as `{"project": "DEMO", "issue": "DEMO-1"}`.
        account: The Atlassian account of the user, or None; hidden in the repr.
        from_ui: Whether the invocation came from a UI context; only then it can publish to scoped channels.
    """

    installation: str = "default-installation"
    module: str = "default-module"
    module_type: str = "jira:issuePanel"
    product: Mapping[str, str] = field(default_factory=dict)
    account: str | None = field(default=None, repr=False)
    from_ui: bool = True

    def to_json(self) -> dict[str, Any]:
        """The form in which it is registered."""
        return {
            "installation": self.installation,
            "module": self.module,
            "moduleType": self.module_type,
            "context": dict(self.product),
            **({} if self.account is None else {"account": self.account}),
            "fromUi": self.from_ui,
        }


class Contexts:
    """The contexts by the ids that stand for them."""

    def __init__(self) -> None:
        self.default = Context()
        self.invocations: dict[str, Context] = {}
        self.installations: list[str] = []
        self._invoked: deque[str] = deque()

    def register(self, registry: Any) -> None:
        """Adds contexts, and replaces those of the same ids.

        Args:
            registry: `{"default": CONTEXT, "invocations": {"invocation-123": CONTEXT}, "installations": ["…"]}`, each
                part optional. A CONTEXT is `{"installation": "…", "module": "…", "moduleType": "…", "account": "…",
                "context": {"project": "DEMO"}, "fromUi": true}`; what it leaves out is as in the default one.

        Raises:
            ValueError: It is not of that form; nothing was registered.
        """
        if problem := _REGISTRY.problem(registry):
            raise ValueError(problem)
        if "default" in registry:
            self.default = _context(registry["default"], Context())
            self._add_installation(self.default.installation)
        for id_, described in registry.get("invocations", {}).items():
            context = _context(described, self.default)
            self.invocations[id_] = context
            self._add_installation(context.installation)
        for installation in registry.get("installations", []):
            self._add_installation(installation)

    def invoke(self, context: Context) -> str:
        """Registers a new invocation, and returns its id. Only the last ones are kept, `INVOKED_LIMIT` of them."""
        id_ = f"invocation-{uuid4()}"
        self.invocations[id_] = context
        self._invoked.append(id_)
        if len(self._invoked) > INVOKED_LIMIT:
            self.invocations.pop(self._invoked.popleft(), None)
        return id_

    def invocation(self, id_: str, settings: Settings) -> Context:
        """What an invocation stands for.

        Raises:
            RefusedError: It is not registered, and the emulator is strict.
        """
        if id_ in self.invocations:
            return self.invocations[id_]
        if settings.strict:
            raise _unknown("invocation")
        return self.default

    def installation(self, id_: str, settings: Settings) -> str:
        """The installation that an id stands for: itself when it is registered, else the default one.

        Raises:
            RefusedError: It is not registered, and the emulator is strict.
        """
        if id_ in self.installations or id_ == self.default.installation:
            return id_
        if settings.strict:
            raise _unknown("installation")
        return self.default.installation

    def to_json(self) -> dict[str, Any]:
        """Everything that is registered, in the form that `register` takes."""
        return {
            "default": self.default.to_json(),
            "invocations": {id_: context.to_json() for id_, context in self.invocations.items()},
            "installations": list(self.installations),
        }

    def invoked(self) -> list[str]:
        """The ids of the invocations that pages caused, oldest first."""
        return [*self._invoked]

    def _add_installation(self, id_: str) -> None:
        if id_ not in self.installations:
            self.installations.append(id_)


def read_contexts(path: Path) -> Any:
    """Reads a file of contexts, for `Contexts.register`.

    Raises:
        EmulatorError: It cannot be read, is no JSON, or not of the form that `register` takes.
    """
    try:
        registry = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise EmulatorError(f"{path}: cannot be read as JSON: {error}. See the README on contexts.") from error
    if problem := _REGISTRY.problem(registry):
        raise EmulatorError(f"{path}: {problem}. See the README on contexts.")
    return registry


def _context(described: Mapping[str, Any], default: Context) -> Context:
    return Context(
        installation=described.get("installation", default.installation),
        module=described.get("module", default.module),
        module_type=described.get("moduleType", default.module_type),
        product=dict(described.get("context", default.product)),
        account=described.get("account", default.account),
        from_ui=described.get("fromUi", default.from_ui),
    )


def _unknown(what: str) -> RefusedError:
    return RefusedError(
        401,
        "UNAUTHORIZED",
        f"Unauthorized request: this {what} is not registered, and the emulator is strict. Register it"
        " (--contexts FILE, POST /_emulator/contexts), or start the emulator without --strict.",
    )
