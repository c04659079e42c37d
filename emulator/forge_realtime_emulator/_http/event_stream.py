"""Server-Sent Events."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from starlette.responses import StreamingResponse


class EventStream(StreamingResponse):
    """Response of Server-Sent Events, which no cache keeps and no proxy holds back.

    Args:
        messages: The data of each event, on one line. `None` sends a comment, so that both sides notice a dead
            connection.
    """

    def __init__(self, messages: AsyncGenerator[str | None]) -> None:
        # nginx, and what follows its ways, buffers responses unless told not to.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(_encode(messages), media_type="text/event-stream", headers=headers)


async def _encode(messages: AsyncGenerator[str | None]) -> AsyncIterator[str]:
    async with aclosing(messages):
        async for message in messages:
            yield ": still here\n\n" if message is None else f"data: {message}\n\n"
