"""Tasks of the board. Run the worker with `celery -A tasks worker`."""

import atexit

from celery import Celery, Task

from forge_realtime import Delivery, ForgeRealtimeError, Invocation, RealtimeClient

app = Celery("tasks", broker="memory://")  # in your app: redis://, amqp://
app.conf.beat_schedule = {"announce": {"task": "tasks.announce", "schedule": 3600.0, "args": ["installation-1"]}}
realtime = RealtimeClient()
atexit.register(realtime.close)


@app.task(bind=True, ignore_result=True, max_retries=3)
def import_cards(self: Task, invocation: str, cards: list[int]) -> None:
    with Invocation.from_text(invocation).active():
        try:
            realtime.publish("board-42", {"imported": cards})
        except ForgeRealtimeError as error:
            # UNKNOWN: the page may have it already. Not retryable: it would fail again.
            if error.delivery is Delivery.UNKNOWN or not error.retryable:
                raise
            raise self.retry(exc=error, countdown=1) from error


@app.task(ignore_result=True)
def announce(installation: str) -> None:
    # Called by celery beat, where no request is: name the installation.
    realtime.for_installation(installation).publish_global("news", "a new day")
