"""Container service that streams the answer of a language model, token by token, to the page that asked.

    uvicorn tests.examples.answer.service:app --port 8080

`FORGE_EGRESS_PROXY_URL` is the address of the platform, here of the emulator.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import BackgroundTasks, FastAPI, Request
from pydantic import BaseModel, StringConstraints

from forge_realtime import AsyncRealtimeClient
from forge_realtime.asgi import InvocationMiddleware

TOKEN_SECONDS = 0.01
"""Seconds per token: 100 tokens per second."""

log = logging.getLogger(__name__)


class Question(BaseModel):
    """Question of a page. The page chooses the id, so that it can subscribe before the answer begins."""

    id: Annotated[str, StringConstraints(pattern="^[0-9a-f-]{36}$")]
    text: Annotated[str, StringConstraints(min_length=1, max_length=1_000)]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Share one client for the life of the process. It logs retries at INFO."""
    logging.basicConfig(level=logging.INFO)
    async with AsyncRealtimeClient() as app.state.realtime:
        yield


app = FastAPI(lifespan=lifespan)
app.add_middleware(InvocationMiddleware)


@app.post("/answers", status_code=202)
async def ask(question: Question, request: Request, background: BackgroundTasks) -> None:
    """Start an answer, which continues in the background with the invocation of this request."""
    background.add_task(answer, question, request.app.state.realtime)


async def answer(question: Question, realtime: AsyncRealtimeClient) -> None:
    """Send every token; the stream merges them into few publishes. If the model fails, its end tells the page."""
    try:
        async with realtime.stream(f"answer-{question.id}") as stream:
            async for token in model(question.text):
                await stream.send(token)
    except Exception:
        log.exception("The answer was not finished.")
    else:
        log.info("%s", stream.report)


async def model(prompt: str) -> AsyncIterator[str]:
    """Fake language model: always the same answer, at the pace of a real one."""
    text = f"You asked: {prompt.strip()}\n\n" + " ".join(
        f"This is sentence {number}, and it came word by word, a hundred words in a second." for number in range(1, 21)
    )
    for token in re.findall(r"\s*\S+", text):
        await asyncio.sleep(TOKEN_SECONDS)
        yield token
