"""A board on Flask. Run it with `flask run`."""

import atexit
import threading
from collections.abc import Iterator

from flask import Flask, Response, stream_with_context

from forge_realtime import Delivery, ForgeRealtimeError, Invocation, RealtimeClient, current_invocation
from forge_realtime.wsgi import InvocationMiddleware

realtime = RealtimeClient()
atexit.register(realtime.close)
app = Flask(__name__)
app.wsgi_app = InvocationMiddleware(app.wsgi_app)  # type: ignore[method-assign]


@app.post("/cards/<int:card>/move")
def move(card: int) -> dict[str, str]:
    try:
        realtime.publish("board-42", {"moved": card})
    except ForgeRealtimeError as error:
        return {"event": "may have arrived" if error.delivery is Delivery.UNKNOWN else "did not arrive"}
    return {"event": "accepted"}


@app.get("/report")
def report() -> Response:
    def rows() -> Iterator[str]:
        for row in range(3):
            realtime.publish("report", {"row": row})
            yield f"{row}\n"

    return Response(stream_with_context(rows()), mimetype="text/plain")


@app.post("/import")
def start_import() -> tuple[str, int]:
    # A thread inherits no invocation: hand it over.
    threading.Thread(target=import_cards, args=[current_invocation()]).start()
    return "", 202


def import_cards(invocation: Invocation) -> None:
    with invocation.active():
        realtime.publish("board-42", "imported")


def announce(installation: str) -> None:
    # Called by a timer, where no request is: name the installation.
    realtime.for_installation(installation).publish_global("news", "a new day")
