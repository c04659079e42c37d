"""Container service that works on a job and reports its progress to the page that started it.

    uvicorn tests.examples.progress.service:app --port 8080

`FORGE_EGRESS_PROXY_URL` is the address of the platform, here of the emulator.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import BackgroundTasks, FastAPI, Request
from pydantic import BaseModel, StringConstraints

from forge_realtime import AsyncRealtimeClient, ForgeRealtimeError
from forge_realtime.asgi import InvocationMiddleware

STEPS = ("Reading the board", "Sorting the issues", "Counting the votes", "Drawing the chart", "Saving the report")
STEP_SECONDS = 0.6
"""Seconds per step: this example only pretends to work."""

log = logging.getLogger(__name__)


class Job(BaseModel):
    """Job of a page. The page chooses the id, so that it can subscribe before the job begins."""

    id: Annotated[str, StringConstraints(pattern="^[0-9a-f-]{36}$")]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Share one client for the life of the process. It logs retries at INFO."""
    logging.basicConfig(level=logging.INFO)
    async with AsyncRealtimeClient() as app.state.realtime:
        yield


app = FastAPI(lifespan=lifespan)
app.add_middleware(InvocationMiddleware)


@app.post("/jobs", status_code=202)
async def start(job: Job, request: Request, background: BackgroundTasks) -> dict[str, int]:
    """Start a job, which continues in the background with the invocation of this request."""
    background.add_task(run, job, request.app.state.realtime)
    return {"steps": len(STEPS)}


async def run(job: Job, realtime: AsyncRealtimeClient) -> None:
    """Work through the steps."""
    try:
        for done, step in enumerate(STEPS):
            await report(realtime, job, state="running", done=done, step=step)
            await work(step)
    except Exception:
        log.exception("The job failed.")
        await report(realtime, job, state="failed")
    else:
        await report(realtime, job, state="done", done=len(STEPS))


async def work(step: str) -> None:
    """Do one step."""
    await asyncio.sleep(STEP_SECONDS)


async def report(realtime: AsyncRealtimeClient, job: Job, **progress: Any) -> None:
    """Report progress to the page. A failed report does not stop the job."""
    try:
        await realtime.publish(f"job-{job.id}", {"of": len(STEPS), **progress})
    except ForgeRealtimeError as error:
        log.warning("Progress was not reported: %s (%s)", error, error.delivery)
