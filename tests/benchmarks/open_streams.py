"""`make bench ARGS=open-streams`: the cost of a token, and of a stream, with more and more open streams in one process.

A hundred streams of each installation, so that the publishes grow with the tokens. Every stream gets 50 tokens a second
for 3 seconds; the transport costs next to nothing. Each number is compared with that of few streams, in pairs of
alternating order. With the most streams, no process keeps up with the tokens: each gets 30, as fast as it takes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.benchmarks.costs import on_the_contenders_processor, pair_row, run_program

STREAMS = (100, 1_000, 5_000)
CPU_OF_A_TOKEN, MEMORY, IDLE = "streams, processor time of a token", "streams, memory", "streams, idle"

_PROGRAM = """
import asyncio, gc, os, sys, time, tracemalloc
import httpx
from forge_realtime import AsyncRealtimeClient, Quota
async def publish(request):
    return httpx.Response(200, json={"eventId": "1", "eventTimestamp": "1"})
async def main(count):
    client = AsyncRealtimeClient("http://sidecar.test", transport=httpx.MockTransport(publish), quota=Quota())
    async with client.for_installation("any").stream_global("chat") as stream:
        await stream.send("everything is loaded")
    gc.collect()
    tracemalloc.start()
    streams = []
    for number in range(count):
        live = client.for_installation(f"installation-{number // 100}")
        streams.append(await live.stream_global("chat").__aenter__())
        await streams[-1].send("token ")
    # The first token of each is out, and later the snapshots of it are too.
    await asyncio.sleep(12)
    gc.collect()
    memory = tracemalloc.get_traced_memory()[0] / count
    tracemalloc.stop()
    idle = time.process_time()
    await asyncio.sleep(5)
    idle = (time.process_time() - idle) / 5
    ticks = min(150, 150_000 // count)
    began, used = time.monotonic(), time.process_time()
    for tick in range(ticks):
        for stream in streams:
            await stream.send("token ")
        await asyncio.sleep(max(0, began + (tick + 1) / 50 - time.monotonic()))
    print((time.process_time() - used) / ticks / count, memory, idle, flush=True)
    os._exit(0)
asyncio.run(main(int(sys.argv[1])))
"""


def open_streams(few: bool) -> Iterator[dict[str, Any]]:
    """Yield rows. `few` makes fewer pairs."""
    for count in STREAMS[1:]:
        pairs = [_pair_of(count, first=bool(number % 2)) for number in range(1 if few else 3)]
        name, reference = f"{count:,} open", f"{STREAMS[0]} open"
        for place, group, unit, factor in ((0, CPU_OF_A_TOKEN, "µs", 1e6), (1, MEMORY, "KiB", 1 / 1024)):
            values = [[mine[place] * factor, theirs[place] * factor] for mine, theirs in pairs]
            yield pair_row(group, name, unit, reference, values)
        # No ratio: the reference is close to nothing.
        yield {
            "group": IDLE,
            "name": name,
            "unit": "ms of processor time in a second",
            "values": [mine[2] * 1e3 for mine, _ in pairs],
        }


def _pair_of(count: int, *, first: bool) -> list[list[float]]:
    """Measure so many streams and the fewest, in this order or the other one."""
    with on_the_contenders_processor():
        both = [run_program("forge", _PROGRAM, str(number)) for number in ((count, STREAMS[0])[:: 1 if first else -1])]
    return both if first else both[::-1]
