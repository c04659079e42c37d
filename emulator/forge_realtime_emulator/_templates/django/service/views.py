"""The service. The page calls its routes with `invokeService`."""

import json

from answers import Answers
from django.core.exceptions import BadRequest
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.http import require_GET, require_POST

from forge_realtime import AsyncRealtimeClient
from forge_realtime.django import STOP_PATH, StopRoute

MOST_CHARACTERS = 2_000

realtime = AsyncRealtimeClient()
answers = Answers()


def read_text(request: HttpRequest) -> str:
    """Return the text of a message or a question."""
    try:
        text = json.loads(request.body)["text"]
    except (ValueError, KeyError, TypeError, RecursionError):
        text = None
    if not isinstance(text, str) or not 0 < len(text) <= MOST_CHARACTERS:
        raise BadRequest(f"Send a JSON object with a text of 1 to {MOST_CHARACTERS} characters.")
    return text


@require_GET
async def health(_: HttpRequest) -> JsonResponse:
    """Answer the platform's health check, without a call to anything else: it has 3 seconds."""
    return JsonResponse({"status": "up"})


@require_POST
async def send_message(request: HttpRequest) -> JsonResponse:
    """Publish to all pages in the same context, such as the same issue. The middleware knows the invocation."""
    result = await realtime.publish("messages", {"text": read_text(request)})
    return JsonResponse({"heard": result.event_id is not None}, status=202)


@require_POST
async def ask(request: HttpRequest) -> JsonResponse:
    """Start an answer that only this page can read and stop, and return what the page needs for it."""
    question = read_text(request)
    stream = await realtime.private_stream("answer")
    answers.start(question, stream)
    return JsonResponse(stream.handle, status=202)


urlpatterns = [
    path("health", health),
    path("messages", send_message),
    path("answers", ask),
    path(STOP_PATH[1:], StopRoute()),
]
