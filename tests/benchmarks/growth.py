"""Growth of costs with the clients in a process and the operations in the document."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks.contenders import AUTHORIZATION, INVOCATION, PATH
from tests.benchmarks.copies import Copy
from tests.benchmarks.costs import on_the_contenders_processor, run_program
from tests.benchmarks.environments import ROOT
from tests.benchmarks.server import Server
from tests.support.whole_document import GROUPS, whole_document

CLIENTS = (1, 10, 100, 500)
OPERATIONS = (3, 30, 300, 600)

_CLIENTS = """
import sys, time
{imports}
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
url, count = sys.argv[1], int(sys.argv[2])
before, began, kept = resident(), time.perf_counter(), []
for _ in range(count):
    client = {make}
    {call}
    kept.append(client)
print((time.perf_counter() - began) / count, (resident() - before) / count)
"""


def growth(few: bool) -> Iterator[dict[str, Any]]:
    """Yield rows of points. `few` leaves out the largest."""
    yield from _with_clients(CLIENTS[:-1] if few else CLIENTS)
    yield from _with_operations(OPERATIONS[:2] if few else OPERATIONS)


def _row(over: str, what: str, name: str, unit: str, points: list[list[float]]) -> dict[str, Any]:
    return {"over": over, "what": what, "name": name, "unit": unit, "points": points}


def _with_clients(counts: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    httpx = f"client.post(url + {PATH!r}, json={{'name': 'b', 'payload': 'm'}}, headers={AUTHORIZATION!r}).json()"
    forge = f"client.for_invocation({INVOCATION!r}).publish('b', 'm')"
    with on_the_contenders_processor(), Server(0) as server:
        for name, environment, imports, make, call in (
            ("httpx", "httpx", "import httpx", "httpx.Client()", httpx),
            ("forge-realtime", "forge", "from forge_realtime import RealtimeClient", "RealtimeClient(url)", forge),
        ):
            program = _CLIENTS.format(imports=imports, make=make, call=call)
            found = [(count, run_program(environment, program, server.urls[0], str(count))) for count in counts]
            yield _row("clients", "making one, and its first call", name, "ms", [[n, run[0] * 1e3] for n, run in found])
            yield _row("clients", "memory of one", name, "kB", [[n, run[1] / 1000] for n, run in found])


def _with_operations(counts: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    folder = ROOT / ".benchmarks/growth"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    points: dict[tuple[str, str, str], list[list[float]]] = {}
    try:
        copy = Copy(folder)
        pinned = copy.pinned()
        for count in counts:
            copy.pin(document_with(pinned, count))
            values = {
                ("from the document to the wheel", "make generate", "s"): copy.make("generate"),
                ("from the document to the wheel", "build and install", "s"): copy.make("wheel"),
            }
            [wheel] = (copy.root / "dist").glob("*.whl")
            values["size", "wheel", "kB"] = wheel.stat().st_size / 1000
            values["import", "forge-realtime", "ms"] = import_time(copy.installed)
            for key, value in values.items():
                points.setdefault(key, []).append([count, value])
            print(".", end="", file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(file=sys.stderr)
    for (what, name, unit), found in points.items():
        yield _row("operations in the document", what, name, unit, found)


def document_with(pinned: dict[str, Any], operations: int) -> dict[str, Any]:
    """Return the pinned document with this many operations in the group for Realtime."""
    document = whole_document(pinned)
    left = operations - 3
    for path, item in list(document["paths"].items()):
        for method, operation in list(item.items()):
            if isinstance(operation, dict) and operation.get("tags", [""])[0] in GROUPS:
                if left:
                    operation["tags"] = ["Forge Realtime"]
                    left -= 1
                else:
                    del item[method]
        if not any(isinstance(operation, dict) for operation in item.values()):
            del document["paths"][path]
    return document


def import_time(installed: Path) -> float:
    """Return the median of the milliseconds to import the client from a folder."""
    program = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); began = time.perf_counter(); "
        "from forge_realtime import RealtimeClient; print((time.perf_counter() - began) * 1000)"
    )
    with on_the_contenders_processor():
        times = sorted(run_program("forge", program, str(installed))[0] for _ in range(8))
    return times[len(times) // 2]
