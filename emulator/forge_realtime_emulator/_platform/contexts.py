"""Registered contexts of invocations and installations."""

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
"""The documented context overrides, of Jira, Confluence and Bitbucket."""

INVOKED_LIMIT = 1000
"""Number of invocations caused by pages that are kept. The platform's own number is unknown."""

_ARI = "ari:cloud:ecosystem::installation/"
"""The start of an installation's ARI, as `GET /invocation/context` spells it."""

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
REGISTRY = Schema(
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
    """Context of an invocation.

    Attributes:
        installation: The bare installation id. Nothing is delivered across installations.
        module: The module key. Module and product context form the default scope of a channel.
        module_type: The module type, as in the manifest.
        product: The product context, such as `{"project": "DEMO", "issue": "DEMO-1"}`.
        account: The Atlassian account id of the user, or `None`; hidden in the repr.
        from_ui: Whether the invocation came from a UI context. Only then can it publish to scoped channels.
    """

    installation: str = "default-installation"
    module: str = "default-module"
    module_type: str = "jira:issuePanel"
    product: Mapping[str, str] = field(default_factory=dict)
    account: str | None = field(default=None, repr=False)
    from_ui: bool = True

    @property
    def installation_ari(self) -> str:
        """The ARI of the installation."""
        return _ARI + self.installation

    def to_json(self) -> dict[str, Any]:
        """Return the form that `Contexts.register` takes."""
        return {
            "installation": self.installation,
            "module": self.module,
            "moduleType": self.module_type,
            "context": dict(self.product),
            **({} if self.account is None else {"account": self.account}),
            "fromUi": self.from_ui,
        }


def bare_installation(id_: str) -> str:
    """Return what stands after the last `/`: an installation is spelt as a bare id, or as an ARI that ends with it."""
    return id_.rpartition("/")[2] or id_


class Contexts:
    """Registry of contexts by invocation and installation id."""

    def __init__(self) -> None:
        self.default = Context()
        self.invocations: dict[str, Context] = {}
        self.installations: list[str] = []
        self._invoked: deque[str] = deque()

    def register(self, registry: Any) -> None:
        """Register contexts, replacing those with the same ids.

        Args:
            registry: `{"default": CONTEXT, "invocations": {"invocation-123": CONTEXT}, "installations": ["…"]}`, each
                part optional. A CONTEXT is `{"installation": "…", "module": "…", "moduleType": "…", "account": "…",
                "context": {"project": "DEMO"}, "fromUi": true}`. Omitted keys use the default context. An installation
                is a bare id or an ARI.

        Raises:
            ValueError: The registry has another form. Nothing was registered.
        """
        if problem := REGISTRY.problem(registry):
            raise ValueError(problem)
        if "default" in registry:
            self.default = _context(registry["default"], Context())
            self._add_installation(self.default.installation)
        for id_, described in registry.get("invocations", {}).items():
            context = _context(described, self.default)
            self.invocations[id_] = context
            self._add_installation(context.installation)
        for installation in registry.get("installations", []):
            self._add_installation(bare_installation(installation))

    def invoke(self, context: Context) -> str:
        """Register a new invocation and return its id. Only the last `INVOKED_LIMIT` are kept."""
        id_ = f"invocation-{uuid4()}"
        self.invocations[id_] = context
        self._invoked.append(id_)
        if len(self._invoked) > INVOKED_LIMIT:
            self.invocations.pop(self._invoked.popleft(), None)
        return id_

    def invocation(self, id_: str, settings: Settings) -> Context:
        """Return the context of an invocation.

        Raises:
            RefusedError: The invocation is not registered and the emulator is strict.
        """
        if id_ in self.invocations:
            return self.invocations[id_]
        if settings.strict:
            raise _unknown("invocation")
        return self.default

    def installation(self, id_: str, settings: Settings) -> str:
        """Return the bare id of an installation if it is registered, or else of the default one.

        Raises:
            RefusedError: The installation is not registered and the emulator is strict.
        """
        bare = bare_installation(id_)
        if bare == self.default.installation or bare in self.installations:
            return bare
        if settings.strict:
            raise _unknown("installation")
        return self.default.installation

    def listed(self) -> list[str]:
        """Return the ids of the installations: the registered ones, or else the default one."""
        return self.installations or [self.default.installation]

    def to_json(self) -> dict[str, Any]:
        """Return everything that is registered, in the form that `register` takes."""
        return {
            "default": self.default.to_json(),
            "invocations": {id_: context.to_json() for id_, context in self.invocations.items()},
            "installations": list(self.installations),
        }

    def invoked(self) -> list[str]:
        """Return the ids of the invocations caused by pages, oldest first."""
        return [*self._invoked]

    def _add_installation(self, id_: str) -> None:
        if id_ not in self.installations:
            self.installations.append(id_)


def read_contexts(path: Path) -> Any:
    """Read a file of contexts for `Contexts.register`.

    Raises:
        EmulatorError: The file cannot be read, is not JSON, or has another form than `register` takes.
    """
    try:
        registry = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise EmulatorError(f"{path}: cannot be read as JSON: {error}. See docs/emulator.md on contexts.") from error
    if problem := REGISTRY.problem(registry):
        raise EmulatorError(f"{path}: {problem}. See docs/emulator.md on contexts.")
    return registry


def _context(described: Mapping[str, Any], default: Context) -> Context:
    return Context(
        installation=bare_installation(described.get("installation", default.installation)),
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
