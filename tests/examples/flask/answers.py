"""Answers of a language model on Flask. Run it with `flask --app answers run`."""

import atexit
import logging
import threading
from collections.abc import Iterator
from typing import Any

from flask import Flask, request

from forge_realtime import Invocation, PrivateStream, RealtimeClient, current_invocation
from forge_realtime.wsgi import STOP_PATH, InvocationMiddleware, StopRoute

log = logging.getLogger(__name__)
realtime = RealtimeClient()
atexit.register(realtime.close)
app = Flask(__name__)
app.wsgi_app = InvocationMiddleware(app.wsgi_app)  # type: ignore[method-assign]
app.add_url_rule(STOP_PATH, "stop", StopRoute(), methods=["POST"])


@app.post("/answers")
def ask() -> dict[str, Any]:
    stream = realtime.private_stream("answer")
    arguments = (stream, request.json["text"], current_invocation())
    threading.Thread(target=answer, args=arguments, daemon=True).start()
    return stream.handle


def answer(stream: PrivateStream, question: str, invocation: Invocation) -> None:
    with invocation.active():  # for the lines of the log
        try:
            with stream:
                stream.pipe(model(question))
        except Exception:
            log.exception("The answer was not finished.")


def model(question: str) -> Iterator[str]:
    """Pretend to be a language model."""
    yield from ("You asked: ", question)
