"""A board on FastAPI. Run it with `uvicorn app:app`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import BackgroundTasks, Depends, FastAPI, Request
from fastapi.responses import StreamingResponse

from forge_realtime import AsyncRealtimeClient, Delivery, ForgeRealtimeError
from forge_realtime.asgi import InvocationMiddleware


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with AsyncRealtimeClient() as app.state.realtime:
        yield


app = FastAPI(lifespan=lifespan)
app.add_middleware(InvocationMiddleware)


def client(request: Request) -> AsyncRealtimeClient:
    realtime: AsyncRealtimeClient = request.app.state.realtime
    return realtime


Realtime = Annotated[AsyncRealtimeClient, Depends(client)]


async def presence(realtime: Realtime) -> AsyncIterator[None]:
    await realtime.publish("presence", "busy")
    yield
    await realtime.publish("presence", "idle")  # after the response, and still for this request


@app.post("/cards/{card}/move", dependencies=[Depends(presence)])
async def move(card: int, realtime: Realtime, background: BackgroundTasks) -> dict[str, str]:
    background.add_task(realtime.publish, "history", f"card {card} moved")  # no invocation to pass
    try:
        await realtime.publish("board-42", {"moved": card})
    except ForgeRealtimeError as error:
        return {"event": "may have arrived" if error.delivery is Delivery.UNKNOWN else "did not arrive"}
    return {"event": "accepted"}


@app.get("/report")
async def report(realtime: Realtime) -> StreamingResponse:
    async def rows() -> AsyncIterator[str]:
        for row in range(3):
            await asyncio.sleep(0)  # the work
            await realtime.publish("report", {"row": row})
            yield f"{row}\n"

    return StreamingResponse(rows(), media_type="text/plain")
