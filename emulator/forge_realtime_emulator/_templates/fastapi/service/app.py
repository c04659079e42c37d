"""The service. The page calls its routes with `invokeService`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from answers import Answers
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, StringConstraints
from starlette.routing import Route

from forge_realtime import AsyncRealtimeClient, ForgeRealtimeError
from forge_realtime.asgi import STOP_PATH, InvocationMiddleware, StopRoute


class Text(BaseModel):
    """Body of a message and of a question."""

    text: Annotated[str, StringConstraints(min_length=1, max_length=2_000)]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Share one client for the life of the process. Answers end before it is closed."""
    async with AsyncRealtimeClient() as app.state.realtime:
        app.state.answers = Answers()
        yield
        await app.state.answers.finish()


app = FastAPI(lifespan=lifespan)
app.add_middleware(InvocationMiddleware, after_end="refuse")
app.router.routes.append(Route(STOP_PATH, StopRoute(), methods=["POST"]))


def get_client(request: Request) -> AsyncRealtimeClient:
    """Return the client of the process."""
    client: AsyncRealtimeClient = request.app.state.realtime
    return client


Realtime = Annotated[AsyncRealtimeClient, Depends(get_client)]


@app.exception_handler(ForgeRealtimeError)
async def report_error(_: Request, error: ForgeRealtimeError) -> JSONResponse:
    """Tell the page whether an event may have arrived all the same."""
    return JSONResponse({"error": type(error).__name__, "delivery": error.delivery.value}, 502)


@app.get("/health")
async def health() -> dict[str, str]:
    """Answer the platform's health check, without a call to anything else: it has 3 seconds."""
    return {"status": "up"}


@app.post("/messages", status_code=202)
async def send_message(message: Text, realtime: Realtime) -> dict[str, bool]:
    """Publish to all pages in the same context, such as the same issue. The middleware knows the invocation."""
    result = await realtime.publish("messages", {"text": message.text})
    return {"heard": result.event_id is not None}


@app.post("/answers", status_code=202)
async def ask(question: Text, request: Request, realtime: Realtime) -> dict[str, Any]:
    """Start an answer that only this page can read and stop, and return what the page needs for it."""
    stream = await realtime.private_stream("answer")
    request.app.state.answers.start(question.text, stream)
    return stream.handle
