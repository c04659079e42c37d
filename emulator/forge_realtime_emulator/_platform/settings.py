"""Settings, mostly for platform behaviour that Atlassian leaves unknown."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from .errors import EmulatorError
from .schema import Schema

_OPTIONAL = ("limit", "limit_retry_after", "invocation_lifetime", "cold_start_after")
"""Settings of whole seconds, or of operations, that may be `None`."""

READINGS: tuple[dict[str, Any], ...] = (
    {},
    {"token_lifetime": 60},
    {"invocation_lifetime": 60},
    {"token_by_installation": False},
    {"errors_in_200": False},
    {"overrides_in_order": True},
    {"empty_overrides_are_global": True},
    {"keep_unheard": True},
    {"replay_retention": 10},
    {"limit_retry_after": 1},
    {"cold_start_after": 900, "cold_start_duration": 300},
)
"""Readings of what Atlassian leaves unknown: the settings in which each differs from those of the session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Behaviour of the emulator. Each default is the strictest plausible reading of the documentation.

    Attributes:
        limit: Operations per second and installation: publish, subscribe and sign together. Documented: 50. `None`
            disables the limit, for load tests.
        limit_retry_after: Whole seconds in the `Retry-After` header of a response over the limit. `None` sends no such
            header. Atlassian does not say whether there is one.
        strict: Whether to refuse invocations and installations that are not registered. If not, they use the default
            context.
        invocation_lifetime: Whole seconds for which calls may name an invocation, counted from when a page caused it,
            or else from its first call. `None` means for ever. Unknown.
        token_lifetime: Whole seconds for which a signed token is valid; 0 makes every token expired. Unknown.
        token_by_installation: Whether a token may be signed on behalf of an installation. Unknown.
        replay_retention: Whole seconds for which events are kept for replay. Unknown.
        keep_unheard: Whether an event that reached nobody is kept for replay. Atlassian documents that `publish`
            "publishes events if there is an existing subscription".
        overrides_in_order: Whether the order of context overrides matters. Unknown.
        empty_overrides_are_global: Whether the context overrides `[]` are the same as a global channel. Documented as
            "equivalent"; whether the two reach each other is unknown.
        errors_in_200: Whether an operation that failed, for example because of its token or the limit, gets the status
            200 instead of a 4xx. The body has `errors` either way. Unknown.
        cold_start_after: Whole seconds without a call of the service after which the next call finds the container
            scaled to zero. `None` means never. Documented: 15 minutes.
        cold_start_duration: Whole seconds for which calls of the service get a 503 while the container starts.
            Documented: "a few minutes".

    Raises:
        ValueError: A value is out of range. The message names the setting.
    """

    limit: int | None = field(default=50)
    limit_retry_after: int | None = None
    strict: bool = False
    invocation_lifetime: int | None = None
    token_lifetime: int = 3600
    token_by_installation: bool = True
    replay_retention: int = 300
    keep_unheard: bool = False
    overrides_in_order: bool = False
    empty_overrides_are_global: bool = False
    errors_in_200: bool = True
    cold_start_after: int | None = None
    cold_start_duration: int = 120

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """Read settings from a JSON file. Those that it leaves out are as by default.

        The file is an object of settings by their names, such as `{"limit": 10, "token_lifetime": 60}`, or the result
        of `forge-realtime probe`, which has them under `settings`.

        Raises:
            EmulatorError: The file cannot be read or has no valid settings. The message names the setting.
        """
        try:
            given = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise EmulatorError(f"{path}: cannot be read as JSON: {error}.") from error
        if isinstance(given, dict):
            given = given.get("settings", given)
        if not isinstance(given, dict):
            raise EmulatorError(f'{path}: must be a JSON object of settings, such as {{"limit": 10}}.')
        names = [setting.name for setting in fields(cls)]
        if unknown := ", ".join(name for name in given if name not in names):
            raise EmulatorError(f"{path}: there is no setting {unknown}. The settings are {', '.join(names)}.")
        try:
            return cls(**given)
        except ValueError as error:
            in_json = str(error).replace("None", "null").replace("True or False", "true or false")
            raise EmulatorError(f"{path}: {in_json}") from error

    def __post_init__(self) -> None:
        for name in (*_OPTIONAL, "token_lifetime", "replay_retention", "cold_start_duration"):
            value, least = getattr(self, name), 1 if name == "limit" else 0
            optional = name in _OPTIONAL
            if (value is None and optional) or (type(value) is int and value >= least):
                continue
            raise ValueError(f"{name} must be a whole number of at least {least}{' or None' if optional else ''}.")
        for setting in fields(self):
            if setting.type == "bool" and not isinstance(getattr(self, setting.name), bool):
                raise ValueError(f"{setting.name} must be True or False.")


def _describe(name: str, kind: str) -> dict[str, Any]:
    if kind == "bool":
        return {"type": "boolean"}
    return {"type": "integer", "minimum": 1 if name == "limit" else 0, "nullable": name in _OPTIONAL}


CHANGES = Schema(
    {
        "type": "object",
        "additionalProperties": False,
        "properties": {setting.name: _describe(setting.name, str(setting.type)) for setting in fields(Settings)},
    }
)
"""The schema of changed settings."""
