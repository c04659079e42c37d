"""The service. The page calls its routes with `invokeService`."""

import json
from uuid import UUID

from answers import Answers, channel_of, claims_of
from django.core.exceptions import BadRequest
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.http import require_GET, require_POST

from forge_realtime import AsyncRealtimeClient

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
async def sign_token(_: HttpRequest, answer: UUID) -> JsonResponse:
    """Return what the page needs to subscribe to an answer. It subscribes before it asks, so it misses nothing."""
    channel = channel_of(answer)
    signed = await realtime.sign_realtime_token(channel, claims_of(answer), permissions=["subscribe"])
    return JsonResponse({"channel": channel, "token": signed.token})


@require_POST
async def ask(request: HttpRequest, answer: UUID) -> JsonResponse:
    """Start an answer. It outlives this request, so it goes to a global channel that a token secures."""
    question = read_text(request)
    live = realtime.for_invocation(request.headers)
    channel = channel_of(answer)
    signed = await live.sign_realtime_token(channel, claims_of(answer), permissions=["publish"])
    answers.start(question, live.stream_global(channel, token=signed))
    return JsonResponse({"channel": channel}, status=202)


urlpatterns = [
    path("health", health),
    path("messages", send_message),
    path("answers/<uuid:answer>/token", sign_token),
    path("answers/<uuid:answer>", ask),
]
