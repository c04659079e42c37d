"""Realtime tokens: signed JWTs in the layout that Atlassian's packages read."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jwt

from .errors import RefusedError

Permission = Literal["publish", "subscribe"]


class Tokens:
    """Signer and verifier of realtime tokens, with one random key.

    As in Atlassian's packages, the payload of a token has `channel.name`, `exp` and, if given, `permissions`. The place
    of the claims and the algorithm are unknown; the emulator uses `claims` and HS256.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

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
