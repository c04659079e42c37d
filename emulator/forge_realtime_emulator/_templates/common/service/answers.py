"""Answers of a language model, streamed to the page that asked. Replace `model` with yours."""

import asyncio
import logging
from collections.abc import AsyncIterator

from forge_realtime import AsyncPrivateStream

GRACE = 240.0
"""Seconds that answers in progress have after SIGTERM. The platform kills the container 300 seconds after it."""

WORD_SECONDS = 0.05
"""Seconds that the pretended model takes for a word."""

log = logging.getLogger(__name__)


class Answers:
    """The answers in progress in this process."""

    def __init__(self) -> None:
        self._streams: dict[asyncio.Task[None], AsyncPrivateStream] = {}

    def start(self, question: str, stream: AsyncPrivateStream) -> None:
        """Stream an answer in a task that outlives the request."""
        task = asyncio.create_task(_answer(question, stream))
        self._streams[task] = stream
        task.add_done_callback(self._streams.pop)

    async def finish(self) -> None:
        """Wait for the answers, and stop those that take too long. Each sends its end mark, so that no page waits."""
        if self._streams:
            await asyncio.wait(self._streams, timeout=GRACE)
        for stream in self._streams.values():
            stream.stop("The service is restarted.")
        await asyncio.gather(*self._streams)


async def _answer(question: str, stream: AsyncPrivateStream) -> None:
    try:
        async with stream:
            await stream.pipe(model(question))
    except Exception:
        log.exception("An answer was not finished.")
    else:
        log.info("Answered: %s", stream.report)


async def model(question: str) -> AsyncIterator[str]:
    """Pretend to be a language model."""
    text = f"You asked: {question} This answer comes word by word, and the service publishes a few words at a time."
    for word in text.split():
        yield f"{word} "
        await asyncio.sleep(WORD_SECONDS)
