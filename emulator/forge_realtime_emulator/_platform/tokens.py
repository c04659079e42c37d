"""Realtime tokens: signed JWTs in the layout that Atlassian's own packages read."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jwt

from .errors import RefusedError

Permission = Literal["publish", "subscribe"]


class Tokens:
    """Signs and verifies realtime tokens with one random key.

    A token's payload has `channel.name`, `exp` and, where given, `permissions`, as in Atlassian's packages. Where the
    claims sit and which algorithm signs is not known; here they sit under `claims`, and the algorithm is HS256.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def sign(self, channel: str, claims: Mapping[str, Any], permissions: Sequence[str] | None, expires_at: int) -> str:
        """Returns a token that is valid until `expires_at`, in epoch seconds."""
        payload: dict[str, Any] = {"channel": {"name": channel}, "exp": expires_at, "claims": claims}
        if permissions is not None:
            payload["permissions"] = permissions
        return jwt.encode(payload, self._key, algorithm="HS256")

    def verify(self, token: str, *, channel: str, permission: Permission, now: float) -> str:
        """Checks a token for one use, in the order of Atlassian's JavaScript SDK.

        Returns:
            The claims as canonical JSON: equal for equal claims, whatever the order of their keys.

        Raises:
            RefusedError: With status 400 and the documented code.
        """
        try:
            # The emulator's own clock decides.
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
