"""`make bench-check`: instructions, calls and memory of a warm `publish`, to find regressions without measuring time.

It counts bytecode instructions and calls by package, and the peak of additional memory. The same code in the same
environment gives the same counts, so the machine need not be quiet. Each way of publishing is counted in a process of
its own. The server is another process, and responds late enough never to overtake the request.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
import sysconfig
import tracemalloc
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Literal

from tests.benchmarks.contenders import CHANNEL, EVENT_ID, INVOCATION

RECORD = Path(__file__).with_name("counts.json")
TOLERANCE, SLACK = 0.02, 30
"""The tolerated growth of a count: the larger of a share and a number."""

WAYS = ("sync", "async", "async, aiohttp")
_PACKAGES = ("httpx", "httpcore", "h11", "anyio", "aiohttp", "httpx-aiohttp", "attrs")
_WARM, _COUNTED = 12, 3
_PAYLOAD = {"card": 42, "column": "in progress", "by": "user-123"}
_STDLIB = sysconfig.get_path("stdlib")

Counts = dict[str, dict[str, int]]

_SERVER = f"""
import re, socket, threading, time
body = b'{{"eventId":"{EVENT_ID}","eventTimestamp":"1764000000000"}}'
head = b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body)
answer = head + body
def serve(connection):
    got = b""
    while data := connection.recv(65536):
        got += data
        head, end, body = got.partition(b"\\r\\n\\r\\n")
        if end and len(body) == int(re.search(rb"(?i)content-length: *(\\d+)", head)[1]):
            time.sleep(0.005)
            connection.sendall(answer)
            got = b""
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""


def count() -> dict[str, Counts]:
    """Count every way of publishing in a process of its own."""
    server = subprocess.Popen([sys.executable, "-I", "-c", _SERVER], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        return {way: _count_apart(way, url) for way in WAYS}
    finally:
        server.kill()
        server.communicate()


def _count_apart(way: str, url: str) -> Counts:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV_"))}
    command = [sys.executable, "-m", "tests.benchmarks.counts", "--way", way, "--url", url]
    root = Path(__file__).parents[2]
    run = subprocess.run(
        command,
        cwd=root,
        check=False,
        capture_output=True,
        text=True,
        env={**environment, "PYTHONHASHSEED": "0"},
    )
    if run.returncode:
        raise SystemExit(f"Counting failed ({way}):\n{run.stderr}")
    found: Counts = json.loads(run.stdout)
    return found


def count_here(way: str, url: str) -> Counts:
    """Count in this process."""
    if way == "async":
        # As if aiohttp was not installed.
        hidden: dict[str, Any] = dict.fromkeys(("aiohttp", "httpx_aiohttp"))
        sys.modules.update(hidden)
    publish = _sync(url) if way == "sync" else _async(url, "aiohttp" if "aiohttp" in way else "httpx")
    for _ in range(_WARM):
        publish()
    gc.collect()
    gc.disable()
    counts: list[Counts] = []
    for _ in range(_COUNTED):
        instructions: Counter[str] = Counter()
        calls: Counter[str] = Counter()
        _traced(publish, instructions)
        _profiled(publish, calls)
        counts.append({"instructions": dict(instructions), "calls": dict(calls)})
    tracemalloc.start()
    publish()
    peaks = []
    for _ in range(_COUNTED):
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        publish()
        peaks.append(tracemalloc.get_traced_memory()[1] - before)
    # A thread of the client can add a little to one of them.
    least = {kind: _least([each[kind] for each in counts]) for kind in ("instructions", "calls")}
    return {**least, "bytes at most": {"all": min(peaks)}}


def _least(found: list[dict[str, int]]) -> dict[str, int]:
    return dict(sorted(min(found, key=lambda each: sum(each.values())).items()))


def _sync(url: str) -> Callable[[], None]:
    from forge_realtime import RealtimeClient

    live = RealtimeClient(url).for_invocation(INVOCATION)

    def publish() -> None:
        assert live.publish(CHANNEL, _PAYLOAD).event_id == EVENT_ID

    return publish


def _async(url: str, transport: Literal["aiohttp", "httpx"]) -> Callable[[], None]:
    from forge_realtime import AsyncRealtimeClient

    live = AsyncRealtimeClient(url, transport=transport).for_invocation(INVOCATION)
    loop = asyncio.Runner().get_loop()

    async def publish_once() -> None:
        assert (await live.publish(CHANNEL, _PAYLOAD)).event_id == EVENT_ID

    return lambda: loop.run_until_complete(publish_once())


def _traced(publish: Callable[[], None], instructions: Counter[str]) -> None:
    owners: dict[CodeType, str] = {}

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        if code not in owners:
            owners[code] = _owner(frame)
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            instructions[owners[code]] += 1
        return trace

    sys.settrace(trace)
    try:
        publish()
    finally:
        sys.settrace(None)


def _profiled(publish: Callable[[], None], calls: Counter[str]) -> None:
    owners: dict[CodeType, str] = {}

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        if event in ("call", "c_call"):
            code = frame.f_code
            if code not in owners:
                owners[code] = _owner(frame)
            calls[owners[code]] += 1

    sys.setprofile(profile)
    try:
        publish()
    finally:
        sys.setprofile(None)


def _owner(frame: FrameType) -> str:
    """Return the package of a frame's code."""
    file, module = frame.f_code.co_filename, str(frame.f_globals.get("__name__", ""))
    if file.startswith("<attrs generated"):
        module = file.removesuffix(">").rsplit(" ", 1)[-1]
    if module in (__name__, "__main__"):
        return "harness"
    if module.startswith("forge_realtime._api"):
        return "forge_realtime._api"
    if module.startswith("namedtuple_"):
        return "stdlib"
    if "site-packages" not in file and (file.startswith((_STDLIB, "<frozen ")) or module in sys.stdlib_module_names):
        return "stdlib"
    return module.partition(".")[0] or "others"


def environment() -> dict[str, Any]:
    """Return the versions that the counts depend on."""
    python = ".".join(map(str, sys.version_info[:2]))
    return {"python": python, "versions": {package: version(package) for package in _PACKAGES}}


def grown(recorded: dict[str, Counts], counted: dict[str, Counts]) -> list[str]:
    """Return a line for every count that grew more than tolerated."""
    found = []
    for way, kinds in counted.items():
        for kind, owners in kinds.items():
            before = recorded.get(way, {}).get(kind, {})
            for owner, now in owners.items():
                was = before.get(owner, 0)
                if owner != "harness" and now - was > max(was * TOLERANCE, SLACK):
                    by = f" (+{now / was - 1:.1%})" if was else ""
                    found.append(f"  {way}: {owner}: {was:,} -> {now:,} {kind}{by}")
    return found


def check(record: Path, counted: dict[str, Counts], here: dict[str, Any]) -> tuple[int, str]:
    """Compare with the recorded counts.

    Returns:
        The exit code and the message.
    """
    record_again = f"make bench-check RECORD=1, and commit {record.name}"
    if not record.exists():
        return 1, f"{record} is missing. Record the counts: {record_again}."
    recorded = json.loads(record.read_text(encoding="utf-8"))
    if recorded["python"] != here["python"]:
        return 0, f"Not compared: recorded with Python {recorded['python']}, and this is {here['python']}."
    if recorded["versions"] != here["versions"]:
        changed = {
            name: version for name, version in here["versions"].items() if recorded["versions"].get(name) != version
        }
        listed = ", ".join(f"{name} {recorded['versions'].get(name)} -> {new}" for name, new in changed.items())
        return (
            1,
            f"Recorded with other packages ({listed}). Check the new counts, then record: {record_again}.",
        )
    if found := grown(recorded["counts"], counted):
        lines = "\n".join(found)
        return 1, f"A publish costs more than recorded in {record.name}:\n{lines}\nIf this is intended: {record_again}."
    return 0, "A publish costs no more than recorded."


def main() -> int:
    parser = argparse.ArgumentParser(description="Count the work of a publish, and compare.")
    parser.add_argument("--record", action="store_true", help=f"replace {RECORD.name}")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(count_here(options.way, options.url)))
        return 0
    counted = count()
    for way, kinds in counted.items():
        for kind, owners in kinds.items():
            of = ", ".join(f"{owner} {number:,}" for owner, number in owners.items() if owner != "harness")
            print(f"{way}: {sum(owners.values()):,} {kind} ({of})" if len(owners) > 1 else f"{way}: {of} {kind}")
    if options.record:
        RECORD.write_text(json.dumps({**environment(), "counts": counted}, indent=1) + "\n", encoding="utf-8")
        print(f"Recorded in {RECORD.name}.")
        return 0
    code, message = check(RECORD, counted, environment())
    print(message, file=sys.stderr if code else sys.stdout)
    return code


if __name__ == "__main__":
    sys.exit(main())
