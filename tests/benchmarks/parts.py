"""`make bench ARGS=parts`: where the time of a blocking publish goes, as medians of many calls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.benchmarks.costs import on_the_contenders_processor, run_program
from tests.benchmarks.environments import HERE
from tests.benchmarks.server import Server

GROUP = "parts of a publish"
_PARTS = (
    "arguments to a request",
    "a place and a connection",
    "sending, waiting and reading",
    "response to a result",
)
_READY = "all of a ready request"

# It notes the time at five points of a call.
_PROGRAM = """
import statistics, sys, time
sys.path.insert(0, {here!r})
import contenders
from forge_realtime._transports import pool
now = time.perf_counter
url, calls = sys.argv[1], {calls}
def noting(function, before, after):
    def call(*args):
        times[before] = now()
        try:
            return function(*args)
        finally:
            times[after] = now()
    return call
pool.ConnectionPool.send = noting(pool.ConnectionPool.send, 1, 4)
exchange = pool._read
def read(*args):
    response = exchange(*args)
    times[3] = now()
    return response
pool._read = read
pool.PooledConnection.send = noting(pool.PooledConnection.send, 2, 3)
payload = contenders.made_payload(0)
publish, ready = contenders.forge(url), contenders.ready_own(url)
parts, alone = [[], [], [], []], []
for number in range(calls):
    times = {{0: now()}}
    publish(payload)
    times[5] = now()
    for part, spent in zip(
        parts,
        (
            times[1] - times[0],
            times[2] - times[1] + times[4] - times[3],
            times[3] - times[2],
            times[5] - times[4],
        ),
    ):
        part.append(spent)
for number in range(calls):
    began = now()
    ready(payload)
    alone.append(now() - began)
for each in (*parts, alone):
    print(statistics.median(each[calls // 10 :]) * 1e6)
"""


def parts(few: bool) -> Iterator[dict[str, Any]]:
    """Yield a row for each part, and one for a ready request over such a connection. `few` makes fewer calls."""
    program = _PROGRAM.format(here=str(HERE), calls=500 if few else 5_000)
    with on_the_contenders_processor(), Server(0) as server:
        runs = [run_program("forge", program, server.urls[0]) for _ in range(2 if few else 5)]
    for name, values in zip((*_PARTS, _READY), zip(*runs, strict=True), strict=True):
        yield {"group": GROUP, "name": name, "unit": "µs", "values": list(values)}
