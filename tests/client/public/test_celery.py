"""Celery's own worker, as a program: a client that was used before the fork, and errors in results."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from forge_realtime import Delivery, Invocation, ServerError
from forge_realtime_emulator import Emulator
from tests.support.celery_worker import celery_app

INVOCATION = Invocation("invocation-123").to_text()
ROOT = Path(__file__).parents[3]


@contextmanager
def worker(pool: str, url: str, folder: Path) -> Iterator[tuple[Any, int]]:
    command = ["-m", "celery", "-A", "tests.support.celery_worker", "worker", "--pool", pool, "--concurrency", "2"]
    environment = os.environ | {"FORGE_EGRESS_PROXY_URL": url, "QUEUE": str(folder)}
    with (folder / "log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environment, stdout=log, stderr=log)
        try:
            yield celery_app(folder), process.pid
        finally:
            process.terminate()
            code = process.wait(30)
    assert code == 0, (folder / "log").read_text(encoding="utf-8")[-4000:]


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_tasks_publish_in_every_pool(pool: str, tmp_path: Path) -> None:
    with Emulator() as emulator:
        emulator.fail_next(status=500, channel="broken")
        with worker(pool, emulator.url, tmp_path) as (app, main):
            results = [app.send_task("publish", [INVOCATION, number]) for number in range(8)]
            processes = {result.get(timeout=60) for result in results}
            # The result holds the message of the error alone.
            with pytest.raises(ServerError) as caught:
                app.send_task("fail", [INVOCATION]).get(timeout=60)
        assert caught.value.delivery is Delivery.UNKNOWN
        assert (main in processes) == (pool == "threads")
        plain = [event.payload for event in emulator.events if "forgeStream" not in event.payload]
        assert Counter(plain) == Counter(
            ["parent", *(f"{kind} {number}" for kind in ("sync", "async") for number in range(8))]
        )
        assert sorted(stream.value for stream in emulator.streams) == [f"stream {number}" for number in range(8)]
        assert all(stream.ended and stream.error is None and not stream.gaps for stream in emulator.streams)
