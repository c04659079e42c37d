"""A board on Django. Run it with `python app.py runserver`, `gunicorn app:wsgi` or `uvicorn app:asgi`."""

import atexit
import sys
from collections.abc import Iterator

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse, StreamingHttpResponse
from django.urls import path

from forge_realtime import AsyncRealtimeClient, Delivery, ForgeRealtimeError, RealtimeClient

MIDDLEWARE = ["forge_realtime.django.InvocationMiddleware"]  # first of all
settings.configure(
    MIDDLEWARE=MIDDLEWARE, ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="only for this example", DEBUG=True
)
realtime = RealtimeClient()
atexit.register(realtime.close)
async_realtime = AsyncRealtimeClient()


def move(request: HttpRequest, card: int) -> JsonResponse:
    try:
        realtime.publish("board-42", {"moved": card})
    except ForgeRealtimeError as error:
        return JsonResponse({"event": "may have arrived" if error.delivery is Delivery.UNKNOWN else "did not arrive"})
    return JsonResponse({"event": "accepted"})


async def close(request: HttpRequest, card: int) -> JsonResponse:
    await async_realtime.publish("board-42", {"closed": card})
    return JsonResponse({"event": "accepted"})


def report(request: HttpRequest) -> StreamingHttpResponse:
    def rows() -> Iterator[str]:
        for row in range(3):
            realtime.publish("report", {"row": row})
            yield f"{row}\n"

    return StreamingHttpResponse(rows(), content_type="text/plain")


urlpatterns = [
    path("cards/<int:card>/move", move),
    path("cards/<int:card>/close", close),
    path("report", report),
]
wsgi = get_wsgi_application()
asgi = get_asgi_application()

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
