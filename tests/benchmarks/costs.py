"""Costs besides the calls: import, memory, first response, construction, large payloads and the wheel.

Every number comes from fresh processes. A reference runs right before or after, in alternating order.
`make bench ARGS=imports` measures the imports alone, in about a minute.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.benchmarks.contenders import AUTHORIZATION, CONTENDERS, INVOCATION, PATH
from tests.benchmarks.copies import making_the_wheel
from tests.benchmarks.environments import HERE, clean_environment, python_of, wheel
from tests.benchmarks.server import Server, processors

_IMPORTS = {
    # Its exports load at their first use.
    "forge-realtime, the package alone": ("forge", "import forge_realtime"),
    "forge-realtime": ("forge", "from forge_realtime import RealtimeClient"),
    "forge-realtime async": ("forge", "from forge_realtime import AsyncRealtimeClient"),
    "forge-realtime[aiohttp]": ("forge-aiohttp", "from forge_realtime import AsyncRealtimeClient"),
    "openapi-python-client": ("peers", "import openapi_python_client_made.api.forge_realtime.publish"),
    "OpenAPI Generator": ("peers", "import openapi_generator_made"),
    "OpenAPI Generator, aiohttp": ("aiohttp", "import openapi_generator_made"),
}

_REQUEST = f"json={{'name': 'board-42', 'payload': 'moved'}}, headers={AUTHORIZATION!r}"
_GENERATED_PUBLISH = "name='board-42', payload='moved'"
# Environment, imports, construction of the client, and the call with its event id.
_FIRST_CALLS = {
    "httpx": ("httpx", "import httpx", "httpx.Client()", f"client.post(url + {PATH!r}, {_REQUEST}).json()['eventId']"),
    "httpx async": (
        "httpx",
        "import httpx",
        "httpx.AsyncClient()",
        f"(await client.post(url + {PATH!r}, {_REQUEST})).json()['eventId']",
    ),
    "forge-realtime": (
        "forge",
        "from forge_realtime import RealtimeClient",
        "RealtimeClient(url)",
        f"client.for_invocation({INVOCATION!r}).publish('board-42', 'moved').event_id",
    ),
    "forge-realtime async": (
        "forge",
        "from forge_realtime import AsyncRealtimeClient",
        "AsyncRealtimeClient(url)",
        f"(await client.for_invocation({INVOCATION!r}).publish('board-42', 'moved')).event_id",
    ),
    "forge-realtime[aiohttp] async": (
        "forge-aiohttp",
        "from forge_realtime import AsyncRealtimeClient",
        "AsyncRealtimeClient(url)",
        f"(await client.for_invocation({INVOCATION!r}).publish('board-42', 'moved')).event_id",
    ),
    "openapi-python-client": (
        "peers",
        """from openapi_python_client_made import Client
from openapi_python_client_made.api.forge_realtime import publish
from openapi_python_client_made.models import PublishPublishRequest""",
        f"Client(base_url=url, headers={AUTHORIZATION!r})",
        f"publish.sync(client=client, body=PublishPublishRequest({_GENERATED_PUBLISH})).event_id",
    ),
    "OpenAPI Generator": (
        "peers",
        "from openapi_generator_made import ApiClient, Configuration, ForgeRealtimeApi, PublishRequest",
        "ForgeRealtimeApi(ApiClient(Configuration(host=url)))",
        f"client.publish(PublishRequest({_GENERATED_PUBLISH}), _headers={AUTHORIZATION!r}).event_id",
    ),
    "OpenAPI Generator, aiohttp": (
        "aiohttp",
        "from openapi_generator_made import ApiClient, Configuration, ForgeRealtimeApi, PublishRequest",
        "ForgeRealtimeApi(ApiClient(Configuration(host=url)))",
        f"(await client.publish(PublishRequest({_GENERATED_PUBLISH}), _headers={AUTHORIZATION!r})).event_id",
    ),
}

_MAKING = """
import statistics, sys, time
{imports}
def make():
    began = time.perf_counter()
    made = {make}
    taken = time.perf_counter() - began
    made.close()
    return taken
first = make()
print(first, statistics.median(make() for _ in range({times})))
"""

_FOR_INVOCATION = """
import timeit
from forge_realtime import RealtimeClient
client, headers = RealtimeClient("http://127.0.0.1:1"), {headers!r}
headers |= {{f"x-header-{{number}}": "value" for number in range({more})}}
print(min(timeit.repeat(lambda: client.for_invocation(headers), number=5000, repeat=5)) / 5000)
"""

_PEAK = """
import asyncio, json, sys, tracemalloc
sys.path.insert(0, {here!r})
import contenders
url, text = sys.argv[1], sys.argv[2] == "text"
_, make, is_async = contenders.CONTENDERS[{name!r}]
small, large = contenders.made_payload(100), contenders.made_payload(1_000_000, text=text)
size = len(contenders._body(large))
async def run():
    call = make(url)
    async def publish(payload):
        answer = call(payload)
        if is_async:
            await answer
    for _ in range(3):
        await publish(small)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    await publish(large)
    print((tracemalloc.get_traced_memory()[1] - before) / size, flush=True)
asyncio.run(run())
"""


@contextmanager
def on_the_contenders_processor() -> Iterator[None]:
    """Run all processes that start in this block on the contenders' processor."""
    before = os.sched_getaffinity(0)
    if (processor := processors()[0]) is not None:
        os.sched_setaffinity(0, {processor})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def run_program(environment: str, program: str, *arguments: str) -> list[float]:
    """Runs a program in a process of its own, and returns the numbers that it prints."""
    command: list[str | Path] = [python_of(environment), "-I", "-c", program, *arguments]
    run = subprocess.run(command, check=False, capture_output=True, text=True, env=clean_environment())
    if run.returncode:
        raise RuntimeError(f"A program of the benchmark failed in the environment {environment}:\n{run.stderr}")
    return [float(number) for number in run.stdout.split()]


def costs(few: bool) -> Iterator[dict[str, Any]]:
    """Yield a row for each cost but the imports. `few` uses fewer processes."""
    with on_the_contenders_processor(), Server(0) as server:
        yield from _first_calls(server.urls[0], 3 if few else 15)
        yield from _making(3 if few else 9)
        yield from _peaks(server.urls[0])
    yield _row("wheel", "forge-realtime", "kB", [wheel().stat().st_size / 1000])
    yield from making_the_wheel(2 if few else 4)


def _row(group: str, name: str, unit: str, values: list[float]) -> dict[str, Any]:
    return {"group": group, "name": name, "unit": unit, "values": values}


def _paired(name: str, reference: str, pairs: int, run: Callable[[str], list[float]]) -> list[list[list[float]]]:
    """Return pairs of the outputs of two programs. The first pair is not counted."""
    for side in (name, reference):
        run(side)
    found = []
    for number in range(pairs):
        both = [run(side) for side in ((name, reference) if number % 2 else (reference, name))]
        found.append(both if number % 2 else both[::-1])
    return found


def pair_row(group: str, name: str, unit: str, reference: str, pairs: list[list[float]]) -> dict[str, Any]:
    return {"group": group, "name": name, "unit": unit, "reference": reference, "pairs": pairs}


def imports(few: bool) -> Iterator[dict[str, Any]]:
    """Yield a row for each import, of CPU time without the start of the interpreter."""
    with on_the_contenders_processor():
        yield from _import_times(4 if few else 40)


def _import_times(count: int) -> Iterator[dict[str, Any]]:
    program = "import time; began = time.process_time(); {}; print((time.process_time() - began) * 1000)"
    for name, (environment, statement) in _IMPORTS.items():
        programs = {name: program.format(statement), "httpx": program.format("import httpx")}
        pairs = _paired(name, "httpx", count, partial(_run_one_of, environment, programs))
        yield pair_row("import", name, "ms", "httpx", [[mine[0], theirs[0]] for mine, theirs in pairs])


def _run_one_of(environment: str, programs: dict[str, str], name: str) -> list[float]:
    return run_program(environment, programs[name])


def _first_calls(url: str, count: int) -> Iterator[dict[str, Any]]:
    """Measure the time from the start of the process to the first response, and the memory then."""

    def run(name: str) -> list[float]:
        environment, imports, make, call = _FIRST_CALLS[name]
        if "await" in call:
            lines = f"    client = {make}\n    assert {call}\n    end()"
            body = f"import asyncio\nasync def main():\n{lines}\nasyncio.run(main())"
        else:
            body = f"client = {make}\nassert {call}\nend()"
        program = (
            "import os, sys, time\nurl = sys.argv[1]\ndef end():\n    at = time.monotonic()\n"
            "    with open('/proc/self/statm') as file:\n        pages = int(file.read().split()[1])\n"
            "    print(at, pages * os.sysconf('SC_PAGE_SIZE') / 1e6, flush=True)\n    os._exit(0)\n"
            f"{imports}\n{body}\n"
        )
        began = time.monotonic()
        at, memory = run_program(environment, program, url)
        return [(at - began) * 1000, memory]

    for name, first_call in _FIRST_CALLS.items():
        reference = "httpx async" if "await" in first_call[3] else "httpx"
        if name == reference:
            continue
        pairs = _paired(name, reference, count, run)
        for place, group, unit in ((0, "first answer", "ms"), (1, "memory", "MB")):
            yield pair_row(group, name, unit, reference, [[mine[place], theirs[place]] for mine, theirs in pairs])


def _making(count: int) -> Iterator[dict[str, Any]]:
    for name, environment, imports, make, times in (
        ("httpx.Client", "httpx", "import httpx", "httpx.Client()", 20),
        (
            "RealtimeClient",
            "forge",
            "from forge_realtime import RealtimeClient",
            "RealtimeClient('http://127.0.0.1:7072')",
            300,
        ),
    ):
        program = _MAKING.format(imports=imports, make=make, times=times)
        runs = [run_program(environment, program) for _ in range(count)]
        yield _row("making a client", f"{name}, the first", "µs", [run[0] * 1e6 for run in runs])
        yield _row("making a client", f"{name}, a further one", "µs", [run[1] * 1e6 for run in runs])
    for more in (0, 20):
        program = _FOR_INVOCATION.format(headers=INVOCATION, more=more)
        name = f"of {more + 1} header{'s' if more else ''}"
        runs = [run_program("forge", program) for _ in range(count)]
        yield _row("for_invocation", name, "µs", [run[0] * 1e6 for run in runs])


def _peaks(url: str) -> Iterator[dict[str, Any]]:
    for name in ("httpx", "forge-realtime", "httpx async", "forge-realtime async", "forge-realtime[aiohttp] async"):
        for kind in ("text", "object"):
            program = _PEAK.format(here=str(HERE), name=name)
            values = [run_program(CONTENDERS[name][0], program, url, kind)[0] for _ in range(3)]
            yield _row("memory of 1 MB", f"{name}, {kind}", "times the body", values)
