"""Realtime tokens: signed JWTs in the layout that Atlassian's own packages read."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jwt

from ._errors import Refused

TOKEN_LIFETIME = 3600
"""Seconds that a token is valid. Atlassian does not say how long theirs are."""

Permission = Literal["publish", "subscribe"]


class Tokens:
    """Signs and verifies realtime tokens with one random key.

    A token's payload has `channel.name`, `exp` and, where given, `permissions`, as in Atlassian's packages. Where the
    claims sit and which algorithm signs is not known; here they sit under `claims`, and the algorithm is HS256.

    Args:
        lifetime: Whole seconds that a token is valid; with 0 every token has already expired.
    """

    def __init__(self, lifetime: int) -> None:
        if lifetime < 0:
            raise ValueError("token_lifetime must be 0 or more seconds.")
        self._lifetime = lifetime
        self._key = secrets.token_bytes(32)

    def sign(self, channel: str, claims: Mapping[str, Any], permissions: Sequence[str] | None) -> tuple[str, int]:
        """Returns a token and when it expires, in epoch seconds."""
        expires_at = int(time.time()) + self._lifetime
        payload: dict[str, Any] = {"channel": {"name": channel}, "exp": expires_at, "claims": claims}
        if permissions is not None:
            payload["permissions"] = permissions
        return jwt.encode(payload, self._key, algorithm="HS256"), expires_at

    def verify(self, token: str, *, channel: str, permission: Permission) -> str:
        """Checks a token for one use, in the order of Atlassian's JavaScript SDK.

        Returns:
            The claims as canonical JSON: equal for equal claims, whatever the order of their keys.

        Raises:
            Refused: With status 400 and the documented code.
        """
        try:
            payload = jwt.decode(token, self._key, algorithms=["HS256"], options={"verify_exp": False})
        except (jwt.InvalidTokenError, ValueError, RecursionError) as error:
            raise _invalid("INVALID_TOKEN") from error
        if payload["exp"] <= time.time():
            raise _invalid("TOKEN_EXPIRED")
        if payload["channel"]["name"] != channel:
            raise _invalid("CHANNEL_NAME_MISMATCH")
        permissions = payload.get("permissions")
        if permissions is not None and permission not in permissions:
            raise _invalid("MISSING_PERMISSION")
        return json.dumps(payload["claims"], sort_keys=True)


def _invalid(code: str) -> Refused:
    return Refused(400, code, f"Realtime token validation failed: {code}")
