"""Realtime tokens: the check before they are sent, and the cache of those that were signed."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from concurrent.futures import Future
from typing import Any, Final

from ._errors import InvalidTokenError, TimedOutError
from ._results import RealtimeToken

_ADVICE: Final = {
    "INVALID_TOKEN": "this is no token that sign_realtime_token returned",
    "TOKEN_EXPIRED": "sign another one",
    "CHANNEL_NAME_MISMATCH": "it was signed for another channel",
    "MISSING_PERMISSION": "it was signed without the permission to publish",
}


def check_token(token: str, channel: str) -> None:
    """Refuses a token that the platform would refuse, without a request.

    The same checks as the official JavaScript SDK, unverified and in the same order.

    Raises:
        InvalidTokenError: With the platform's code.
    """
    payload = _payload(token)
    if payload is None:
        raise _invalid("INVALID_TOKEN")
    expires = payload.get("exp")
    if isinstance(expires, int | float) and not isinstance(expires, bool) and expires <= time.time():
        raise _invalid("TOKEN_EXPIRED")
    signed_for = payload.get("channel")
    if not isinstance(signed_for, dict) or signed_for.get("name") != channel:
        raise _invalid("CHANNEL_NAME_MISMATCH")
    permissions = payload.get("permissions")
    if permissions is not None and not (isinstance(permissions, list) and "publish" in permissions):
        raise _invalid("MISSING_PERMISSION")


def _payload(token: str) -> dict[str, Any] | None:
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        decoded = base64.b64decode(parts[1] + "=" * (-len(parts[1]) % 4), altchars=b"-_", validate=True)
        payload = json.loads(decoded)
    except (ValueError, binascii.Error, RecursionError):
        return None
    return payload if isinstance(payload, dict) else None


def _invalid(code: str) -> InvalidTokenError:
    error = InvalidTokenError(f"Realtime token validation failed: {code} ({_ADVICE[code]})")
    error.code = code
    return error


class TokenCache:
    """Tokens by what they were signed for. Each is signed by one call at a time, while the others wait for it.

    Thread-safe and task-safe. The lock is never held while a call is made.
    """

    _MOST = 1000

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # With the time of the epoch after which to sign anew.
        self._tokens: OrderedDict[Hashable, tuple[RealtimeToken, float]] = OrderedDict()
        self._signing: dict[Hashable, Future[RealtimeToken | None]] = {}

    def get(self, key: Hashable, sign: Callable[[], RealtimeToken], timeout: float) -> RealtimeToken:
        """Returns the token, signing it if need be.

        Args:
            key: All that makes the token what it is.
            sign: Signs it.
            timeout: Seconds to wait for another call that is signing it.
        """
        while (found := self._find(key)) is not None:
            if isinstance(found, RealtimeToken):
                return found
            try:
                token = found.result(timeout)
            except TimeoutError as error:
                raise _still_signing(error) from None
            if token is not None:
                return token
        try:
            token = sign()
        except BaseException as error:
            self._fail(key, error)
            raise
        return self._keep(key, token)

    async def aget(self, key: Hashable, sign: Callable[[], Awaitable[RealtimeToken]], timeout: float) -> RealtimeToken:
        """As `get`."""
        while (found := self._find(key)) is not None:
            if isinstance(found, RealtimeToken):
                return found
            try:
                async with asyncio.timeout(timeout):
                    token = await asyncio.wrap_future(found)
            except TimeoutError as error:
                raise _still_signing(error) from None
            if token is not None:
                return token
        try:
            token = await sign()
        except BaseException as error:
            self._fail(key, error)
            raise
        return self._keep(key, token)

    def _find(self, key: Hashable) -> RealtimeToken | Future[RealtimeToken | None] | None:
        """The token, or what another call is about to give, or None: then the caller has to sign it."""
        with self._lock:
            if key in self._tokens:
                token, renew_at = self._tokens[key]
                if time.time() < renew_at:
                    self._tokens.move_to_end(key)
                    return token
                del self._tokens[key]
            if key in self._signing:
                return self._signing[key]
            future: Future[RealtimeToken | None] = Future()
            # From now on nobody who waits for it can cancel it.
            future.set_running_or_notify_cancel()
            self._signing[key] = future
            return None

    def _keep(self, key: Hashable, token: RealtimeToken) -> RealtimeToken:
        now = time.time()
        with self._lock:
            if token.expires_at is not None:
                # Renewed when a tenth of its life is left.
                self._tokens[key] = (token, now + 0.9 * (token.expires_at.timestamp() - now))
            if len(self._tokens) > self._MOST:
                self._tokens.popitem(last=False)
            future = self._signing.pop(key)
        future.set_result(token)
        return token

    def _fail(self, key: Hashable, error: BaseException) -> None:
        with self._lock:
            future = self._signing.pop(key)
        if isinstance(error, Exception):
            future.set_exception(error)
        else:
            # This call was interrupted, which is no business of the others: one of them signs it.
            future.set_result(None)


def _still_signing(error: TimeoutError) -> TimeoutError:
    if isinstance(error, TimedOutError):
        # That is what the other call ended with.
        return error
    return TimedOutError("sign_realtime_token: another call is still signing this token; try again later")
