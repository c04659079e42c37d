"""Realtime tokens: the check before one is sent, and a cache of signed tokens."""

from __future__ import annotations

import base64
import json
import math
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Hashable
from concurrent.futures import Future
from typing import Final

from attrs import field, frozen

from .._core.call import Flow, PreparedRequest, Sleep, Waker
from .._core.clock import monotonic
from .._core.errors import Delivery, InvalidTokenError, TimedOutError
from .._core.fork import register_fork_reset
from .results import RealtimeToken

_ADVICE: Final = {
    "INVALID_TOKEN": "pass a token that sign_realtime_token returned",
    "TOKEN_EXPIRED": "sign another one",
    "CHANNEL_NAME_MISMATCH": "it was signed for another channel",
    "MISSING_PERMISSION": "it was signed without the permission to publish",
}

_DIGITS: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_"
_OTHER_BYTES: Final = bytes(set(range(256)) - set(_DIGITS))
_STANDARD_ALPHABET: Final = bytes.maketrans(b"-_", b"+/")
_STRINGS_AND_BRACKETS: Final = re.compile(r"""("(?:[^"\\]|\\.)*"|[\[\]{}])""", re.DOTALL)


class PlatformClock:
    """The platform's clock, as the `Date` of a response told it; until one has, the local clock. Thread-safe."""

    def __init__(self) -> None:
        # Seconds since the epoch when the monotonic clock was at 0.
        self._origin: float | None = None

    def set(self, now: float) -> None:
        """Set the clock, in seconds since the epoch."""
        self._origin = now - monotonic()

    def distrust(self) -> None:
        """Let no token count as expired until a response tells the time: by this clock, a new one had expired."""
        self._origin = -math.inf

    def now(self) -> float:
        """Return the time in seconds since the epoch; `-math.inf` if it is not known."""
        origin = self._origin
        return time.time() if origin is None else origin + monotonic()


def check_token(token: str, channel: str, now: float) -> None:
    """Refuse a token that the platform would refuse, without a request and without verifying its signature.

    Source: `validateToken` of the official JavaScript SDK (`@forge/realtime` 1.0.1), in its order. Tokens that it
    accepts are accepted; where it throws, the code is `INVALID_TOKEN`.

    Args:
        token: Text of the token.
        channel: Name of the channel to publish to.
        now: Time in seconds since the epoch.

    Raises:
        InvalidTokenError: The token would be refused; `code` is the platform's.
    """
    code = _failed_check(token, channel, now)
    # Crash reporters show the variables of every frame.
    del token
    if code is not None:
        raise InvalidTokenError(f"Realtime token validation failed: {code} ({_ADVICE[code]})", code=code)


def _failed_check(token: str, channel: str, now: float) -> str | None:
    fields = _fields(token)
    expires = fields.get("exp")
    if isinstance(expires, float) and expires <= now:
        return "TOKEN_EXPIRED"
    signed_for = fields.get("channel")
    if signed_for is None:
        return "INVALID_TOKEN"
    if not isinstance(signed_for, dict) or signed_for.get("name") != channel:
        return "CHANNEL_NAME_MISMATCH"
    permissions = fields.get("permissions")
    if permissions in (None, False, 0.0, ""):
        # Only these are false in JavaScript.
        return None
    if not isinstance(permissions, str | list):
        return "INVALID_TOKEN"
    return None if "publish" in permissions else "MISSING_PERMISSION"


def _fields(token: str) -> dict[str, object]:
    """Return the payload of a token; an empty one if it cannot be read."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    text = _decode_base64(parts[1])
    try:
        payload = _parse_json(text)
    except RecursionError:
        payload = _parse_json(_flatten(text))
    return payload if isinstance(payload, dict) else {}


def _decode_base64(text: str) -> str:
    """Decode base64 as leniently as Node's `Buffer`.

    It reads the lower byte of each UTF-16 code unit, knows both alphabets, ignores other characters and stops at `=`.
    """
    units = text.encode("utf-16-le", "surrogatepass")[::2].partition(b"=")[0]
    digits = units.translate(_STANDARD_ALPHABET, _OTHER_BYTES)
    # One digit alone makes no byte.
    digits = digits[: len(digits) - (len(digits) % 4 == 1)]
    return base64.b64decode(digits + b"=" * (-len(digits) % 4)).decode("utf-8", "replace")


def _parse_json(text: str) -> object:
    """Parse JSON as JavaScript does, with floats for all numbers; None if it is not JSON."""
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_int=float)
    except ValueError:
        return None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _flatten(text: str) -> str:
    """Replace all containers below the second level with 0, since JavaScript does not limit nesting as Python does."""
    open_containers: list[list[str]] = [[]]
    for piece in _STRINGS_AND_BRACKETS.split(text):
        if piece in ("[", "{"):
            open_containers.append([])
        open_containers[-1].append(piece)
        if piece in ("]", "}") and len(open_containers) > 1:
            container = "".join(open_containers.pop())
            if _parse_json(container) is None:
                return ""
            open_containers[-1].append(container if len(open_containers) <= 2 else "0")
    return "".join(open_containers[0]) if len(open_containers) == 1 else ""


@frozen(repr=False)
class TokenKey:
    """All that makes a token what it is, and the request that signs it. `repr` hides it."""

    parts: tuple[Hashable, ...]
    prepared: PreparedRequest = field(eq=False)


class TokenCache:
    """Signed tokens, by what they were signed for. One call at a time signs each; the others wait for it.

    Thread-safe and task-safe. The lock is never held during a call.
    """

    _MOST = 1000

    def __init__(self, clock: PlatformClock) -> None:
        self._clock = clock
        self.reset_after_fork()
        register_fork_reset(self)

    def reset_after_fork(self) -> None:
        """Forget everything: the lock and the calls that sign belong to the parent."""
        # Reentrant, because a signal handler may sign, or an abandoned call be collected, while it is held.
        self._lock = threading.RLock()
        # Each with the time of the monotonic clock after which to sign another.
        self._tokens: OrderedDict[Hashable, tuple[RealtimeToken, float]] = OrderedDict()
        # The keys of dropped tokens, by their text. Other calls may be publishing with them.
        self._dropped: OrderedDict[str, Hashable] = OrderedDict()
        self._signing: dict[Hashable, Future[RealtimeToken | None]] = {}

    def get(self, key: Hashable, sign: Flow[RealtimeToken], until: float) -> Flow[RealtimeToken]:
        """Return the token, signing it if necessary.

        Args:
            key: All that makes the token what it is.
            sign: Signs the token.
            until: Time of the monotonic clock until which to wait for another call that is signing it; then
                TimedOutError.
        """
        while (token := self.find(key)) is None:
            ours: Future[RealtimeToken | None] = Future()
            try:
                if (theirs := self._register(key, ours)) is ours:
                    token = yield from sign
                    self.keep(key, token)
                    ours.set_result(token)
                else:
                    token = yield from _wait(theirs, until)
            except BaseException as error:
                self._let_go(key, ours, error)
                raise
            if token is not None:
                return token
        return token

    def drop(self, text: str) -> Hashable | None:
        """Forget a token that the platform refused as expired. Return its key, or None if it was never in the cache."""
        with self._lock:
            for key, (token, _) in self._tokens.items():
                if token.token == text:
                    del self._tokens[key]
                    self._dropped[text] = key
                    if len(self._dropped) > self._MOST:
                        self._dropped.popitem(last=False)
                    return key
            return self._dropped.get(text)

    def find(self, key: Hashable) -> RealtimeToken | None:
        """Return the token, or None if it has to be signed."""
        with self._lock:
            token, renew_at = self._tokens.get(key, (None, 0.0))
            if token is None or monotonic() >= renew_at:
                return None
            self._tokens.move_to_end(key)
            return token

    def _register(self, key: Hashable, ours: Future[RealtimeToken | None]) -> Future[RealtimeToken | None]:
        """Return the future of the call that is signing the token, or else ours."""
        # Running, so that nobody who waits for it can cancel it.
        ours.set_running_or_notify_cancel()
        with self._lock:
            return self._signing.setdefault(key, ours)

    def keep(self, key: Hashable, token: RealtimeToken) -> None:
        """Add a token that has just been signed."""
        with self._lock:
            now = self._clock.now()
            if token.expires_at is not None and now != -math.inf:
                # A tenth of its life before it expires.
                self._tokens[key] = (token, monotonic() + 0.9 * (token.expires_at.timestamp() - now))
            if len(self._tokens) > self._MOST:
                self._tokens.popitem(last=False)
            self._signing.pop(key, None)

    def _let_go(self, key: Hashable, ours: Future[RealtimeToken | None], error: BaseException) -> None:
        """Release the calls that wait for this one."""
        with self._lock:
            if self._signing.get(key) is ours:
                del self._signing[key]
        if not ours.done():
            if isinstance(error, Exception):
                ours.set_exception(error)
            else:
                # This call was interrupted, which does not concern the others: one of them signs.
                ours.set_result(None)


def _wait(signing: Future[RealtimeToken | None], until: float) -> Flow[RealtimeToken | None]:
    """Wait for the call that is signing a token."""
    waker = Waker()
    signing.add_done_callback(lambda _: waker.wake())
    while not signing.done():
        if (left := until - monotonic()) <= 0:
            raise TimedOutError(
                "sign_realtime_token: another call is still signing this token; retry later",
                delivery=Delivery.NOT_SENT,
            )
        yield Sleep(left, waker)
    return signing.result()
