"""What both private streams add: the handle of the page, and the page's stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._core.call import Flow
from .._core.stop import StreamHandle, private_streams
from .publisher import Publisher


class PageStream:
    """Base of the streams that one page can read and stop."""

    _publisher: Publisher
    handle: StreamHandle
    _make_handle: Callable[[str, Any], Flow[StreamHandle]]

    def _open_to_page(self, make_handle: Callable[[str, Any], Flow[StreamHandle]]) -> Flow[None]:
        """Make the handle, and let the page stop the stream from now on."""
        self._make_handle = make_handle
        self.handle = yield from self._renewal(None)
        private_streams.add(self)

    def _renewal(self, live: Any) -> Flow[StreamHandle]:
        """Return the flow in which a client signs the handle anew."""
        return self._make_handle(self._publisher.buffer.stream_id, live)

    def _stop_by_page(self, reason: str | None) -> None:
        """Stop the stream for its page, as the routes do that take the page's request."""
        self._stop("page", reason)

    def _stop(self, by: str, reason: str | None) -> None:
        raise NotImplementedError
