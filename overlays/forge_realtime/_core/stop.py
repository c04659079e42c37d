"""How a page stops its stream: the handle that it gets, and the streams of this process that a page can stop."""

from __future__ import annotations

import hmac
import json
import threading
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from .fork import register_fork_reset, reset_if_forked

if TYPE_CHECKING:
    from .call import Flow

STOP_PATH: Final = "/forge-realtime/stop"
"""Path that a page posts to, unless `private_stream(stop_path=...)` names another one."""
MOST_BYTES: Final = 4096
"""Longest body of a request to stop a stream."""
_MOST_REASON: Final = 200


class StreamHandle(dict[str, Any]):
    """All that a page needs to read one private stream, ready to be returned as JSON. `repr` hides it.

    Its items:
        channel: Name of the global channel.
        stream: Id of the stream.
        token: Token to subscribe with.
        expiresAt: Expiry of the token in seconds since the epoch; None if the platform does not say.
        stop: `{"path": ..., "secret": ...}`: where the page stops the stream, and the proof that it may.

    Whoever has the handle can read and stop the stream: return it to the page that asked, and keep it out of logs.
    """

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def copy(self) -> StreamHandle:
        """Return a copy that hides its items, too."""
        return StreamHandle(self)

    def __or__(self, other: Any) -> Any:
        merged = super().__or__(other)
        return merged if merged is NotImplemented else StreamHandle(merged)


class Stoppable(Protocol):
    """A private stream, as the registry sees it."""

    @property
    def handle(self) -> StreamHandle: ...

    def _renewal(self, live: Any) -> Flow[StreamHandle]:
        """Return the flow in which a client signs the handle anew."""
        ...

    def _stop_by_page(self, reason: str | None) -> None:
        """Stop the stream for its page. Any thread may call this."""
        ...


class _PrivateStreams:
    """The private streams of this process that have not ended, by id."""

    def __init__(self) -> None:
        self.reset_after_fork()
        register_fork_reset(self)

    def reset_after_fork(self) -> None:
        """Forget the parent's streams, which go on there."""
        self._lock = threading.RLock()
        # A stream that nobody entered a block of disappears with its last reference.
        self._streams: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()

    def add(self, stream: Stoppable) -> None:
        with self._lock:
            self._streams[stream.handle["stream"]] = stream

    def remove(self, stream: Stoppable) -> None:
        with self._lock:
            self._streams.pop(stream.handle["stream"], None)

    def find(self, stream_id: object, secret: object) -> Stoppable | None:
        """Return the stream whose handle has this id and this secret, or None."""
        reset_if_forked()
        if not (isinstance(stream_id, str) and isinstance(secret, str)):
            return None
        with self._lock:
            stream: Stoppable | None = self._streams.get(stream_id)
        if stream is None:
            return None
        expected: str = stream.handle["stop"]["secret"]
        matches = hmac.compare_digest(secret.encode(errors="surrogatepass"), expected.encode())
        return stream if matches else None


private_streams: Final = _PrivateStreams()


def stop_stream(method: str, body: bytes) -> tuple[int, bytes]:
    """Carry out a page's request to stop its stream.

    Args:
        method: Method of the request.
        body: JSON of the request: `{"stream": ..., "secret": ..., "reason": ...}`, the last one optional.

    Returns:
        Status and JSON of the response. An unknown stream and a wrong secret look the same.
    """
    if method != "POST":
        return 405, b'{"stopped":false,"error":"Use POST."}'
    try:
        request = json.loads(body) if len(body) <= MOST_BYTES else None
    except (ValueError, RecursionError):
        request = None
    reason = request.get("reason") if isinstance(request, Mapping) else None
    if not isinstance(request, Mapping) or not (reason is None or isinstance(reason, str)):
        return 400, b'{"stopped":false,"error":"Send {\\"stream\\": \\"...\\", \\"secret\\": \\"...\\"} as JSON."}'
    stream = private_streams.find(request.get("stream"), request.get("secret"))
    if stream is None:
        # Another process may have it: `cancel` of streams.js tries again.
        return 404, b'{"stopped":false}'
    stream._stop_by_page(None if reason is None else reason[:_MOST_REASON])  # noqa: SLF001 (not for the app)
    return 200, b'{"stopped":true}'
