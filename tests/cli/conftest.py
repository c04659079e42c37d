"""Fixtures that run the command line in this process."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from forge_realtime import RetryPolicy
from forge_realtime._cli.commands import cli
from forge_realtime_emulator import Emulator

Run = Callable[..., Result]

VARIABLES = (
    "FORGE_EGRESS_PROXY_URL",
    "FORGE_REALTIME_ACCOUNT",
    "FORGE_REALTIME_INVOCATION",
    "FORGE_REALTIME_TOKEN",
)


@pytest.fixture
def own(realtime_emulator: Emulator) -> Emulator:
    """Return the plugin's emulator, in a fresh state."""
    return realtime_emulator


@pytest.fixture
def run_at(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command with a given address and without waits between attempts."""
    monkeypatch.setattr(RetryPolicy, "backoff", lambda *_: 0.0)

    def run(url: str | None, *arguments: str, stdin: bytes | None = None, **environment: str) -> Result:
        variables = {**dict.fromkeys(VARIABLES), "FORGE_EGRESS_PROXY_URL": url, **environment}
        return CliRunner(catch_exceptions=False).invoke(cli, arguments, input=stdin, env=variables)

    return run


@pytest.fixture
def run(run_at: Run, own: Emulator) -> Run:
    """Run a command with the emulator's address."""
    return lambda *arguments, **given: run_at(own.url, *arguments, **given)
