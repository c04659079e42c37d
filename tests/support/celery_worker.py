"""Celery worker: python -m celery -A tests.support.celery_worker worker.

Messages and results go through the folder QUEUE.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from celery import Celery  # type: ignore[import-untyped]
from celery.signals import worker_init  # type: ignore[import-untyped]

from forge_realtime import AsyncRealtimeClient, Invocation, Quota, RealtimeClient, RetryPolicy

realtime = RealtimeClient(cache_tokens=True, quota=Quota(installation_id="installation-1"))
asynchronous = AsyncRealtimeClient()


def celery_app(folder: str | Path) -> Any:
    app = Celery("boards", broker="filesystem://", backend=f"file://{folder}")
    app.conf.broker_transport_options = {
        "data_folder_in": str(folder),
        "data_folder_out": str(folder),
        "control_folder": str(folder),
        "polling_interval": 0.02,
    }
    return app


app = celery_app(os.environ.get("QUEUE", "."))


@worker_init.connect  # type: ignore[untyped-decorator]
def before_the_fork(**_: object) -> None:
    # Opens a connection, fills the cache of tokens and starts the quota in the process that forks.
    live = realtime.for_invocation({"x-forge-invocation-id": "invocation-123"})
    live.publish("board-42", "parent", token=live.sign_realtime_token("board-42", {}))


@app.task(name="publish")  # type: ignore[untyped-decorator]
def publish(invocation: str, number: int) -> int:
    with Invocation.from_text(invocation).active():
        realtime.publish("board-42", f"sync {number}", token=realtime.sign_realtime_token("board-42", {}))
        asyncio.run(asynchronous.publish("board-42", f"async {number}"))
        with realtime.stream("board-42") as stream:
            stream.send(f"stream {number}")
    return os.getpid()


@app.task(name="fail")  # type: ignore[untyped-decorator]
def fail(invocation: str) -> None:
    with Invocation.from_text(invocation).active():
        realtime.with_options(retry=RetryPolicy(delivery="at_most_once")).publish("broken", "moved")
