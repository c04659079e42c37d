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
from typing import Annotated, Any

from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel, StringConstraints
from starlette.routing import Route

from forge_realtime import AsyncPrivateStream, AsyncRealtimeClient
from forge_realtime.asgi import STOP_PATH, InvocationMiddleware, StopRoute

TOKEN_SECONDS = 0.01
"""Seconds per token: 100 tokens per second."""

log = logging.getLogger(__name__)


class Question(BaseModel):
    """Question of a page."""

    text: Annotated[str, StringConstraints(min_length=1, max_length=1_000)]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Share one client for the life of the process. It logs retries at INFO."""
    logging.basicConfig(level=logging.INFO)
    async with AsyncRealtimeClient() as app.state.realtime:
        yield


app = FastAPI(lifespan=lifespan)
app.add_middleware(InvocationMiddleware)
app.router.routes.append(Route(STOP_PATH, StopRoute()))


def client(request: Request) -> AsyncRealtimeClient:
    """Return the client of the process."""
    realtime: AsyncRealtimeClient = request.app.state.realtime
    return realtime


Realtime = Annotated[AsyncRealtimeClient, Depends(client)]


@app.post("/answers", status_code=202)
async def ask(question: Question, realtime: Realtime, background: BackgroundTasks) -> dict[str, Any]:
    """Start an answer, which goes on in the background, and return what the page needs to follow it."""
    stream = await realtime.private_stream("answer")
    background.add_task(answer, stream, question.text)
    return stream.handle


async def answer(stream: AsyncPrivateStream, question: str) -> None:
    """Send every token; the stream merges them into few publishes. If the model fails, its end tells the page."""
    try:
        async with stream:
            await stream.pipe(model(question))
    except Exception:
        log.exception("The answer was not finished.")


@app.post("/answers/renew")
async def renew(handle: dict[str, Any], realtime: Realtime) -> dict[str, Any]:
    """Return a new token to a page whose token has expired, or will soon."""
    renewed = await realtime.renew_handle(handle)  # checks the secret
    if renewed is None:
        raise HTTPException(404, "This answer has ended, or another replica makes it.")
    return renewed


async def model(prompt: str) -> AsyncIterator[str]:
    """Fake language model: always the same answer, at the pace of a real one."""
    text = f"You asked: {prompt.strip()}\n\n" + " ".join(
        f"This is sentence {number}, and it came word by word, a hundred words in a second." for number in range(1, 21)
    )
    for token in re.findall(r"\s*\S+", text):
        await asyncio.sleep(TOKEN_SECONDS)
        yield token
