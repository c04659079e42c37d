"""The web service, which leaves the work to Celery. Run it with `flask run`."""

from flask import Flask, request
from tasks import import_cards

from forge_realtime import current_invocation
from forge_realtime.wsgi import InvocationMiddleware

app = Flask(__name__)
app.wsgi_app = InvocationMiddleware(app.wsgi_app)  # type: ignore[method-assign]


@app.post("/import")
def start_import() -> tuple[str, int]:
    invocation = current_invocation()
    if invocation is None:
        return "This request comes from outside of the app.", 400
    import_cards.delay(invocation.to_text(), request.json)
    return "", 202
