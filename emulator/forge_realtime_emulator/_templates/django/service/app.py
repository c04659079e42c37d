"""The ASGI application: Django, and the end of the process, which Django has no hook for."""

import os
from typing import Any

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
django_app = get_asgi_application()


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Handle a request, or the life of the server: answers end before the client is closed."""
    if scope["type"] != "lifespan":
        await django_app(scope, receive, send)
        return
    # Its settings are ready only now.
    from views import answers, realtime

    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await answers.finish()
    await realtime.aclose()
    await send({"type": "lifespan.shutdown.complete"})
