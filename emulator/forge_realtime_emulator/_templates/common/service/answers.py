"""Answers of a language model, streamed to the page that asked. Replace `model` with yours."""

import asyncio
import logging
from collections.abc import AsyncIterator
from uuid import UUID

from forge_realtime import AsyncStream

GRACE = 240.0
"""Seconds that answers in progress have after SIGTERM. The platform kills the container 300 seconds after it."""

WORD_SECONDS = 0.05
"""Seconds that the pretended model takes for a word."""

log = logging.getLogger(__name__)


def channel_of(answer: UUID) -> str:
    """Return the global channel of an answer."""
    return f"answer-{answer}"


def claims_of(answer: UUID) -> dict[str, str]:
    """Return the claims of the tokens of an answer.

    Only tokens with the same claims meet. The page chooses the id and tells nobody, so nobody else gets a token.
    """
    return {"answer": str(answer)}


class Answers:
    """The answers in progress in this process."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, question: str, stream: AsyncStream) -> None:
        """Stream an answer in a task that outlives the request."""
        task = asyncio.create_task(_answer(question, stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self) -> None:
        """Wait for the answers, and end those that take too long. Each sends its end mark, so that no page waits."""
        tasks = [*self._tasks]
        if tasks:
            await asyncio.wait(tasks, timeout=GRACE)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _answer(question: str, stream: AsyncStream) -> None:
    try:
        async with stream:
            async for word in model(question):
                await stream.send(word)
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
