"""Realtime tokens: signed JWTs in the layout that Atlassian's packages read."""

from __future__ import annotations

import hashlib
import json
import platform
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jwt

from .errors import RefusedError

Permission = Literal["publish", "subscribe"]


def derive_key(host: str, port: int) -> bytes:
    """Derive a signing key from an address, so that tokens survive a restart of the emulator there.

    It is no secret: the emulator signs for anybody who asks. The names of machine and home keep out the tokens of
    another machine or user.
    """
    parts = ["forge-realtime-emulator", host, port, platform.node(), str(Path.home())]
    return hashlib.sha256(json.dumps(parts).encode()).digest()


class Tokens:
    """Signer and verifier of realtime tokens.

    Args:
        key: The key, at least 32 bytes; by default a random one.

    As in Atlassian's packages, the payload of a token has `channel.name`, `exp` and, if given, `permissions`. The place
    of the claims and the algorithm are unknown; the emulator uses `claims` and HS256.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key or secrets.token_bytes(32)

    def sign(self, channel: str, claims: Mapping[str, Any], permissions: Sequence[str] | None, expires_at: int) -> str:
        """Sign a token that is valid until `expires_at`, in epoch seconds."""
        payload: dict[str, Any] = {"channel": {"name": channel}, "exp": expires_at, "claims": claims}
        if permissions is not None:
            payload["permissions"] = permissions
        return jwt.encode(payload, self._key, algorithm="HS256")

    def verify(self, token: str, *, channel: str, permission: Permission, now: float) -> str:
        """Verify a token for one use, in the order of Atlassian's JavaScript SDK.

        Returns:
            The claims as canonical JSON, which does not depend on the order of their keys.

        Raises:
            RefusedError: The token is not valid for this use: status 400 and the documented code.
        """
        try:
            # Expiry is checked below, by the emulator's clock.
            payload = jwt.decode(token, self._key, algorithms=["HS256"], options={"verify_exp": False})
        except (jwt.InvalidTokenError, ValueError, RecursionError) as error:
            raise _invalid("INVALID_TOKEN") from error
        if payload["exp"] <= now:
            raise _invalid("TOKEN_EXPIRED")
        if payload["channel"]["name"] != channel:
            raise _invalid("CHANNEL_NAME_MISMATCH")
        permissions = payload.get("permissions")
        if permissions is not None and permission not in permissions:
            raise _invalid("MISSING_PERMISSION")
        return json.dumps(payload["claims"], sort_keys=True)


def _invalid(code: str) -> RefusedError:
    return RefusedError(400, code, f"Realtime token validation failed: {code}", logical=True)
