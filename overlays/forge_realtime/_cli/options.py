"""Checks of options that the client would make too. Their messages name the option, not the client's argument."""

from __future__ import annotations

import os
from typing import Final, Literal

from .._core.errors import UsageError
from .._realtime.client import RealtimeClient

VARIABLE: Final = "FORGE_EGRESS_PROXY_URL"
START_EMULATOR: Final = "start `forge-realtime emulate` and export the address that it prints"


def open_client(url: str | None) -> RealtimeClient:
    """Make a client, or raise `UsageError` if the address is missing or not an http(s) URL."""
    if not url:
        raise UsageError(
            f"{VARIABLE} is not set. The platform sets it in the container; elsewhere {START_EMULATOR}, or pass --url."
        )
    try:
        return RealtimeClient(url)
    except UsageError:
        name = VARIABLE if url == os.environ.get(VARIABLE) else "--url"
        raise UsageError(
            f"{name} must be an http:// or https:// address without user, query or fragment,"
            " such as http://localhost:7072."
        ) from None


def check_account(as_: Literal["app", "user"], account: str | None) -> None:
    """Raise `UsageError` for an account without `--as user`."""
    if account is not None and as_ != "user":
        raise UsageError("--account names the user to act as: give it together with --as user, or leave it out.")
